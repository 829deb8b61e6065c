"""A Document as one self-contained page of HTML: what was run, plots, tables."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from hesscli.report.document import FAIL, PASS, UNDECIDED, Column, Document, Drawing, Table
from hesscli.report.plots import INSTALL, drawn, matplotlib_is_missing

# Beyond, an SVG of many points is slower to show than its picture is large.
_LARGEST_SVG = 2**20
# Both on white and on the dark ground of _STYLE they have a contrast of over 4.
_COLOURS = {PASS: "#1a8a3c", FAIL: "#d63b3b", UNDECIDED: "#9a6e00"}
_NAMES = {"tensorflow": "TensorFlow", "numpy": "NumPy", "scipy": "SciPy", "dtype": "numbers"}
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1a1a1a; --quiet: #595959; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #121212; --text: #e8e8e8; --quiet: #a8a8a8; }
}
body { background: var(--ground); color: var(--text); max-width: 54rem; margin: 2rem auto;
  padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: 0.25rem; }
.table { overflow-x: auto; margin: 2rem 0 0.75rem; font-size: 0.85rem; white-space: nowrap; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { font-size: 1.1rem; white-space: normal; }
thead { border-bottom: 1px solid var(--quiet); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; color: var(--quiet); }
dd { margin: 0; }
figure { margin: 1.5rem 0; }
img { width: 100%; height: auto; background: #fff; }
figcaption, .note { color: var(--quiet); }
@media print {
  :root { --ground: #fff; --text: #000; --quiet: #444; }
  body { max-width: none; margin: 0; font-size: 10pt; }
  .table { font-size: 8pt; overflow: visible; }
  figure, .table { break-inside: avoid; }
}
"""


def html_page(document: Document) -> str:
    """The page, ending in a newline; without matplotlib it has the tables only and says so."""
    heading, *notes = document.heading.splitlines()
    command = str(document.data["schema"]).split("/")[1]
    title = f"hesscli {command}: {heading}"
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
        f"<h1>hesscli {escape(command)}</h1>",
        *(f"<p>{escape(text)}</p>" for text in (heading, *notes)),
        *_facts(document.data),
        *plots_and_tables(document, _LARGEST_SVG),
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _facts(data: Mapping[str, Any]) -> Iterator[str]:
    """The facts about the run, from the keys that every schema begins with."""
    problem, environment = data.get("problem", {}), data.get("environment", {})
    facts = {"status": data.get("status")}
    if "loss" in problem:
        facts["loss"] = f"{problem['loss']}, {problem.get('reduction')} over the examples"
    facts |= {_NAMES.get(name, name): version for name, version in environment.items()}
    yield "<dl>"
    for name, value in facts.items():
        if value is not None:
            yield f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
    yield "</dl>"


def plots_and_tables(document: Document, largest_svg: int) -> Iterator[str]:
    """The plots, as images of at most ``largest_svg`` bytes if they are SVG, and the tables.

    What a notebook, which has its own style sheet, must show as well is set on the elements.
    """
    missing = matplotlib_is_missing() if document.drawings else None
    if missing is not None:
        yield (
            f'<p class="note">The plots are left out: they need matplotlib '
            f"({escape(missing)}); <code>{escape(INSTALL)}</code>.</p>"
        )
    for drawing in () if missing is not None else document.drawings:
        address, title = _image_address(drawing, largest_svg), escape(f"Plot. {drawing.title}")
        yield f'<figure><img src="{address}" alt="{title}" style="max-width: 100%">'
        yield f"<figcaption>{escape(drawing.caption)}</figcaption></figure>"
    for table in document.tables:
        yield from _table(table)


def _image_address(drawing: Drawing, largest_svg: int) -> str:
    """A drawing as a data: address: an image of its own, with ids that clash with no other's."""
    kind, image = "svg+xml", drawn([drawing], "svg")
    if len(image) > largest_svg:
        kind, image = "png", drawn([drawing], "png")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def _table(table: Table) -> Iterator[str]:
    # A table that scrolls can be reached by the keyboard.
    yield f'<div class="table" tabindex="0" role="group" aria-label="{escape(table.title)}"><table>'
    yield f'<caption style="text-align: left"><b>{escape(table.title)}</b></caption>'
    if table.rows:
        titles = [column.title for column in table.columns]
        yield f"<thead>{_row('th', titles, table.columns)}</thead>"
    yield "<tbody>"
    for row in table.rows:
        yield _row("td", row, table.columns)
    yield "</tbody></table></div>"
    for note in table.notes:
        yield f'<p class="note">{escape(note)}</p>'


def _row(element: str, cells: Iterable[str], columns: tuple[Column, ...]) -> str:
    parts: list[str] = []
    for cell, column in zip(cells, columns, strict=True):
        style = f"padding: 0.2em 0.6em; text-align: {'right' if column.numeric else 'left'}"
        # A verdict may carry a dagger.
        verdict = _COLOURS.get(cell.rstrip("†"))
        if verdict is not None:
            style = f"color: {verdict}; font-weight: bold; {style}"
        parts.append(f'<{element} style="{style}">{escape(cell)}</{element}>')
    return f"<tr>{''.join(parts)}</tr>"
