"""``hesscli export``: an Export as a Document."""

from __future__ import annotations

from hesscli.report.common import study_document
from hesscli.report.document import Case, Document
from hesscli.report.fields import Field, named, table
from hesscli.studies.export import Export
from hesscli.system.memory import readable_size

_TERMS = {
    "hessian": "Hessian",
    "gauss-newton": "Gauss–Newton term",
    "curvature": "curvature term",
}


_FIELDS = (
    Field("activation"),
    Field("block", lambda result: result.parameter),
    Field("term"),
    Field(
        "rows",
        lambda result: (result.start, result.stop),
        "rows",
        lambda rows: "{}:{}".format(*rows),
    ),
    Field(
        "shape",
        lambda result: (result.stop - result.start, result.size),
        "shape",
        lambda shape: "{:,} × {:,}".format(*shape),
    ),
    Field("bytes", lambda result: result.data_bytes, "size", readable_size),
    Field("files"),
    named(None, "file", lambda result: result.files[0]),
)


def export_document(result: Export) -> Document:
    """Table, data and test case of an export."""
    title = f"{result.activation}: {_TERMS[result.term]} of {result.parameter}, by the chain rule"
    return study_document(
        result,
        "export",
        _FIELDS,
        rows=(result,),
        tables=(table(title, _FIELDS, (result,), _notes(result)),),
        cases=(Case(result.activation, f"{result.parameter} {result.term}", None),),
    )


def _notes(result: Export) -> tuple[str, ...]:
    what = "The parameters' layout and the configuration are"
    beside = result.files[1:]
    return (f"{what} in {beside[0]}." if beside else f"{what} in the file as well.",)
