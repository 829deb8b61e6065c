"""Which approximation may stand for a block's Hessian, and how far is each from it?"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from hesscli.nodes import penalty
from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import INPUT, Array
from hesscli.problem.names import MOST_PROBES
from hesscli.problem.network import Problem
from hesscli.studies.approximations.blocks import Approximation, BlockDiagonal, Fisher
from hesscli.studies.approximations.distances import (
    Distance,
    Images,
    NetworkTarget,
    Target,
    needs_no_probes,
)
from hesscli.studies.approximations.factors import GAUSS_NEWTON, draws_of, sole_node
from hesscli.studies.approximations.made import Maker
from hesscli.studies.blocks import chosen
from hesscli.studies.context import Progress, Study, no_progress
from hesscli.studies.eigen import Search, largest
from hesscli.studies.evaluation import origin
from hesscli.studies.spectra.span import small_matrix
from hesscli.studies.spectra.subject import EXACT_LIMIT, Subject, subject_of
from hesscli.studies.verdict import Judged, Verdict
from hesscli.system.errors import InputError
from hesscli.system.ranges import require_whole
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import NETWORK
from hesscli.witnesses.penalized import PenalizedBlock, of_penalties, unpenalized
from hesscli.witnesses.summed.engine import ChainRuleEngine, chain_rule_of

BLOCK_DIAGONAL = "block_diagonal"
# Below this size LAPACK is faster than Lanczos, whose eigenvalues are good to four digits.
_SMALL = 128
_SEARCH = Search(rtol=1e-5, remedy="use a smaller batch")
# Gauss–Newton out of its factors is the chain rule's up to this share of its norm.
_SAME = {8: 1e-8, 4: 1e-3}


@dataclass(frozen=True)
class ApproximationOptions:
    """Which blocks, and what is drawn.

    ``samples`` are the targets that the Monte-Carlo Fisher draws for each example, ``rank`` the
    eigenpairs of rank k + diagonal, ``probes`` the random vectors if a distance is not exact.
    Raises InputError for a number out of its range.
    """

    block: str = "kernel"
    layers: tuple[str, ...] = ()
    samples: int = 1
    rank: int = 10
    probes: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole("samples", self.samples, 1, MOST_PROBES)
        require_whole("rank", self.rank, 0)
        # Of a single one there is no spread, and so no error bar.
        require_whole("probes", self.probes, 2, MOST_PROBES)
        require_whole("seed", self.seed, 0)


@dataclass(frozen=True)
class ApproximatedBlock(Judged):
    """One approximation of one block, against H and against G.

    ``trace_ratio`` and ``eigenvalue_ratio`` are relative to H's trace and largest eigenvalue,
    ``angle`` (degrees) is between the eigenvectors of the largest ones: None if the examples
    are not held at once, or H's number is 0. ``storage`` counts numbers.
    """

    activation: str
    layer: str
    block: str
    parameter: str
    size: int
    method: str
    hessian: Distance
    gauss_newton: Distance
    trace_ratio: float | None
    trace_ratio_error: float | None
    eigenvalue_ratio: float | None
    angle: float | None
    storage: int
    exact: bool
    tolerance: float

    @property
    def verdict(self) -> Verdict:
        """Whether Gauss–Newton out of its factors is the chain rule's own."""
        found = self.gauss_newton.distance
        wrong = self.method == GAUSS_NEWTON and found is not None and not found <= self.tolerance
        return Verdict.FAIL if wrong else Verdict.PASS


@dataclass(frozen=True)
class ApproximationStudy(Study):
    """The result of ``hesscli approximate``, a row for each activation, block and approximation.

    ``likelihood`` says whether the loss has a Fisher matrix; ``left_out`` are layers that are
    neither dense nor convolutional.
    """

    options: ApproximationOptions
    likelihood: bool
    left_out: tuple[str, ...]
    results: tuple[ApproximatedBlock, ...]


