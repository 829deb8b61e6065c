"""Lines below a table that explain its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hesscli.report.common import (
    STATUS,
    by_activation,
    limited_of,
    outcome,
    rounding_notes,
    undecided_notes,
    verdict_column,
)
from hesscli.report.document import Table, scientific, verdict_text
from hesscli.report.fields import Field, named, table
from hesscli.studies.judge import Check
from hesscli.studies.verdict import Verdict, joint

_VECTORS = {"layer": "the layer's parameters", "network": "all parameters"}
_RELATIVE = {
    "entries": "largest residual / largest entry",
    "entry": "largest residual / largest entry",
    "form": "residual / (|vᵀGv| + |vᵀCv|)",
    "probes": "‖residual‖_F / ‖H‖_F",
    "product": "largest residual / largest number of the product",
    "products": "largest residual / largest number of H·v",
}
# Activations with σ(cz) = c σ(z) for c > 0.
_HOMOGENEOUS = ("linear", "relu", "leaky_relu")
# Tables of fewer activations fit on a screen.
_MANY = 3
# Forms that are this near to each other are not equal by accident.
_EQUAL_RTOL = 1e-9


def vector_text(block: str) -> str:
    """The definition of v in the quadratic forms of a kind of block."""
    return f"v is {_VECTORS.get(block, f'the {block}')}"


def legend(checks: Iterable[Check], first: str = "") -> Iterator[str]:
    """A line on what ``relative`` is relative to, and what is allowed, for each method used.

    ``first`` begins the line.
    """
    by_method = {check.method: check for check in checks if check.method in _RELATIVE}
    for method, check in by_method.items():
        before = f"{first}; " if first else ""
        yield f"{before}relative: {_RELATIVE[method]}; allowed: {check.rtol:.0e}."


# The end of a row whose ``check`` has compared numbers.
CHECKED = (
    Field(None, lambda row: row.check.max_abs_residual, "residual", scientific),
    Field(None, lambda row: row.check.relative_residual, "relative", scientific),
    Field("check"),
    STATUS,
    verdict_column(limited_of),
)


def checked_notes(
    activation: str,
    rows: Sequence[Any],
    said: tuple[str, str, str],
    failure: Callable[[Any], str | None],
    first: str = "",
) -> Iterator[str]:
    """The notes below a table of rows that end in CHECKED.

    ``said`` is what was compared, the same with its verb, and what the numbers in it are called;
    ``failure`` is what is wrong with a row, and ``first`` begins the legend.
    """
    one, all_of, numbers = said

    def wrong(failed: Sequence[Any]) -> str:
        worst = max(failed, key=lambda row: row.check.relative_residual)
        return f"the chain rule's {one} is not autodiff's. Worst is {failure(worst)}"

    def right(passed: Sequence[Any]) -> str:
        largest = max(row.check.relative_residual for row in passed)
        return (
            f"the chain rule's {all_of} autodiff's in "
            f"{sum(row.check.compared for row in passed):,} {numbers}, to {scientific(largest)} of "
            "the largest"
        )

    yield from legend((row.check for row in rows), first)
    yield from outcome(activation, rows, lambda row: row.verdict, wrong, right)
    yield from undecided_notes(activation, [(row.layer, row.check) for row in rows])
    yield from rounding_notes(rows, limited_of)


def equal_forms(activation: str, block: str, forms: Sequence[float]) -> Iterator[str]:
    """A sentence on why the quadratic forms of all kernels are equal, if they are."""
    name = activation.partition("(")[0]
    if name not in _HOMOGENEOUS or block != "kernel" or len(forms) < 2 or forms[0] == 0:
        return
    if all(math.isclose(form, forms[0], rel_tol=_EQUAL_RTOL) for form in forms):
        yield (
            f"The forms are equal because {name} without biases is homogeneous: multiplying "
            "any kernel by c > 0 multiplies the outputs f by c, so each form is fᵀ(∂²L/∂f²)f."
        )


def tables_of(
    rows: Sequence[Any],
    of: Callable[[str, Sequence[Any]], Table],
    check_of: Callable[[Any], Check] = lambda row: row.check,
) -> Iterator[Table]:
    """A table ``of`` the rows of each activation, and an overview if there are many."""
    for activation, group in by_activation(rows):
        yield of(activation, group)
    yield from _overview(rows, check_of)


def _overview(rows: Sequence[Any], check_of: Callable[[Any], Check]) -> Iterator[Table]:
    """One line for each activation, and the total, if the tables fill more than a screen."""
    groups = by_activation(rows)
    if len(groups) < _MANY:
        return
    verdicts = [joint(row.verdict for row in group) for _, group in groups]
    counts = [(verdict, verdicts.count(verdict)) for verdict in Verdict]
    total = ", ".join(f"{count} {verdict_text(each)}" for each, count in counts if count)

    def passed(group: Sequence[Any]) -> str:
        return f"{sum(row.verdict is Verdict.PASS for row in group)} of {len(group)}"

    def worst(group: Sequence[Any]) -> float:
        return max(check_of(row).relative_residual for row in group)

    yield table(
        f"All {len(groups)} activations",
        (
            named(None, "activation", lambda pair: pair[0]),
            Field(None, lambda pair: passed(pair[1]), "PASS on"),
            Field(None, lambda pair: worst(pair[1]), "largest relative", "{:.1e}".format),
            named(None, "verdict", lambda pair: verdict_text(joint(r.verdict for r in pair[1]))),
        ),
        groups,
        (f"Total: {total}.",),
    )
