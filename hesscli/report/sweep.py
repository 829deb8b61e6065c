"""``hesscli sweep``: a Sweep as a Document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from hesscli.report.common import (
    by_activation,
    heading,
    listed,
    preamble,
    undecided_notes,
    what_happened,
)
from hesscli.report.document import Case, Column, Document, Table, scientific, verdict_text
from hesscli.report.fields import plain
from hesscli.report.sweep_plot import sweep_drawing
from hesscli.studies.sweep import SHOWN_EXAMPLES, SHOWN_INPUTS, Sweep, SweptInput, SweptNode
from hesscli.studies.verdict import Verdict

# Columns of an input Hessian that fit beside each other.
_COLUMNS = 4
# Numbers of this size are read with decimals, as NumPy prints them; others with an exponent.
_DECIMAL_SIZES = (1.0, 1e6)


def sweep_document(result: Sweep) -> Document:
    """Tables, data, test cases and plot of a sweep."""
    return Document(
        heading=heading(result.problem, result.environment),
        tables=tuple(_tables(result)),
        data={
            **preamble("hesscli/sweep/1", result.verdict, result.environment, result.problem),
            "results": [_row_data(row) for row in result.results],
            "inputs": None if result.inputs is None else [asdict(row) for row in result.inputs],
        },
        cases=tuple(Case(row.activation, row.label, _failure(row)) for row in result.results),
        drawings=(sweep_drawing(result),),
    )


def _tables(result: Sweep) -> Iterator[Table]:
    for activation, rows in by_activation(result.results):
        yield _node_table(result, activation, rows)
        for row in result.inputs or ():
            if row.activation == activation:
                yield from _input_tables(row)


def _node_table(result: Sweep, activation: str, rows: tuple[SweptNode, ...]) -> Table:
    return Table(
        title=f"{activation}: gradient g and Hessian S = I + O, from the loss back to the input",
        columns=(
            Column("node", numeric=False),
            Column("at", numeric=False),
            Column("shape"),
            Column("‖g‖"),
            Column("‖I‖"),
            Column("‖O‖"),
            Column("‖S‖"),
            Column("residual"),
            Column("verdict", numeric=False),
        ),
        rows=tuple(
            (
                row.label,
                row.quantity,
                "×".join(str(size) for size in row.shape),
                *(_norm_text(norm) for norm in (row.g_norm, row.I_norm, row.O_norm, row.S_norm)),
                scientific(row.worst_check.relative_residual),
                verdict_text(row.verdict) + ("†" if _limited(row) else ""),
            )
            for row in rows
        ),
        notes=(
            *_summary(activation, rows),
            _where_curvature_enters(activation, rows),
            *(_rounding_note(row) for row in rows if _limited(row)),
            *_what_is_not_shown(result),
        ),
    )


def _norm_text(value: float) -> str:
    return "0" if value == 0 else f"{value:.2e}"


def _limited(row: SweptNode) -> bool:
    if row.verdict is not Verdict.PASS:
        return False
    return row.S_check.limited_by_rounding or row.g_check.limited_by_rounding


def _summary(activation: str, rows: Sequence[SweptNode]) -> Iterator[str]:
    failed, passed = (
        [row for row in rows if row.verdict is verdict] for verdict in (Verdict.FAIL, Verdict.PASS)
    )
    if failed:
        first = failed[0]
        yield (
            f"{activation}: FAIL at {listed(row.label for row in failed)}. On the way back the "
            f"first is {first.label}: {_failure(first)}."
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
    return (
        f"g: residual {scientific(row.g_check.max_abs_residual)}, "
        f"{scientific(row.g_check.relative_residual)} of the largest entry; allowed is "
        f"{row.g_check.rtol:.0e}"
    )


def _rounding_note(row: SweptNode) -> str:
    check = row.S_check if row.S_check.limited_by_rounding else row.g_check
    return (
        f"† {row.label}: the residual {scientific(check.max_abs_residual)} is rounding: what "
        f"was subtracted on the way leaves {scientific(check.floor)} uncertain, beside a "
        f"largest entry of {scientific(check.max_abs_entry)}."
    )


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
            "--set data.offset=N moves on."
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


def _row_data(row: SweptNode) -> dict[str, Any]:
    return {
        "activation": row.activation,
        "node": row.label,
        "kind": row.kind,
        "quantity": row.quantity,
        "shape": list(row.shape),
        "norms": {
            "gradient": row.g_norm,
            "linear_part": row.I_norm,
            "curvature_part": row.O_norm,
            "hessian": row.S_norm,
        },
        "gradient_check": plain(row.g_check),
        "hessian_check": plain(row.S_check),
        "status": row.verdict.value,
    }
