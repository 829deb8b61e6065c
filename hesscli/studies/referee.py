"""The referee: arithmetic of 50 digits, if rounding leaves open which witness is right.

Asked are the worst entries that are known, the quadratic form at the parameter itself, and forms
in random directions, which a wrong entry anywhere changes. A witness that is within the tolerance
of every answer is right; one that only a floor that is not small would excuse has lost its
digits; one beyond that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from hesscli.problem.execution import Execution
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.judge import Check, Names, judged_alone, layer_around
from hesscli.studies.ontrial import judged
from hesscli.studies.verdict import Verdict, joint
from hesscli.studies.witnesses import CheckOptions, Subject, Witnesses
from hesscli.system.errors import InputError
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import layout_of
from hesscli.witnesses.summed.engine import require_held

if TYPE_CHECKING:
    from hesscli.witnesses.referee.engine import Exact, Referee

Blocks = Callable[[str], HessianBlock]
CORNER = "a pre-activation is on a corner, where 50 digits cannot tell either"
INSTALL = "pip install 'hesscli[referee]'"
# The multiplications that a ruling may take: half a minute.
_AFFORDABLE = 6e7
# Forms in so many random directions, and entries in addition to the worst one, by their residuals.
_RANDOM_FORMS, _BESIDE = 2, 2


@dataclass(frozen=True)
class Answer:
    """A number to 50 digits, what each witness says, and what that is worth.

    ``names`` are an entry's two parameters, None for a quadratic form; the verdict on a witness
    is UNDECIDED if it lost its digits.
    """

    names: Names
    exact: Exact
    by_witness: Mapping[str, float]
    checks: Mapping[str, Check]

    @property
    def apart(self) -> float:
        """How far the worst witness is away, relative to the scale."""
        return max(check.relative_residual for check in self.checks.values())


@dataclass(frozen=True)
class Ruling:
    """Whether the candidate is right, by ``answers`` to 50 digits."""

    candidate: str
    answers: tuple[Answer, ...]

    def standing(self, witness: str) -> Verdict:
        return joint(answer.checks[witness].verdict for answer in self.answers)

    @property
    def witnesses(self) -> tuple[str, ...]:
        return tuple(self.answers[0].checks)

    @property
    def worst(self) -> Answer:
        """The first one that is about as far apart as any."""
        farthest = max(answer.apart for answer in self.answers)
        return next(answer for answer in self.answers if answer.apart >= farthest / 2)

    @property
    def verdict(self) -> Verdict:
        """The verdict on the candidate; if it lost its digits it is UNDECIDED."""
        return self.standing(self.candidate)


def referee_of(problem: Problem, execution: Execution) -> Referee:
    """The referee on a problem.

    Raises InputError if mpmath is missing, if the examples are not held at once, and for
    what the referee has no function of.
    """
    try:
        from hesscli.witnesses.referee.engine import Referee
    except ModuleNotFoundError as error:
        raise InputError(f"mpmath, which the referee needs, is not installed; {INSTALL}") from error
    require_held(problem, execution, "the referee looks at all of them")
    return Referee(problem)


def affordable(referee: Referee, answers: int) -> str | None:
    """Why so many answers are not affordable; None if they are."""
    cost = answers * referee.cost
    if cost <= _AFFORDABLE:
        return None
    return (
        f"the referee would take {cost:.0e} multiplications of 50 digits, more than "
        f"{_AFFORDABLE:.0e}; use fewer examples or a smaller network"
    )


def ruling(
    witnesses: Witnesses,
    subject: Subject,
    of: Mapping[str, Blocks],
    checks: Sequence[Check],
    options: CheckOptions,
) -> Ruling | str:
    """Asks for numbers to 50 digits about the witnesses ``of`` a subject; the first is judged.

    ``checks`` are those that are open. A text says why there is no ruling.
    """
    try:
        referee = referee_of(witnesses.problem, witnesses.execution)
    except InputError as error:
        return str(error)
    questions = _Questions(witnesses, subject, of, referee, options.rtol_for(witnesses.problem))
    worst = [check.worst for check in checks if check.worst is not None]
    most = len(subject.parameters) * (1 + _RANDOM_FORMS) + len(worst) * (1 + _BESIDE + len(of))
    if (too_much := affordable(referee, most)) is not None:
        return too_much
    answers = [questions.form(witnesses.direction)]
    generator = np.random.default_rng(options.seed)
    answers += [questions.form(partial(questions.random, generator)) for _ in range(_RANDOM_FORMS)]
    answers += [answer for names in worst for answer in questions.row(*names)]
    known = tuple(answer for answer in answers if answer is not None)
    if len(known) < len(answers):
        return CORNER
    return Ruling(next(iter(of)), known)


@dataclass(frozen=True)
class _Questions:
    """The numbers that are asked for, each of the referee and of every witness."""

    witnesses: Witnesses
    subject: Subject
    of: Mapping[str, Blocks]
    referee: Referee
    rtol: float

    @cached_property
    def blocks(self) -> Mapping[tuple[str, str], HessianBlock]:
        return {
            (witness, name): of(name)
            for witness, of in self.of.items()
            for name in self.subject.parameters
        }

    def random(self, generator: np.random.Generator, parameter: str) -> Array:
        size = layout_of(self.witnesses.problem, parameter).size
        drawn: Array = generator.standard_normal(size).astype(self.witnesses.problem.dtype)
        return drawn

    def form(self, direction: Callable[[str], Array]) -> Answer | None:
        """vᵀHv, summed over the subject's blocks."""
        from hesscli.witnesses.referee.engine import total

        along = {name: direction(name) for name in self.subject.parameters}
        found = [self.referee.form(name, v) for name, v in along.items()]
        exact = total(found)
        if exact is None:
            return None
        of_terms = [
            sum(of(name).quadratic_form(v) for name, v in along.items())
            for of in (
                self.witnesses.chain_rule.gauss_newton,
                self.witnesses.chain_rule.curvature,
            )
        ]

        def floor() -> float:
            return sum(self.witnesses.floor.quadratic_form(name, v) for name, v in along.items())

        by_witness = {
            witness: sum(self.blocks[witness, name].quadratic_form(v) for name, v in along.items())
            for witness in self.of
        }
        scale = max(abs(exact.value), sum(map(abs, of_terms)))
        return self._answer("form", None, exact, by_witness, scale, floor)

    def row(self, first: str, second: str) -> list[Answer | None]:
        """The entry, and of its row the ones that are farthest apart, and each largest one."""
        problem = self.witnesses.problem
        parameter = next(
            name
            for name in self.subject.parameters
            if any(first.startswith(f"{tensor}[") for tensor in layout_of(problem, name).tensors)
        )
        layout = layout_of(problem, parameter)
        row, column = layout.index_of(first), layout.index_of(second)
        unit = np.zeros(layout.size, dtype=problem.dtype)
        unit[row] = 1
        rows = {
            witness: np.asarray(self.blocks[witness, parameter] @ unit, dtype=np.float64)
            for witness in self.of
        }
        beside = layer_around(layout, column)
        stacked = np.stack([values[beside] for values in rows.values()])
        chosen = [column]
        chosen += [beside.start + int(place) for place in np.abs(stacked).argmax(axis=1)]
        spread = np.ptp(stacked, axis=0)
        chosen += [beside.start + int(place) for place in np.argsort(-spread)[:_BESIDE]]
        chosen = list(dict.fromkeys(chosen))
        exact = [self.referee.entry(parameter, row, at) for at in chosen]
        scale = max((abs(of.value) for of in exact if of is not None), default=0.0)

        def floor(at: int) -> float:
            return layout.at(self.witnesses.floor.entries(parameter), row, at)

        return [
            None
            if found is None
            else self._answer(
                "entry",
                (layout.name_of(row), layout.name_of(at)),
                found,
                {witness: float(values[at]) for witness, values in rows.items()},
                scale,
                partial(floor, at),
            )
            for at, found in zip(chosen, exact, strict=True)
        ]

    def _answer(
        self,
        method: str,
        names: Names,
        exact: Exact,
        by_witness: Mapping[str, float],
        scale: float,
        floor: Callable[[], float],
    ) -> Answer:
        checks = {
            witness: judged(
                self.witnesses.problem,
                judged_alone(method, value - exact.value, scale, self.rtol, floor, names),
            )
            for witness, value in by_witness.items()
        }
        return Answer(names, exact, by_witness, checks)
