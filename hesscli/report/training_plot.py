"""``hesscli train --plot``: loss and accuracy, curvature against its threshold, the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hesscli.report.document import Drawing
from hesscli.report.plotstyle import BLACK, BLUE, GREY, RED, series
from hesscli.studies.training import Training

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

# Markers on a line of many measurements.
_MARKERS = 10


def threshold_formula(result: Training) -> str:
    """How the sharpness's threshold follows from learning rate η and momentum β."""
    return "(2+2β)/η" if result.options.momentum else "2/η"


def training_drawings(result: Training) -> tuple[Drawing, ...]:
    """Loss and accuracy, the largest eigenvalues, and the layers' traces and shares of G."""
    options = result.options
    momentum = f", momentum {options.momentum:g}" if options.momentum else ""
    how = f"{result.activation}, batch {result.batch_size}, η = {options.learning_rate:g}{momentum}"
    on = f"on the first {result.measured_examples:,} training examples"
    judged = "Loss" if result.measurements[0].accuracy is None else "Loss and accuracy"
    return (
        Drawing(
            title=f"{judged} — {how}",
            caption=f"{judged} {on}, over the steps.",
            draw=lambda figure: _draw_loss(result, figure),
            height=2.8,
        ),
        Drawing(
            title=f"Largest eigenvalue of the Hessian — {how}",
            caption=(
                f"The largest eigenvalue of the whole network's Hessian (the sharpness) and of "
                f"each layer's, {on}; the line is the threshold {threshold_formula(result)}, "
                "beyond which gradient descent on a quadratic diverges."
            ),
            draw=lambda figure: _draw_eigenvalues(result, figure),
            height=3.4,
        ),
        Drawing(
            title=f"Layer by layer — {how}",
            caption=f"Trace of each layer's Hessian H = G + C, and the share of G in it, {on}.",
            draw=lambda figure: _draw_layers(result, figure),
            height=3.0,
        ),
    )


def _draw_loss(result: Training, figure: FigureBase) -> None:
    axes: Any = figure.subplots()
    steps, rows = _steps(result), result.measurements
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    losses = [row.loss for row in rows]
    lines = axes.plot(steps, losses, label="loss", **_line(result, BLUE, "-", "o"))
    if min(losses) > 0:
        axes.set_yscale("log")
    if rows[0].accuracy is not None:
        right = axes.twinx()
        right.grid(visible=False)
        right.spines["right"].set_visible(True)
        right.set_ylabel("accuracy (%)")
        right.set_ylim(0, 103)
        shares = [float("nan") if row.accuracy is None else 100 * row.accuracy for row in rows]
        lines += right.plot(steps, shares, label="accuracy", **_line(result, RED, "--", "s"))
    axes.legend(handles=lines, loc="center right")


def _draw_eigenvalues(result: Training, figure: FigureBase) -> None:
    axes: Any = figure.subplots()
    steps, rows = _steps(result), result.measurements
    values = [[row.sharpness for row in rows]]
    axes.plot(steps, values[0], label="network", **_line(result, BLACK, "-", "o"))
    for index, layer in enumerate(rows[0].layers):
        values.append([row.layers[index].lambda_max for row in rows])
        style = {**series(index + 1), "linewidth": 1.0}
        axes.plot(steps, values[-1], label=layer.layer, **_every(result), **style)
    axes.axhline(
        result.threshold,
        color=GREY,
        linestyle=(0, (6, 3)),
        linewidth=1.6,
        label=f"{threshold_formula(result)} = {result.threshold:.4g}",
    )
    _logarithmic_where_positive(axes, values)
    axes.set_xlabel("step")
    axes.set_ylabel("λ_max")
    axes.legend(ncols=3, loc="best")


def _draw_layers(result: Training, figure: FigureBase) -> None:
    left, right = figure.subplots(1, 2)
    steps, rows = _steps(result), result.measurements
    traces = []
    for index, layer in enumerate(rows[0].layers):
        style = {**series(index + 1), **_every(result)}
        traces.append([row.layers[index].trace for row in rows])
        left.plot(steps, traces[-1], label=layer.layer, **style)
        shares = [row.layers[index].gauss_newton_share for row in rows]
        percent = [float("nan") if share is None else 100 * share for share in shares]
        right.plot(steps, percent, label=layer.layer, **style)
    _logarithmic_where_positive(left, traces)
    left.set_ylabel("trace of H")
    right.set_ylabel("share of G (%)")
    right.set_ylim(0, 105)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.legend()


def _steps(result: Training) -> list[int]:
    return [row.step for row in result.measurements]


def _line(result: Training, colour: str, style: str, marker: str) -> dict[str, Any]:
    return {"color": colour, "linestyle": style, "marker": marker, **_every(result)}


def _every(result: Training) -> dict[str, Any]:
    return {"markevery": max(1, len(result.measurements) // _MARKERS)}


def _logarithmic_where_positive(axes: Axes, values: Sequence[Sequence[float]]) -> None:
    if min(min(line) for line in values) > 0:
        axes.set_yscale("log")
