"""Where does curvature enter? Gradient and Hessian followed backwards through every node."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.checks import frobenius_norm, rtol_for
from hesscli.studies.context import Progress, Study, no_progress
from hesscli.studies.evaluation import origin
from hesscli.studies.judge import Check, Names, Seen, Tally, worst
from hesscli.studies.ontrial import judged
from hesscli.studies.verdict import Judged, Verdict, joint
from hesscli.system.errors import NumericalError
from hesscli.system.memory import require_memory
from hesscli.system.pieces import pieces
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.quantities import Quantity, quantities
from hesscli.witnesses.rounding.floor import RoundingFloor
from hesscli.witnesses.summed.engine import Chunks

# The Hessian of a wider input is no longer read number by number, nor that of many examples.
SHOWN_INPUTS = 8
SHOWN_EXAMPLES = 4
# Matrices of a quantity's width squared that are alive at once for one example: the terms, two
# witnesses with their intermediate steps, the difference, and the floor with its own.
_MATRICES = 20
# With so many arrays of a piece's size, a piece is smaller than elsewhere.
_PIECE_BYTES = 4 * 2**20


@dataclass(frozen=True)
class SweptNode(Judged):
    """One node of the backward sweep, with what arrives at its input ``quantity``.

    ``label`` says what the node does, as in ``dense2 tanh``. ``shape`` is the quantity's (N, d).
    The norms are Frobenius norms over the whole batch of g (N, d), and of I, O and S (N, d, d),
    by the chain rule: S = I + O, with I the linear part and O the node's own curvature part.
    The checks compare g and S with autodiff's.
    """

    activation: str
    label: str
    kind: str
    quantity: str
    shape: tuple[int, int]
    g_norm: float
    I_norm: float
    O_norm: float
    S_norm: float
    g_check: Check
    S_check: Check

    @property
    def verdict(self) -> Verdict:
        return joint((self.g_check.verdict, self.S_check.verdict))

    @property
    def worst_check(self) -> Check:
        """The worse check, of g or S."""
        return worst((self.S_check, self.g_check))


@dataclass(frozen=True)
class InputDerivatives:
    """The gradient (d,) and the Hessian (d, d) of the loss in one example's input."""

    gradient: tuple[float, ...]
    hessian: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class SweptInput:
    """The end of the sweep for one example, by both witnesses."""

    activation: str
    example: int
    autodiff: InputDerivatives
    chain_rule: InputDerivatives


@dataclass(frozen=True)
class Sweep(Study):
    """The result of ``hesscli sweep``, a row for each activation and node, backwards.

    ``inputs`` holds the first SHOWN_EXAMPLES examples for each activation if they were asked
    for and the input has no more than SHOWN_INPUTS values; None if they were not asked for.
    """

    results: tuple[SweptNode, ...]
    inputs: tuple[SweptInput, ...] | None


def sweep(
    problems: Sequence[Problem],
    rtol: float | None = None,
    with_inputs: bool = False,
    progress: Progress = no_progress,
    *,
    execution: Execution = HELD,
) -> Sweep:
    """Follows the sweep through ``problems``, which differ in their activations only.

    ``rtol`` None takes the default of the dtype. Raises NumericalError if a gradient or a
    Hessian leaves the range of the dtype, InputError if one example's does not fit the memory.
    """
    rows: list[SweptNode] = []
    inputs: list[SweptInput] = []
    for problem in problems:
        _require_memory(problem)
        rtol_here = rtol_for(problem.dtype.name, rtol)
        nodes = [_Node(problem, quantity, rtol_here) for quantity in quantities(problem)]
        for before, part in Chunks(problem, execution).parts():
            sweeper = _Sweeper(part)
            for node in nodes:
                sweeper.sweep(node, before, progress)
            if before == 0 and with_inputs and problem.widths[0] <= SHOWN_INPUTS:
                examples = min(part.examples, SHOWN_EXAMPLES)
                inputs += [sweeper.swept_input(example) for example in range(examples)]
        rows += [node.swept() for node in nodes]
    return Sweep(
        *origin(problems, execution),
        tuple(rows),
        tuple(inputs) if with_inputs else None,
    )


