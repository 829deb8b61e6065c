"""A study's result as text, as a file or as a plot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hesscli.api.problems import require_one_of
from hesscli.report import formats
from hesscli.report.document import Document
from hesscli.report.documents import document_of
from hesscli.report.output import write_document
from hesscli.report.plots import draw_in, figure_of, write_plot
from hesscli.report.plotstyle import STYLES
from hesscli.system.errors import InputError
from hesscli.system.near import nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    if the file cannot be written.
    """
    name = os.fspath(path)
    write_document(document(result), formats.format_of(name), name)


def plot(
    result: object,
    path: str | os.PathLike[str] | None = None,
    *,
    axes: Axes | None = None,
    style: str = "paper",
    size: tuple[float, float] | None = None,
) -> Figure:
    """The result's plots on a Matplotlib figure, below each other; a notebook shows it.

    With ``path`` they are also written to a file: .png, .svg or .pdf. With ``axes``, those of a
    ``plt.subplots``, the plot takes their place in their figure. ``style`` is "paper" or
    "slides", and ``size`` width and height in inches.

    Raises InputError if the result has no plot, matplotlib is not installed, the file cannot be
    written, or a result with several plots is to be drawn in axes.
    """
    require_one_of("style", style, tuple(STYLES))
    of = document(result)
    if path is not None:
        if axes is not None:
            raise InputError("plot: path and axes; give one of them, or save the axes' figure")
        write_plot(of, os.fspath(path), style, size)
    return figure_of(of, style, size) if axes is None else draw_in(of, axes, style)
