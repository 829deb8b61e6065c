"""A document's drawings as an image file, by matplotlib, which is imported only here and there.

Figures are made without pyplot: nothing is global, no window system is looked for.
"""

from __future__ import annotations

import io
import logging
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hesscli.report.document import Document, Drawing
from hesscli.report.plotstyle import COLOURS, GREY, LINE_STYLES, MARKERS, PAPER, STYLES
from hesscli.system.errors import InputError, reason
from hesscli.system.files import check_writable, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches; drawings have heights of their own.
WIDTH = 7.0
_HEADING_HEIGHT = 0.3
# Characters of a bold title that fit the width.
_TITLE_LENGTH = 85
# The most colours of an image of one byte per pixel.
_COLOURS = 256
INSTALL = "pip install 'hesscli[plot]'"
# Metadata that is left out of each format, so that the same result gives the same file.
_UNDATED = MappingProxyType({"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}})


def check_plot(path: str) -> None:
    """Raises InputError if ``path`` cannot be drawn: suffix, folder, or no matplotlib."""
    _format_of(path)
    check_writable(path)
    _require_matplotlib(f"--plot {path}")


def write_plot(
    document: Document, path: str, style: str = PAPER, size: tuple[float, float] | None = None
) -> None:
    """Draws all of the document's drawings into ``path``, below each other; by its suffix.

    ``style`` is one of STYLES; ``size`` is width and height in inches. Raises InputError if there
    is nothing to draw or the file cannot be written.
    """
    check_plot(path)
    _require_drawings(document, f"--plot {path}")
    heading = document.heading.splitlines()[0]
    # Drawn before the file is opened: an error of a drawing is none of the file's.
    image = drawn(document.drawings, _format_of(path), heading, style, size)
    with replacing(path) as stream:
        stream.write(image)


def figure_of(
    document: Document, style: str = PAPER, size: tuple[float, float] | None = None
) -> Figure:
    """All of the document's drawings on a figure of their own, below each other.

    Raises InputError if there is nothing to draw, or no matplotlib.
    """
    _require_matplotlib("plot")
    _require_drawings(document, "plot")
    with _house_style(style):
        return _figure(document.drawings, document.heading.splitlines()[0], size)


def draw_in(document: Document, axes: Axes, style: str = PAPER) -> Figure:
    """The document's only drawing in the place of ``axes`` in their figure, which is returned.

    Raises InputError if there are several drawings or none, or if the axes have no place in a
    grid, as those of ``plt.subplots`` have.
    """
    _require_matplotlib("plot")
    _require_drawings(document, "plot")
    place = axes.get_subplotspec()
    if len(document.drawings) > 1 or place is None:
        wrong = f"{len(document.drawings)} plots" if place else "axes that stand in no grid"
        raise InputError(
            f"plot: axes: {wrong}; a result with one plot, of one activation, can be drawn in "
            "axes of plt.subplots"
        )
    figure = axes.get_figure(root=True)
    assert figure is not None
    axes.remove()
    (drawing,) = document.drawings
    with _house_style(style):
        part = figure.add_subfigure(place)
        inches = place.get_position(figure).width * figure.get_figwidth()
        length = round(_TITLE_LENGTH * inches / WIDTH)
        part.suptitle(textwrap.fill(drawing.title, max(length, 1)))
        drawing.draw(part)
    return figure


def _require_drawings(document: Document, asked_by: str) -> None:
    if not document.drawings:
        raise InputError(f"{asked_by}: this result has no plot")


def matplotlib_is_missing() -> str | None:
    """Why matplotlib cannot be used, None if it can."""
    # It logs messages on its font cache and on folders that it cannot write to.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        import matplotlib.figure  # noqa: F401
    # A ValueError comes of a MPLBACKEND that does not exist.
    except (ImportError, ValueError) as error:
        return reason(error)
    return None


def drawn(
    drawings: Sequence[Drawing],
    format_name: str,
    heading: str | None = None,
    style: str = PAPER,
    size: tuple[float, float] | None = None,
) -> bytes:
    """An image of one figure, in the format png, svg or pdf, with ``heading`` above."""
    stream = io.BytesIO()
    with _house_style(style):
        figure = _figure(drawings, heading, size)
        figure.savefig(stream, format=format_name, metadata=_UNDATED[format_name])
    return _with_palette(stream) if format_name == "png" else stream.getvalue()


def _with_palette(png: io.BytesIO) -> bytes:
    """The same image with a palette: a third of the size, its few colours as they were.

    If lines are smoothed there are more than the 256 that a palette holds; those are off by
    some levels in 255.
    """
    # Comes with matplotlib.
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    stream = io.BytesIO()
    with Image.open(png) as image:
        information = PngInfo()
        for key, text in image.text.items():
            information.add_text(key, text)
        few = image.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE)
        few.save(stream, format="png", optimize=True, dpi=image.info["dpi"], pnginfo=information)
    return stream.getvalue()


def _figure(
    drawings: Sequence[Drawing], heading: str | None, size: tuple[float, float] | None = None
) -> Figure:
    from matplotlib.figure import Figure

    heights = [drawing.height for drawing in drawings]
    above = 0.0 if heading is None else _HEADING_HEIGHT
    figure = Figure(figsize=size or (WIDTH, sum(heights) + above), layout="constrained")
    if heading is not None:
        figure.suptitle(heading, fontsize="small", fontweight="normal", color=GREY)
    parts = figure.subfigures(len(drawings), 1, squeeze=False, height_ratios=heights)
    for part, drawing in zip(parts[:, 0], drawings, strict=True):
        part.suptitle(textwrap.fill(drawing.title, _TITLE_LENGTH))
        drawing.draw(part)
    return figure


@contextmanager
def _house_style(style: str) -> Iterator[None]:
    import matplotlib as mpl
    from cycler import cycler

    colours = [COLOURS[index % len(COLOURS)] for index in range(len(MARKERS))]
    # Any: the type of a setting's key differs between versions of matplotlib.
    settings: Any = {
        **STYLES[style],
        "axes.prop_cycle": cycler(color=colours, linestyle=LINE_STYLES, marker=MARKERS),
    }
    with mpl.rc_context(), warnings.catch_warnings():
        # Warnings about missing glyphs or long names do not matter: the figure is drawn anyway.
        warnings.filterwarnings("ignore", category=UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def _format_of(path: str) -> str:
    suffix = PurePath(path).suffix
    format_name = suffix.lower().removeprefix(".")
    if format_name not in _UNDATED:
        known = ", ".join(f".{name}" for name in _UNDATED)
        raise InputError(f"--plot {path}: the suffix {suffix!r} names no image; use {known}")
    return format_name


def _require_matplotlib(asked_by: str) -> None:
    missing = matplotlib_is_missing()
    if missing is not None:
        raise InputError(f"{asked_by}: plots need matplotlib ({missing}); {INSTALL}")
