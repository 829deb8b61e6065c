"""``hesscli train``: a Training as a Document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from hesscli.report.bars import sparkline
from hesscli.report.common import heading, preamble
from hesscli.report.document import UNKNOWN, Case, Column, Document, Table
from hesscli.report.training_plot import threshold_formula, training_drawings
from hesscli.studies.measurement import (
    EIGENVALUE_TOLERANCE,
    LayerCurvature,
    Measurement,
)
from hesscli.studies.training import Training
from hesscli.studies.verdict import Verdict

Moment = TypeVar("Moment")

# So many rows, with what stands around them, fit a screen.
SHOWN_MEASUREMENTS = 20


def training_document(result: Training) -> Document:
    """Tables, data, test case and drawings of a training."""
    return Document(
        heading=f"{heading(result.problem, result.environment)}\n{_how(result)}",
        tables=(_course_table(result), _layer_table(result), _final_table(result)),
        data={
            **preamble(
                "hesscli/train/1", Verdict.of(result.completed), result.environment, result.problem
            ),
            "status": "pass" if result.completed else "interrupted",
            "activation": result.activation,
            "train": {**asdict(result.options), "batch_size": result.batch_size},
            "steps": result.steps,
            "resumed_at": result.resumed_at,
            "measured_examples": result.measured_examples,
            "eigenvalue_tolerance": EIGENVALUE_TOLERANCE,
            "sharpness_threshold": result.threshold,
            "checkpoint": result.checkpoint,
            "final": [asdict(evaluation) for evaluation in result.final],
            "results": [_row_data(result, measurement) for measurement in result.measurements],
        },
        drawings=training_drawings(result),
        cases=(Case(result.activation, f"{result.options.steps} steps", _failure(result)),),
    )


def _how(result: Training) -> str:
    options = result.options
    momentum = f" · momentum {options.momentum:g}" if options.momentum else ""
    return (
        f"SGD · {result.activation} · {result.problem.loss} · learning rate "
        f"{options.learning_rate:g}{momentum} · batch {result.batch_size}"
    )


def _failure(result: Training) -> str | None:
    return None if result.completed else f"interrupted after step {result.steps}"


def _course_table(result: Training) -> Table:
    measurements = thinned(result.measurements)
    return Table(
        title="Loss and curvature of the whole network",
        columns=tuple(
            Column(title)
            for title in (
                "step",
                "epoch",
                "loss",
                "accuracy",
                "λ_max",
                f"of {threshold_formula(result)}",
                "trace",
                "gᵀHg/gᵀg",
            )
        ),
        rows=tuple(
            (
                f"{row.step:,}",
                f"{row.epoch:.2f}",
                f"{row.loss:.4g}",
                _percent(row.accuracy),
                f"{row.sharpness:.4g}",
                f"{result.stability_ratio(row):.2f}",
                f"{row.trace:.4g}",
                _number(row.gradient_curvature),
            )
            for row in measurements
        ),
        notes=tuple(_course_notes(result, len(measurements))),
    )


def _course_notes(result: Training, shown: int) -> Iterator[str]:
    total = len(result.measurements)
    if shown < total:
        yield f"{shown} of {total} measurements; --format json or csv holds them all."
    yield (
        f"Measured on the first {result.measured_examples:,} training examples; λ_max, the "
        f"sharpness, to a residual of {EIGENVALUE_TOLERANCE:g} λ."
    )
    peak = max(result.measurements, key=lambda row: row.sharpness)
    ratio = result.stability_ratio(peak)
    beyond = sum(result.stability_ratio(row) > 1 for row in result.measurements)
    scaled = (
        ", scaled to the sum over the measuring batch" if result.problem.reduction == "sum" else ""
    )
    yield (
        f"{threshold_formula(result)} = {result.threshold:.4g}{scaled}. The largest sharpness, "
        f"{peak.sharpness:.4g} at step {peak.step:,}, is {ratio:.2f} of it; {beyond} of {total} "
        f"measurements are beyond."
    )
    negative = sum(row.negative for row in result.measurements)
    yield f"The curvature along the gradient is negative in {negative} of {total} measurements."


def _layer_table(result: Training) -> Table:
    last = result.measurements[-1]
    return Table(
        title=f"Each layer's Hessian H = G + C (kernel and bias) after step {last.step:,}",
        columns=(
            Column("layer", numeric=False),
            Column("λ_max"),
            Column("over the steps", numeric=False),
            Column("trace"),
            Column("share of G"),
            Column("gᵀHg/gᵀg"),
            Column("negative"),
        ),
        rows=tuple(
            _layer_row(row, [measurement.layers[index] for measurement in result.measurements])
            for index, row in enumerate(last.layers)
        ),
        notes=(
            "Share of G: ‖G‖_F / (‖G‖_F + ‖C‖_F). Negative: how many measurements have gᵀHg < 0, "
            "with the gradient g in the layer's parameters. The bars begin at 0.",
        ),
    )


def _layer_row(row: LayerCurvature, course: Sequence[LayerCurvature]) -> tuple[str, ...]:
    return (
        row.layer,
        f"{row.lambda_max:.4g}",
        sparkline([moment.lambda_max for moment in thinned(course)], low=0),
        f"{row.trace:.4g}",
        _percent(row.gauss_newton_share),
        _number(row.gradient_curvature),
        f"{sum(moment.negative for moment in course)} of {len(course)}",
    )


def _final_table(result: Training) -> Table:
    notes = []
    if not result.completed:
        notes.append(f"Interrupted after step {result.steps:,} of {result.options.steps:,}.")
    if result.resumed_at:
        notes.append(f"Resumed after step {result.resumed_at:,}.")
    if result.checkpoint is not None:
        notes.append(
            f"{result.checkpoint} holds the weights: --set model.weights={result.checkpoint}"
        )
    return Table(
        title=f"After step {result.steps:,}, on all examples",
        columns=(
            Column("set", numeric=False),
            Column("examples"),
            Column("loss"),
            Column("accuracy"),
        ),
        rows=tuple(
            (row.name, f"{row.examples:,}", f"{row.loss:.4g}", _percent(row.accuracy))
            for row in result.final
        ),
        notes=tuple(notes),
    )


def thinned(measurements: Sequence[Moment]) -> tuple[Moment, ...]:
    """At most SHOWN_MEASUREMENTS of them, evenly, with the first and the last one."""
    last = len(measurements) - 1
    if last < SHOWN_MEASUREMENTS:
        return tuple(measurements)
    places = (round(k * last / (SHOWN_MEASUREMENTS - 1)) for k in range(SHOWN_MEASUREMENTS))
    return tuple(measurements[place] for place in places)


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}"


def _row_data(result: Training, row: Measurement) -> dict[str, Any]:
    return {
        "step": row.step,
        "epoch": row.epoch,
        "loss": row.loss,
        "accuracy": row.accuracy,
        "sharpness": row.sharpness,
        "stability_ratio": result.stability_ratio(row),
        "trace": row.trace,
        "gradient_norm": row.gradient_norm,
        "gradient_curvature": row.gradient_curvature,
        "negative_curvature": row.negative,
        "layers": {layer.layer: _layer_data(layer) for layer in row.layers},
    }


def _layer_data(layer: LayerCurvature) -> Mapping[str, Any]:
    return {
        "lambda_max": layer.lambda_max,
        "trace": layer.trace,
        "gauss_newton_share": layer.gauss_newton_share,
        "gradient_norm": layer.gradient_norm,
        "gradient_curvature": layer.gradient_curvature,
        "negative_curvature": layer.negative,
    }
