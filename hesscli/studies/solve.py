"""The damped Newton step of a block, or any other system (X + λI) x = v.

X is the block's Hessian, its Gauss–Newton term or what stands for them
(hesscli.studies.approximation). With the gradient g for v, Δ = −x is the damped Newton step, and
the quadratic model of the loss that X makes predicts the decrease

    L(θ) − L(θ + Δ) ≈ −gᵀΔ − ½ ΔᵀXΔ
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Array
from hesscli.problem.names import MATRICES
from hesscli.problem.network import Problem
from hesscli.problem.vectorfile import Vector
from hesscli.studies.approximation import (
    BLOCK_DIAGONAL,
    ApproximationOptions,
    penalties,
    some_approximations,
)
from hesscli.studies.blocks import chosen
from hesscli.studies.context import Progress, Study, no_progress
from hesscli.studies.eigen import Search, lanczos
from hesscli.studies.evaluation import batch_loss, origin
from hesscli.studies.spectra.spanned import spanned
from hesscli.studies.verdict import Judged, Verdict
from hesscli.system.errors import InputError, NumericalError
from hesscli.system.near import nearest
from hesscli.system.ranges import require_not_negative
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import Layout, layout_of
from hesscli.witnesses.penalized import PenalizedBlock
from hesscli.witnesses.solution import Asked, Solution, solution
from hesscli.witnesses.summed.engine import ChainRuleEngine, chain_rule_of

# Two digits of the smallest eigenvalue say which damping is enough.
_SEARCH = Search(rtol=1e-3, remedy="use a larger damping")
# A solution takes about so many products; it is only for the progress.
_USUAL_PRODUCTS = 100


@dataclass(frozen=True)
class SolveOptions:
    """Which blocks, X by one of MATRICES each, λ, and how the systems are solved.

    Raises InputError for a matrix that is none and a damping below 0.
    """

    block: str = "kernel"
    layers: tuple[str, ...] = ()
    matrices: tuple[str, ...] = MATRICES[:1]
    damping: float = 0.01
    asked: Asked = field(default_factory=Asked)

    def __post_init__(self) -> None:
        for name in self.matrices:
            if name not in MATRICES:
                raise InputError(f"matrices: {name!r} is unknown{nearest(name, MATRICES)}")
        require_not_negative("damping", self.damping)


@dataclass(frozen=True)
class Step:
    """The damped Newton step Δ = −x: ``slope`` gᵀΔ, and the decrease of the loss.

    ``predicted`` is −gᵀΔ − ½ ΔᵀXΔ, ``actual`` L(θ) − L(θ + Δ).
    """

    slope: float
    predicted: float
    actual: float

    @property
    def descends(self) -> bool:
        return self.slope < 0


@dataclass(frozen=True)
class SolvedBlock(Judged):
    """One system of one block of ``size`` parameters.

    ``norm`` is ‖v‖ and ``solution_norm`` ‖x‖; ``smallest`` is X's smallest eigenvalue, None if
    the method does not see it and nothing asks for it; ``step`` is None if v is not the
    gradient.
    """

    activation: str
    layer: str
    block: str
    parameter: str
    layout: Layout
    matrix: str
    solution: Solution
    smallest: float | None
    norm: float
    step: Step | None

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def solution_norm(self) -> float:
        return float(np.linalg.norm(self.solution.x))

    @property
    def indefinite(self) -> bool:
        """Whether X + λI is known to have a negative eigenvalue."""
        met = self.solution.curvature
        return bool(self.solution.negative) or (met is not None and met < 0)

    @property
    def verdict(self) -> Verdict:
        """Whether the residual is within the tolerance."""
        return Verdict.of(self.solution.passed)


@dataclass(frozen=True)
class Solve(Study):
    """The result of ``hesscli solve``, a row for each activation, block and matrix."""

    options: SolveOptions
    results: tuple[SolvedBlock, ...]


def solve(
    problems: Sequence[Problem],
    options: SolveOptions,
    vector: Vector | None = None,
    progress: Progress = no_progress,
    *,
    execution: Execution = HELD,
) -> Solve:
    """(X + λI) x = v for blocks of ``problems``, which differ in their activations only.

    Raises InputError if the options name no block, a block has no such approximation or v does
    not fit, NumericalError if numbers leave the range of the dtype or cg meets a direction
    without curvature.
    """
    names = chosen(problems[0], options.block, options.layers)
    total = len(problems) * len(names) * len(options.matrices)
    rows: list[SolvedBlock] = []
    for problem in problems:
        engine = chain_rule_of(problem, execution)
        here = None
        if vector is None:
            here = batch_loss(problem, execution.workers, problem.graph.vector()).total
        for layer, parameter in names:
            layout = layout_of(problem, parameter)
            v = engine.gradient(parameter) if vector is None else vector(layout.shapes)
            for matrix, X in _matrices(engine, parameter, options.matrices, execution):
                task = f"{problem.hidden_activation} {parameter} {matrix}"
                show = partial(_show, progress, task, len(rows), total)
                show(0)
                found = solution(X, v, options.damping, options.asked, show)
                rows.append(
                    SolvedBlock(
                        activation=problem.hidden_activation,
                        layer=layer,
                        block=options.block,
                        parameter=parameter,
                        layout=layout,
                        matrix=matrix,
                        solution=found,
                        smallest=_smallest(X, found),
                        norm=float(np.linalg.norm(v)),
                        step=None
                        if here is None
                        else _step(problem, execution, layout, v, found, here),
                    )
                )
    return Solve(*origin(problems, execution), options, tuple(rows))


def _show(progress: Progress, task: str, done: int, total: int, products: int) -> None:
    part = products / (products + _USUAL_PRODUCTS)
    progress(task, round(100 * (done + part)), 100 * total)


def _matrices(
    engine: ChainRuleEngine, parameter: str, names: Sequence[str], execution: Execution
) -> Iterator[tuple[str, HessianBlock]]:
    """(name, X) of each of the MATRICES ``names``."""
    terms = {"hessian": engine.hessian, "gauss-newton": engine.gauss_newton}
    wanted = [name.replace("-", "_") for name in names if name not in terms]
    others: dict[str, HessianBlock] = {}
    if wanted:
        options = ApproximationOptions(rank=0)
        others.update(some_approximations(engine, parameter, options, wanted))
        added = penalties(engine.problem, parameter, execution)
        if added is not None:
            others = {name: PenalizedBlock(X, added.astype(X.dtype)) for name, X in others.items()}
    for name in names:
        if name in terms:
            yield name, spanned(terms[name](parameter))
            continue
        # The network's block-diagonal matrices have this name if they are not products of factors.
        key = name.replace("-", "_")
        X = others.get(key, others.get(f"{BLOCK_DIAGONAL}_{key}"))
        if X is None:
            known = ", ".join(each.replace("_", "-") for each in others)
            raise InputError(f"--matrix {name}: {parameter} has none; it has {known}")
        yield name, X


def _step(
    problem: Problem, execution: Execution, layout: Layout, g: Array, found: Solution, here: float
) -> Step:
    """The step, from where the loss is ``here``."""
    x = found.x
    moved = layout.split(-x[:, None].astype(problem.dtype))
    tensors = {
        name: theta + moved[name][0] if name in moved else theta
        for name, theta in problem.graph.tensors.items()
    }
    # The loss there may leave the range of the type, and then is infinite.
    theta = problem.graph.with_tensors(tensors).vector()
    there = batch_loss(problem, execution.workers, theta).total
    gx = float(g.astype(np.float64) @ x)
    return Step(slope=0.0 - gx, predicted=gx - found.form / 2, actual=here - there)


def _smallest(X: HessianBlock, found: Solution) -> float | None:
    """X's smallest eigenvalue, by Lanczos if it is negative and nobody has seen it."""
    met = found.curvature
    if found.smallest is not None or met is None or met >= 0:
        return found.smallest
    with suppress(NumericalError):
        values, _ = lanczos(X, X.parameter, _SEARCH, which="SA", device=X.device)
        return float(values[0])
    return None
