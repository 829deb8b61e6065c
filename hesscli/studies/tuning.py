"""At which scale of each layer's initializer does that layer's Hessian norm meet a target?

Layers interact: the Hessian of one depends on the scales of those below by its input and on
those above by the backward sweep, so all scales are found together, as the root of

    F_k(t) = log( mean over seeds of ‖H_k‖ ) − log(target),    kernel k times exp(t_k),

by SciPy's trust-region least squares, which gives the nearest miss if there is no root.
Networks have several roots, or none; the search begins at the configured initializers and takes
the first that it comes to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from hesscli.config.build import redrawn
from hesscli.config.schema import LayerConfig, ModelConfig
from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Layer
from hesscli.problem.initializers import Initializer, scaled
from hesscli.problem.network import Problem
from hesscli.studies.context import Progress, Study, environment, no_progress, summary
from hesscli.studies.initialization import (
    Spread,
    block_names,
    require_drawn,
    require_pairs,
    spread,
)
from hesscli.studies.norm_cost import seconds_of
from hesscli.studies.norms import frobenius_norms, spectral_norm
from hesscli.studies.verdict import Verdict
from hesscli.system.errors import InputError, NumericalError
from hesscli.system.ranges import require_above_zero
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.workers.share import Workers, each_by_one

# How near the mean norm must be to the target, relative to it: far below its spread over seeds.
TUNED_RTOL = 0.01
# Kernels are looked for with standard deviations from the first to the second of these, times
# Glorot's √(2 / (inputs + units)). Far above it units saturate, and a norm hangs on the few
# examples that are left between: such scales would fit the seeds of the search and no others.
SCALES = (1e-6, 30.0)
# Written scales have so many digits; the norm moves by less than TUNED_RTOL with the last.
_DIGITS = 6
# The logarithm that stands for a norm of 0, and negative for one that overflows.
_BEYOND = 50.0
# Derivatives of F are differences over this step of t; F is smooth at this scale, and its
# rounding is far below.
_STEP = 1e-4
_EVALUATIONS = 30
# About so many steps a search takes that ends well, for what is shown while it goes on.
_USUAL_STEPS = 10
# A search that gains less than this share of the sum of squares in a step has come to its end.
_STAGNATION = 1e-3
# Where the search begins when it fails from the configured scales: Glorot's times these.
_STARTS = (1.0, 0.3, 3.0)


@dataclass(frozen=True)
class TunedBlock:
    """One layer's scale, and its norm before and after.

    ``initializer`` is the layer's own from now on: the configured one times ``factor``.
    ``reached`` is the norm at the seeds of the search, drawn again with it, ``fresh`` that at as
    many other seeds; None if a draw overflows.
    """

    activation: str
    layer: str
    block: str
    factor: float
    initializer: Initializer
    before: Spread | None
    reached: Spread | None
    fresh: Spread | None
    passed: bool

    @property
    def verdict(self) -> Verdict:
        return Verdict.of(self.passed)


@dataclass(frozen=True)
class TunedModel:
    """The layers of one activation with the initializers that were found."""

    activation: str
    layers: tuple[LayerConfig, ...]


@dataclass(frozen=True)
class Tuning(Study):
    """The result of ``hesscli init --tune``, a row for each activation and layer.

    ``norm`` is ``spectral`` or ``frobenius``; ``seeds`` are those of the search.
    """

    block: str
    norm: str
    target: float
    seeds: tuple[int, ...]
    fresh_seeds: tuple[int, ...]
    results: tuple[TunedBlock, ...]
    models: tuple[TunedModel, ...]


Task = TypeVar("Task")


@dataclass(frozen=True)
class _Measure:
    """Which number of which blocks is tuned."""

    names: tuple[str, ...]
    norm: str
    workers: Workers

    def of(self, problem: Problem) -> list[float]:
        """The norm of each layer's block; raises NumericalError if it overflows."""
        engine = ChainRule(problem)
        blocks = [engine.hessian(name) for name in self.names]
        if self.norm == "spectral":
            return [spectral_norm(block) for block in blocks]
        return [frobenius_norms([block])[0] for block in blocks]

    def over_seeds(
        self, problem: Problem, model: ModelConfig, seeds: Sequence[int]
    ) -> list[Spread | None]:
        """Each layer's norm over fresh draws of ``model``; None if a draw overflows."""
        draws = self.of_each(lambda seed: redrawn(problem, model, seed), seeds)
        if draws is None:
            return [None] * len(self.names)
        return [spread([draw[k] for draw in draws]) for k in range(len(self.names))]

    def of_each(
        self, draw: Callable[[Task], Problem], of: Sequence[Task]
    ) -> list[list[float]] | None:
        """The norms at each draw, of which each worker takes some; None if one overflows."""

        def norms(one: Task) -> list[float] | None:
            try:
                return self.of(draw(one))
            except (InputError, NumericalError):
                # The model was built before, so it is a number that the dtype cannot hold.
                return None

        found = each_by_one(norms, of, self.workers)
        whole = [norms for norms in found if norms is not None]
        return whole if len(whole) == len(found) else None


