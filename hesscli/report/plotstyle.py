"""How plots look: legible in greyscale and to the colour-blind, by names, without matplotlib.

The colours are the "high-contrast" scheme of Paul Tol (Colour Schemes, SRON/EPS/TN/09-002, 2021),
made to stay apart when printed in grey, and black. Line styles, markers and hatches tell series
apart once more, so that no plot speaks in colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

BLUE, RED, YELLOW, BLACK = "#004488", "#BB5566", "#DDAA33", "#000000"
GREY = "#666666"
COLOURS = (BLUE, RED, YELLOW, BLACK)
# Eight series are told apart: the second four have the same colours, other lines and markers.
LINE_STYLES = ("-", "--", "-.", ":", "--", "-.", ":", "-")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")

# The Hessian and its two terms look the same in every plot. As keywords of Axes.plot:
TERM_LINES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "hessian": {"color": BLACK, "linestyle": "-", "marker": "o"},
        "gauss_newton": {"color": BLUE, "linestyle": "--", "marker": "s"},
        "curvature": {"color": YELLOW, "linestyle": "-.", "marker": "^"},
    }
)
# and of Axes.bar:
TERM_BARS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "hessian": {"color": BLACK},
        "gauss_newton": {"color": BLUE},
        "curvature": {"color": YELLOW, "hatch": "////"},
    }
)
TERM_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "hessian": "Hessian",
        "gauss_newton": "Gauss–Newton term",
        "curvature": "curvature term",
    }
)


def series(index: int) -> dict[str, Any]:
    """Colour, line style and marker of the ``index``-th of several lines, for Axes.plot."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINE_STYLES[index % len(LINE_STYLES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def legend_below(figure: FigureBase, axes: Iterable[Axes], columns: int) -> None:
    """One legend below the axes, with everything that is labelled in any of them."""
    shown: dict[str, Any] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            shown.setdefault(name, handle)
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=columns)


# matplotlib's settings for paper, on top of its own defaults whatever the user's matplotlibrc says.
_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.labelsize": 9,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "figure.titlesize": 10,
        "figure.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#DDDDDD",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.4,
        "lines.markersize": 4.5,
        "hatch.linewidth": 0.6,
        "figure.constrained_layout.w_pad": 0.08,
        "figure.constrained_layout.h_pad": 0.06,
        "savefig.dpi": 200,
        # Text in a PDF stays text, and ids in an SVG are the same each time.
        "pdf.fonttype": 42,
        "svg.hashsalt": "hesscli",
    }
)

# How much larger letters and lines are on slides.
_LARGER = 1.5
PAPER = "paper"
STYLES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        PAPER: _SETTINGS,
        "slides": {
            key: value * _LARGER if key.endswith(("size", "linewidth")) else value
            for key, value in _SETTINGS.items()
        },
    }
)
