"""What a study returned, as text, as a file or as a plot."""

from __future__ import annotations

import os

from hesscli.report import formats
from hesscli.report.document import Document
from hesscli.report.documents import document_of
from hesscli.report.output import write_document
from hesscli.report.plots import write_plot
from hesscli.system.errors import InputError
from hesscli.system.near import nearest


def document(result: object) -> Document:
    """Tables, JSON data, test cases and plots of a result; of a Document, itself.

    Raises TypeError for what no study returns.
    """
    return result if isinstance(result, Document) else document_of(result)


def render(result: object, format_name: str = "table") -> str:
    """The result as ``table``, ``json``, ``csv``, ``markdown``, ``junit`` or ``html``.

    The text is the one that the command prints. Raises InputError for another format.
    """
    if format_name not in formats.FORMATS:
        known = nearest(format_name, list(formats.FORMATS))
        raise InputError(f"format {format_name!r} is unknown{known}")
    return formats.render(document(result), format_name)


def save(result: object, path: str | os.PathLike[str]) -> None:
    """Writes the result to ``path``, whole or not at all; the suffix is the format.

    It is one of .txt, .json, .csv, .md, .xml and .html. Raises InputError for another suffix, and
    where the file cannot be written.
    """
    name = os.fspath(path)
    write_document(document(result), formats.format_of(name), name)


def plot(result: object, path: str | os.PathLike[str]) -> None:
    """Draws the result's plots into ``path``, below each other: .png, .svg or .pdf.

    Raises InputError where the result has no plot, matplotlib is not installed, or the file
    cannot be written.
    """
    write_plot(document(result), os.fspath(path))
