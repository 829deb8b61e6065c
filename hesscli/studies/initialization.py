"""How large is the Hessian at initialization? Norms of fresh draws, by initializer.

The question, and the answer that too small a deviation of the weights gives a vanishing Hessian
and too large a one an exploding one, are those of Skorski, Temperoni and Theobald, "Revisiting
Weight Initialization of Deep Neural Networks" (ACML 2021, arXiv:2004.09506).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from hesscli.config.build import redrawn
from hesscli.config.schema import ModelConfig
from hesscli.problem.execution import HELD, Execution
from hesscli.problem.initializers import Initializer
from hesscli.problem.names import CONFIGURED, INITIALIZERS, MOST_SEEDS
from hesscli.problem.network import Problem
from hesscli.studies.blocks import chosen
from hesscli.studies.checks import frobenius_norm
from hesscli.studies.context import (
    Environment,
    ProblemSummary,
    Progress,
    environment,
    no_progress,
    summary,
)
from hesscli.studies.norm_cost import seconds_of
from hesscli.studies.norm_estimates import estimated_note, frobenius_of, spectral_of
from hesscli.studies.norms import gauss_newton_share
from hesscli.system.errors import InputError, NumericalError
from hesscli.system.ranges import require_above_zero, require_whole
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import layer_of, layout_of
from hesscli.witnesses.summed.engine import require_held
from hesscli.workers.share import ALONE, each_by_one, share_of

# The sums over pairs of examples take ten seconds a block here, and a hundred times as long for ten
# times as many.
LARGEST_BATCH = 8192


@dataclass(frozen=True)
class Scheme:
    """A way to draw every kernel; ``initializer`` None leaves it to the configuration.

    ``stddev`` is the standard deviation that was asked for, of a random_normal initializer.
    """

    label: str
    initializer: Initializer | None
    stddev: float | None = None


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; of one seed there is no deviation."""

    mean: float
    stddev: float | None


@dataclass(frozen=True)
class BlockSize:
    """How large one block is at one draw.

    ``spectral`` is ‖H‖₂, ``frobenius`` ‖H‖_F, ``gradient`` ‖∂L/∂θ‖₂ in the block's parameters,
    and ``gauss_newton_share`` ‖G‖_F / (‖G‖_F + ‖C‖_F) with the Gauss–Newton term G and the
    curvature term C; None if both are zero.
    """

    spectral: float
    frobenius: float
    gauss_newton_share: float | None
    gradient: float


@dataclass(frozen=True)
class InitializedBlock:
    """One block's sizes over the seeds of one scheme.

    ``kernel_stddev`` is the standard deviation of the layer's kernel as drawn. If
    ``overflowed`` of the seeds left the range of the dtype, every size is None: a mean over the
    others would hide them. ``gauss_newton_share`` is over the seeds if H is not zero.
    """

    activation: str
    scheme: str
    stddev: float | None
    layer: str
    block: str
    size: int
    overflowed: int
    kernel_stddev: Spread | None
    spectral: Spread | None
    frobenius: Spread | None
    gauss_newton_share: Spread | None
    gradient: Spread | None


@dataclass(frozen=True)
class Initialization:
    """The result of ``hesscli init``, a row for each activation, scheme and layer."""

    environment: Environment
    problem: ProblemSummary
    block: str
    seeds: tuple[int, ...]
    results: tuple[InitializedBlock, ...]


# The blocks' sizes and the kernels' deviations at one draw.
_Sizes: TypeAlias = tuple[tuple[BlockSize, ...], tuple[float, ...]]


def schemes_of(names: Sequence[str], stddevs: Sequence[float]) -> tuple[Scheme, ...]:
    """Initializers by name (or CONFIGURED), then random_normal with each standard deviation.

    Raises InputError for a deviation that is not above 0 and finite.
    """
    for value in stddevs:
        require_above_zero("stddevs", value)
    by_name = [Scheme(name, None if name == CONFIGURED else Initializer(name)) for name in names]
    by_stddev = [
        Scheme(f"stddev {value:g}", Initializer("random_normal", (("stddev", value),)), value)
        for value in stddevs
    ]
    return (*by_name, *by_stddev)