def approximate(
    problems: Sequence[Problem],
    options: ApproximationOptions,
    progress: Progress = no_progress,
    *,
    execution: Execution = HELD,
) -> ApproximationStudy:
    """The approximations of blocks of ``problems``, which differ in their activations only.

    Raises InputError if the options name no block, a layer is neither dense nor convolutional,
    or the loss is not convex in the outputs.
    """
    first = problems[0]
    names, left_out = _supported(first, options)
    total = len(problems) * len(names)
    rows: list[ApproximatedBlock] = []
    for index, problem in enumerate(problems):
        engine = chain_rule_of(problem, execution)
        maker = Maker(engine, options.samples, options.seed)
        for done, (layer, parameter) in enumerate(names):
            task = f"{problem.hidden_activation} {parameter}"
            progress(task, index * len(names) + done, total)
            rows += _rows(engine, maker, layer, parameter, options, execution)
    progress("", total, total)
    return ApproximationStudy(
        *origin(problems, execution),
        options,
        draws_of(first) is not None,
        left_out,
        tuple(rows),
    )


def approximations(
    problem: Problem,
    parameter: str,
    options: ApproximationOptions,
    *,
    execution: Execution = HELD,
) -> dict[str, Approximation]:
    """Every approximation of a layer's block, or of ``network``, by name.

    Raises KeyError if there is no such block, InputError as ``approximate``.
    """
    return some_approximations(chain_rule_of(problem, execution), parameter, options)


def some_approximations(
    engine: ChainRuleEngine,
    parameter: str,
    options: ApproximationOptions,
    wanted: Collection[str] = (),
) -> dict[str, Approximation]:
    """Approximations by name: those ``wanted`` at least if any are, and no more than come first."""
    if parameter.partition("[")[0] == INPUT:
        raise InputError(f"{parameter}: approximations are of layers' parameters; name a layer")
    problem = engine.problem
    _require_no_activities(problem)
    names = problem.trainable_layers if parameter == NETWORK else (parameter,)
    _require_factors(parameter, [name for name in names if sole_node(problem, name) is None])
    maker = Maker(engine, options.samples, options.seed, wanted)
    return dict(_approximations(engine, maker, parameter, options, wanted))


def penalties(problem: Problem, parameter: str, execution: Execution) -> Array | None:
    """The diagonal (P,) that the penalties of all examples add to a block; None if none do."""
    added = of_penalties(problem, parameter, penalty.curvature)
    return None if added is None else execution.workers.sum(added.astype(np.float64))


def _require_no_activities(problem: Problem) -> None:
    if problem.graph.activities:
        raise InputError(
            f"activity_regularizer: {', '.join(problem.graph.activities)} have one, and Kronecker "
            "factors are of the output's loss alone; use --without-regularization"
        )


def _require_factors(block: str, others: Sequence[str]) -> None:
    if others:
        raise InputError(
            f"--block {block}: {others[0]} has no Kronecker factors; they exist for dense "
            "layers and convolutions with one group that share their parameters with no other "
            "layer; choose some with --layer"
        )


