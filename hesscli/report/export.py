"""``hesscli export``: an Export as a Document."""

from __future__ import annotations

from hesscli.report.common import heading, preamble
from hesscli.report.document import Case, Column, Document, Table
from hesscli.studies.export import SCHEMA, Export
from hesscli.studies.verdict import Verdict
from hesscli.system.memory import readable_size

_TERMS = {
    "hessian": "Hessian",
    "gauss-newton": "Gauss–Newton term",
    "curvature": "curvature term",
}


def export_document(result: Export) -> Document:
    """Table, data and test case of an export."""
    row = {
        "activation": result.activation,
        "block": result.parameter,
        "term": result.term,
        "rows": [result.start, result.stop],
        "shape": [result.stop - result.start, result.size],
        "bytes": result.data_bytes,
        "files": list(result.files),
    }
    return Document(
        heading=heading(result.problem, result.environment),
        tables=(
            Table(
                title=f"{result.activation}: {_TERMS[result.term]} of {result.parameter}, by the "
                "chain rule",
                columns=(
                    Column("rows"),
                    Column("shape"),
                    Column("size"),
                    Column("file", numeric=False),
                ),
                rows=(
                    (
                        f"{result.start}:{result.stop}",
                        f"{result.stop - result.start:,} × {result.size:,}",
                        readable_size(result.data_bytes),
                        result.files[0],
                    ),
                ),
                notes=_notes(result),
            ),
        ),
        data={
            **preamble(SCHEMA, Verdict.PASS, result.environment, result.problem),
            "results": [row],
        },
        cases=(Case(result.activation, f"{result.parameter} {result.term}", None),),
    )


def _notes(result: Export) -> tuple[str, ...]:
    what = "The parameters' layout and the configuration are"
    beside = result.files[1:]
    return (f"{what} in {beside[0]}." if beside else f"{what} in the file as well.",)
