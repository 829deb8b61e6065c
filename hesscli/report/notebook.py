"""Results as Python and Jupyter show them.

Studies know no report, so their results get from here ``__str__``, which is the table,
``__repr__``, which is one line, and ``_repr_mimebundle_``, which IPython and its kin ask for. The
page's style sheet stays out: a notebook has its own, and GitHub removes them.
"""

from __future__ import annotations

from html import escape
from typing import Any

from hesscli.report.document import Document
from hesscli.report.documents import document_of, result_types
from hesscli.report.formats import render
from hesscli.report.output import verdict_line
from hesscli.report.page import plots_and_tables

# A notebook is kept with its outputs, and a version of it for every change.
_LARGEST_SVG = 2**16


def show_in_notebooks() -> None:
    """Gives every kind of result, and Documents, their representations."""
    for kind in (Document, *result_types()):
        of: Any = kind
        of.__str__, of.__repr__, of._repr_mimebundle_ = _table_text, _line, _mimebundle


def _document(result: object) -> Document:
    return result if isinstance(result, Document) else document_of(result)


def _table_text(result: object) -> str:
    return render(_document(result), "table").rstrip("\n")


def _line(result: object) -> str:
    return f"<hesscli {verdict_line(_document(result))}>"


def _mimebundle(result: object, **_: object) -> dict[str, str]:
    document = _document(result)
    return {"text/plain": render(document, "table"), "text/html": notebook_html(document)}


def notebook_html(document: Document) -> str:
    """The document as a part of a page: what was analysed, tables, plots."""
    lines = [
        "<div>",
        *(f"<p>{escape(text)}</p>" for text in document.heading.splitlines()),
        *plots_and_tables(document, _LARGEST_SVG),
        "</div>",
    ]
    return "\n".join(lines)
