"""A plugin's layer on its own: the problem in which it is tried, and its methods one by one.

Below it stands a dense layer without activation, so that its input moves with parameters, and above
it a sum of squares, whose gradient 2 f is another number for each output. So the Jacobian is
``pull``, a push of every unit direction has to be its transpose, and of the Hessian, once these are
right, nothing can be wrong but ``bend``: what moves x and θ is worth at the dense layer's kernel
(in x) and at the parameters (in θ).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from hesscli.nodes.passes import Moved
from hesscli.problem.graph import INPUT, Array
from hesscli.problem.layers import DENSE, FLATTEN, LayerSpec, planned
from hesscli.problem.layertypes import TYPES
from hesscli.problem.network import Loss, Problem
from hesscli.problem.registry import shape_of
from hesscli.studies.judge import Check, Names, Seen
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import VerifiedBlock
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import NETWORK

# No plugin's name has a hyphen in it.
_BELOW, _INPUTS = "dense-below", 3
Judgement = tuple[Check | None, Verdict]


def problem_with(name: str, seed: int, examples: int, of: Callable[[Array], Array]) -> Problem:
    """The layer ``name`` in a network of random numbers, of each of which ``of`` is taken."""
    generator, shape = np.random.default_rng(seed), shape_of(name)
    specs = (
        LayerSpec(_BELOW, DENSE, (INPUT,), {"units": math.prod(shape), "use_bias": False}),
        LayerSpec("shape-below", "reshape", (_BELOW,), {"target_shape": shape}),
        LayerSpec(name, name, ("shape-below",)),
        LayerSpec("flat-above", FLATTEN, (name,)),
    )
    plan = planned(specs, (_INPUTS,), TYPES)
    tensors = {role: of(generator.standard_normal(own)) for role, own in plan.tensors.items()}
    inputs = of(generator.standard_normal((examples, _INPUTS)))
    targets = np.zeros(examples, dtype=np.int64)
    return Problem(plan.graph(tensors), inputs, targets, Loss("sum_of_squares"))


def value_check(problem: Problem, rtol: float) -> Check:
    """The outputs (N, c) by ``forward`` against those of the TensorFlow function."""
    autodiff = Autodiff(problem)
    theirs = np.asarray(autodiff.output(autodiff.batch(None)[0], {}))

    def names(example: int, output: int) -> tuple[str, str]:
        return f"f[{example},{output}]", "TensorFlow's"

    return _compared(ChainRule(problem).linearized.f, theirs, rtol, names)


def push_check(problem: Problem, rtol: float) -> Check:
    """Every entry of ∂f/∂θ, by pushes of unit directions against pulls of unit cotangents."""
    engine = ChainRule(problem)
    J = engine.jacobian(NETWORK)
    directions = J.layout.split(np.eye(J.shape[1], dtype=problem.dtype))
    moved = engine.linearized.pushed(Moved(directions))[problem.graph.output]

    def names(row: int, column: int) -> tuple[str, str]:
        return J.row_name(row), J.layout.name_of(column)

    return _compared(moved.swapaxes(1, 2).reshape(J.shape), J.rows(0, J.shape[0]), rtol, names)


def _compared(ours: Array, theirs: Array, rtol: float, names: Callable[..., Names]) -> Check:
    residual, largest = np.abs(ours - theirs), float(np.abs(theirs).max())
    no_floor = np.zeros(residual.shape)
    seen = Seen.of(residual.size, largest, residual, no_floor, rtol, names)
    return seen.check("entries", rtol)


def bends(
    problem: Problem, whole: VerifiedBlock, again: Callable[[str], VerifiedBlock]
) -> Iterator[Judgement]:
    """The checks of ``bend`` in x, and in θ if there are parameters.

    ``whole`` is of the whole network. The column of its worst entry says which of the two is
    wrong; ``again`` asks a layer alone for the other one.
    """
    worst = whole.check.worst
    wrong = None if whole.passed or worst is None else worst[1].partition("/")[0]
    for layer in problem.graph.layer_tensors:
        block = whole if wrong in (None, layer) else again(layer)
        yield block.check, block.verdict
