"""A Document as one self-contained page of HTML: what was run, plots, tables."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from hesscli.report.document import Document, Drawing, Table
from hesscli.report.plots import INSTALL, drawn, matplotlib_is_missing
from hesscli.report.tables import WIDTH, rich_table

# Beyond, an SVG of many points is slower to show than its picture is large.
_LARGEST_SVG = 2**20
# Both on white and on the dark ground of _STYLE, the verdicts' colours have a contrast of over 4.
_WHITE, _RED, _GREEN, _YELLOW = (255, 255, 255), (214, 59, 59), (26, 138, 60), (154, 110, 0)
_NORMAL = [(0, 0, 0), _RED, _GREEN, _YELLOW, (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)]
_THEME = TerminalTheme(_WHITE, (0, 0, 0), _NORMAL, _NORMAL)
_NAMES = {"tensorflow": "TensorFlow", "numpy": "NumPy", "scipy": "SciPy", "dtype": "numbers"}
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1a1a1a; --quiet: #595959; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #121212; --text: #e8e8e8; --quiet: #a8a8a8; }
}
body { background: var(--ground); color: var(--text); max-width: 54rem; margin: 2rem auto;
  padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: 0.25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
pre { font: 0.85rem/1.25 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  overflow-x: auto; margin: 0 0 0.75rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; color: var(--quiet); }
dd { margin: 0; }
figure { margin: 1.5rem 0; }
img { width: 100%; height: auto; background: #fff; }
figcaption, .note { color: var(--quiet); }
@media print {
  :root { --ground: #fff; --text: #000; --quiet: #444; }
  body { max-width: none; margin: 0; font-size: 10pt; }
  pre { font-size: 8pt; overflow: visible; }
  figure, pre { break-inside: avoid; }
  h2 { break-after: avoid; }
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
        *_plots(document),
        *(line for table in document.tables for line in _table(table)),
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _facts(data: Mapping[str, Any]) -> Iterator[str]:
    """What was run, of the data that every schema begins with."""
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


def _plots(document: Document) -> Iterator[str]:
    if not document.drawings:
        return
    missing = matplotlib_is_missing()
    if missing is not None:
        yield (
            f'<p class="note">The plots are left out: they need matplotlib '
            f"({escape(missing)}); <code>{escape(INSTALL)}</code>.</p>"
        )
        return
    for drawing in document.drawings:
        yield "<figure>"
        address, title = image_address(drawing, _LARGEST_SVG), escape(f"Plot. {drawing.title}")
        yield f'<img src="{address}" alt="{title}">'
        yield f"<figcaption>{escape(drawing.caption)}</figcaption>"
        yield "</figure>"


def image_address(drawing: Drawing, largest_svg: int) -> str:
    """A drawing as a data: address: an image of its own, with ids that clash with no other's.

    It is a PNG where the SVG has more than ``largest_svg`` bytes.
    """
    kind, image = "svg+xml", drawn([drawing], "svg")
    if len(image) > largest_svg:
        kind, image = "png", drawn([drawing], "png")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def _table(table: Table) -> Iterator[str]:
    yield f"<h2>{escape(table.title)}</h2>"
    if table.rows:
        yield _grid(table)
    for note in table.notes:
        yield f'<p class="note">{escape(note)}</p>'


def _grid(table: Table) -> str:
    # Of no terminal, whatever the environment says about one.
    console = Console(
        file=io.StringIO(),
        record=True,
        width=WIDTH,
        force_terminal=True,
        force_jupyter=False,
        color_system="truecolor",
        no_color=False,
    )
    console.print(rich_table(table), crop=False)
    code = console.export_html(theme=_THEME, code_format="{code}", inline_styles=True)
    text = "\n".join(line.rstrip() for line in code.splitlines())
    # A table that scrolls can be reached by the keyboard.
    return f'<pre tabindex="0" role="group" aria-label="{escape(table.title)}">{text}</pre>'