def _supported(
    problem: Problem, options: ApproximationOptions
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """The blocks that are looked at, and the layers that are left out."""
    _require_no_activities(problem)
    names = chosen(problem, options.block, options.layers)
    of_layers = (
        [(name, name) for name in problem.trainable_layers] if options.block == NETWORK else names
    )
    others = tuple(layer for layer, name in of_layers if sole_node(problem, name) is None)
    kept = [pair for pair in names if pair[0] not in others]
    if others and (options.block == NETWORK or options.layers or not kept):
        _require_factors(options.block, others)
    return kept, others


def _rows(
    engine: ChainRuleEngine,
    maker: Maker,
    layer: str,
    parameter: str,
    options: ApproximationOptions,
    execution: Execution,
) -> Iterator[ApproximatedBlock]:
    problem, held = engine.problem, not execution.summed
    subject = subject_of(engine, layer, parameter)
    H = subject.hessian
    of_H, of_G = _targets(subject, options, held=held)
    added = penalties(problem, parameter, execution)
    largest = _largest(H) if held else None
    for method, X in _approximations(engine, maker, parameter, options):
        whole: HessianBlock = X if added is None else PenalizedBlock(X, added.astype(X.dtype))
        trace = X.trace() + (0.0 if added is None else float(added.sum()))
        value, vector = (None, None) if largest is None else _largest(whole)
        yield ApproximatedBlock(
            activation=problem.hidden_activation,
            layer=layer,
            block=options.block,
            parameter=parameter,
            size=subject.size,
            method=method,
            hessian=of_H.distance(whole),
            gauss_newton=of_G.distance(whole),
            trace_ratio=trace / of_H.trace if of_H.trace else None,
            trace_ratio_error=_ratio_error(trace, of_H.trace, of_H.trace_error),
            eigenvalue_ratio=value / largest[0]
            if largest and value is not None and largest[0]
            else None,
            angle=_angle(largest[1], vector) if largest and vector is not None and value else None,
            storage=X.storage,
            exact=of_H.exact,
            tolerance=_SAME[problem.dtype.itemsize],
        )


def _targets(
    subject: Subject, options: ApproximationOptions, *, held: bool
) -> tuple[Target, Target] | tuple[NetworkTarget, NetworkTarget]:
    """H and G; those of a network of dense layers need no probes if it is not too large."""
    own = subject.own
    small = subject.parameter == NETWORK and subject.span.size <= EXACT_LIMIT
    if small and own and all(needs_no_probes(H) for H, _, _ in own):
        return _of_network(subject)
    generator = np.random.default_rng(options.seed)
    images = Images(generator.standard_normal((subject.size, options.probes)))
    diagonals = cache(subject.diagonals)

    def trace(term: int) -> float | None:
        found = diagonals()
        return None if found is None else found[term].trace

    return (
        Target(subject.hessian, images, held=held, trace=partial(trace, 0)),
        Target(subject.gauss_newton, images, held=held, trace=partial(trace, 1)),
    )


def _of_network(subject: Subject) -> tuple[NetworkTarget, NetworkTarget]:
    images = [Images(np.zeros((0, 0))) for _ in subject.own]
    of_H, of_G = (
        [
            Target(terms[term], each, held=True)
            for each, terms in zip(images, subject.own, strict=True)
        ]
        for term in (0, 1)
    )
    K_G = small_matrix(subject.gauss_newton, subject.span, [G for _, G, _ in subject.own])
    K_C = small_matrix(subject.curvature, subject.span, [C for _, _, C in subject.own])
    return NetworkTarget(K_G + K_C, K_G, of_H), NetworkTarget(K_G, K_G, of_G)


def _approximations(
    engine: ChainRuleEngine,
    maker: Maker,
    parameter: str,
    options: ApproximationOptions,
    wanted: Collection[str] = (),
) -> Iterator[tuple[str, Approximation]]:
    problem, kfra = engine.problem, maker.kfra()

    def of(name: str) -> Iterator[tuple[str, Approximation]]:
        node, left = sole_node(problem, name), set(wanted)
        assert node is not None  # ``_supported`` let it through
        for method, X in maker.made(name, node, options.rank, kfra.get(node.name)):
            yield method, X
            left.discard(method)
            if wanted and not left:
                return

    if parameter != NETWORK:
        yield from of(parameter)
        return
    G = engine.gauss_newton(NETWORK)
    layers = [dict(of(name)) for name in problem.trainable_layers]
    trace = sum(layer[GAUSS_NEWTON].trace() for layer in layers)
    yield GAUSS_NEWTON, BlockDiagonal(NETWORK, G.layout, (unpenalized(G),), trace)
    for method in layers[0]:
        if all(method in layer for layer in layers):
            parts = tuple(layer[method] for layer in layers)
            trace = sum(part.trace() for part in parts)
            name = BLOCK_DIAGONAL if method == GAUSS_NEWTON else method
            if isinstance(parts[0], Fisher) and method != GAUSS_NEWTON:
                name = f"{BLOCK_DIAGONAL}_{method}"
            yield name, BlockDiagonal(NETWORK, G.layout, parts, trace)


def _largest(block: HessianBlock) -> tuple[float, Array]:
    """The largest eigenvalue and its eigenvector."""
    values, vectors = largest(block, _SEARCH, whole=_SMALL)
    return float(values[0]), vectors[:, 0]


def _ratio_error(value: float, of: float, error: float | None) -> float | None:
    """The error bar of value / of; None if it is exact, or no ratio."""
    return None if error is None or of == 0 else abs(value) * error / of**2


def _angle(first: Array, second: Array) -> float:
    """Degrees between two directions, 0 to 90."""
    return math.degrees(math.acos(min(1.0, abs(float(np.vdot(first, second))))))
