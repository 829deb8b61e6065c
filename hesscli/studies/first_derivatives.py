"""Do the chain rule's first derivatives equal autodiff's: the gradient, and the Jacobian of f?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.checks import frobenius_norm
from hesscli.studies.context import Progress, Study, no_progress
from hesscli.studies.evaluation import origin
from hesscli.studies.judge import Check, Tally
from hesscli.studies.ontrial import judged
from hesscli.studies.rows import Piece
from hesscli.studies.verdict import Judged, Verdict
from hesscli.studies.witnesses import CheckOptions, Subject, Witnesses, each_subject
from hesscli.system.errors import InputError
from hesscli.system.pieces import pieces
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.jacobian import JacobianBlock
from hesscli.witnesses.layout import INPUT, Layout, layout_of
from hesscli.witnesses.rounding.floor import RoundingFloor
from hesscli.witnesses.summed.engine import Chunks, Floor

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
class FirstVerification(Study):
    """The result of ``hesscli verify --of gradient`` or ``jacobian``."""

    of: FirstDerivative
    block: str
    results: tuple[VerifiedFirst, ...]


def verify_first(
    problems: Sequence[Problem],
    of: FirstDerivative,
    options: CheckOptions,
    progress: Progress = no_progress,
    *,
    execution: Execution = HELD,
) -> FirstVerification:
    """Compares every entry of the first derivatives in the blocks that ``options`` name.

    ``problems`` differ in their activations only. Raises NumericalError if a derivative
    leaves the range of the dtype, InputError if the options name no block, and for a Jacobian
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
    return FirstVerification(
        *origin(problems, execution),
        of,
        options.block,
        tuple(rows),
    )


def _shape(problem: Problem, of: FirstDerivative, subject: Subject) -> tuple[int, ...]:
    outputs = () if of == "gradient" else (problem.outputs,)
    if subject.block == INPUT:
        return (problem.examples, *outputs, subject.size)
    return (*(problem.examples * c for c in outputs), subject.size)


def _gradient_pieces(witnesses: Witnesses, subject: Subject) -> Iterator[Piece]:
    for name in subject.parameters:
        theirs, ours = (of.gradient(name) for of in (witnesses.autodiff, witnesses.chain_rule))
        layout = layout_of(witnesses.problem, name)
        floor = partial(_gradient_floor, witnesses.floor, name)
        names = partial(_gradient_names, layout)
        yield Piece(layout, 0, theirs[None], ours[None], floor, names)


def _gradient_floor(floor: Floor, name: str) -> Array:
    return floor.gradient(name)[None]


def _jacobian_pieces(witnesses: Witnesses, subject: Subject) -> Iterator[Piece]:
    problem = witnesses.problem
    for first, part in Chunks(problem, witnesses.execution).parts():
        chain_rule, autodiff = ChainRule(part), Autodiff(part)
        for name in subject.parameters:
            J, reference = chain_rule.jacobian(name), autodiff.jacobian(name)
            floor = RoundingFloor(chain_rule).jacobian(name)
            for start, stop in pieces(0, J.shape[0], J.shape[1] * J.dtype.itemsize):
                yield Piece(
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


_PIECES: Mapping[FirstDerivative, Callable[[Witnesses, Subject], Iterator[Piece]]] = (
    MappingProxyType({"gradient": _gradient_pieces, "jacobian": _jacobian_pieces})
)
