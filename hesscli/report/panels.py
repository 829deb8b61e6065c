"""Results by activation and layer as a grid of panels, for plots of several commands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

_MOST_COLUMNS = 3
# Inches of a row, and of what stands above and below each panel and the whole.
_ROW, _PANEL, _LEGEND = 0.3, 0.55, 0.75


class _Row(Protocol):
    @property
    def activation(self) -> str: ...
    @property
    def layer(self) -> str: ...


Row = TypeVar("Row", bound=_Row)


@dataclass(frozen=True)
class Panel(Generic[Row]):
    """A panel's title, and its rows from the top with what each is called."""

    title: str
    names: tuple[str, ...]
    rows: tuple[Row, ...]


def by_panel(rows: Sequence[Row]) -> tuple[Panel[Row], ...]:
    """A panel for each layer, its rows the activations; the reverse if these are fewer."""
    layers = tuple(dict.fromkeys(row.layer for row in rows))
    activations = tuple(dict.fromkeys(row.activation for row in rows))
    if len(layers) <= len(activations):
        groups = [(name, [row for row in rows if row.layer == name]) for name in layers]
        return tuple(
            Panel(name, tuple(row.activation for row in group), tuple(group))
            for name, group in groups
        )
    groups = [(name, [row for row in rows if row.activation == name]) for name in activations]
    return tuple(
        Panel(name, tuple(row.layer for row in group), tuple(group)) for name, group in groups
    )


def height(panels: Sequence[Panel[Row]]) -> float:
    """Inches that the panels need in which no row is cramped, with a legend below."""
    lines = math.ceil(len(panels) / _MOST_COLUMNS)
    return lines * (_PANEL + _ROW * max(len(panel.rows) for panel in panels)) + _LEGEND


def axes_of(figure: FigureBase, panels: Sequence[Panel[Row]]) -> list[Axes]:
    """Axes for each panel with its title, and its rows' names at y = 0, 1, 2 … downwards."""
    columns = min(len(panels), _MOST_COLUMNS)
    lines = math.ceil(len(panels) / columns)
    axes = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    for position, (ax, panel) in enumerate(zip(axes, panels, strict=False)):
        ax.set_title(panel.title)
        ax.set_ylim(len(panel.rows) - 0.4, -0.6)
        # Panels next to each other have the same rows.
        same = position % columns and panel.names == panels[position - 1].names
        ax.set_yticks(range(len(panel.rows)), [""] * len(panel.rows) if same else panel.names)
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
    for ax in axes[len(panels) :]:
        ax.remove()
    return list(axes[: len(panels)])
