"""``hesscli compare``: a Comparison as a Document."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from hesscli.report.bars import share_bar
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
from hesscli.report.comparison_plot import comparison_drawing
from hesscli.report.document import Case, Column, Document, Table, brief_form_text, verdict
from hesscli.studies.comparison import ComparedBlock, Comparison

_SHARE = "G share"


def comparison_document(result: Comparison) -> Document:
    """Tables, data, test cases and plot of a comparison."""
    return Document(
        heading=heading(result.problem, result.environment),
        tables=tuple(
            _table(result.block, activation, rows)
            for activation, rows in by_activation(result.results)
        ),
        data={
            **preamble("hesscli/compare/1", result.passed, result.environment, result.problem),
            "results": [_row_data(row) for row in result.results],
        },
        cases=tuple(
            Case(row.activation, f"{row.layer}/{row.block}", _failure(row))
            for row in result.results
        ),
        drawings=(comparison_drawing(result),),
    )


def _table(block: str, activation: str, rows: tuple[ComparedBlock, ...]) -> Table:
    return Table(
        title=f"{activation}: quadratic forms vᵀHv = vᵀGv + vᵀCv at the {block}",
        columns=(
            Column("layer", numeric=False),
            Column("by", numeric=False),
            Column("Hessian"),
            Column("Gauss–Newton"),
            Column("curvature"),
            Column(_SHARE),
            Column("G alone", numeric=False),
            Column("G + C", numeric=False),
        ),
        rows=tuple(line for row in rows for line in _lines(row)),
        notes=(
            _summary(activation, rows),
            *(
                rounding_note(row.layer, row.chain_rule_check)
                for row in rows
                if row.passed and row.chain_rule_check.limited_by_rounding
            ),
        ),
    )


def _lines(row: ComparedBlock) -> tuple[tuple[str, ...], tuple[str, ...]]:
    share = row.gauss_newton_share
    first, second = (
        (by, *(brief_form_text(value) for value in astuple(split)))
        for by, split in (("autodiff", row.autodiff), ("chain rule", row.chain_rule))
    )
    mark = "†" if row.passed and row.chain_rule_check.limited_by_rounding else ""
    verdicts = (
        "–" if share is None else f"{share:.1%}",
        verdict(row.gauss_newton_alone),
        verdict(row.passed) + mark,
    )
    return (row.layer, *first, *verdicts), ("", *second, share_bar(share, len(_SHARE)), "", "")


def _summary(activation: str, rows: tuple[ComparedBlock, ...]) -> str:
    missed = [row.layer for row in rows if not row.gauss_newton_alone]
    broken = [row for row in rows if not row.passed]
    if missed:
        alone = f"Gauss–Newton alone misses {listed(missed)}"
    else:
        alone = f"Gauss–Newton alone is the Hessian on {listed(row.layer for row in rows)}"
    if broken:
        whole = (
            f"the chain rule fails on {listed(row.layer for row in broken)}: {_failure(broken[0])}"
        )
    elif len(rows) == 1:
        whole = f"the whole chain rule holds on {rows[0].layer}"
    else:
        whole = f"the whole chain rule holds on all {len(rows)} layers"
    return f"{activation}: {alone}; {whole}."


def _failure(row: ComparedBlock) -> str | None:
    if row.passed:
        return None
    checks = (row.chain_rule_check, *row.form_checks)
    return what_failed(next(check for check in checks if not check.passed))


def _row_data(row: ComparedBlock) -> dict[str, Any]:
    return {
        "activation": row.activation,
        "layer": row.layer,
        "block": row.block,
        "size": row.size,
        "quadratic_form": {
            term: {"autodiff": autodiff, "chain_rule": chain_rule}
            for term, autodiff, chain_rule in (
                ("hessian", row.autodiff.hessian, row.chain_rule.hessian),
                ("gauss_newton", row.autodiff.gauss_newton, row.chain_rule.gauss_newton),
                ("curvature", row.autodiff.curvature, row.chain_rule.curvature),
            )
        },
        "gauss_newton_share": row.gauss_newton_share,
        "gauss_newton_alone": {
            "status": status(row.gauss_newton_alone),
            "check": check_data(row.gauss_newton_check),
        },
        "chain_rule": {
            "status": status(row.passed),
            "check": check_data(row.chain_rule_check),
        },
        "status": status(row.passed),
    }