def usual_schemes(model: ModelConfig, stddevs: Sequence[float]) -> tuple[Scheme, ...]:
    """Every initializer, the standard deviations, and the model's own if it is none of them."""
    own = [model.initializer, *(layer.initializer for layer in model.layers)]
    is_usual = own[0] == Initializer(model.initializer.name) and not any(own[1:])
    return schemes_of([*INITIALIZERS, *(() if is_usual else (CONFIGURED,))], stddevs)


def seeds_from(first: int, count: int) -> tuple[int, ...]:
    """``count`` seeds, the configuration's first; raises InputError beyond MOST_SEEDS."""
    require_whole("seeds", count, 1, MOST_SEEDS)
    return tuple(range(first, first + count))


def block_names(problem: Problem, block: str) -> tuple[str, ...]:
    """The name of each layer's block; raises InputError if the network has no biases."""
    return tuple(name for _, name in chosen(problem, block))


def require_drawn(model: ModelConfig) -> None:
    """Raises InputError if kernels are given, so that there is nothing to draw."""
    for key, given in (("weights", model.weights), ("keras", model.keras)):
        if given is not None:
            raise InputError(
                f"model.{key}: {given}; init draws the kernels itself, so it must be null"
            )
    for index, layer in enumerate(model.layers):
        if layer.kernel is not None:
            raise InputError(
                f"model.layers.{index}.kernel: given; init draws the kernels itself, so it must "
                "be left out"
            )


def require_pairs(problem: Problem, execution: Execution) -> None:
    """Raises InputError beyond the batch whose pairs of examples are summed over."""
    # Every worker has all of them, and some of the draws.
    alone = replace(execution, workers=ALONE)
    require_held(problem, alone, "norms are exact sums over pairs of them")
    if problem.examples > LARGEST_BATCH:
        raise InputError(
            f"data.batch_size: {problem.examples}; norms are exact sums over pairs of examples, "
            f"up to {LARGEST_BATCH} of them; use fewer"
        )


def initialization(
    problems: Sequence[Problem],
    model: ModelConfig,
    schemes: Sequence[Scheme],
    seeds: Sequence[int],
    block: str = "kernel",
    progress: Progress = no_progress,
    *,
    execution: Execution = HELD,
) -> Initialization:
    """Sizes of the ``block`` (kernel, bias or layer) of each layer at fresh draws.

    ``problems`` differ in their activations only and are those of ``model``; the batch is the
    same at every draw. Of several workers each takes some of the draws. Raises InputError if
    ``model`` has kernels that are not drawn, and beyond LARGEST_BATCH examples.
    """
    require_drawn(model)
    require_pairs(problems[0], execution)
    drawn = list(itertools.product(problems, schemes, seeds))
    done = itertools.count(1)

    def sizes(draw: tuple[Problem, Scheme, int]) -> _Sizes | None:
        problem, scheme, seed = draw
        found = _sizes_at(problem, _drawn_by(model, scheme), seed, block_names(problem, block))
        of_share = share_of(len(drawn), execution.workers)
        total = of_share.stop - of_share.start
        progress(f"{problem.hidden_activation} {scheme.label}", next(done), total)
        return found

    found = iter(each_by_one(sizes, drawn, execution.workers))
    rows: list[InitializedBlock] = []
    for problem, scheme in itertools.product(problems, schemes):
        draws = list(itertools.islice(found, len(seeds)))
        rows += _rows(problem, scheme, block, block_names(problem, block), draws)
    first = problems[0]
    return Initialization(
        environment(first, execution),
        summary(
            replace(first, notes=(*first.notes, *estimated_note(first, block_names(first, block)))),
            execution,
        ),
        block,
        tuple(seeds),
        tuple(rows),
    )


