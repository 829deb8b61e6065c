"""``hesscli sweep --plot``: where curvature enters on the way back through the network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hesscli.report.common import activations_of, by_activation
from hesscli.report.document import Drawing
from hesscli.report.plotstyle import BLACK, BLUE, YELLOW, legend_below
from hesscli.studies.sweep import Sweep, SweptNode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

# Panels next to each other; inches of a panel's height and of what is below all panels.
_COLUMNS = 2
_PANEL, _BELOW = 1.9, 1.5
# Nodes whose names fit below a panel of the full width without being turned.
_UPRIGHT = 8


def sweep_drawing(result: Sweep) -> Drawing:
    """Norms of I, O and S at each node, backwards, in a panel for each activation."""
    groups = by_activation(result.results)
    lines = math.ceil(len(groups) / _COLUMNS)

    def draw(figure: FigureBase) -> None:
        columns = min(len(groups), _COLUMNS)
        axes = (
            figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
            .ravel()
            .tolist()
        )
        for ax, (activation, rows) in zip(axes, groups, strict=False):
            _draw_panel(ax, rows)
            _name_nodes(ax, rows, alone=len(groups) == 1)
            ax.set_title(activation)
        for ax in axes[len(groups) :]:
            ax.remove()
            # What the panel that is gone said for its column.
            axes[len(groups) - columns].tick_params(labelbottom=True)
        for ax in axes[::columns]:
            ax.set_ylabel("Frobenius norm")
        legend_below(figure, axes[:1], 3)

    return Drawing(
        title=f"{activations_of(result.results)}: where curvature enters on the way back",
        caption=(
            "Frobenius norms over all examples, by the chain rule, at the input of each node: of "
            "the linear part I that the node hands on, of the curvature part O that it adds (not "
            "drawn if it is 0), and of the Hessian S = I + O. Curvature enters at the nodes where "
            "O is drawn, which are shaded."
        ),
        draw=draw,
        height=3.6 if len(groups) == 1 else _PANEL * lines + _BELOW,
    )


def _draw_panel(ax: Axes, rows: tuple[SweptNode, ...]) -> None:
    places = range(len(rows))
    ax.plot(
        places, _drawable(row.S_norm for row in rows), color=BLACK, marker="o", label="Hessian S"
    )
    ax.plot(
        places,
        _drawable(row.I_norm for row in rows),
        color=BLUE,
        linestyle="--",
        marker="s",
        label="linear part I",
    )
    ax.plot(
        places,
        _drawable(row.O_norm for row in rows),
        color=YELLOW,
        linestyle="",
        marker="^",
        markersize=8,
        markeredgecolor=BLACK,
        label="curvature part O",
    )
    for place, row in enumerate(rows):
        if row.O_norm > 0:
            ax.axvspan(place - 0.4, place + 0.4, color="#EEEEEE", zorder=0)
    if any(row.S_norm > 0 for row in rows):
        ax.set_yscale("log")
    ax.grid(visible=False, axis="x")


def _drawable(norms: Iterable[float]) -> list[float]:
    """A logarithmic scale has no place for 0."""
    return [norm if norm > 0 else math.nan for norm in norms]


def _name_nodes(ax: Axes, rows: tuple[SweptNode, ...], alone: bool) -> None:
    if not alone:
        # An activation is named by its panel, so that its node has the name of its layer here.
        names = [f"{row.label.split()[0]} {row.quantity}" for row in rows]
        ax.set_xticks(range(len(rows)), names, rotation=60, ha="right", fontsize="x-small")
    elif len(rows) <= _UPRIGHT:
        names = ["\n".join((*row.label.split(), row.quantity)) for row in rows]
        ax.set_xticks(range(len(rows)), names)
    else:
        names = [f"{row.label}  {row.quantity}" for row in rows]
        ax.set_xticks(range(len(rows)), names, rotation=90)
