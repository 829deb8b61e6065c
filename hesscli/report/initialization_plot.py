"""``hesscli init --plot``: norm of the Hessian against the standard deviation of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hesscli.report.document import Drawing
from hesscli.report.plotstyle import GREY, series
from hesscli.studies.initialization import Initialization, InitializedBlock, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

NORM_SIGNS = {"spectral": "‖H‖₂", "frobenius": "‖H‖_F"}
# The same for matplotlib, whose text has no general subscripts.
NORM_LABELS = {"spectral": r"$\Vert H\Vert_2$", "frobenius": r"$\Vert H\Vert_F$"}
# An error bar never reaches zero, which has no place on a logarithmic axis.
_LONGEST_BAR = 0.9


def initialization_drawing(
    result: Initialization, activation: str, rows: Sequence[InitializedBlock], norm: str
) -> Drawing:
    """A line for each layer over --stddev, and a hollow mark for each named initializer."""

    def draw(figure: FigureBase) -> None:
        ax = figure.subplots()
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("standard deviation of the kernel")
        ax.set_ylabel(f"{NORM_LABELS[norm]}, {result.block}")
        for index, layer in enumerate(result.problem.layers):
            _draw_layer(ax, [row for row in rows if row.layer == layer], index, norm)
        _mark_overflow(ax, rows)
        handles, names = ax.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names) or 1)

    seeds = f"{len(result.seeds)} seed{'' if len(result.seeds) == 1 else 's'}"
    return Drawing(
        title=f"{activation}: Hessian of each {result.block} at initialization, {seeds}",
        caption=(
            f"{NORM_SIGNS[norm]} of each layer's block against the standard deviation of its "
            "kernel, mean and standard deviation over the seeds. Lines join the normal "
            "initializers of --stddev; hollow marks are the named initializers. What is 0 is left "
            "out; × above the axes are deviations at which draws overflow."
        ),
        draw=draw,
        height=3.6,
    )


def _draw_layer(ax: Axes, rows: Sequence[InitializedBlock], index: int, norm: str) -> None:
    style = series(index)
    points: list[tuple[InitializedBlock, float, Spread]] = []
    for row in rows:
        size = row.spectral if norm == "spectral" else row.frobenius
        if size is None or row.kernel_stddev is None:
            continue
        at = row.kernel_stddev.mean if row.stddev is None else row.stddev
        # Zero has no place on logarithmic axes.
        if size.mean > 0 and at > 0:
            points.append((row, at, size))
            if row.stddev is None and index == 0:
                # Of all layers the name stands once, at the first one's mark.
                ax.annotate(
                    row.scheme,
                    (at, size.mean),
                    xytext=(4, 3),
                    textcoords="offset points",
                    fontsize="x-small",
                    color=GREY,
                )
    lines = sorted(
        ((at, size) for row, at, size in points if row.stddev is not None),
        key=lambda point: point[0],
    )
    marks = [(at, size) for row, at, size in points if row.stddev is None]
    for found, changes in ((lines, {}), (marks, {"linestyle": "", "markerfacecolor": "none"})):
        if found:
            above = [size.stddev or 0.0 for _, size in found]
            below = [min(size.stddev or 0.0, _LONGEST_BAR * size.mean) for _, size in found]
            ax.errorbar(
                [at for at, _ in found],
                [size.mean for _, size in found],
                yerr=[below, above],
                capsize=2.5,
                elinewidth=0.8,
                label=rows[0].layer if found is (lines or marks) else None,
                **{**style, **changes},
            )


def _mark_overflow(ax: Axes, rows: Sequence[InitializedBlock]) -> None:
    lost = sorted({row.stddev for row in rows if row.overflowed and row.stddev is not None})
    if lost:
        ax.plot(
            lost,
            [1.02] * len(lost),
            linestyle="",
            marker="x",
            color=GREY,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            label="overflow",
        )
