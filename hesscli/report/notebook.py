"""Results as Python and Jupyter show them.

Studies know no report, so their results get from here ``__str__``, which is the table,
``__repr__``, which is one line, and ``_repr_mimebundle_``, which IPython and its kin ask for. The
page's style sheet stays out: a notebook has its own, and GitHub removes them, so what must be set
is set on the elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from hesscli.report.document import FAIL, PASS, UNDECIDED, Column, Document, Table
from hesscli.report.documents import document_of, result_types
from hesscli.report.formats import render
from hesscli.report.output import verdict_line
from hesscli.report.page import image_address
from hesscli.report.plots import INSTALL, matplotlib_is_missing

# Legible on a light and on a dark ground.
_COLOURS = {PASS: "#1a8a3c", FAIL: "#d63b3b", UNDECIDED: "#9a6e00"}
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
        *(line for table in document.tables for line in _html_table(table)),
        *_plots(document),
        "</div>",
    ]
    return "\n".join(lines)


def _html_table(table: Table) -> Iterator[str]:
    yield "<table>"
    yield f'<caption style="text-align: left"><b>{escape(table.title)}</b></caption>'
    titles = [column.title for column in table.columns]
    if table.rows:
        yield f"<thead>{_row('th', titles, table.columns)}</thead>"
    yield "<tbody>"
    for row in table.rows:
        yield _row("td", row, table.columns)
    yield "</tbody>"
    yield "</table>"
    for note in table.notes:
        yield f"<p>{escape(note)}</p>"


def _row(element: str, cells: Iterable[str], columns: tuple[Column, ...]) -> str:
    parts: list[str] = []
    for cell, column in zip(cells, columns, strict=True):
        style = f"padding: 0.2em 0.6em; text-align: {'right' if column.numeric else 'left'}"
        # A verdict may carry a dagger.
        verdict = _COLOURS.get(cell.rstrip("†"))
        if verdict is not None:
            style += f"; color: {verdict}; font-weight: bold"
        parts.append(f'<{element} style="{style}">{escape(cell)}</{element}>')
    return f"<tr>{''.join(parts)}</tr>"


def _plots(document: Document) -> Iterator[str]:
    if not document.drawings:
        return
    if matplotlib_is_missing() is not None:
        yield f"<p>The plots need matplotlib: <code>{escape(INSTALL)}</code>.</p>"
        return
    for drawing in document.drawings:
        address, title = image_address(drawing, _LARGEST_SVG), escape(f"Plot. {drawing.title}")
        yield f'<img src="{address}" alt="{title}" style="max-width: 100%">'
        yield f"<p>{escape(drawing.caption)}</p>"
