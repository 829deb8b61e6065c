"""``hesscli verify --of gradient`` and ``jacobian``: a FirstVerification as a Document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hesscli.report.common import (
    by_activation,
    check_data,
    heading,
    listed,
    preamble,
    rounding_note,
    undecided_notes,
    what_happened,
)
from hesscli.report.document import (
    Case,
    Column,
    Document,
    Table,
    form_text,
    residual_text,
    verdict_text,
)
from hesscli.report.residual_plot import Residuals, residual_drawing
from hesscli.studies.first_derivatives import FirstDerivative, FirstVerification, VerifiedFirst
from hesscli.studies.verdict import Verdict

_NAMES: dict[FirstDerivative, tuple[str, str]] = {
    "gradient": ("gradient of the loss", "‖∂L‖"),
    "jacobian": ("Jacobian of the output f", "‖∂f‖"),
}


def first_document(result: FirstVerification) -> Document:
    """Tables, data, test cases and plot of verified first derivatives."""
    schema = f"hesscli/verify-{result.of}/1"
    return Document(
        heading=heading(result.problem, result.environment),
        tables=tuple(
            _table(result, activation, rows) for activation, rows in by_activation(result.results)
        ),
        data={
            **preamble(schema, result.verdict, result.environment, result.problem),
            "results": [_row_data(row) for row in result.results],
        },
        cases=tuple(
            Case(row.activation, f"{row.layer}/{row.block}", _failure(row))
            for row in result.results
        ),
        drawings=(
            residual_drawing(
                [Residuals(row.activation, row.layer, row.check) for row in result.results],
                f"{_NAMES[result.of][0]}, chain rule against autodiff, at the {result.block}",
            ),
        ),
    )


def _table(result: FirstVerification, activation: str, rows: tuple[VerifiedFirst, ...]) -> Table:
    name, norm = _NAMES[result.of]
    where = "" if result.block == "kernel" else f", block {result.block}"
    return Table(
        title=f"{activation}: the {name}, chain rule against autodiff{where}",
        columns=(
            Column("layer", numeric=False),
            Column("shape"),
            Column(f"autodiff {norm}"),
            Column("chain rule"),
            Column("residual"),
            Column("relative"),
            Column("verdict", numeric=False),
        ),
        rows=tuple(
            (
                row.layer,
                "×".join(f"{size:,}" for size in row.shape),
                form_text(row.autodiff_norm),
                form_text(row.chain_rule_norm),
                residual_text(row.check.max_abs_residual),
                residual_text(row.check.relative_residual),
                verdict_text(row.verdict) + ("†" if row.check.limited_by_rounding else ""),
            )
            for row in rows
        ),
        notes=(
            *_summary(name, activation, rows),
            *(rounding_note(r.layer, r.check) for r in rows if r.check.limited_by_rounding),
        ),
    )


def _summary(name: str, activation: str, rows: tuple[VerifiedFirst, ...]) -> Iterator[str]:
    failed, passed = (
        [row for row in rows if row.verdict is verdict] for verdict in (Verdict.FAIL, Verdict.PASS)
    )
    if failed:
        worst = max(failed, key=lambda row: row.check.relative_residual)
        also = f", PASS on {listed(row.layer for row in passed)}" if passed else ""
        yield (
            f"{activation}: FAIL on {listed(row.layer for row in failed)}{also}: the chain rule's "
            f"{name} is not autodiff's. Worst is {_failure(worst)}."
        )
    elif passed:
        compared = sum(row.check.compared for row in passed)
        largest = max(row.check.relative_residual for row in passed)
        yield (
            f"{activation}: PASS on {listed(row.layer for row in passed)}: the chain rule's {name} "
            f"is autodiff's in {compared:,} entries, to {residual_text(largest)} of the largest."
        )
    yield from undecided_notes(activation, [(row.layer, row.check) for row in rows])


def _failure(row: VerifiedFirst) -> str | None:
    if not row.check.failed or row.check.worst is None:
        return what_happened(row.check)
    output, parameter = row.check.worst
    return (
        f"∂{output}/∂{parameter}: residual {residual_text(row.check.max_abs_residual)}, "
        f"{residual_text(row.check.relative_residual)} of the largest entry; allowed is "
        f"{row.check.rtol:.0e}"
    )


def _row_data(row: VerifiedFirst) -> dict[str, Any]:
    return {
        "activation": row.activation,
        "layer": row.layer,
        "block": row.block,
        "size": row.size,
        "shape": list(row.shape),
        "norm": {"autodiff": row.autodiff_norm, "chain_rule": row.chain_rule_norm},
        "check": check_data(row.check),
        "status": row.verdict.value,
    }
