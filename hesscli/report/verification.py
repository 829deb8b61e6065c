"""``hesscli verify``: a Verification as a Document."""

from __future__ import annotations

from typing import Any

from hesscli.report.common import (
    by_activation,
    check_data,
    heading,
    listed,
    preamble,
    rounding_note,
    status,
    what_failed,
)
from hesscli.report.document import (
    Case,
    Column,
    Document,
    Table,
    form_text,
    residual_text,
    verdict,
)
from hesscli.studies.checks import Check
from hesscli.studies.verification import Terms, Verification, VerifiedBlock

_CANDIDATES: dict[Terms, str] = {
    "hessian": "the chain rule",
    "gauss-newton": "the Gauss–Newton term alone",
}


def verification_document(result: Verification) -> Document:
    """Tables, data and test cases of a verification."""
    return Document(
        heading=heading(result.problem, result.environment),
        tables=tuple(
            _table(result, activation, rows) for activation, rows in by_activation(result.results)
        ),
        data={
            **preamble("hesscli/verify/1", result.passed, result.environment, result.problem),
            "terms": result.terms,
            "results": [_row_data(row) for row in result.results],
        },
        cases=tuple(
            Case(row.activation, f"{row.layer}/{row.block}", _failure(row))
            for row in result.results
        ),
    )


def _table(result: Verification, activation: str, rows: tuple[VerifiedBlock, ...]) -> Table:
    method = {"entries": "every entry", "form": "quadratic forms only"}[result.method]
    where = "" if result.block == "kernel" else f", block {result.block}"
    candidate = "Gauss–Newton" if result.terms == "gauss-newton" else "chain rule"
    return Table(
        title=f"{activation}: {_CANDIDATES[result.terms]} against autodiff, {method}{where}",
        columns=(
            Column("layer", numeric=False),
            Column("block"),
            Column("autodiff vᵀHv"),
            Column(candidate),
            Column("residual"),
            Column("relative"),
            Column("verdict", numeric=False),
        ),
        rows=tuple(
            (
                row.layer,
                f"{row.size:,}²",
                form_text(row.quadratic_form.autodiff),
                form_text(row.quadratic_form.chain_rule),
                residual_text(row.quadratic_form.residual),
                residual_text(row.check.relative_residual),
                verdict(row.passed) + ("†" if _limited(row) else ""),
            )
            for row in rows
        ),
        notes=(
            _summary(result, activation, rows),
            *(rounding_note(row.layer, check) for row in rows if (check := _limited(row))),
        ),
    )


def _limited(row: VerifiedBlock) -> Check | None:
    """The check that passed by its rounding floor only, if one did."""
    if not row.passed:
        return None
    return next((check for check in (row.check, row.form_check) if check.limited_by_rounding), None)


def _summary(result: Verification, activation: str, rows: tuple[VerifiedBlock, ...]) -> str:
    what = _CANDIDATES[result.terms]
    failed = [row for row in rows if not row.passed]
    if failed:
        worst = max(failed, key=lambda row: row.check.relative_residual)
        passed = [row.layer for row in rows if row.passed]
        also = f", PASS on {listed(passed)}" if passed else ""
        return (
            f"{activation}: FAIL on {listed(row.layer for row in failed)}{also}: {what} is not "
            f"autodiff's Hessian. Worst is {_failure(worst)}."
        )
    compared = sum(row.check.compared for row in rows)
    unit = "entries" if result.method == "entries" else "quadratic forms"
    largest = max(row.check.relative_residual for row in rows)
    return (
        f"{activation}: PASS on {listed(row.layer for row in rows)}: {what} is autodiff's "
        f"Hessian in {compared:,} {unit}, to {residual_text(largest)} of the largest."
    )


def _failure(row: VerifiedBlock) -> str | None:
    if row.passed:
        return None
    return what_failed(row.check if not row.check.passed else row.form_check)


def _row_data(row: VerifiedBlock) -> dict[str, Any]:
    form = row.quadratic_form
    return {
        "activation": row.activation,
        "layer": row.layer,
        "block": row.block,
        "size": row.size,
        "quadratic_form": {
            "autodiff": form.autodiff,
            "chain_rule": form.chain_rule,
            "gauss_newton": form.gauss_newton,
            "curvature": form.curvature,
            "residual": form.residual,
            "relative_residual": form.relative_residual,
        },
        "form_check": check_data(row.form_check),
        "check": check_data(row.check),
        "status": status(row.passed),
    }
