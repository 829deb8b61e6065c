"""``hesscli init --tune --plot``: the norm of each layer's Hessian before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hesscli.report.document import Drawing
from hesscli.report.initialization_plot import NORM_LABELS, NORM_SIGNS
from hesscli.report.plotstyle import GREY, legend_below, series
from hesscli.studies.tuning import TunedBlock, Tuning

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

_MOMENTS = {"before": "before", "reached": "tuned", "fresh": "tuned, other seeds"}
# The three marks of a layer stand next to each other.
_APART = 0.18


def tuning_drawing(result: Tuning, activation: str, rows: Sequence[TunedBlock]) -> Drawing:
    """Three points for each layer, and the target as a line."""

    def draw(figure: FigureBase) -> None:
        ax = figure.subplots()
        for index, (moment, name) in enumerate(_MOMENTS.items()):
            found = [(place, getattr(row, moment)) for place, row in enumerate(rows)]
            # Zero has no place on a logarithmic axis.
            shown = [(place, size) for place, size in found if size is not None and size.mean > 0]
            ax.errorbar(
                [place + (index - 1) * _APART for place, _ in shown],
                [size.mean for _, size in shown],
                yerr=[min(size.stddev or 0.0, 0.9 * size.mean) for _, size in shown],
                label=name,
                capsize=2.5,
                **{**series(index), "linestyle": ""},
            )
        ax.axhline(result.target, color=GREY, linewidth=1, label=f"target {result.target:g}")
        ax.set_yscale("log")
        ax.set_ylabel(f"{NORM_LABELS[result.norm]}, {result.block}")
        ax.set_xticks(range(len(rows)), [row.layer for row in rows])
        ax.grid(visible=False, axis="x")
        legend_below(figure, [ax], 4)

    return Drawing(
        title=f"{activation}: Hessian of each {result.block} before and after tuning",
        caption=(
            f"{NORM_SIGNS[result.norm]} of each layer's block, mean and standard deviation over "
            "the seeds: with the configured initializers, with the tuned ones, and with these at "
            "seeds that the scales were not fitted to. The line is the target."
        ),
        draw=draw,
        height=3.2,
    )
