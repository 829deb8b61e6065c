"""Do the chain rule's first derivatives equal autodiff's: the gradient, and the Jacobian of f?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.checks import frobenius_norm
from hesscli.studies.context import (
    Environment,
    ProblemSummary,
    Progress,
    environment,
    no_progress,
)
from hesscli.studies.evaluation import evaluated
from hesscli.studies.judge import Check, Seen, Tally, of_layers
from hesscli.studies.ontrial import judged
from hesscli.studies.verdict import Judged, JudgedRows, Verdict
from hesscli.studies.witnesses import CheckOptions, Subject, Witnesses, each_subject
from hesscli.system.errors import InputError, NumericalError
from hesscli.system.pieces import pieces
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.autodiff.first import AutodiffFirst
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.chain_rule.first import ChainFirst
from hesscli.witnesses.jacobian import FirstOrderEngine, JacobianBlock
from hesscli.witnesses.layout import INPUT, Layout, layout_of
from hesscli.witnesses.rounding.floor import RoundingFloor
from hesscli.witnesses.summed.engine import Chunks, Floor, OtherChunks

FirstDerivative = Literal["gradient", "jacobian"]


@dataclass(frozen=True)
class VerifiedFirst(Judged):
    """The gradient or the Jacobian in one block by both witnesses.

    ``shape`` is (P,) or (N·c, P), and (N, d) or (N, c, d) for the inputs. The norms are the
    Frobenius norms; ``check`` compares every entry.
    """

    activation: str
    layer: str
    block: str
    size: int
    shape: tuple[int, ...]
    autodiff_norm: float
    chain_rule_norm: float
    check: Check

    @property
    def verdict(self) -> Verdict:
        return self.check.verdict


@dataclass(frozen=True)
class FirstVerification(JudgedRows):
    """What ``hesscli verify --of gradient`` or ``jacobian`` found."""

    environment: Environment
    problem: ProblemSummary
    of: FirstDerivative
    block: str
    results: tuple[VerifiedFirst, ...]


@dataclass(frozen=True)
class _Piece:
    """Rows (R, P) from ``start`` of a block's derivative by both witnesses, with their floor.

    ``names_of`` says what a row and a column of the whole derivative are.
    """

    layout: Layout
    start: int
    autodiff: Array
    chain_rule: Array
    floor: Callable[[], Array]
    names_of: Callable[[int, int], tuple[str, str]]

    def seen(self, rtol: float) -> Iterator[tuple[int, Seen]]:
        """What is kept of the columns of each layer; NumericalError where one is not finite.

        The floor is asked for where the tolerance of the piece itself is not enough.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            residual = np.abs(self.autodiff - self.chain_rule)
        layers = of_layers(self.layout, 0, self.layout.size)
        needed = not all(
            residual[:, columns].max() <= rtol * np.abs(self.autodiff[:, columns]).max()
            for _, columns in layers
        )
        floors = self.floor() if needed else np.zeros(residual.shape)
        doubtful = ~np.isfinite(residual) | ~np.isfinite(floors)
        if doubtful.any():
            output, parameter = self._names(*np.argwhere(doubtful)[0].tolist())
            raise NumericalError(
                f"∂{output}/∂{parameter}, or its rounding error, is not finite in "
                f"{self.autodiff.dtype}; use smaller weights or dtype float64"
            )
        for layer, columns in layers:
            theirs, residuals, floor = (of[:, columns] for of in (self.autodiff, residual, floors))
            names = partial(self._names, low=columns.start)
            largest = float(np.abs(theirs).max())
            yield layer, Seen.of(residuals.size, largest, residuals, floor, rtol, names)

    def _names(self, row: int, column: int, low: int = 0) -> tuple[str, str]:
        return self.names_of(self.start + row, low + column)


