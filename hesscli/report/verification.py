"""``hesscli verify``: a Verification as a Document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from hesscli.report.common import (
    ROW,
    SIZE,
    STATUS,
    block_cases,
    compared_text,
    listed,
    methods_text,
    outcome,
    relative_text,
    residual_text,
    rounding_notes,
    seed_note,
    study_document,
    undecided_notes,
    verdict_column,
    what_happened,
)
from hesscli.report.document import Document, Drawing, scientific, to_digits, verdict_text
from hesscli.report.fields import Field, plain, table
from hesscli.report.finite import finite_notes, resolution_of
from hesscli.report.legend import equal_forms, legend, tables_of, vector_text
from hesscli.report.referee import DIGITS, ruling_data, ruling_text
from hesscli.report.residual_plot import Residuals, residual_drawing
from hesscli.studies.judge import Check
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import Terms, Verification, VerifiedBlock, WitnessPair

_CANDIDATES: dict[Terms, str] = {
    "hessian": "the chain rule",
    "gauss-newton": "the Gauss–Newton term alone",
}
_SHORT: dict[Terms, str] = {"hessian": "chain rule", "gauss-newton": "Gauss–Newton"}
_WITNESSES = {"autodiff": "autodiff", "finite": "finite differences"}


def _names(result: Verification) -> dict[str, str]:
    """The witnesses as sentences name them."""
    return {**_WITNESSES, "chain_rule": _CANDIDATES[result.terms]}


def verification_document(result: Verification) -> Document:
    """Tables, data, test cases and plot of a verification."""
    fields = _fields(result)
    return study_document(
        result,
        "verify",
        fields,
        before={
            "terms": result.terms,
            "witnesses": result.witnesses,
            "probe_seed": result.probe_seed,
        },
        tables=tables_of(
            result.results,
            lambda name, rows: table(
                _title(result, name, rows), fields, rows, _notes(result, name, rows)
            ),
        ),
        cases=block_cases(result.results, partial(_failure, result)),
        drawings=_drawings(result),
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


def _fields(result: Verification) -> tuple[Field, ...]:
    """The forms of the witnesses that take part, and of a third one what it can decide."""
    finite, three = "finite" in result.witnesses, len(result.witnesses) == 3
    # Three forms leave no room for the residual next to them.
    text = to_digits((5 if three else 6) if finite else 7)
    titles = {
        "autodiff": "autodiff" if finite else "autodiff vᵀHv",
        "chain_rule": _SHORT[result.terms],
        "finite": "finite",
    }
    decided = (
        Field(None, _largest_residual, "relative", scientific),
        Field(None, resolution_of, "± finite", scientific),
    )
    return (
        *ROW,
        SIZE,
        *(
            Field(
                f"quadratic_form.{name}",
                title=title if name in result.witnesses else None,
                text=text,
            )
            for name, title in titles.items()
        ),
        Field("quadratic_form.finite_error"),
        Field("quadratic_form.gauss_newton"),
        Field("quadratic_form.curvature"),
        Field("quadratic_form.residual"),
        Field("quadratic_form.relative_residual"),
        Field("form_check"),
        Field("check"),
        *(() if three else (Field(None, lambda row: row.check, "residual", residual_text),)),
        *(() if finite else (Field(None, lambda row: row.check, "relative", relative_text),)),
        *(decided if finite else ()),
        Field("finite_check", lambda row: row.finite_pair and _finite_data(row.finite_pair)),
        Field("referee", lambda row: ruling_data(row.pairs[0].ruling, row.pairs[0].unruled)),
        Field("convicted"),
        STATUS,
        verdict_column(_limited),
    )


def _finite_data(pair: WitnessPair) -> dict[str, Any]:
    return {
        **plain(pair.check),
        "candidate": pair.candidate,
        "reference": pair.reference,
        "error_bar": pair.check.error_bar,
        "undecided": pair.check.undecided,
        "status": pair.verdict,
    }


def _title(result: Verification, activation: str, rows: Sequence[VerifiedBlock]) -> str:
    where = "" if result.block == "kernel" else f", block {result.block}"
    if "finite" not in result.witnesses:
        method = methods_text([row.check for row in rows])
        return f"{activation}: {_CANDIDATES[result.terms]} against autodiff, {method}{where}"
    names = {"autodiff": "autodiff", "chain_rule": _SHORT[result.terms], "finite": "finite"}
    present = listed(title for name, title in names.items() if name in result.witnesses)
    return f"{activation}: vᵀHv by {present} differences{where}"


def _notes(result: Verification, activation: str, rows: Sequence[VerifiedBlock]) -> Iterator[str]:
    yield from legend([row.check for row in rows], vector_text(result.block))
    yield from equal_forms(
        activation, result.block, [row.quadratic_form.gauss_newton for row in rows]
    )
    if {"autodiff", "chain_rule"} <= set(result.witnesses):
        yield from _summary(result, activation, rows)
    else:
        yield from ruling_notes(result, activation, rows)
    if "finite" in result.witnesses:
        yield from finite_notes(activation, rows, _CANDIDATES[result.terms])
    yield from _convictions(result, activation, [row for row in rows if not row.passed])
    yield from rounding_notes(rows, _limited)
    yield from seed_note((pair.check for row in rows for pair in row.pairs), result.probe_seed)


def _largest_residual(row: VerifiedBlock) -> float | None:
    decided = [
        pair.check.relative_residual
        for pair in row.pairs
        if pair.check.verdict is not Verdict.UNDECIDED
    ]
    return max(decided, default=None)


def _limited(row: VerifiedBlock) -> Check | None:
    """The check that passed by its rounding floor only, if one did."""
    if not row.passed or row.pairs[0].ruling is not None:
        return None
    checks = (check for pair in row.pairs for check in (pair.check, pair.form_check))
    return next((check for check in checks if check.limited_by_rounding), None)


def _summary(result: Verification, activation: str, rows: Sequence[VerifiedBlock]) -> Iterator[str]:
    """Sentences on the comparison of the chain rule with autodiff."""
    what = _CANDIDATES[result.terms]
    judged = [row for row in rows if row.pairs[0].ruling is None]

    def wrong(failed: Sequence[VerifiedBlock]) -> str:
        worst = max(failed, key=lambda row: row.check.relative_residual)
        return f"{what} is not autodiff's Hessian. Worst is {_failure(result, worst)}"

    def right(passed: Sequence[VerifiedBlock]) -> str:
        return f"{what} is autodiff's Hessian {compared_text([row.check for row in passed])}"

    yield from outcome(activation, judged, lambda row: row.pairs[0].verdict, wrong, right)
    yield from ruling_notes(result, activation, rows)
    for pair, row in ((row.pairs[0], row) for row in judged):
        if pair.verdict is Verdict.UNDECIDED:
            checks = [(row.layer, check) for check in (pair.check, pair.form_check)]
            for note in undecided_notes(activation, checks):
                yield f"{note} Not settled: {pair.unruled}." if pair.unruled else note


def _convictions(
    result: Verification, activation: str, rows: Sequence[VerifiedBlock]
) -> Iterator[str]:
    """A sentence on the witness that the two others contradict, and on the layers."""
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
    """A sentence for each of the referee's rulings."""
    for row in rows:
        ruling = row.pairs[0].ruling
        if ruling is not None:
            verdict = verdict_text(ruling.verdict)
            found = ruling_text(ruling, _names(result))
            yield f"{activation}: {verdict} on {row.layer}, by arithmetic of {DIGITS}: {found}."


def _failure(result: Verification, row: VerifiedBlock) -> str | None:
    """The first failure, or, if nothing failed, why a check is undecided."""
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
