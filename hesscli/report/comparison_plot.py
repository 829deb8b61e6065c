"""``hesscli compare --plot``: the two terms of each quadratic form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesscli.report.common import activations_of
from hesscli.report.document import Drawing
from hesscli.report.panels import Panel, axes_of, by_panel, height
from hesscli.report.plotstyle import BLACK, GREY, TERM_BARS, TERM_NAMES
from hesscli.studies.comparison import ComparedBlock, Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

# The height of each of the two bars of a row; the rest is space between rows.
_BAR = 0.36


def comparison_drawing(result: Comparison) -> Drawing:
    """Signed bars of G and C for each activation and layer, with H = G + C as a mark."""
    panels = by_panel(result.results)

    def draw(figure: FigureBase) -> None:
        axes = axes_of(figure, panels)
        for ax, panel in zip(axes, panels, strict=True):
            _draw_panel(ax, panel)
        for ax in axes[-3:]:
            ax.set_xlabel("relative to |vᵀGv| + |vᵀCv|,\nwhich is on the right")
        (mark, *bars), names = axes[0].get_legend_handles_labels()
        figure.legend([*bars, mark], [*names[1:], names[0]], loc="outside lower center", ncols=3)

    activations = activations_of(result.results)
    return Drawing(
        title=f"{activations}: the terms of vᵀHv = vᵀGv + vᵀCv at the {result.block}",
        caption=(
            "By the chain rule, the Gauss–Newton term vᵀGv and the curvature term vᵀCv, each "
            "with its sign, and their sum vᵀHv, in units of |vᵀGv| + |vᵀCv|, which stands on the "
            "right. If the curvature term has no bar, the Gauss–Newton term is the Hessian."
        ),
        draw=draw,
        height=height(panels),
    )


def _draw_panel(ax: Axes, panel: Panel[ComparedBlock]) -> None:
    terms = ("gauss_newton", "curvature")
    scales = [sum(abs(getattr(row.chain_rule, term)) for term in terms) for row in panel.rows]
    for offset, term in zip((-_BAR / 2, _BAR / 2), terms, strict=True):
        ax.barh(
            [place + offset for place in range(len(panel.rows))],
            [
                _part(getattr(row.chain_rule, term), scale)
                for row, scale in zip(panel.rows, scales, strict=True)
            ],
            _BAR,
            label=TERM_NAMES[term],
            edgecolor=BLACK,
            linewidth=0.5,
            **TERM_BARS[term],
        )
    ax.plot(
        [
            _part(row.chain_rule.gauss_newton + row.chain_rule.curvature, scale)
            for row, scale in zip(panel.rows, scales, strict=True)
        ],
        range(len(panel.rows)),
        linestyle="",
        marker="D",
        color="white",
        markeredgecolor=BLACK,
        label="their sum, the Hessian",
    )
    for place, scale in enumerate(scales):
        ax.text(
            1.02,
            place,
            "0" if scale == 0 else f"{scale:.1e}",
            transform=ax.get_yaxis_transform(),
            verticalalignment="center",
            fontsize="x-small",
            color=GREY,
        )
    ax.axvline(0, color=BLACK, linewidth=0.8)
    ax.set_xlim(-1.08, 1.08)
    ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "", "0", "", "1"])


def _part(value: float, scale: float) -> float:
    return value / scale if scale > 0 else 0.0