def verify_first(
    problems: Sequence[Problem],
    of: FirstDerivative,
    options: CheckOptions,
    progress: Progress = no_progress,
    *,
    execution: Execution = HELD,
) -> FirstVerification:
    """Compares every entry of the first derivatives in the blocks that ``options`` name.

    ``problems`` differ in their activations only. Raises NumericalError where a derivative
    leaves the range of the dtype, InputError where the options name no block, and for a Jacobian
    whose examples several workers share.
    """
    if of == "jacobian" and execution.workers.count > 1:
        raise InputError(
            "--of jacobian: it has rows of every example, which are shared out among "
            f"{execution.workers.count} processes; start one"
        )
    rows = []
    for witnesses, subject in each_subject(problems, options, progress, execution=execution):
        problem = witnesses.problem
        activation = problem.hidden_activation
        shape = _shape(problem, of, subject)
        tally, norms = Tally(options.rtol_for(problem)), (0.0, 0.0)
        for piece in _PIECES[of](witnesses, subject):
            progress(f"{activation} {subject.layer}", tally.compared, math.prod(shape))
            for layer, seen in piece.seen(options.rtol_for(problem)):
                tally.add(layer, seen)
            norms = (
                math.hypot(norms[0], frobenius_norm(piece.autodiff)),
                math.hypot(norms[1], frobenius_norm(piece.chain_rule)),
            )
        rows.append(
            VerifiedFirst(
                activation=activation,
                layer=subject.layer,
                block=subject.block,
                size=subject.size,
                shape=shape,
                autodiff_norm=norms[0],
                chain_rule_norm=norms[1],
                check=judged(problem, tally.check("entries")),
            )
        )
    first = problems[0]
    return FirstVerification(
        environment(first, execution),
        evaluated(problems, execution),
        of,
        options.block,
        tuple(rows),
    )


def _shape(problem: Problem, of: FirstDerivative, subject: Subject) -> tuple[int, ...]:
    outputs = () if of == "gradient" else (problem.outputs,)
    if subject.block == INPUT:
        return (problem.examples, *outputs, subject.size)
    return (*(problem.examples * c for c in outputs), subject.size)


@dataclass(frozen=True)
class _Engines:
    """Both witnesses' first derivatives of a problem that is held, and their floors."""

    autodiff: FirstOrderEngine
    chain_rule: FirstOrderEngine
    floor: RoundingFloor

    @classmethod
    def of(cls, problem: Problem) -> _Engines:
        chain_rule = ChainRule(problem)
        floor = RoundingFloor(chain_rule)
        return cls(AutodiffFirst(Autodiff(problem)), ChainFirst(chain_rule), floor)

    def gradient(self, name: str) -> Array:
        """Autodiff's and the chain rule's gradient, (2, P)."""
        return np.stack([self.autodiff.gradient(name), self.chain_rule.gradient(name)])


def _gradient_pieces(witnesses: Witnesses, subject: Subject) -> Iterator[_Piece]:
    problem = witnesses.problem
    held = None if witnesses.execution.summed else _Engines.of(problem)
    for name in subject.parameters:
        of_all = held.gradient if held else partial(_summed_gradients, witnesses)
        # What is too large for the type is not finite in it, and refused as that.
        with np.errstate(over="ignore"):
            theirs, ours = of_all(name)[:, None].astype(problem.dtype, copy=False)
        layout = layout_of(problem, name)
        floor = partial(_gradient_floor, witnesses.floor, name)
        yield _Piece(layout, 0, theirs, ours, floor, partial(_gradient_names, layout))


def _summed_gradients(witnesses: Witnesses, name: str) -> Array:
    of = witnesses.problem, witnesses.execution, witnesses.watch
    autodiff = OtherChunks(*of).sum(lambda part: AutodiffFirst(Autodiff(part)).gradient(name))
    chain_rule = Chunks(*of).sum(lambda part: ChainFirst(ChainRule(part)).gradient(name))
    return np.stack([autodiff, chain_rule])


def _gradient_floor(floor: Floor, name: str) -> Array:
    return floor.gradient(name)[None]


def _jacobian_pieces(witnesses: Witnesses, subject: Subject) -> Iterator[_Piece]:
    problem = witnesses.problem
    for first, part in Chunks(problem, witnesses.execution).parts():
        engines = _Engines.of(part)
        for name in subject.parameters:
            J, reference = engines.chain_rule.jacobian(name), engines.autodiff.jacobian(name)
            floor = engines.floor.jacobian(name)
            for start, stop in pieces(0, J.shape[0], J.shape[1] * J.dtype.itemsize):
                yield _Piece(
                    J.layout,
                    start,
                    reference.rows(start, stop),
                    J.rows(start, stop),
                    partial(floor.rows, start, stop),
                    partial(_jacobian_names, J, first),
                )


def _gradient_names(layout: Layout, _: int, column: int) -> tuple[str, str]:
    return "L", layout.name_of(column)


def _jacobian_names(J: JacobianBlock, first: int, row: int, column: int) -> tuple[str, str]:
    return J.row_name(row, first), J.layout.name_of(column)


_PIECES: Mapping[FirstDerivative, Callable[[Witnesses, Subject], Iterator[_Piece]]] = (
    MappingProxyType({"gradient": _gradient_pieces, "jacobian": _jacobian_pieces})
)
