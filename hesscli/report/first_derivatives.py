"""``hesscli verify --of gradient`` and ``jacobian``: a FirstVerification as a Document."""

from __future__ import annotations

from hesscli.report.common import (
    ROW,
    beyond,
    block_cases,
    study_document,
    what_happened,
)
from hesscli.report.document import Document, to_digits
from hesscli.report.fields import Field, table
from hesscli.report.legend import CHECKED, checked_notes, tables_of
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
        *CHECKED,
    )
    return study_document(
        result,
        f"verify-{result.of}",
        fields,
        tables=tables_of(
            result.results,
            lambda activation, rows: table(
                f"{activation}: the {name}, chain rule against autodiff{where}",
                fields,
                rows,
                checked_notes(activation, rows, (name, f"{name} is", "entries"), _failure),
            ),
        ),
        cases=block_cases(result.results, _failure),
        drawings=(
            residual_drawing(
                [Residuals(row.activation, row.layer, row.check) for row in result.results],
                f"{name}, chain rule against autodiff, at the {result.block}",
            ),
        ),
    )


def _failure(row: VerifiedFirst) -> str | None:
    if not row.check.failed or row.check.worst is None:
        return what_happened(row.check)
    output, parameter = row.check.worst
    return beyond(row.check, f"∂{output}/∂{parameter}")
