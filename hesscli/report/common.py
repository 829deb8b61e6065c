"""What the reports of several studies have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from typing import Any, Protocol, TypeVar

from hesscli.report.document import residual_text
from hesscli.studies.checks import Check
from hesscli.studies.context import Environment, ProblemSummary


def heading(problem: ProblemSummary, environment: Environment) -> str:
    """One line on what was analysed, and one for each of the problem's notes."""
    widths = "-".join(str(width) for width in problem.widths)
    examples = f"{problem.examples:,} example{'' if problem.examples == 1 else 's'}"
    size = (
        f"{widths} · {problem.parameters:,} parameters · {examples} · {environment.dtype} · "
        f"seed {problem.seed}"
    )
    return "\n".join((size, *problem.notes))


def preamble(
    schema: str, passed: bool, environment: Environment, problem: ProblemSummary
) -> dict[str, Any]:
    """The part of a JSON document that every schema begins with."""
    return {
        "schema": schema,
        "status": status(passed),
        "environment": asdict(environment),
        "problem": asdict(problem),
    }


def open_status(passed: bool, decided: bool) -> str:
    """As ``status``, where finite differences may have left it open."""
    return status(passed) if decided else "undecided"


def status(passed: bool) -> str:
    return "pass" if passed else "fail"


def check_data(check: Check) -> dict[str, Any]:
    """A check as the JSON schemas hold it."""
    return {
        "method": check.method,
        "compared": check.compared,
        "max_abs_residual": check.max_abs_residual,
        "max_abs_entry": check.max_abs_entry,
        "relative_residual": check.relative_residual,
        "rtol": check.rtol,
        "rounding_floor": check.floor,
        "limited_by_rounding": check.limited_by_rounding,
        "worst_entry": None if check.worst is None else list(check.worst),
    }


def what_failed(check: Check) -> str:
    """Where a check that failed is worst and by how much."""
    if check.worst is not None:
        where, of_what = f"∂²L/∂{check.worst[0]} ∂{check.worst[1]}", "largest entry"
    elif check.method == "products":
        where, of_what = "a product H·v", "largest number in it"
    else:
        where, of_what = "the quadratic form", "form"
    bar = f" beyond the error bar of {residual_text(check.error_bar)}" if check.error_bar else ""
    return (
        f"{where}: residual {residual_text(check.max_abs_residual)}, "
        f"{residual_text(check.relative_residual)} of the {of_what}; "
        f"allowed is {check.rtol:.0e}{bar}"
    )


def rounding_note(name: str, check: Check) -> str:
    """Why a residual beyond the relative tolerance passes."""
    scale = "|G| + |C|" if check.worst is None else "a largest entry"
    return (
        f"† {name}: the residual {residual_text(check.max_abs_residual)} is rounding: "
        f"what was subtracted in this layer leaves {residual_text(check.floor)} uncertain, "
        f"beside {scale} of {residual_text(check.max_abs_entry)}."
    )


class _Row(Protocol):
    @property
    def activation(self) -> str: ...


Row = TypeVar("Row", bound=_Row)


def by_activation(rows: Iterable[Row]) -> list[tuple[str, tuple[Row, ...]]]:
    """The rows of each activation, in the order of the rows."""
    return [
        (activation, tuple(group))
        for activation, group in groupby(rows, key=lambda row: row.activation)
    ]


def activations_of(rows: Iterable[Row]) -> str:
    """The rows' activations as a title names them: up to four, or how many."""
    names = list(dict.fromkeys(row.activation for row in rows))
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} activations"


def listed(names: Iterable[str]) -> str:
    """Names as a sentence lists them: ``a``, ``a and b``, ``a, b and c``."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
