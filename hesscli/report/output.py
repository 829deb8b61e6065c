"""Where a document goes: standard output, or a file that is written whole or not at all."""

from __future__ import annotations

import sys

from rich.console import Console

from hesscli.problem.files import replacing
from hesscli.report.document import Document
from hesscli.report.formats import print_table, render


def write_document(document: Document, format_name: str, path: str | None) -> None:
    """Writes ``document`` to ``path``, or to standard output where it is None.

    Raises InputError where the file cannot be written.
    """
    if path is not None:
        with replacing(path) as stream:
            stream.write(render(document, format_name).encode("utf-8"))
        return
    console = Console(file=sys.stdout)
    if format_name == "table" and console.is_terminal:
        print_table(document, console)
    else:
        sys.stdout.write(render(document, format_name))
