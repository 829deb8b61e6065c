"""``hesscli entry``: an Entry as a Document."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hesscli.report.common import (
    STATUS,
    rounding_note,
    study_document,
    verdict_column,
    what_failed,
    what_happened,
)
from hesscli.report.document import Case, Document, scientific, to_digits, verdict_text
from hesscli.report.fields import Field, table
from hesscli.report.referee import DIGITS, ruling_data, ruling_text, standings
from hesscli.studies.entry import Entry, EntryOf, EntryTerm, FiniteEntry
from hesscli.studies.finitechecks import SLOPES
from hesscli.studies.judge import Check
from hesscli.studies.verdict import Verdict
from hesscli.witnesses.layout import NETWORK, layer_of

_NAMES = {"chain_rule": "the chain rule", "autodiff": "autodiff"}
_TERMS = {"hessian": "Hessian", "gauss_newton": "Gauss–Newton", "curvature": "curvature"}


@dataclass(frozen=True)
class _Line:
    """One term of an activation's entry."""

    row: EntryOf
    term: EntryTerm

    @property
    def verdict(self) -> Verdict:
        return self.row.verdict_of(self.term)

    @property
    def limited(self) -> Check | None:
        """The term's check if only the rounding floor let it pass."""
        check = self.term.check
        return check if check.limited_by_rounding and self.verdict is check.verdict else None


def _lines(row: EntryOf) -> list[_Line]:
    return [_Line(row, term) for term in row.terms]


# One entry alone has room for the digits that float64 is good for.
_FIELDS = (
    Field("activation", lambda line: line.row.activation),
    Field("block", lambda line: line.row.block),
    Field("term", lambda line: line.term.term, "term", _TERMS.__getitem__, numeric=False),
    Field("autodiff", lambda line: line.term.autodiff, "autodiff", to_digits(13)),
    Field("chain_rule", lambda line: line.term.chain_rule, "chain rule", to_digits(13)),
    Field("residual", lambda line: line.term.residual, "residual", scientific),
    Field(None, lambda line: line.term.check.relative_residual, "relative", scientific),
    Field("check", lambda line: line.term.check),
    STATUS,
    verdict_column(lambda line: line.limited),
)


def entry_document(result: Entry) -> Document:
    """Tables, data and test cases of an entry; the CSV form has a row for each term."""
    return study_document(
        result,
        "entry",
        _FIELDS,
        rows=[line for row in result.results for line in _lines(row)],
        before={
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
        },
        tables=(
            table(
                f"{row.activation}: {_derivative(result)}",
                _FIELDS,
                _lines(row),
                _notes(result, row),
            )
            for row in result.results
        ),
        cases=(case for row in result.results for case in _cases(result, row)),
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
    limited = next((line for line in _lines(row) if line.limited is not None), None)
    if limited is not None:
        notes.append(rounding_note(_TERMS[limited.term.term], limited.term.check))
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
        f"Finite differences: {scientific(finite.value, 10)} ± {scientific(finite.error)}, "
        f"residual {scientific(finite.residual)}: {verdict_text(finite.check.verdict)}."
    )


def _finite_data(finite: FiniteEntry | None) -> dict[str, Any] | None:
    if finite is None:
        return None
    return {
        "value": finite.value,
        "error": finite.error,
        "residual": finite.residual,
        "check": finite.check,
        "status": finite.check.verdict,
    }
