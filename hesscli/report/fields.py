"""A study's values, each declared once: its key in JSON and CSV, and its column in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import singledispatch
from operator import attrgetter
from typing import Any

from hesscli.report.document import UNKNOWN, Column, Table


@dataclass(frozen=True)
class Field:
    """One value of a row.

    ``key`` is its place in JSON and its column in CSV, dotted if it is nested; None keeps it out
    of both. ``value`` finds it in the row; by default it is the attribute ``key``. ``title`` is
    its column in tables, which shows ``text`` of the value, and UNKNOWN for None; tables leave a
    field without title out.
    """

    key: str | None
    value: Callable[[Any], Any] | None = None
    title: str | None = None
    text: Callable[[Any], str] = str
    numeric: bool = True

    def of(self, row: Any) -> Any:
        return (self.value or attrgetter(self.key or ""))(row)

    def cell(self, row: Any) -> str:
        value = self.of(row)
        return UNKNOWN if value is None else self.text(value)


def named(key: str | None, title: str, value: Callable[[Any], Any] | None = None) -> Field:
    """A field of text, as names and verdicts are, in a column of its own."""
    return Field(key, value, title, numeric=False)


def parts(key: str, declared: Sequence[Field]) -> Field:
    """The values of what stands at the attribute ``key``, which may be None, nested in JSON."""

    def data(row: Any) -> dict[str, Any] | None:
        inner = attrgetter(key)(row)
        return None if inner is None else data_of(declared, inner)

    return Field(key, data)


def data_of(declared: Iterable[Field], row: Any) -> dict[str, Any]:
    """A row as the JSON schemas hold it."""
    data: dict[str, Any] = {}
    for field in declared:
        if field.key is not None:
            *parents, name = field.key.split(".")
            inside = data
            for parent in parents:
                inside = inside.setdefault(parent, {})
            inside[name] = plain(field.of(row))
    return data


def table(
    title: str, declared: Sequence[Field], rows: Iterable[Any], notes: Iterable[str] = ()
) -> Table:
    """A line for each row, with the fields that have a title."""
    shown = [(field, field.title) for field in declared if field.title is not None]
    return Table(
        title=title,
        columns=tuple(Column(name, field.numeric) for field, name in shown),
        rows=tuple(tuple(field.cell(row) for field, _ in shown) for row in rows),
        notes=tuple(notes),
    )


@singledispatch
def plain(value: Any) -> Any:
    """A value as JSON holds it; a report with a type of its own registers what that becomes."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value.tolist() if hasattr(value, "tolist") else value


@plain.register
def _(value: Enum) -> Any:
    return value.value


@plain.register(tuple)
@plain.register(list)
def _(value: Iterable[Any]) -> list[Any]:
    return [plain(item) for item in value]


@plain.register
def _(value: Mapping) -> dict[str, Any]:  # type: ignore[type-arg]  # singledispatch takes the class
    return {key: plain(item) for key, item in value.items()}
