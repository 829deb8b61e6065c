"""A result made ready for any format: tables and sentences to read, data for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from hesscli.studies.verdict import Verdict
from hesscli.system.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

PASS, FAIL, UNDECIDED = (v.value.upper() for v in (Verdict.PASS, Verdict.FAIL, Verdict.UNDECIDED))
UNKNOWN = "–"


@dataclass(frozen=True)
class Column:
    """A table's column; numbers are set flush right."""

    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; ``notes`` stand below. What does not print is made to."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows = tuple(tuple(map(printable, row)) for row in self.rows)
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "notes", tuple(map(_printable_lines, self.notes)))


@dataclass(frozen=True)
class Case:
    """One test case for JUnit: ``failure`` says what failed, None is a pass."""

    suite: str
    name: str
    failure: str | None


@dataclass(frozen=True)
class Drawing:
    """A plot: ``draw`` puts it on an empty figure; ``caption`` says what it shows in a sentence.

    ``draw`` gets a figure, or a part of one if several are stacked, of ``height`` inches and
    plots.WIDTH; the ``title`` and the document's heading are set above it by the caller.
    matplotlib is imported only when a Drawing is drawn.
    """

    title: str
    caption: str
    draw: Callable[[FigureBase], None]
    height: float = 4.0


@dataclass(frozen=True)
class Document:
    """The source of all formats.

    ``data`` is the JSON document; its ``results`` are the rows of the CSV form. ``drawings`` are
    drawn if a plot or a page is asked for. The lines of ``heading`` may name files: what does
    not print in them is made to.
    """

    heading: str
    tables: tuple[Table, ...]
    data: Mapping[str, Any]
    cases: tuple[Case, ...] = field(default=())
    drawings: tuple[Drawing, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "heading", _printable_lines(self.heading))


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def verdict_text(verdict: Verdict) -> str:
    return verdict.value.upper()


def scientific(value: float, digits: int = 2) -> str:
    """A number to so many digits: two for a small difference."""
    return "0" if value == 0 else f"{value:.{digits - 1}e}"


def to_digits(digits: int) -> Callable[[float], str]:
    """``scientific`` with so many digits, for a column."""
    return partial(scientific, digits=digits)
