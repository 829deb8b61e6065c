"""``hesscli doctor``: a Diagnosis as a Document.

It imports no other report: they need NumPy, whose absence this one must be able to report.
"""

from __future__ import annotations

from collections.abc import Iterator

from hesscli.report.document import Case, Document, Table
from hesscli.report.fields import Field, data_of, named, table
from hesscli.studies.doctor import Diagnosis, troubles

_FIELDS = (
    Field("section"),
    named("name", "name"),
    named("found", "found", lambda fact: fact.value),
    Field("needed"),
    Field("trouble"),
)


def diagnosis_document(result: Diagnosis) -> Document:
    """A table for each section, data, and a test case for each thing that is needed."""
    return Document(
        heading=f"hesscli {result.hesscli}",
        tables=tuple(_tables(result)),
        data={
            "schema": "hesscli/doctor/1",
            "status": "pass" if result.passed else "fail",
            "environment": {"hesscli": result.hesscli},
            "results": [data_of(_FIELDS, fact) for fact in result.facts],
        },
        cases=tuple(
            Case(fact.section, fact.name, fact.trouble) for fact in result.facts if fact.needed
        ),
    )


def _tables(result: Diagnosis) -> Iterator[Table]:
    sections = tuple(dict.fromkeys(fact.section for fact in result.facts))
    found = troubles(result.facts)
    summary = (
        tuple(f"FAIL: {trouble}" for trouble in found)
        if found
        else ("PASS: everything that is needed is here.",)
    )
    for section in sections:
        facts = [fact for fact in result.facts if fact.section == section]
        yield table(section, _FIELDS, facts, summary if section == sections[-1] else ())
