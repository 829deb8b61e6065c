"""``hesscli compare``: a Comparison as a Document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from typing import Any

from hesscli.report.bars import share_bar
from hesscli.report.common import (
    by_activation,
    check_data,
    compared_text,
    heading,
    listed,
    preamble,
    rounding_note,
    seed_note,
    what_happened,
    why_open,
)
from hesscli.report.comparison_plot import comparison_drawing
from hesscli.report.document import Case, Column, Document, Table, brief_form_text, verdict_text
from hesscli.studies.comparison import ComparedBlock, Comparison
from hesscli.studies.judge import Check
from hesscli.studies.verdict import Verdict

_SHARE = "G share"
_NOT_ALONE = {Verdict.FAIL: "misses", Verdict.UNDECIDED: "is undecided on"}


def comparison_document(result: Comparison) -> Document:
    """Tables, data, test cases and plot of a comparison."""
    return Document(
        heading=heading(result.problem, result.environment),
        tables=tuple(
            _table(result, activation, rows) for activation, rows in by_activation(result.results)
        ),
        data={
            **preamble("hesscli/compare/1", result.verdict, result.environment, result.problem),
            "probe_seed": result.probe_seed,
            "results": [_row_data(row) for row in result.results],
        },
        cases=tuple(
            Case(row.activation, f"{row.layer}/{row.block}", _failure(row))
            for row in result.results
        ),
        drawings=(comparison_drawing(result),),
    )


def _table(result: Comparison, activation: str, rows: tuple[ComparedBlock, ...]) -> Table:
    return Table(
        title=f"{activation}: quadratic forms vᵀHv = vᵀGv + vᵀCv at the {result.block}",
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
        rows=tuple(line for row in rows for line in _lines(row, _form_text(rows))),
        notes=(
            _summary(activation, rows),
            *_probed(rows),
            *seed_note([row.chain_rule_check for row in rows], result.probe_seed),
            *(
                rounding_note(row.layer, row.chain_rule_check)
                for row in rows
                if row.passed and row.chain_rule_check.limited_by_rounding
            ),
        ),
    )


def _probed(rows: tuple[ComparedBlock, ...]) -> list[str]:
    """How far the chain rule held where not every entry was compared."""
    checks = [row.chain_rule_check for row in rows if row.chain_rule_check.method == "probes"]
    return [f"Compared {compared_text(checks)}."] if checks else []


def _form_text(rows: tuple[ComparedBlock, ...]) -> Callable[[float], str]:
    """To six digits, or to four where two verdicts that are long stand beside the forms."""
    open_twice = any(
        row.gauss_newton_check.verdict is row.verdict is Verdict.UNDECIDED for row in rows
    )
    return (lambda value: f"{value:.3e}") if open_twice else brief_form_text


def _lines(
    row: ComparedBlock, text: Callable[[float], str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    share = row.gauss_newton_share
    first, second = (
        (by, *(text(value) for value in astuple(split)))
        for by, split in (("autodiff", row.autodiff), ("chain rule", row.chain_rule))
    )
    mark = "†" if row.passed and row.chain_rule_check.limited_by_rounding else ""
    verdicts = (
        "–" if share is None else f"{share:.1%}",
        verdict_text(row.gauss_newton_check.verdict),
        verdict_text(row.verdict) + mark,
    )
    return (row.layer, *first, *verdicts), ("", *second, share_bar(share, len(_SHARE)), "", "")


def _summary(activation: str, rows: tuple[ComparedBlock, ...]) -> str:
    outcomes = [
        f"{what} {listed(layers)}"
        for verdict, what in _NOT_ALONE.items()
        if (layers := [row.layer for row in rows if row.gauss_newton_check.verdict is verdict])
    ] or [f"is the Hessian on {listed(row.layer for row in rows)}"]
    alone = f"Gauss–Newton alone {' and '.join(outcomes)}"
    broken, doubtful = (
        [row for row in rows if row.verdict is verdict]
        for verdict in (Verdict.FAIL, Verdict.UNDECIDED)
    )
    if broken:
        whole = (
            f"the chain rule fails on {listed(row.layer for row in broken)}: {_failure(broken[0])}"
        )
    elif doubtful:
        whole = (
            f"the whole chain rule is undecided on {listed(row.layer for row in doubtful)}: "
            f"{next(why_open(check) for check in _checks(doubtful[0]) if not check.passed)}"
        )
    elif len(rows) == 1:
        whole = f"the whole chain rule holds on {rows[0].layer}"
    else:
        whole = f"the whole chain rule holds on all {len(rows)} layers"
    return f"{activation}: {alone}; {whole}."


def _failure(row: ComparedBlock) -> str | None:
    return what_happened(*_checks(row))


def _checks(row: ComparedBlock) -> tuple[Check, ...]:
    return row.chain_rule_check, *row.form_checks


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
            "status": row.gauss_newton_check.verdict.value,
            "check": check_data(row.gauss_newton_check),
        },
        "chain_rule": {
            "status": row.verdict.value,
            "check": check_data(row.chain_rule_check),
        },
        "status": row.verdict.value,
    }