def expected_seconds(
    problems: Sequence[Problem], schemes: Sequence[Scheme], seeds: Sequence[int], block: str
) -> float:
    """How long ``initialization`` of these will take, about; 0 if that is certainly little."""
    draws = len(schemes) * len(seeds)
    return sum(
        seconds_of(problem, block_names(problem, block), draws, spectral=True, blocks=3)
        for problem in problems
    )


def block_size(engine: ChainRule, name: str) -> BlockSize:
    """How large the layer's block ``name`` is.

    Raises NumericalError if it leaves the range of the dtype.
    """
    terms = (engine.hessian, engine.gauss_newton, engine.curvature)
    blocks = [term(name) for term in terms]
    H, G, C = frobenius_of(blocks)
    gradient = frobenius_norm(engine.gradient(name))
    if not math.isfinite(gradient):
        raise NumericalError(f"{name}: the gradient leaves the range of {engine.problem.dtype}")
    return BlockSize(
        spectral=spectral_of(blocks[0]),
        frobenius=H,
        gauss_newton_share=gauss_newton_share(G, C),
        gradient=gradient,
    )


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and deviation; None of no values, and if one leaves the range of float64."""
    if not values or not all(math.isfinite(value) for value in values):
        return None
    largest = max(abs(value) for value in values)
    if largest == 0:
        return Spread(0.0, 0.0 if len(values) > 1 else None)
    relative = np.array(values) / largest
    deviation = largest * float(relative.std(ddof=1)) if len(values) > 1 else None
    return Spread(largest * float(relative.mean()), deviation)


def _drawn_by(model: ModelConfig, scheme: Scheme) -> ModelConfig:
    if scheme.initializer is None:
        return model
    layers = tuple(replace(layer, initializer=None) for layer in model.layers)
    return replace(model, initializer=scheme.initializer, layers=layers)


def _sizes_at(
    problem: Problem, model: ModelConfig, seed: int, names: Sequence[str]
) -> _Sizes | None:
    """The blocks' sizes and the kernels' deviations at one draw; None if it overflows."""
    try:
        drawn = redrawn(problem, model, seed)
    except InputError:
        # The model was built before, so it is a weight that the dtype cannot hold.
        return None
    engine = ChainRule(drawn)
    try:
        sizes = tuple(block_size(engine, name) for name in names)
    except NumericalError:
        return None
    tensors, of_layers = drawn.graph.tensors, drawn.graph.layer_tensors
    first = [of_layers[layer_of(name)][0] for name in names]
    return sizes, tuple(_deviation(tensors[tensor]) for tensor in first)


def _deviation(kernel: np.ndarray) -> float:
    largest = float(np.abs(kernel).max())
    return largest * float(np.std(kernel / largest, dtype=np.float64)) if largest > 0 else 0.0


def _rows(
    problem: Problem,
    scheme: Scheme,
    block: str,
    names: Sequence[str],
    draws: Sequence[_Sizes | None],
) -> list[InitializedBlock]:
    held = [draw for draw in draws if draw is not None]
    overflowed = len(draws) - len(held)
    rows: list[InitializedBlock] = []
    for k, name in enumerate(names):
        sizes = [] if overflowed else [sizes[k] for sizes, _ in held]
        shares = [size.gauss_newton_share for size in sizes]
        rows.append(
            InitializedBlock(
                activation=problem.hidden_activation,
                scheme=scheme.label,
                stddev=scheme.stddev,
                layer=layer_of(name),
                block=block,
                size=layout_of(problem, name).size,
                overflowed=overflowed,
                kernel_stddev=spread([] if overflowed else [kernels[k] for _, kernels in held]),
                spectral=spread([size.spectral for size in sizes]),
                frobenius=spread([size.frobenius for size in sizes]),
                gauss_newton_share=spread([share for share in shares if share is not None]),
                gradient=spread([size.gradient for size in sizes]),
            )
        )
    return rows
