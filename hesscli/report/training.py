"""``hesscli train``: a Training as a Document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hesscli.report.bars import sparkline
from hesscli.report.common import study_document
from hesscli.report.document import Case, Document, Table
from hesscli.report.fields import Field, data_of, named, plain, table
from hesscli.report.training_plot import threshold_formula, training_drawings
from hesscli.studies.measurement import EIGENVALUE_TOLERANCE
from hesscli.studies.norm_estimates import PRODUCTS
from hesscli.studies.training import Training

Moment = TypeVar("Moment")

# So many rows, with the lines around them, fit a screen.
SHOWN_MEASUREMENTS = 20
_count, _three, _four = "{:,}".format, "{:.3g}".format, "{:.4g}".format


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


@dataclass(frozen=True)
class _Course:
    """A layer, or the network, at the end and at all moments."""

    name: str
    lambda_max: float
    trace: float
    gauss_newton_share: float | None
    gradient_curvature: float | None
    eigenvalues: Sequence[float]
    negatives: Sequence[bool]

    @property
    def negative(self) -> str:
        return f"{sum(self.negatives)} of {len(self.negatives)}"

    @property
    def bars(self) -> str:
        return sparkline(thinned(self.eigenvalues), low=0)


_LAYER = (
    Field("lambda_max"),
    Field("trace"),
    Field("gauss_newton_share"),
    Field("gradient_norm"),
    Field("gradient_curvature"),
    Field("negative_curvature", lambda layer: layer.negative),
)
_LAYER_COLUMNS = (
    named("name", "layer"),
    Field("lambda_max", title="λ_max", text=_four),
    named("bars", "over the steps"),
    Field("trace", title="trace", text=_four),
    Field("gauss_newton_share", title="share of G", text=_percent),
    Field("gradient_curvature", title="gᵀHg/gᵀg", text=_three),
    Field("negative", title="negative"),
)
_FINAL = (
    named("name", "set"),
    Field("examples", title="examples", text=_count),
    Field("loss", title="loss", text=_four),
    Field("accuracy", title="accuracy", text=_percent),
)


def training_document(result: Training) -> Document:
    """Tables, data, test case and drawings of a training."""
    fields = _course_fields(result)
    shown = thinned(result.measurements)
    course = table(
        "Loss and curvature of the whole network",
        fields,
        shown,
        _course_notes(result, len(shown)),
    )
    return study_document(
        result,
        "train",
        fields,
        how=f"\n{_how(result)}",
        rows=result.measurements,
        tables=(course, _layer_table(result), _final_table(result)),
        before={
            "status": "pass" if result.completed else "interrupted",
            "activation": result.activation,
            "train": {**plain(result.options), "batch_size": result.batch_size},
            "steps": result.steps,
            "resumed_at": result.resumed_at,
            "measured_examples": result.measured_examples,
            "eigenvalue_tolerance": EIGENVALUE_TOLERANCE,
            "sharpness_threshold": result.threshold,
            "checkpoint": result.checkpoint,
            "gauss_newton_share": result.gauss_newton_share,
            "final": result.final,
        },
        drawings=training_drawings(result),
        cases=(Case(result.activation, f"{result.options.steps} steps", _failure(result)),),
    )


def _course_fields(result: Training) -> tuple[Field, ...]:
    return (
        Field("step", title="step", text=_count),
        Field("epoch", title="epoch", text="{:.2f}".format),
        Field("loss", title="loss", text=_four),
        Field("accuracy", title="accuracy", text=_percent),
        Field("sharpness", title="λ_max", text=_four),
        Field(
            "stability_ratio",
            result.stability_ratio,
            f"of {threshold_formula(result)}",
            "{:.2f}".format,
        ),
        Field("trace", title="trace", text=_four),
        Field("gradient_norm"),
        Field("gradient_curvature", title="gᵀHg/gᵀg", text=_three),
        Field("negative_curvature", lambda row: row.negative),
        Field("layers", lambda row: {each.layer: data_of(_LAYER, each) for each in row.layers}),
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


def _course_notes(result: Training, shown: int) -> Iterator[str]:
    total = len(result.measurements)
    if shown < total:
        yield f"{shown} of {total} measurements; --format json or csv contains them all."
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
        f"measurements exceed it."
    )
    negative = sum(row.negative for row in result.measurements)
    yield f"The curvature along the gradient is negative in {negative} of {total} measurements."


def _layer_table(result: Training) -> Table:
    measurements = result.measurements
    last = measurements[-1]
    courses = [
        _Course(
            layer.layer,
            layer.lambda_max,
            layer.trace,
            layer.gauss_newton_share,
            layer.gradient_curvature,
            [moment.layers[index].lambda_max for moment in measurements],
            [moment.layers[index].negative for moment in measurements],
        )
        for index, layer in enumerate(last.layers)
    ]
    network = _Course(
        "network",
        last.sharpness,
        last.trace,
        result.gauss_newton_share,
        last.gradient_curvature,
        [moment.sharpness for moment in measurements],
        [moment.negative for moment in measurements],
    )
    return table(
        f"The Hessian H = G + C of layers (kernel and bias) and network after step {last.step:,}",
        _LAYER_COLUMNS,
        (*courses, network),
        (
            "Share of G: ‖G‖_F / (‖G‖_F + ‖C‖_F), of the network estimated from "
            f"{PRODUCTS} random products: between layers C is not 0 even for relu. Negative: how "
            "many measurements have gᵀHg < 0, with the gradient g in the row's parameters. The "
            "bars begin at 0.",
        ),
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
    return table(f"After step {result.steps:,}, on all examples", _FINAL, result.final, notes)


def thinned(measurements: Sequence[Moment]) -> tuple[Moment, ...]:
    """At most SHOWN_MEASUREMENTS of them, evenly, with the first and the last one."""
    last = len(measurements) - 1
    if last < SHOWN_MEASUREMENTS:
        return tuple(measurements)
    places = (round(k * last / (SHOWN_MEASUREMENTS - 1)) for k in range(SHOWN_MEASUREMENTS))
    return tuple(measurements[place] for place in places)
