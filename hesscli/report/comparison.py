"""``hesscli compare``: a Comparison as a Document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from hesscli.report.bars import share_bar
from hesscli.report.common import (
    ROW,
    SIZE,
    STATUS,
    block_cases,
    compared_text,
    listed,
    rounding_notes,
    seed_note,
    study_document,
    verdict_cell,
    what_happened,
    why_open,
)
from hesscli.report.comparison_plot import comparison_drawing
from hesscli.report.document import Document, to_digits
from hesscli.report.fields import Field, named, table
from hesscli.report.legend import equal_forms, tables_of, vector_text
from hesscli.studies.comparison import ComparedBlock, Comparison, SplitForm
from hesscli.studies.judge import Check
from hesscli.studies.verdict import Verdict

_SHARE_BAR = 5
_TERMS = {"hessian": "Hessian", "gauss_newton": "Gauss–Newton", "curvature": "curvature"}
_NOT_ALONE = {Verdict.FAIL: "misses", Verdict.UNDECIDED: "is undecided on"}
# These are not verdicts on the program: the Hessian has a curvature term or it has none.
_ALONE = {
    Verdict.PASS: "G suffices",
    Verdict.FAIL: "not G alone",
    Verdict.UNDECIDED: "undecided",
}
_FIELDS = (
    *ROW,
    SIZE,
    *(
        Field(f"quadratic_form.{term}.{witness}", attrgetter(f"{witness}.{term}"))
        for term in _TERMS
        for witness in ("autodiff", "chain_rule")
    ),
    Field("gauss_newton_share"),
    Field("gauss_newton_alone.status", lambda row: row.gauss_newton_check.verdict),
    Field("gauss_newton_alone.check", lambda row: row.gauss_newton_check),
    Field("chain_rule.status", lambda row: row.verdict),
    Field("chain_rule.check", lambda row: row.chain_rule_check),
    STATUS,
)


def comparison_document(result: Comparison) -> Document:
    """Tables, data, test cases and plot of a comparison."""
    return study_document(
        result,
        "compare",
        _FIELDS,
        before={"probe_seed": result.probe_seed},
        tables=tables_of(
            result.results,
            lambda activation, rows: table(
                f"{activation}: quadratic forms vᵀHv = vᵀGv + vᵀCv at the {result.block}",
                _columns(rows),
                _lines(rows),
                _notes(result, activation, rows),
            ),
            lambda row: row.chain_rule_check,
        ),
        cases=block_cases(result.results, _failure),
        drawings=(comparison_drawing(result),),
    )


@dataclass(frozen=True)
class _Line:
    """A row by one of its witnesses; values of both are in the first line only."""

    row: ComparedBlock
    by: str
    split: SplitForm

    @property
    def share(self) -> str | None:
        share = self.row.gauss_newton_share
        if self.by != "autodiff":
            return _ALONE[self.row.gauss_newton_check.verdict]
        return None if share is None else f"{share_bar(share, _SHARE_BAR)} {share:.1%}"


def _lines(rows: Sequence[ComparedBlock]) -> Iterator[_Line]:
    for row in rows:
        yield _Line(row, "autodiff", row.autodiff)
        yield _Line(row, "chain rule", row.chain_rule)


def _in_the_first(of: Callable[[ComparedBlock], str]) -> Callable[[_Line], str]:
    return lambda line: of(line.row) if line.by == "autodiff" else ""


def _columns(rows: Sequence[ComparedBlock]) -> tuple[Field, ...]:
    # A long verdict leaves less room for the forms.
    text = to_digits(4 if any(row.verdict is Verdict.UNDECIDED for row in rows) else 6)
    return (
        named(None, "layer", _in_the_first(lambda row: row.layer)),
        named(None, "by", lambda line: line.by),
        *(Field(None, attrgetter(f"split.{term}"), name, text) for term, name in _TERMS.items()),
        named(None, "share of G", lambda line: line.share),
        named(None, "G + C", _in_the_first(lambda row: verdict_cell(row, _limited))),
    )


def _limited(row: ComparedBlock) -> Check | None:
    check = row.chain_rule_check
    return check if row.passed and check.limited_by_rounding else None


def _notes(result: Comparison, activation: str, rows: Sequence[ComparedBlock]) -> Iterator[str]:
    yield (
        f"{vector_text(result.block)}; share of G = |vᵀGv| / (|vᵀGv| + |vᵀCv|); G + C: is the "
        "chain rule autodiff's Hessian?"
    )
    yield from equal_forms(activation, result.block, [row.chain_rule.hessian for row in rows])
    yield _summary(activation, rows)
    checks = [row.chain_rule_check for row in rows]
    probed = [check for check in checks if check.method == "probes"]
    if probed:
        yield f"Compared {compared_text(probed)}."
    yield from seed_note(checks, result.probe_seed)
    yield from rounding_notes(rows, _limited)


def _summary(activation: str, rows: Sequence[ComparedBlock]) -> str:
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
