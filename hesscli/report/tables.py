"""A document's tables as people read them, by Rich."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from hesscli.report.document import FAIL, PASS, UNDECIDED, Document, Table

_STYLES = {PASS: "bold green", FAIL: "bold red", UNDECIDED: "bold yellow"}

# What a table must fit into where there is no terminal to ask.
WIDTH = 80


def print_table(document: Document, console: Console) -> None:
    """The tables as people read them, on ``console``."""
    console.print(_renderable(document, console.width))


def _renderable(document: Document, width: int) -> RenderableType:
    parts: list[RenderableType] = [Text(document.heading)]
    for table in document.tables:
        parts.append(Text())
        parts.append(Text(table.title, style="bold"))
        parts.append(rich_table(table, width))
        parts.extend(Padding(styled(note), (0, 0, 0, 1)) for note in table.notes)
    return Group(*parts)


def rich_table(table: Table, width: int) -> RichTable:
    """One table without its title and notes, in at most ``width`` columns where it can be."""
    rich = RichTable(
        box=box.SIMPLE_HEAD,
        padding=(0, 1 if _natural_width(table) <= width else 0),
        collapse_padding=True,
        pad_edge=False,
    )
    for column in table.columns:
        rich.add_column(
            column.title,
            justify="right" if column.numeric else "left",
            overflow="fold",
            # A number that is broken is another number.
            no_wrap=column.numeric,
        )
    for row in table.rows:
        rich.add_row(*(styled(cell) for cell in row))
    return rich


def _natural_width(table: Table) -> int:
    """The width with two spaces around every column, as the wider padding sets it."""
    lines = (tuple(column.title for column in table.columns), *table.rows)
    return sum(max(len(cell) for cell in cells) + 2 for cells in zip(*lines, strict=True))


def styled(text: str) -> Text:
    """Text with its verdicts in colour."""
    result = Text(text)
    for word, style in _STYLES.items():
        result.highlight_words([word], style)
    return result
