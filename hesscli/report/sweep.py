"""``hesscli sweep``: a Sweep as a Document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from hesscli.report.common import (
    STATUS,
    beyond,
    by_activation,
    listed,
    rounding_note,
    study_document,
    undecided_notes,
    verdict_column,
    what_happened,
)
from hesscli.report.document import Case, Column, Document, Table, scientific, to_digits
from hesscli.report.fields import Field, named, table
from hesscli.report.sweep_plot import sweep_drawing
from hesscli.studies.judge import Check
from hesscli.studies.sweep import SHOWN_EXAMPLES, SHOWN_INPUTS, Sweep, SweptInput, SweptNode
from hesscli.studies.verdict import Verdict

# Next to a longer name, norms of three digits are wider than a terminal.
_LONG_NAME = 17
# Columns of an input Hessian that fit next to each other.
_COLUMNS = 4
# Numbers of this size are read with decimals, as NumPy prints them; others with an exponent.
_DECIMAL_SIZES = (1.0, 1e6)


def _fields(digits: int = 3) -> tuple[Field, ...]:
    """Norms have so many digits."""
    return (
        Field("activation"),
        named("node", "node", lambda row: row.label),
        Field("kind"),
        named("quantity", "at"),
        Field("shape", title="shape", text=lambda shape: "×".join(map(str, shape))),
        *(
            Field(f"norms.{key}", attrgetter(f"{letter}_norm"), f"‖{letter}‖", to_digits(digits))
            for letter, key in (
                ("g", "gradient"),
                ("I", "linear_part"),
                ("O", "curvature_part"),
                ("S", "hessian"),
            )
        ),
        Field(None, lambda row: row.worst_check.relative_residual, "residual", scientific),
        Field("gradient_check", lambda row: row.g_check),
        Field("hessian_check", lambda row: row.S_check),
        STATUS,
        verdict_column(lambda row: _limited(row)),
    )


def sweep_document(result: Sweep) -> Document:
    """Tables, data, test cases and plot of a sweep."""
    return study_document(
        result,
        "sweep",
        _fields(),
        after={"inputs": result.inputs},
        tables=_tables(result),
        cases=(Case(row.activation, row.label, _failure(row)) for row in result.results),
        drawings=(sweep_drawing(result),),
    )


def _tables(result: Sweep) -> Iterator[Table]:
    for activation, rows in by_activation(result.results):
        longest = max(len(row.label) for row in rows)
        yield table(
            f"{activation}: gradient g and Hessian S = I + O, from the loss back to the input",
            _fields(3 if longest <= _LONG_NAME else 2),
            rows,
            _notes(result, activation, rows),
        )
        for row in result.inputs or ():
            if row.activation == activation:
                yield from _input_tables(row)


def _limited(row: SweptNode) -> Check | None:
    if row.verdict is not Verdict.PASS:
        return None
    return next((check for check in (row.S_check, row.g_check) if check.limited_by_rounding), None)


def _notes(result: Sweep, activation: str, rows: Sequence[SweptNode]) -> Iterator[str]:
    yield from _summary(activation, rows)
    yield _where_curvature_enters(activation, rows)
    for row in rows:
        check = _limited(row)
        if check is not None:
            yield rounding_note(row.label, check, "on the way")
    yield from _what_is_not_shown(result)


def _summary(activation: str, rows: Sequence[SweptNode]) -> Iterator[str]:
    failed, passed = (
        [row for row in rows if row.verdict is verdict] for verdict in (Verdict.FAIL, Verdict.PASS)
    )
    if failed:
        first = failed[0]
        yield (
            f"{activation}: FAIL at {listed(row.label for row in failed)}. The first one, going "
            f"backwards, is {first.label}: {_failure(first)}."
        )
    elif passed:
        largest = max(row.worst_check.relative_residual for row in passed)
        how_many = f"all {len(rows)}" if len(passed) == len(rows) else f"{len(passed)}"
        yield (
            f"{activation}: PASS at {how_many} nodes: g and S are autodiff's, to "
            f"{scientific(largest)} of their largest entry."
        )
    checks = [(row.label, check) for row in rows for check in (row.S_check, row.g_check)]
    yield from undecided_notes(activation, checks)


def _where_curvature_enters(activation: str, rows: Sequence[SweptNode]) -> str:
    curved = [row.label for row in rows if row.O_norm > 0]
    if not curved:
        return f"{activation}: every O is 0: no curvature enters below the loss."
    return f"{activation}: curvature enters at {listed(curved)}."


def _failure(row: SweptNode) -> str | None:
    if not row.g_check.failed or row.S_check.failed:
        return what_happened(row.worst_check)
    return beyond(row.g_check, "g")


def _what_is_not_shown(result: Sweep) -> Iterator[str]:
    if result.inputs is None:
        return
    width = result.problem.widths[0]
    if width > SHOWN_INPUTS:
        yield (
            f"The input has {width} values, more than the {SHOWN_INPUTS} of which a Hessian is "
            "printed; in Python ChainRule(problem).hessian('input[0]').to_dense() gives it."
        )
    elif result.problem.examples > SHOWN_EXAMPLES:
        yield (
            f"Of {result.problem.examples} examples the first {SHOWN_EXAMPLES} are printed; "
            "--set data.offset=N selects others."
        )


def _input_tables(row: SweptInput) -> Iterator[Table]:
    g, H = row.chain_rule.gradient, row.chain_rule.hessian
    places = range(len(g))
    g_style, H_style = _style(g), _style([entry for line in H for entry in line])
    for low in range(0, len(g), _COLUMNS):
        columns = places[low : low + _COLUMNS]
        what = "" if len(g) <= _COLUMNS else f", columns {columns[0]} to {columns[-1]}"
        yield Table(
            title=f"{row.activation}: gradient and Hessian in input[{row.example}]{what}",
            columns=(Column("", numeric=False), *(Column(f"x[{j}]") for j in columns)),
            rows=(
                ("g", *(format(g[j], g_style) for j in columns)),
                *((f"S x[{i}]", *(format(H[i][j], H_style) for j in columns)) for i in places),
            ),
            notes=("By the chain rule; --format json holds autodiff's as well, in full.",),
        )


def _style(values: Sequence[float]) -> str:
    low, high = _DECIMAL_SIZES
    largest = max(abs(value) for value in values)
    return ".8f" if largest == 0 or low <= largest < high else ".8e"
