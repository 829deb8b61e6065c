"""``hesscli doctor``: a Diagnosis as a Document.

It imports no other report: they need NumPy, whose absence this one must be able to say.
"""

from __future__ import annotations

from collections.abc import Iterator

from hesscli.report.document import Case, Column, Document, Table
from hesscli.studies.doctor import Diagnosis, Fact, troubles


def diagnosis_document(result: Diagnosis) -> Document:
    """A table for each section, data, and a test case for each thing that is needed."""
    return Document(
        heading=f"hesscli {result.hesscli}",
        tables=tuple(_tables(result)),
        data={
            "schema": "hesscli/doctor/1",
            "status": "pass" if result.passed else "fail",
            "environment": {"hesscli": result.hesscli},
            "results": [_row_data(fact) for fact in result.facts],
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
        yield Table(
            title=section,
            columns=(Column("name", numeric=False), Column("found", numeric=False)),
            rows=tuple((fact.name, fact.value) for fact in result.facts if fact.section == section),
            notes=summary if section == sections[-1] else (),
        )


def _row_data(fact: Fact) -> dict[str, str | bool | None]:
    return {
        "section": fact.section,
        "name": fact.name,
        "found": fact.value,
        "needed": fact.needed,
        "trouble": fact.trouble,
    }
