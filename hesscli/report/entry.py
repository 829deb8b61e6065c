"""``hesscli entry``: an Entry as a Document."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hesscli.report.common import (
    heading,
    preamble,
    rounding_note,
    what_failed,
    what_happened,
)
from hesscli.report.document import (
    Case,
    Column,
    Document,
    Table,
    scientific,
    verdict_text,
)
from hesscli.report.fields import plain
from hesscli.report.referee import DIGITS, ruling_data, ruling_text, standings
from hesscli.studies.entry import Entry, EntryOf, EntryTerm, FiniteEntry
from hesscli.studies.finitechecks import SLOPES
from hesscli.studies.verdict import Verdict
from hesscli.witnesses.layout import NETWORK, layer_of

_NAMES = {"chain_rule": "the chain rule", "autodiff": "autodiff"}
_TERMS = {"hessian": "Hessian", "gauss_newton": "Gauss–Newton", "curvature": "curvature"}


def entry_document(result: Entry) -> Document:
    """Tables, data and test cases of an entry; the CSV form has a row for each term."""
    return Document(
        heading=heading(result.problem, result.environment),
        tables=tuple(_table(result, row) for row in result.results),
        data={
            **preamble("hesscli/entry/1", result.verdict, result.environment, result.problem),
            "first": result.first,
            "second": result.second,
            "zero_by_structure": result.separate_examples,
            "referee": [
                {"activation": row.activation, "hessian": ruling_data(row.ruling, row.unruled)}
                for row in result.results
            ],
            "finite": [
                {"activation": row.activation, "hessian": _finite_data(row.finite)}
                for row in result.results
            ],
            "results": [_term_data(row, term) for row in result.results for term in row.terms],
        },
        cases=tuple(case for row in result.results for case in _cases(result, row)),
    )


def _cases(result: Entry, row: EntryOf) -> Iterator[Case]:
    for term in row.terms:
        failure = None if row.verdict_of(term) is Verdict.PASS else _failure(row, term)
        yield Case(row.activation, f"{_derivative(result)} {term.term}", failure)
    if row.finite is not None and row.finite.check.verdict is not Verdict.UNDECIDED:
        failure = None if row.finite.check.passed else _finite_note(row.finite)
        yield Case(row.activation, f"{_derivative(result)} finite", failure)


def _failure(row: EntryOf, term: EntryTerm) -> str | None:
    if row.ruling is not None and row.verdict_of(term) is not term.check.verdict:
        return ruling_text(row.ruling, _NAMES)
    return what_happened(term.check)


def _derivative(result: Entry) -> str:
    if result.first == result.second:
        return f"∂²L/∂{result.first}²"
    return f"∂²L/∂{result.first} ∂{result.second}"


def _table(result: Entry, row: EntryOf) -> Table:
    return Table(
        title=f"{row.activation}: {_derivative(result)}",
        columns=(
            Column("term", numeric=False),
            Column("autodiff"),
            Column("chain rule"),
            Column("residual"),
            Column("relative"),
            Column("verdict", numeric=False),
        ),
        rows=tuple(
            (
                _TERMS[term.term],
                _entry_text(term.autodiff),
                _entry_text(term.chain_rule),
                scientific(term.residual),
                scientific(term.check.relative_residual),
                verdict_text(row.verdict_of(term)) + ("†" if _limited(row, term) else ""),
            )
            for term in row.terms
        ),
        notes=tuple(_notes(result, row)),
    )


def _limited(row: EntryOf, term: EntryTerm) -> bool:
    """Whether only the rounding floor let the term pass."""
    return term.check.limited_by_rounding and row.verdict_of(term) is term.check.verdict


def _entry_text(value: float) -> str:
    """One entry alone has room for the digits that float64 is good for."""
    return "0" if value == 0 else f"{value:.12e}"


def _notes(result: Entry, row: EntryOf) -> list[str]:
    largest = row.terms[0].check.max_abs_entry
    beside = f" at {layer_of(result.second)}" if row.block == NETWORK else ""
    notes = [
        f"relative: to {scientific(largest)}, the largest entry in the row of {result.first}"
        f"{beside}."
    ]
    if row.finite is not None:
        notes.append(_finite_note(row.finite))
    if result.separate_examples:
        notes.append(
            "Zero by structure: each example's loss depends on its own input only, so no entry "
            "connects two examples."
        )
    if row.ruling is not None:
        digits = row.ruling.worst.exact.digits
        found = standings(row.ruling, _NAMES)
        notes.append(f"{verdict_text(row.ruling.verdict)}: {DIGITS} give {digits}: {found}.")
    notes += [
        f"{verdict_text(row.verdict_of(term))}: {_TERMS[term.term]}: {what_happened(term.check)}."
        for term in row.terms
        if not term.check.passed and row.verdict_of(term) is term.check.verdict
    ]
    if row.unruled is not None:
        notes.append(f"Not settled: {row.unruled}.")
    limited = next((term for term in row.terms if _limited(row, term)), None)
    if limited is not None:
        notes.append(rounding_note(_TERMS[limited.term], limited.check))
    return notes


def _finite_note(finite: FiniteEntry) -> str:
    if finite.check.method == SLOPES:
        return f"FAIL: {what_failed(finite.check)}."
    if not math.isfinite(finite.error):
        return (
            "Finite differences cannot tell: a pre-activation stands on a corner of its "
            "activation, or too near to one, or loss values do not resolve the gradient."
        )
    return (
        f"Finite differences: {finite.value:.9e} ± {scientific(finite.error)}, residual "
        f"{scientific(finite.residual)}: {verdict_text(finite.check.verdict)}."
    )


def _finite_data(finite: FiniteEntry | None) -> dict[str, Any] | None:
    if finite is None:
        return None
    return {
        "value": finite.value,
        "error": finite.error,
        "residual": finite.residual,
        "check": plain(finite.check),
        "status": finite.check.verdict.value,
    }


def _term_data(row: EntryOf, term: EntryTerm) -> dict[str, Any]:
    return {
        "activation": row.activation,
        "block": row.block,
        "term": term.term,
        "autodiff": term.autodiff,
        "chain_rule": term.chain_rule,
        "residual": term.residual,
        "check": plain(term.check),
        "status": row.verdict_of(term).value,
    }
