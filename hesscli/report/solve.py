"""``hesscli solve``: a Solve as a Document."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import attrgetter

from hesscli.report.common import ROW, STATUS, by_activation, study_document
from hesscli.report.document import Case, Document, Table, scientific, to_digits
from hesscli.report.fields import Field, named, parts, table
from hesscli.studies.solve import Solve, SolvedBlock

_METHODS = {"eigenvalues": "exact"}
# Lanczos finds the smallest eigenvalue from above, to a thousandth.
_MARGIN = 1.001


def _method(row: SolvedBlock) -> str:
    """How it was solved, and of products how many there were."""
    found = row.solution
    name = _METHODS.get(found.method, found.method)
    return f"{name} {found.products}" if found.products else name


def _signed(value: float) -> str:
    return f"{value:.3g}"


_STEP = (Field("slope"), Field("predicted"), Field("actual"))
_FIELDS = (
    *ROW,
    Field("size"),
    Field("matrix"),
    Field("method", attrgetter("solution.method")),
    Field("products", attrgetter("solution.products")),
    Field("residual", attrgetter("solution.residual")),
    Field("rtol", attrgetter("solution.rtol")),
    Field("smallest_eigenvalue", attrgetter("smallest")),
    Field("zero_eigenvalues", attrgetter("solution.null")),
    Field("negative_eigenvalues", attrgetter("solution.negative")),
    Field("vector_norm", attrgetter("norm")),
    Field("solution_norm"),
    Field("form", attrgetter("solution.form")),
    parts("step", _STEP),
    STATUS,
)
_COLUMNS = (
    named(None, "layer", attrgetter("layer")),
    named(None, "X", attrgetter("matrix")),
    named(None, "method", _method),
    Field(None, attrgetter("solution.residual"), "residual", scientific),
    Field(None, attrgetter("smallest"), "λ min", _signed),
)
_OF_GRADIENT = (
    Field(None, attrgetter("solution_norm"), "‖Δ‖", _signed),
    Field(None, attrgetter("step.slope"), "gᵀΔ", _signed),
    Field(None, attrgetter("step.predicted"), "predicted", _signed),
    Field(None, attrgetter("step.actual"), "actual", _signed),
)
_OF_VECTOR = (
    Field(None, attrgetter("norm"), "‖v‖", to_digits(5)),
    Field(None, attrgetter("solution_norm"), "‖x‖", to_digits(5)),
    Field(None, attrgetter("solution.form"), "xᵀXx", to_digits(5)),
)


def solve_document(result: Solve) -> Document:
    """Tables, data and test cases of systems that were solved."""
    options = result.options
    return study_document(
        result,
        "solve",
        _FIELDS,
        before={"damping": options.damping},
        tables=(_table(result, *of) for of in by_activation(result.results)),
        cases=(
            Case(row.activation, f"{row.layer}/{row.block}/{row.matrix}", _failure(row))
            for row in result.results
        ),
    )


def _table(result: Solve, activation: str, rows: Sequence[SolvedBlock]) -> Table:
    newton = rows[0].step is not None
    damping = result.options.damping
    system = f"(X + {damping:g} I)" if damping else "X"
    step = "the damped Newton step" if damping else "the Newton step"
    title = f"{activation}: {step} Δ = −{system}⁻¹ g" if newton else f"{activation}: {system} x = v"
    return table(
        title, (*_COLUMNS, *(_OF_GRADIENT if newton else _OF_VECTOR)), rows, _notes(rows, newton)
    )


def _notes(rows: Sequence[SolvedBlock], newton: bool) -> Iterator[str]:
    v = "g" if newton else "v"
    yield f"residual: ‖(X + λI) x − {v}‖ / ‖{v}‖; λ min: the smallest eigenvalue of X." + (
        " The decrease of the loss is predicted by −gᵀΔ − ½ ΔᵀXΔ; actual is L(θ) − L(θ + Δ)."
        if newton
        else ""
    )
    for row in rows:
        failure = _failure(row)
        if failure is not None:
            yield f"FAIL {_name(row)}: {failure}."
        else:
            yield from _singular(row)
        yield from _indefinite(row)


def _name(row: SolvedBlock) -> str:
    return f"{row.layer} {row.matrix}"


def _failure(row: SolvedBlock) -> str | None:
    found = row.solution
    if found.passed:
        return None
    beyond = f"the residual is {scientific(found.residual)}, allowed is {found.rtol:.0e}; "
    if found.null:
        return f"{beyond}X + λI is singular up to rounding, and no x solves it: give it a damping"
    if found.products:
        return f"{beyond}give it more --products or a larger damping"
    return f"{beyond}rounding leaves no more of so small eigenvalues: give it a larger damping"


def _singular(row: SolvedBlock) -> Iterator[str]:
    null = row.solution.null
    if null:
        yield (
            f"{_name(row)}: X + λI is singular, {null:,} of its {row.size:,} eigenvalues are 0; x "
            "is the shortest of its solutions."
        )


def _indefinite(row: SolvedBlock) -> Iterator[str]:
    """A sentence on what a negative eigenvalue means for the step, and a damping that is enough."""
    if not row.indefinite:
        return
    below = row.solution.negative
    how_many = f"{below:,} negative eigenvalues" if below else "negative eigenvalues"
    lowest = "" if row.smallest is None else f", X's smallest is {row.smallest:.3g}"
    enough = (
        "a larger damping"
        if row.smallest is None
        else f"a damping above {_rounded_up(-row.smallest * _MARGIN)}"
    )
    whole = f"{_name(row)}: X + λI has {how_many}{lowest}"
    if row.step is None:
        yield f"{whole}; {enough} makes it positive definite."
    elif row.norm == 0:
        yield f"{whole}: g is 0, but θ is not a minimum."
    elif row.step.descends:
        yield (
            f"{whole}: the step goes downhill at first, but to a saddle point of the quadratic "
            f"model; {enough} makes that a minimum."
        )
    else:
        yield f"{whole}: the step is not a descent direction; {enough} makes it one."


def _rounded_up(value: float) -> str:
    """``value`` to three digits, none of them rounded down."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / unit) * unit:.3g}"
