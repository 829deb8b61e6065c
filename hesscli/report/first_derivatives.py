"""``hesscli verify --of gradient`` and ``jacobian``: a FirstVerification as a Document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hesscli.report.common import (
    ROW,
    STATUS,
    beyond,
    block_cases,
    by_activation,
    limited_of,
    outcome,
    rounding_notes,
    study_document,
    undecided_notes,
    verdict_column,
    what_happened,
)
from hesscli.report.document import Document, scientific, to_digits
from hesscli.report.fields import Field, table
from hesscli.report.legend import legend, overview
from hesscli.report.residual_plot import Residuals, residual_drawing
from hesscli.studies.first_derivatives import FirstDerivative, FirstVerification, VerifiedFirst

_NAMES: dict[FirstDerivative, tuple[str, str]] = {
    "gradient": ("gradient of the loss", "‖∂L‖"),
    "jacobian": ("Jacobian of the output f", "‖∂f‖"),
}


def first_document(result: FirstVerification) -> Document:
    """Tables, data, test cases and plot of verified first derivatives."""
    name, norm = _NAMES[result.of]
    where = "" if result.block == "kernel" else f", block {result.block}"
    fields = (
        *ROW,
        Field("size"),
        Field("shape", title="shape", text=lambda shape: "×".join(f"{size:,}" for size in shape)),
        Field("norm.autodiff", lambda row: row.autodiff_norm, f"autodiff {norm}", to_digits(7)),
        Field("norm.chain_rule", lambda row: row.chain_rule_norm, "chain rule", to_digits(7)),
        Field(None, lambda row: row.check.max_abs_residual, "residual", scientific),
        Field(None, lambda row: row.check.relative_residual, "relative", scientific),
        Field("check"),
        STATUS,
        verdict_column(limited_of),
    )
    return study_document(
        result,
        f"verify-{result.of}",
        fields,
        tables=(
            *(
                table(
                    f"{activation}: the {name}, chain rule against autodiff{where}",
                    fields,
                    rows,
                    _notes(name, activation, rows),
                )
                for activation, rows in by_activation(result.results)
            ),
            *overview(result.results, lambda row: row.check),
        ),
        cases=block_cases(result.results, _failure),
        drawings=(
            residual_drawing(
                [Residuals(row.activation, row.layer, row.check) for row in result.results],
                f"{name}, chain rule against autodiff, at the {result.block}",
            ),
        ),
    )


def _notes(name: str, activation: str, rows: Sequence[VerifiedFirst]) -> Iterator[str]:
    def wrong(failed: Sequence[VerifiedFirst]) -> str:
        worst = max(failed, key=lambda row: row.check.relative_residual)
        return f"the chain rule's {name} is not autodiff's. Worst is {_failure(worst)}"

    def right(passed: Sequence[VerifiedFirst]) -> str:
        largest = max(row.check.relative_residual for row in passed)
        return (
            f"the chain rule's {name} is autodiff's in "
            f"{sum(row.check.compared for row in passed):,} entries, to {scientific(largest)} of "
            "the largest"
        )

    yield from legend(row.check for row in rows)
    yield from outcome(activation, rows, lambda row: row.verdict, wrong, right)
    yield from undecided_notes(activation, [(row.layer, row.check) for row in rows])
    yield from rounding_notes(rows, limited_of)


def _failure(row: VerifiedFirst) -> str | None:
    if not row.check.failed or row.check.worst is None:
        return what_happened(row.check)
    output, parameter = row.check.worst
    return beyond(row.check, f"∂{output}/∂{parameter}")
