"""Faults that hide, each wrong in one place only, and which check sees them.

python tests/hidden_faults.py            prints the table of docs/trust.md, in two minutes
python tests/hidden_faults.py --write    puts it there
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
from mutants import CHECKS, DTYPES, applied, edit, print_or_write
from networks import make_problem

from hesscli.nodes import calculus
from hesscli.nodes.activations import Derivatives, derivatives
from hesscli.nodes.elementwise import Elementwise
from hesscli.nodes.losses import LossDerivatives, loss_derivatives
from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.network import Loss, Problem
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.witnesses.chain_rule import engine as chainrule
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.network import NetworkBlock
from hesscli.witnesses.summed.engine import Chunks

MARKS = "hidden faults", "tests/hidden_faults.py"
MonkeyPatch = pytest.MonkeyPatch
WRONG = 1.001


def problem_of(dtype: str) -> Problem:
    return make_problem((4, 5, 3, 3), "tanh", examples=8, dtype=dtype)


def without_biases(problem: Problem, scale: Array) -> Problem:
    """Its layers without their biases, on its inputs times ``scale`` (N,)."""
    layers = [Layer(layer.name, layer.kernel, None, layer.activation) for layer in problem.layers]
    return Problem(chain(layers), problem.batch * scale[:, None], problem.targets)


def with_a_blank(dtype: str) -> Problem:
    """Relu without biases, on inputs of which one example is blank: z = 0 there."""
    problem = make_problem((4, 5, 3), "relu", examples=4, dtype=dtype)
    return without_biases(problem, np.array([0, 1, 1, 1], dtype=dtype))


def of_the_last_class(patch: MonkeyPatch) -> None:
    def wrong(loss: Loss) -> LossDerivatives:
        right = loss_derivatives(loss)

        def gradient(f: Array, labels: Array) -> Array:
            g = right.gradient(f, labels)
            g[labels == f.shape[1] - 1] *= g.dtype.type(WRONG)
            return g

        return replace(right, gradient=gradient)

    patch.setattr(chainrule, "loss_derivatives", wrong)


def of_noise(patch: MonkeyPatch) -> None:
    def noisy(activation: Activation) -> Derivatives:
        sigma, step = derivatives(activation), 1e-12
        return replace(
            sigma,
            second=lambda z: ((sigma.first(z + step) - sigma.first(z)) / step).astype(z.dtype),
        )

    patch.setattr(calculus, "derivatives", noisy)


def of_several_vectors(patch: MonkeyPatch) -> None:
    right = DenseBlock._matmat

    def wrong(self: DenseBlock, V: Array) -> Array:
        product = right(self, V)
        return product * product.dtype.type(WRONG if V.shape[1] > 1 else 1)

    patch.setattr(DenseBlock, "_matmat", wrong)


@dataclass(frozen=True)
class Kind:
    """A fault, the block in which ``verify`` is to see it, and on which problem."""

    apply: Callable[[MonkeyPatch], None]
    block: str = "kernel"
    problem: Callable[[str], Problem] = problem_of
    execution: Execution = HELD
    dtypes: tuple[str, ...] = DTYPES

    def verdict(self, dtype: str, method: str = "auto") -> Verdict:
        options = CheckOptions(method, block=self.block)
        return verify([self.problem(dtype)], options, execution=self.execution).verdict


def _edit(*of: object) -> Callable[[MonkeyPatch], None]:
    return lambda patch: edit(patch, *of)  # type: ignore[arg-type]


KINDS: Mapping[str, Kind] = {
    "noise in σ″": Kind(of_noise),
    "σ″ at a kink alone": Kind(
        _edit(
            Elementwise,
            "curved",
            "at.sigma.second(z) * g",
            "(at.sigma.second(z) + (z == 0).astype(z.dtype)) * g",
        ),
        "bias",
        lambda dtype: with_biases(with_a_blank(dtype)),
    ),
    "g of the last class alone": Kind(of_the_last_class),
    "one layer of the network alone": Kind(
        _edit(
            NetworkBlock,
            "_rows_between",
            "self.layers[layer].rows(start, stop)",
            f"self.layers[layer].rows(start, stop) * self.dtype.type({WRONG} if layer == 1 else 1)",
        ),
        "network",
    ),
    "between layers alone": Kind(
        _edit(
            NetworkBlock,
            "_rows_between",
            "return xp.reshape(rows, (stop - start, theirs.shape[0]))",
            f"return {WRONG} * xp.reshape(rows, (stop - start, theirs.shape[0]))",
        ),
        "network",
    ),
    "several vectors at once alone": Kind(of_several_vectors),
    "in float32 alone": Kind(
        _edit(
            Elementwise,
            "curved",
            "at.sigma.second(z) * g",
            "at.sigma.second(z) * g * g.dtype.type(1 + 1e-3 * (g.itemsize == 4))",
        ),
        dtypes=("float32",),
    ),
    "a chunk that all witnesses leave out": Kind(
        _edit(
            Chunks,
            "sum_of",
            "self.each(work, load)",
            "([*self.each(work, load)][:-1] or [*self.each(work, load)])",
        ),
        # Autodiff traces its entries for every chunk of every layer.
        problem=lambda dtype: make_problem((4, 3), "tanh", examples=8, dtype=dtype),
        execution=Execution(4),
    ),
}


def with_biases(problem: Problem) -> Problem:
    """Biases of zero, so that z stays 0."""
    layers = [
        Layer(of.name, of.kernel, np.zeros(of.units, of.kernel.dtype), of.activation)
        for of in problem.layers
    ]
    return replace(problem, graph=chain(layers))


def table() -> list[str]:
    """What each check says of each fault, where it changes anything."""
    lines = ["| fault | block | form | probes | entries | verify |", "|---|---|---|---|---|---|"]
    for name, fault in KINDS.items():
        cells = []
        for method in (*CHECKS, "auto"):
            with applied(fault.apply):
                found = [fault.verdict(dtype, method) for dtype in fault.dtypes]
            cells.append(", ".join(dict.fromkeys(verdict.name for verdict in found)))
        lines.append(f"| {name} | {fault.block} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print_or_write(MARKS[1], lambda: {MARKS[0]: table()})