class _Node:
    """The numbers found at one node, added up over the examples."""

    def __init__(self, problem: Problem, quantity: Quantity, rtol: float) -> None:
        self.problem = problem
        self.quantity = quantity
        self.norms = dict.fromkeys("gIOS", 0.0)
        self.rtol = rtol
        self.tallies = Tally(rtol), Tally(rtol)

    def swept(self) -> SweptNode:
        return SweptNode(
            activation=self.problem.hidden_activation,
            label=self.quantity.label,
            kind=self.quantity.kind,
            quantity=self.quantity.name,
            shape=(self.problem.examples, self.quantity.width),
            g_norm=self.norms["g"],
            I_norm=self.norms["I"],
            O_norm=self.norms["O"],
            S_norm=self.norms["S"],
            g_check=judged(self.problem, self.tallies[0].check("entries")),
            S_check=judged(self.problem, self.tallies[1].check("entries")),
        )


class _Sweeper:
    """Both witnesses of a problem that is held, all of it or a part."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.chain_rule = ChainRule(problem)
        self.floor = RoundingFloor(self.chain_rule)
        self.autodiff = Autodiff(problem)

    def sweep(self, node: _Node, first: int, progress: Progress) -> None:
        """Looks at the node in every example; ``first`` come before them."""
        problem, quantity = self.problem, node.quantity
        each = quantity.width**2 * problem.dtype.itemsize
        for start, stop in pieces(0, problem.examples, each, _PIECE_BYTES):
            progress(f"{problem.hidden_activation} {quantity.label}", first + start, problem.total)
            terms = self.chain_rule.node_terms(quantity.value, start, stop)
            theirs = self.autodiff.gradient_and_hessian(quantity, start, stop)
            floors = cache(partial(self.floor.node, quantity.value, start, stop))
            both = zip(theirs, (terms.g, terms.S), strict=True)
            for index, (reference, candidate) in enumerate(both):
                seen = _Compared(quantity.name, first + start, reference, candidate)
                floor = partial(_nth, floors, index)
                node.tallies[index].add(None, seen.seen(node.rtol, floor))
            for name, norm in node.norms.items():
                node.norms[name] = math.hypot(norm, frobenius_norm(getattr(terms, name)))

    def swept_input(self, example: int) -> SweptInput:
        x = quantities(self.problem)[-1]
        theirs = self.autodiff.gradient_and_hessian(x, example, example + 1)
        ours = self.chain_rule.node_terms(x.value, example, example + 1)
        return SweptInput(
            activation=self.problem.hidden_activation,
            example=example,
            autodiff=_input_derivatives(*theirs),
            chain_rule=_input_derivatives(ours.g, ours.S),
        )


def _input_derivatives(g: Array, S: Array) -> InputDerivatives:
    return InputDerivatives(
        gradient=tuple(g[0].tolist()), hessian=tuple(tuple(row) for row in S[0].tolist())
    )


def _require_memory(problem: Problem) -> None:
    width = max(quantity.width for quantity in quantities(problem))
    needed = _MATRICES * width**2 * problem.dtype.itemsize
    what = f"sweep: the Hessian of one example in {width:,} values needs"
    require_memory(needed, what, "use fewer units or inputs")


def _nth(floors: Callable[[], tuple[Array, Array]], index: int) -> Array:
    return floors()[index]


@dataclass(frozen=True)
class _Compared:
    """G (n, d) or S (n, d, d) of the examples from ``first`` on, by both witnesses."""

    quantity: str
    first: int
    reference: Array
    candidate: Array

    def seen(self, rtol: float, floor: Callable[[], Array]) -> Seen:
        """A summary of the numbers; the floor is asked for if the tolerance is not enough."""
        with np.errstate(over="ignore", invalid="ignore"):
            residual = np.abs(self.reference - self.candidate)
        largest = float(np.abs(self.reference).max())
        needed = not residual.max() <= rtol * largest
        floors = floor() if needed else np.zeros(1)
        if not (np.isfinite(residual).all() and np.isfinite(floors).all()):
            raise NumericalError(
                f"the gradient or Hessian at {self.quantity} is not finite in "
                f"{self.reference.dtype}; use smaller weights or dtype float64"
            )
        return Seen.of(residual.size, largest, residual, floors, rtol, self._names)

    def _names(self, example: int, *entry: int) -> Names:
        """Only entries of S have names."""
        if len(entry) < 2:
            return None
        row, column = (f"{self.quantity}[{self.first + example},{index}]" for index in entry)
        return row, column
