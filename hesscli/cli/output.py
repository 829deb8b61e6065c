"""Where a result goes: the options, and the line on standard error about files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from hesscli.cli.command import file_option, gathered
from hesscli.system.errors import one_line
from hesscli.system.files import check_writable

if TYPE_CHECKING:
    from hesscli.report.document import Document

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

    def __post_init__(self) -> None:
        for path in self.paths:
            if self.format_name is None:
                from hesscli.report.formats import format_of

                format_of(path)
            # Before anything is computed that could not be written.
            check_writable(path)

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
# A command gets them as ``output``.
output_options = gathered(
    OutputOptions,
    "output",
    format_option,
    file_option(
        "--output",
        "-o",
        "paths",
        multiple=True,
        help="File (.json .csv .md .xml .txt .html); repeatable.",
    ),
    click.option(
        "--quiet", "-q", is_flag=True, help="Print errors only; the exit code is the verdict."
    ),
)


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


def _plot(
    plot: str | None, plot_style: str, plot_size: tuple[float, float] | None
) -> PlotOptions | None:
    if plot is None:
        return None
    from hesscli.report.plots import check_plot

    # Before anything is computed that could not be drawn.
    check_plot(plot)
    return PlotOptions(plot, plot_style, plot_size)


# A command gets PlotOptions, or None, as ``plot``.
plot_option = gathered(
    _plot,
    "plot",
    file_option("--plot", help="Draw the result (.png .svg .pdf)."),
    click.option(
        "--plot-style",
        metavar="NAME",
        type=click.Choice(("paper", "slides")),
        default="paper",
        help="paper, or slides (larger).",
    ),
    click.option("--plot-size", metavar="WxH", callback=_inches, help="Inches, as in 10x5.6."),
)