def tune(
    problems: Sequence[Problem],
    model: ModelConfig,
    seeds: Sequence[int],
    target: float = 1.0,
    norm: str = "spectral",
    block: str = "kernel",
    progress: Progress = no_progress,
    *,
    execution: Execution = HELD,
) -> Tuning:
    """Scales at which the mean ``norm`` of every layer's ``block`` over ``seeds`` is ``target``.

    ``problems`` differ in their activations only and are those of ``model``. Raises InputError
    for a target that is not above 0 and finite, for a layer whose kernel is not drawn, or drawn by
    an initializer without a scale, and if ‖H‖_F is a sum over too many pairs of examples.
    """
    require_above_zero("target", target)
    require_drawn(model)
    for layer in model.layers:
        if layer.is_plain:
            continue
        raise InputError(
            f"--tune: {layer.name} is a layer of type {layer.type}; a chain of dense layers can be "
            "tuned"
        )
    if norm == "frobenius":
        require_pairs(problems[0], execution)
    fresh = tuple(seed + len(seeds) for seed in seeds)
    rows: list[TunedBlock] = []
    models: list[TunedModel] = []
    for problem in problems:
        measure = _Measure(block_names(problem, block), norm, execution.workers)
        base = _base_model(problem, model)
        factors = _search(problem, base, measure, seeds, target, progress)
        tuned = _with_factors(base, problem, factors)
        layers = tuple(
            replace(layer, activation=own.activation)
            for layer, own in zip(tuned.layers, problem.layers, strict=True)
        )
        models.append(TunedModel(problem.hidden_activation, layers))
        found = zip(
            measure.over_seeds(problem, base, seeds),
            measure.over_seeds(problem, tuned, seeds),
            measure.over_seeds(problem, tuned, fresh),
            strict=True,
        )
        for k, (before, reached, other) in enumerate(found):
            off = math.inf if reached is None else abs(reached.mean - target)
            rows.append(
                TunedBlock(
                    activation=problem.hidden_activation,
                    layer=problem.layers[k].name,
                    block=block,
                    factor=float(factors[k]),
                    initializer=_initializer_of(tuned, k),
                    before=before,
                    reached=reached,
                    fresh=other,
                    passed=off <= TUNED_RTOL * target,
                )
            )
    first = problems[0]
    return Tuning(
        environment=environment(first, execution),
        problem=summary(first, execution),
        block=block,
        norm=norm,
        target=target,
        seeds=tuple(seeds),
        fresh_seeds=fresh,
        results=tuple(rows),
        models=tuple(models),
    )


def expected_seconds(
    problems: Sequence[Problem], seeds: Sequence[int], norm: str, block: str
) -> float:
    """How long ``tune`` of these will take, about; 0 if that is certainly little."""
    return sum(
        seconds_of(
            problem,
            block_names(problem, block),
            # Of the search, and of what is shown before and after it.
            (_usual_measures(len(problem.layers)) + 3) * len(seeds),
            spectral=norm == "spectral",
            blocks=0 if norm == "spectral" else 1,
        )
        for problem in problems
    )


