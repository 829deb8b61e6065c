"""Sentences on what finite differences could decide."""

from __future__ import annotations

from collections.abc import Sequence

from hesscli.report.common import listed, what_failed, why_open
from hesscli.report.document import scientific
from hesscli.studies.finitechecks import ENTRIES_LIMIT, RANDOM_DIRECTIONS, SLOPES
from hesscli.studies.judge import Check, relative
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import VerifiedBlock, WitnessPair

_SCOPES = {
    "entries": "every entry",
    "products": f"{RANDOM_DIRECTIONS} random directions (over {ENTRIES_LIMIT:,} parameters)",
    "form": "the quadratic form",
}


def resolution_of(row: VerifiedBlock) -> float | None:
    """The largest error bar of what finite differences decided, relative to the largest."""
    check = _pair(row).check
    return None if check.verdict is Verdict.UNDECIDED else _resolution(check)


def finite_notes(activation: str, rows: Sequence[VerifiedBlock], chain_rule: str) -> list[str]:
    """The outcome of each row's comparison with finite differences, and how much was compared."""
    notes: list[str] = []
    # The referee's rulings are reported elsewhere.
    rows = [row for row in rows if _pair(row).ruling is None]
    passed = [row for row in rows if _pair(row).verdict is Verdict.PASS]
    contradicted = [row for row in rows if _pair(row).check.method == SLOPES]
    failed = [row for row in rows if row not in contradicted and _pair(row).verdict is Verdict.FAIL]
    by_chain_rule = any(_pair(row).candidate == "chain_rule" for row in rows)
    witness = chain_rule if by_chain_rule else "autodiff"
    if contradicted:
        worst = max(contradicted, key=lambda row: _pair(row).check.relative_residual)
        notes.append(
            f"{activation}: FAIL on {_layers(contradicted)}: {what_failed(_pair(worst).check)}."
        )
    if failed:
        worst = max(failed, key=lambda row: _failing(_pair(row)).relative_residual)
        notes.append(
            f"{activation}: FAIL on {_layers(failed)}: {witness} is beyond the error bars of "
            f"finite differences. Worst is {worst.layer}, {what_failed(_failing(_pair(worst)))}."
        )
    if passed:
        checks = [_pair(row).check for row in passed]
        compared = sum(check.compared for check in checks)
        resolution = max(_resolution(check) for check in checks)
        undecided = sum(check.undecided for check in checks)
        left = f"; {undecided:,} more are undecided" if undecided else ""
        notes.append(
            f"{activation}: PASS on {_layers(passed)}: finite differences agree with {witness} in "
            f"{compared:,} number{'' if compared == 1 else 's'}; their error bars are at most "
            f"{scientific(resolution)} of the largest{left}."
        )
        notes.append(f"Finite differences covered {_scopes(passed)}.")
    for row in rows:
        pair = _pair(row)
        if pair.verdict is Verdict.UNDECIDED:
            check = next(c for c in (pair.check, pair.form_check) if not c.passed)
            notes.append(f"{activation}: UNDECIDED on {row.layer}: {why_open(check)}.")
    return notes


def _pair(row: VerifiedBlock) -> WitnessPair:
    pair = row.finite_pair
    assert pair is not None
    return pair


def _failing(pair: WitnessPair) -> Check:
    return next(c for c in (pair.check, pair.form_check) if c.failed)


def _resolution(check: Check) -> float:
    return relative(check.error_bar, check.max_abs_entry)


def _layers(rows: Sequence[VerifiedBlock]) -> str:
    return listed(row.layer for row in rows)


def _scopes(rows: Sequence[VerifiedBlock]) -> str:
    by_method: dict[str, list[str]] = {}
    for row in rows:
        by_method.setdefault(_pair(row).check.method, []).append(row.layer)
    return "; ".join(
        f"{_SCOPES[method]} of {listed(layers)}" for method, layers in by_method.items()
    )
