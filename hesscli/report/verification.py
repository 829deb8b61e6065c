"""``hesscli verify``: a Verification as a Document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hesscli.report.common import (
    by_activation,
    check_data,
    compared_text,
    heading,
    listed,
    methods_text,
    preamble,
    relative_text,
    rounding_note,
    seed_note,
    undecided_notes,
    what_happened,
)
from hesscli.report.document import (
    UNKNOWN,
    Case,
    Column,
    Document,
    Drawing,
    Table,
    brief_form_text,
    form_text,
    residual_text,
    short_form_text,
    verdict_text,
)
from hesscli.report.finite import error_bar_text, finite_notes
from hesscli.report.referee import DIGITS, ruling_data, ruling_text
from hesscli.report.residual_plot import Residuals, residual_drawing
from hesscli.studies.judge import Check
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import Terms, Verification, VerifiedBlock

_CANDIDATES: dict[Terms, str] = {
    "hessian": "the chain rule",
    "gauss-newton": "the Gauss–Newton term alone",
}
_WITNESSES = {"autodiff": "autodiff", "finite": "finite differences"}


def _names(result: Verification) -> dict[str, str]:
    """The witnesses as sentences name them."""
    return {**_WITNESSES, "chain_rule": _CANDIDATES[result.terms]}


def verification_document(result: Verification) -> Document:
    """Tables, data, test cases and plot of a verification."""
    table = _finite_table if "finite" in result.witnesses else _table
    return Document(
        heading=heading(result.problem, result.environment),
        tables=tuple(
            table(result, activation, rows) for activation, rows in by_activation(result.results)
        ),
        data={
            **preamble("hesscli/verify/1", result.verdict, result.environment, result.problem),
            "terms": result.terms,
            "witnesses": list(result.witnesses),
            "probe_seed": result.probe_seed,
            "results": [_row_data(row) for row in result.results],
        },
        cases=tuple(
            Case(row.activation, f"{row.layer}/{row.block}", _failure(result, row))
            for row in result.results
        ),
        drawings=tuple(_drawings(result)),
    )


def _drawings(result: Verification) -> Iterator[Drawing]:
    """The residuals of every pair of witnesses."""
    names = _names(result)
    pairs = [(row, pair) for row in result.results for pair in row.pairs]
    for candidate, reference in dict.fromkeys((p.candidate, p.reference) for _, p in pairs):
        rows = [
            Residuals(row.activation, row.layer, pair.check)
            for row, pair in pairs
            if (pair.candidate, pair.reference) == (candidate, reference)
        ]
        against = f"{names[candidate]} against {names[reference]}"
        # Finite differences see as much as they can, which differs from row to row.
        finite = "finite" in (candidate, reference)
        method = "" if finite else f", {methods_text([pair.check for _, pair in pairs])}"
        yield residual_drawing(rows, f"{against}{method}, block {result.block}")


def _table(result: Verification, activation: str, rows: tuple[VerifiedBlock, ...]) -> Table:
    candidate = "Gauss–Newton" if result.terms == "gauss-newton" else "chain rule"
    method = methods_text([row.check for row in rows])
    where = "" if result.block == "kernel" else f", block {result.block}"
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
                *(form_text(value) for value in _forms(row)),
                residual_text(row.quadratic_form.residual),
                relative_text(row.check),
                verdict_text(row.verdict) + ("†" if _limited(row) else ""),
            )
            for row in rows
        ),
        notes=(
            *_summary(result, activation, rows),
            *(rounding_note(row.layer, check) for row in rows if (check := _limited(row))),
            *seed_note((pair.check for row in rows for pair in row.pairs), result.probe_seed),
        ),
    )


def _finite_table(result: Verification, activation: str, rows: tuple[VerifiedBlock, ...]) -> Table:
    """The table with a third witness: a column each, and what it can decide."""
    names = {
        "autodiff": "autodiff",
        "chain_rule": "Gauss–Newton" if result.terms == "gauss-newton" else "chain rule",
        "finite": "finite",
    }
    present = [title for name, title in names.items() if name in result.witnesses]
    where = "" if result.block == "kernel" else f", block {result.block}"
    # Three forms leave no room for the residual beside them.
    three = len(present) == 3
    text = short_form_text if three else brief_form_text
    return Table(
        title=f"{activation}: vᵀHv by {listed(present)} differences{where}",
        columns=(
            Column("layer", numeric=False),
            Column("block"),
            *(Column(title) for title in present),
            *(() if three else (Column("residual"),)),
            Column("relative"),
            Column("± finite"),
            Column("verdict", numeric=False),
        ),
        rows=tuple(
            (
                row.layer,
                f"{row.size:,}²",
                *(text(value) for value in _forms(row)),
                *(() if three else (residual_text(row.quadratic_form.residual),)),
                _largest_residual(row),
                error_bar_text(row),
                verdict_text(row.verdict) + ("†" if _limited(row) else ""),
            )
            for row in rows
        ),
        notes=(
            *(_summary(result, activation, rows) if three else ()),
            *(() if three else ruling_notes(result, activation, rows)),
            *finite_notes(activation, rows, _CANDIDATES[result.terms]),
            *_convictions(result, activation, [row for row in rows if not row.passed]),
            *(rounding_note(row.layer, check) for row in rows if (check := _limited(row))),
            *seed_note((pair.check for row in rows for pair in row.pairs), result.probe_seed),
        ),
    )


def _largest_residual(row: VerifiedBlock) -> str:
    decided = [
        pair.check.relative_residual
        for pair in row.pairs
        if pair.check.verdict is not Verdict.UNDECIDED
    ]
    return residual_text(max(decided)) if decided else UNKNOWN


def _forms(row: VerifiedBlock) -> list[float]:
    form = row.quadratic_form
    by_witness = (form.autodiff, form.chain_rule, form.finite)
    return [value for value in by_witness if value is not None]


def _limited(row: VerifiedBlock) -> Check | None:
    """The check that passed by its rounding floor only, if one did."""
    if not row.passed or row.pairs[0].ruling is not None:
        return None
    checks = (check for pair in row.pairs for check in (pair.check, pair.form_check))
    return next((check for check in checks if check.limited_by_rounding), None)


def _summary(
    result: Verification, activation: str, rows: tuple[VerifiedBlock, ...]
) -> Iterator[str]:
    """What came of the chain rule against autodiff."""
    what = _CANDIDATES[result.terms]
    judged = [row for row in rows if row.pairs[0].ruling is None]
    failed, passed = (
        [row for row in judged if row.pairs[0].verdict is verdict]
        for verdict in (Verdict.FAIL, Verdict.PASS)
    )
    if failed:
        worst = max(failed, key=lambda row: row.check.relative_residual)
        also = f", PASS on {listed(row.layer for row in passed)}" if passed else ""
        yield (
            f"{activation}: FAIL on {listed(row.layer for row in failed)}{also}: {what} is not "
            f"autodiff's Hessian. Worst is {_failure(result, worst)}."
        )
    elif passed:
        yield (
            f"{activation}: PASS on {listed(row.layer for row in passed)}: {what} is autodiff's "
            f"Hessian {compared_text([row.check for row in passed])}."
        )
    yield from ruling_notes(result, activation, rows)
    open_rows = [row for row in judged if row.pairs[0].verdict is Verdict.UNDECIDED]
    for row in open_rows:
        pair = row.pairs[0]
        checks = [(row.layer, check) for check in (pair.check, pair.form_check)]
        for note in undecided_notes(activation, checks):
            yield f"{note} Not settled: {pair.unruled}." if pair.unruled else note


def _convictions(
    result: Verification, activation: str, rows: Sequence[VerifiedBlock]
) -> Iterator[str]:
    """Which witness the two others convict, and where."""
    names = _names(result)
    for convicted in names:
        layers = [row.layer for row in rows if row.convicted == convicted]
        if layers:
            others = listed(names[name] for name in names if name != convicted)
            are = "are" if convicted == "finite" else "is"
            yield (
                f"{activation}: on {listed(layers)} {others} agree, so {names[convicted]} "
                f"{are} wrong."
            )


def ruling_notes(
    result: Verification, activation: str, rows: Sequence[VerifiedBlock]
) -> Iterator[str]:
    """What the referee settled."""
    for row in rows:
        ruling = row.pairs[0].ruling
        if ruling is not None:
            verdict = verdict_text(ruling.verdict)
            found = ruling_text(ruling, _names(result))
            yield f"{activation}: {verdict} on {row.layer}, by arithmetic of {DIGITS}: {found}."


def _failure(result: Verification, row: VerifiedBlock) -> str | None:
    """What failed first, or was left open where nothing failed."""
    for pair in row.pairs:
        if pair.ruling is not None and pair.verdict is not Verdict.PASS:
            return ruling_text(pair.ruling, _names(result))
    checks = [
        check
        for pair in row.pairs
        if pair.ruling is None
        for check in (pair.check, pair.form_check)
    ]
    return what_happened(*checks) if checks else None


def _row_data(row: VerifiedBlock) -> dict[str, Any]:
    form = row.quadratic_form
    finite = row.finite_pair
    return {
        "activation": row.activation,
        "layer": row.layer,
        "block": row.block,
        "size": row.size,
        "quadratic_form": {
            "autodiff": form.autodiff,
            "chain_rule": form.chain_rule,
            "finite": form.finite,
            "finite_error": form.finite_error,
            "gauss_newton": form.gauss_newton,
            "curvature": form.curvature,
            "residual": form.residual,
            "relative_residual": form.relative_residual,
        },
        "form_check": check_data(row.form_check),
        "check": check_data(row.check),
        "finite_check": None
        if finite is None
        else {
            **check_data(finite.check),
            "candidate": finite.candidate,
            "reference": finite.reference,
            "error_bar": finite.check.error_bar,
            "undecided": finite.check.undecided,
            "status": finite.verdict.value,
        },
        "referee": ruling_data(row.pairs[0].ruling, row.pairs[0].unruled),
        "convicted": row.convicted,
        "status": row.verdict.value,
    }