def _usual_measures(layers: int) -> int:
    # A step measures the norms at its place and, for the slope, next to it in each layer's scale.
    return _USUAL_STEPS * (layers + 1)


def _initializer_of(model: ModelConfig, k: int) -> Initializer:
    return model.layers[k].initializer or model.initializer


def _base_model(problem: Problem, model: ModelConfig) -> ModelConfig:
    """``model`` with an initializer in every layer, which must have a scale."""
    try:
        return _with_factors(model, problem, np.ones(len(model.layers)))
    except InputError as error:
        raise InputError(f"model.initializer: {error}") from None


def _with_factors(
    model: ModelConfig, problem: Problem, factors: NDArray[np.float64]
) -> ModelConfig:
    """``model`` with every layer's initializer times its factor, to the digits that are shown."""
    layers: list[LayerConfig] = []
    for k, (layer, own) in enumerate(zip(model.layers, problem.layers, strict=True)):
        exact = scaled(_initializer_of(model, k), own.kernel.shape, float(factors[k]))
        rounded = tuple((key, float(f"{value:.{_DIGITS}g}")) for key, value in exact.parameters)
        layers.append(replace(layer, initializer=Initializer(exact.name, rounded)))
    return replace(model, layers=tuple(layers))


def _search(
    problem: Problem,
    base: ModelConfig,
    measure: _Measure,
    seeds: Sequence[int],
    target: float,
    progress: Progress,
) -> NDArray[np.float64]:
    """The factor for each layer's scale; of several misses the smallest."""
    draws = [redrawn(problem, base, seed) for seed in seeds]
    count = len(problem.layers)
    done, total = 0, _usual_measures(count)

    def residuals(t: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal done
        done += 1
        progress(f"{problem.hidden_activation} tuning", done, max(done, total))
        factors = np.exp(t)
        norms = measure.of_each(lambda draw: _times(draw, factors), draws)
        if norms is None:
            return np.full(count, _BEYOND)
        with np.errstate(divide="ignore", over="ignore"):
            logs = np.log(np.mean(norms, axis=0)) - math.log(target)
        return np.asarray(np.clip(logs, -_BEYOND, _BEYOND))

    def slopes(t: NDArray[np.float64]) -> NDArray[np.float64]:
        at = residuals(t)
        moved = [residuals(t + _STEP * unit) for unit in np.eye(count)]
        return np.stack([(value - at) / _STEP for value in moved], axis=1)

    glorot = np.log([_glorot_factor(draws[0].layers[k]) for k in range(count)])
    low, high = (glorot + math.log(scale) for scale in SCALES)
    best, best_miss = np.zeros(count), math.inf
    for start in (np.zeros(count), *(glorot + math.log(scale) for scale in _STARTS)):
        found = least_squares(
            residuals,
            np.clip(start, low, high),
            jac=slopes,
            bounds=(low, high),
            ftol=_STAGNATION,
            max_nfev=_EVALUATIONS,
        )
        miss = float(np.abs(found.fun).max())
        if miss < best_miss:
            best, best_miss = found.x, miss
        if best_miss < TUNED_RTOL / 2:
            break
    return np.exp(best)


def _glorot_factor(layer: Layer) -> float:
    """The factor that makes the layer's kernel as large as Glorot's initializers would."""
    largest = float(np.abs(layer.kernel).max())
    size = largest * math.sqrt(float(np.square(layer.kernel / largest, dtype=np.float64).mean()))
    return math.sqrt(2 / (layer.inputs + layer.units)) / size


def _times(problem: Problem, factors: NDArray[np.float64]) -> Problem:
    """``problem`` with every kernel times its factor."""
    tensors = dict(problem.graph.tensors)
    for layer, factor in zip(problem.layers, factors, strict=True):
        with np.errstate(over="ignore"):
            tensors[f"{layer.name}/kernel"] = (layer.kernel * factor).astype(problem.dtype)
    return replace(problem, graph=problem.graph.with_tensors(tensors))
