"""Where a result goes: the options, and the line on standard error about files."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hesscli.system.errors import one_line
from hesscli.system.files import check_writable

if TYPE_CHECKING:
    from hesscli.report.document import Document

Command = TypeVar("Command", bound=Callable[..., Any])

FORMATS = ("table", "json", "csv", "markdown", "junit", "html")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)")
# Inches: below, nothing can be read; above, an image takes gigabytes.
_SMALLEST, _LARGEST = 1.0, 100.0


@dataclass(frozen=True)
class OutputOptions:
    """Where the result goes; ``format_name`` None leaves the format to each file's suffix."""

    format_name: str | None
    paths: tuple[str, ...] = ()
    quiet: bool = False

    def write(self, document: Document) -> None:
        """Writes ``document`` to each file, and the verdict to standard error.

        Without a file it goes to standard output.
        """
        from hesscli.report.formats import format_of
        from hesscli.report.output import verdict_line, write_document

        for path in self.paths:
            write_document(document, self.format_name or format_of(path), path)
        if self.quiet:
            return
        if self.paths:
            line = f"hesscli {verdict_line(document)}; written to {', '.join(self.paths)}"
            click.echo(one_line(line), err=True)
        else:
            write_document(document, self.format_name or "table", None)


format_option = click.option(
    "--format",
    "-f",
    "format_name",
    type=click.Choice(FORMATS),
    metavar="NAME",
    help="json, csv, markdown, junit, html.",
    show_default="table",
)
quiet_option = click.option(
    "--quiet", "-q", is_flag=True, help="Print errors only; the exit code is the verdict."
)


def output_options(function: Command) -> Command:
    """Adds ``--format``, ``--output`` and ``--quiet``; the command gets them as ``output``."""

    @format_option
    @click.option(
        "--output",
        "-o",
        "paths",
        metavar="FILE",
        type=click.Path(),
        multiple=True,
        help="File (.json .csv .md .xml .txt .html); repeatable.",
    )
    @quiet_option
    @functools.wraps(function)
    def wrapper(
        *, format_name: str | None, paths: tuple[str, ...], quiet: bool, **others: Any
    ) -> Any:
        for path in paths:
            if format_name is None:
                from hesscli.report.formats import format_of

                format_of(path)
            # Before anything is computed that could not be written.
            check_writable(path)
        return function(output=OutputOptions(format_name, paths, quiet), **others)

    return wrapper  # type: ignore[return-value]  # Click's decorators keep no signature


@dataclass(frozen=True)
class PlotOptions:
    """A file to draw into, how large its letters are, and its size in inches."""

    path: str
    style: str
    size: tuple[float, float] | None


def _inches(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[float, float] | None:
    if text is None:
        return None
    match = _SIZE.fullmatch(text)
    size = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    if not all(_SMALLEST <= side <= _LARGEST for side in size):
        raise click.BadParameter(
            f"{text!r}; write width and height in inches, {_SMALLEST:g} to {_LARGEST:g}, as in "
            "10x5.6",
            context,
            parameter,
        )
    return size


def plot_option(function: Command) -> Command:
    """Adds ``--plot`` and how it looks; the command gets PlotOptions, or None, as ``plot``.

    What would keep it from being drawn is found before anything is computed.
    """

    @click.option(
        "--plot", metavar="FILE", type=click.Path(), help="Draw the result (.png .svg .pdf)."
    )
    @click.option(
        "--plot-style",
        metavar="NAME",
        type=click.Choice(("paper", "slides")),
        default="paper",
        help="paper, or slides (larger).",
    )
    @click.option("--plot-size", metavar="WxH", callback=_inches, help="Inches, as in 10x5.6.")
    @functools.wraps(function)
    def wrapper(
        *,
        plot: str | None,
        plot_style: str,
        plot_size: tuple[float, float] | None,
        **others: Any,
    ) -> Any:
        if plot is None:
            return function(plot=None, **others)
        from hesscli.report.plots import check_plot

        check_plot(plot)
        return function(plot=PlotOptions(plot, plot_style, plot_size), **others)

    return wrapper  # type: ignore[return-value]  # Click's decorators keep no signature
