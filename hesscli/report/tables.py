"""A document's tables as people read them, by Rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from hesscli.report.bars import ascii_of
from hesscli.report.document import FAIL, PASS, UNDECIDED, Column, Document, Table

_STYLES = {PASS: "bold green", FAIL: "bold red", UNDECIDED: "bold yellow"}

# The lines of a file or a pipe, but for tables that need more: these are not broken.
WIDTH = 80


def print_table(document: Document, console: Console) -> None:
    """The tables as people read them, on ``console``: within its width if it is a terminal."""
    width = console.width if console.is_terminal else None
    if not console.encoding.startswith("utf"):
        # Before its columns are measured: some signs stand for two.
        document = _in_ascii(document)
    # Rich would cut off what is wider than the console.
    console.print(_renderable(document, width), crop=False)


def _in_ascii(document: Document) -> Document:
    tables = tuple(
        Table(
            ascii_of(table.title),
            tuple(replace(column, title=ascii_of(column.title)) for column in table.columns),
            tuple(tuple(map(ascii_of, row)) for row in table.rows),
            tuple(map(ascii_of, table.notes)),
        )
        for table in document.tables
    )
    return replace(document, heading=ascii_of(document.heading), tables=tables)


def _renderable(document: Document, width: int | None) -> RenderableType:
    parts: list[RenderableType] = [Text(document.heading)]
    for table in document.tables:
        parts.append(Text())
        parts.append(Text(table.title, style="bold"))
        parts += [rich_table(table, width)] if table.rows else []
        parts.extend(Padding(styled(note), (0, 0, 0, 1)) for note in table.notes)
    return Group(*parts)


def rich_table(table: Table, width: int | None = None) -> RichTable:
    """One table without its title and notes, in at most ``width`` columns if any are given.

    Text is broken between words if it has to be, and numbers never: a table that is still too wide
    is turned on its side.
    """
    if width is not None and _width(table, _longest_word) > width:
        return _on_its_side(table)
    natural = _width(table, cell_len)
    rich = RichTable(
        box=box.SIMPLE_HEAD,
        padding=(0, 1 if natural + len(table.columns) - 1 <= (width or WIDTH) else 0),
        collapse_padding=True,
        pad_edge=False,
        width=natural if width is None and natural > WIDTH else None,
    )
    for column, cells in _columns(table):
        rich.add_column(
            column.title,
            justify="right" if column.numeric else "left",
            min_width=max(map(_longest_word, cells)),
            # A number that is broken is another number.
            no_wrap=column.numeric,
        )
    for row in table.rows:
        rich.add_row(*(styled(cell) for cell in row))
    return rich


def _on_its_side(table: Table) -> RichTable:
    """A line for each cell that is not empty, after its title, and a gap between rows."""
    rich = RichTable.grid(padding=(0, 2, 0, 0))
    rich.add_column(no_wrap=True)
    rich.add_column(overflow="fold")
    for row in table.rows:
        rich.add_row()
        for column, cell in zip(table.columns, row, strict=True):
            if cell:
                rich.add_row(Text(f" {column.title}"), styled(cell))
    return rich


def _columns(table: Table) -> Iterator[tuple[Column, tuple[str, ...]]]:
    """Each column with all that stands in it, its title first."""
    for index, column in enumerate(table.columns):
        yield column, (column.title, *(row[index] for row in table.rows))


def _width(table: Table, width_of: Callable[[str], int]) -> int:
    """The columns of a table whose numbers are whole and whose text is as wide as ``width_of``."""
    widths = (
        max(map(cell_len if column.numeric else width_of, cells))
        for column, cells in _columns(table)
    )
    # A space before each column, and one at the end.
    return sum(widths) + len(table.columns) + 1


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


def styled(text: str) -> Text:
    """Text with its verdicts in colour."""
    result = Text(text)
    for word, style in _STYLES.items():
        result.highlight_words([word], style)
    return result
