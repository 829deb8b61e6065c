"""Where a document goes: standard output, or a file that is written whole or not at all."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from rich.console import Console

from hesscli.report.document import Document
from hesscli.report.formats import render
from hesscli.report.tables import print_table
from hesscli.system.errors import InputError, reason
from hesscli.system.files import replacing


def write_document(document: Document, format_name: str, path: str | None) -> None:
    """Writes ``document`` to ``path``, or to standard output if it is None.

    Raises InputError if the file cannot be written.
    """
    if path is not None:
        with replacing(path) as stream:
            stream.write(render(document, format_name).encode("utf-8"))
        return
    console = Console(file=sys.stdout, force_jupyter=False)
    if format_name == "table" and console.is_terminal:
        if console.no_color:
            # Rich would still write in bold.
            console = Console(file=sys.stdout, force_jupyter=False, color_system=None)
        print_table(document, console)
    else:
        write_text(render(document, format_name))


def verdict_line(document: Document) -> str:
    """The command, its verdict, and how many of its cases pass, as in ``verify: PASS, 3 of 3``."""
    command = str(document.data["schema"]).split("/")[1]
    cases = document.cases
    passed = sum(case.failure is None for case in cases)
    how_many = f", {passed} of {len(cases)}" if cases else ""
    return f"{command}: {str(document.data['status']).upper()}{how_many}"


def write_text(text: str) -> None:
    """Writes ``text`` to standard output; raises InputError if that is full.

    A reader that has seen enough, such as ``head``, is not an error: the verdict stands.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        write_no_more(sys.stdout)
    except OSError as error:
        write_no_more(sys.stdout)
        raise InputError(f"standard output cannot be written ({reason(error)})") from error


def write_no_more(stream: TextIO) -> None:
    """Redirects a standard stream to the null device.

    Otherwise Python flushes its buffer when it ends, complains, and exits with a code of its
    own.
    """
    # A program that calls this as a function may have replaced the stream by one without a file.
    with suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
