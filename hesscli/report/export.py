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
_OF = {
    "hessian": "{term} of",
    "diagonal": "diagonal of the {term} of",
    "gradient": "gradient of the loss in",
    "jacobian": "Jacobian of the output f in",
}
_FIELDS = (
    Field("activation"),
    Field("block", lambda result: result.parameter),
    Field("of"),
    Field("term"),
    Field(
        "rows",
        lambda result: (result.start, result.stop),
        "rows",
        lambda rows: "{}:{}".format(*rows),
    ),
    Field(
        "shape",
        lambda result: result.shape,
        "shape",
        lambda shape: " × ".join(f"{size:,}" for size in shape),
    ),
    Field("bytes", lambda result: result.data_bytes, "size", readable_size),
    Field("files"),
    named(None, "file", lambda result: result.files[0]),
)


def export_document(result: Export) -> Document:
    """Table, data and test case of an export."""
    what = _OF[result.of].format(term=_TERMS.get(result.term or ""))
    title = f"{result.activation}: {what} {result.parameter}, by the chain rule"
    return study_document(
        result,
        "export",
        _FIELDS,
        rows=(result,),
        tables=(table(title, _FIELDS, (result,), _notes(result)),),
        cases=(Case(result.activation, f"{result.parameter} {result.term or result.of}", None),),
    )


def _notes(result: Export) -> tuple[str, ...]:
    what = "The parameters' layout and the configuration are"
    beside = result.files[1:]
    return (f"{what} in {beside[0]}." if beside else f"{what} in the file as well.",)
