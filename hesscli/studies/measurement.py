"""What the curvature is at one moment of a training, on one fixed batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.checks import frobenius_norm
from hesscli.studies.eigen import Leading, Search, leading
from hesscli.studies.evaluation import accuracy
from hesscli.studies.norm_estimates import has_structure, sizes, term_sizes
from hesscli.studies.norms import frobenius_norms, gauss_newton_share
from hesscli.system.devices import CPU, Device
from hesscli.system.errors import NumericalError
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.descent import Descending
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.chain_rule.ondevice import chain_rule_on
from hesscli.witnesses.layout import NETWORK, layout_of

# ‖Hv − λv‖ ≤ 1e-4 λ: an eigenvalue lies within so much of λ, as a rule far nearer, because the
# error of a Rayleigh quotient is of second order in the residual.
EIGENVALUE_TOLERANCE = 1e-4
_LANCZOS = Search(
    rtol=EIGENVALUE_TOLERANCE,
    remedy="use dtype float64 or more train.measure_examples",
    # Mostly a dozen are enough.
    vectors=16,
    restarts=500,
)
# Lanczos begins at the last measurement's eigenvector, with so much of the gradient, which leans
# on the largest eigenvalues, and of a random direction. By itself the eigenvector could be that of
# what has become the second largest eigenvalue, and its residual would not show it.
_OF_GRADIENT, _OF_RANDOM = 0.3, 0.03
# A block this small is diagonalized whole.
_DENSE_SIZE = 64


@dataclass(frozen=True)
class LayerCurvature:
    """The Hessian H = G + C in one layer's kernel and bias.

    ``lambda_max`` is its largest eigenvalue, ``trace`` Σ_n ‖a_n‖² tr S_n, ``gauss_newton_share``
    ‖G‖_F / (‖G‖_F + ‖C‖_F), None if both are zero. ``gradient_curvature`` is gᵀHg / gᵀg with
    the gradient g in the same parameters, None if that is zero.
    """

    layer: str
    lambda_max: float
    trace: float
    gauss_newton_share: float | None
    gradient_norm: float
    gradient_curvature: float | None

    @property
    def negative(self) -> bool:
        """Whether the loss curves downwards along the gradient."""
        return self.gradient_curvature is not None and self.gradient_curvature < 0


@dataclass(frozen=True)
class Measurement:
    """One moment of a training: after ``step`` steps, on the measuring batch.

    ``epoch`` counts how often the training examples were seen. ``accuracy`` is None if the
    loss classifies nothing. ``sharpness`` is the largest eigenvalue of the whole network's
    Hessian; ``trace``, ``gradient_norm`` and ``gradient_curvature`` are the whole network's.
    """

    step: int
    epoch: float
    loss: float
    accuracy: float | None
    sharpness: float
    trace: float
    gradient_norm: float
    gradient_curvature: float | None
    layers: tuple[LayerCurvature, ...]

    @property
    def negative(self) -> bool:
        """Whether the loss curves downwards along the gradient of all parameters."""
        return self.gradient_curvature is not None and self.gradient_curvature < 0


@dataclass(frozen=True)
class Measured:
    """A measurement, and the eigenvectors (P,) of every block, from which the next one starts."""

    measurement: Measurement
    vectors: Mapping[str, Array]


def measure(
    problem: Problem,
    step: int,
    epoch: float,
    vectors: Mapping[str, Array],
    seed: int,
    device: Device = CPU,
) -> Measured:
    """The curvature of ``problem``, whose batch is the measuring batch, after ``step`` steps.

    ``vectors`` are those of the measurement before, or empty; ``seed`` seeds the directions
    mixed into them. Products are computed on ``device``. Raises NumericalError if a number
    leaves the range of the dtype.
    """
    engine = chain_rule_on(problem, device)
    theta = problem.graph.vector()
    at = Descending(problem).descent(theta, problem)
    if not (math.isfinite(at.loss) and np.isfinite(at.gradient).all()):
        raise NumericalError(
            f"the loss or its gradient leaves the range of {problem.dtype}; use smaller weights"
        )
    starts = layout_of(problem, NETWORK).starts
    found: dict[str, Array] = {}
    layers = []
    # Products of numbers near the type's end; what is not finite is refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        for number, name in enumerate(problem.layer_names):
            H, g = engine.hessian(name), at.gradient[starts[number] : starts[number + 1]]
            start = _start(H, vectors.get(name), g, (seed, step, number))
            top = largest_eigenvalue(H, start)
            found[name] = top.vector
            norm, along = _along(H, g)
            layer_trace, share = _trace_and_share(engine, name, top.basis)
            layers.append(
                LayerCurvature(
                    layer=name,
                    lambda_max=top.value,
                    trace=layer_trace,
                    gauss_newton_share=share,
                    gradient_norm=norm,
                    gradient_curvature=along,
                )
            )
        H = engine.hessian(NETWORK)
        start = _start(H, vectors.get(NETWORK), at.gradient, (seed, step, len(layers)))
        top = largest_eigenvalue(H, start)
        found[NETWORK] = top.vector
        norm, along = _along(H, at.gradient)
    measurement = Measurement(
        step=step,
        epoch=epoch,
        loss=at.loss,
        accuracy=accuracy(at.outputs, problem.targets, problem.loss.name),
        sharpness=top.value,
        trace=math.fsum(layer.trace for layer in layers),
        gradient_norm=norm,
        gradient_curvature=along,
        layers=tuple(layers),
    )
    _require_finite(measurement, problem)
    return Measured(measurement, found)


def network_share(problem: Problem, device: Device = CPU) -> float | None:
    """‖G‖_F / (‖G‖_F + ‖C‖_F) of all parameters of ``problem``, from random products.

    Between layers C has the gradient itself, so it is not 0 even if every layer's own is.
    """
    engine = chain_rule_on(problem, device)
    G, C = sizes([engine.gauss_newton(NETWORK), engine.curvature(NETWORK)])
    return gauss_newton_share(G.frobenius, C.frobenius)


def largest_eigenvalue(H: HessianBlock, start: Array) -> Leading:
    """The algebraically largest eigenvalue of ``H`` with its eigenvector, of length 1.

    Lanczos from ``start`` (P,), to EIGENVALUE_TOLERANCE; a block of up to 64 parameters is
    diagonalized whole. Raises NumericalError if Lanczos does not arrive.
    """
    if H.shape[0] <= _DENSE_SIZE:
        values, V = np.linalg.eigh(H.to_dense())
        return Leading(float(values[-1]), V[:, -1], V)
    return leading(H, start, _LANCZOS)


def _start(H: HessianBlock, last: Array | None, g: Array, seed: tuple[int, ...]) -> Array:
    start = _OF_RANDOM * _unit(np.random.default_rng(seed).standard_normal(H.shape[0]))
    start = start + _OF_GRADIENT * _unit(g)
    if last is not None:
        start = start + last
    return start.astype(H.dtype)


def _unit(v: Array) -> Array:
    """``v`` at length 1; 0 stays 0."""
    norm = frobenius_norm(v)
    return v if norm == 0 else np.asarray(v.astype(np.float64) / norm)


def _along(H: HessianBlock, g: Array) -> tuple[float, float | None]:
    """‖g‖ and gᵀHg / gᵀg."""
    norm = frobenius_norm(g)
    return norm, None if norm == 0 else H.quadratic_form(_unit(g))


def _trace_and_share(engine: ChainRule, layer: str, basis: Array) -> tuple[float, float | None]:
    """The trace of H = G + C, and ‖G‖_F / (‖G‖_F + ‖C‖_F); most of H is in ``basis`` (P, k)."""
    terms = [engine.gauss_newton(layer), engine.curvature(layer)]
    if all(map(has_structure, terms)):
        G, C = frobenius_norms(terms)
        return sum(term.trace() for term in terms), gauss_newton_share(G, C)
    found = term_sizes(engine, layer, basis)
    G, C = (size.frobenius for size in found)
    return sum(size.trace for size in found), gauss_newton_share(G, C)


def _require_finite(measurement: Measurement, problem: Problem) -> None:
    numbers: list[float | None] = [measurement.loss, measurement.sharpness, measurement.trace]
    numbers += [measurement.gradient_norm, measurement.gradient_curvature]
    for layer in measurement.layers:
        numbers += [layer.lambda_max, layer.trace, layer.gauss_newton_share, layer.gradient_norm]
        numbers.append(layer.gradient_curvature)
    if not all(number is None or math.isfinite(number) for number in numbers):
        raise NumericalError(f"the curvature leaves the range of {problem.dtype}")
