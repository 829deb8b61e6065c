"""``hesscli verify --plot``: residuals against what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hesscli.report.common import activations_of
from hesscli.report.document import FAIL, PASS, UNDECIDED, Drawing, verdict_text
from hesscli.report.panels import Panel, axes_of, by_panel, height
from hesscli.report.plotstyle import BLACK, BLUE, RED, YELLOW, legend_below
from hesscli.studies.judge import Check, relative

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

_MARKS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        PASS: {"marker": "o", "color": BLUE},
        FAIL: {"marker": "X", "color": RED, "markersize": 8},
        UNDECIDED: {"marker": "D", "color": YELLOW},
    }
)
_ALLOWED: Mapping[str, Any] = MappingProxyType(
    {"marker": "|", "color": BLACK, "markersize": 11, "markeredgewidth": 1.6}
)


@dataclass(frozen=True)
class Residuals:
    """The check of one activation and layer."""

    activation: str
    layer: str
    check: Check


def residual_drawing(rows: Sequence[Residuals], what: str) -> Drawing:
    """Residuals relative to the largest entry, on a logarithmic scale; ``what`` was verified."""
    panels = by_panel(rows)

    def draw(figure: FigureBase) -> None:
        low, high = _limits(rows)
        axes = axes_of(figure, panels)
        for ax, panel in zip(axes, panels, strict=True):
            ax.set_xscale("log")
            ax.set_xlim(low, high)
            _draw_panel(ax, panel)
        for ax in axes[-3:]:
            ax.set_xlabel("residual, relative to the largest")
        legend_below(figure, axes, 4)

    return Drawing(
        title=f"{activations_of(rows)}: {what}",
        caption=(
            "The largest residual of what was compared, relative to the largest entry (of "
            "quadratic forms, to |G| + |C|), and what is allowed: the tolerance, rounding and the "
            "error bars of finite differences together. A residual of 0 is a ring at the left edge."
        ),
        draw=draw,
        height=height(panels),
    )


def _allowed(check: Check) -> float:
    return check.rtol + relative(check.floor + check.error_bar, check.max_abs_entry)


def _limits(rows: Iterable[Residuals]) -> tuple[float, float]:
    """From a decade below the smallest number to one above the largest."""
    numbers = [n for row in rows for n in (row.check.relative_residual, _allowed(row.check))]
    shown = [number for number in numbers if 0 < number < math.inf] or [1.0]
    return min(shown) / 10, max(shown) * 10


def _draw_panel(ax: Axes, panel: Panel[Residuals]) -> None:
    edge, end = ax.get_xlim()
    for place, row in enumerate(panel.rows):
        residual, allowed = row.check.relative_residual, _allowed(row.check)
        if 0 < allowed < math.inf:
            ax.plot(allowed, place, linestyle="", label="allowed", **_ALLOWED)
        result = verdict_text(row.check.verdict)
        ax.plot(
            min(residual, end) if residual > 0 else edge,
            place,
            linestyle="",
            label=f"{'residual' if residual > 0 else 'residual 0'}: {result}",
            markerfacecolor=_MARKS[result]["color"] if residual > 0 else "white",
            # In front of the axis.
            clip_on=False,
            zorder=5,
            **_MARKS[result],
        )
