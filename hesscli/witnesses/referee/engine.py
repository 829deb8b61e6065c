"""Second derivatives by differences of loss values in arithmetic of many digits.

    uᵀHw    (L(h,h) − L(h,−h) − L(−h,h) + L(−h,−h)) / 4h²     + O(h²),   L(s,t) at θ + su + tw
    vᵀHv    (L(h) − 2 L(0) + L(−h)) / h²                       + O(h²)

With h = 1e-25 and numbers of 175 digits some 50 digits of the quotient are right: h² and the
rounding 1e-175/h² are both below. That they are is not taken on trust: the quotient with the
square of h has to be the same one to 20 digits. If it is not, both are taken again with smaller
steps and more digits, and what then is not the same is not known.

The numbers are those of the problem, exactly: a float32 or float64 is a binary fraction.
If a step crosses a corner of an activation or of the loss, nothing is known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from mpmath import mp

from hesscli.problem.graph import INPUT, Array
from hesscli.problem.network import Problem
from hesscli.witnesses.layout import layout_of
from hesscli.witnesses.referee.functions import Number, Pieces, penalty
from hesscli.witnesses.referee.network import (
    multiplications,
    require_known,
    values_of,
)
from hesscli.witnesses.referee.nodes import Numbers, numbers

# (digits of the arithmetic, digits of the step), and the digits in which two steps must agree.
_ROUNDS = ((175, 25), (650, 100))
_AGREE = mp.mpf(10) ** -20
# Below it every number is 0 in double precision.
_NOTHING = mp.mpf(10) ** -330
# The digits of what is answered.
DIGITS, _SHOWN = 50, 20
# The values of the loss that an answer takes at most: four points of two steps, and the values.
EVALUATIONS = 9

# Points (s, t) in steps with their weights, and what divides their sum, in steps.
_MIXED = ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
_PURE = ((1, 0, 1), (0, 0, -2), (-1, 0, 1))
# A direction by tensor: the places that move, and how much.
_Direction = Mapping[str, tuple[tuple[int, float], ...]]


@dataclass(frozen=True)
class Exact:
    """A number to DIGITS digits: the nearest double, and the first twenty as text."""

    value: float
    digits: str


class Referee:
    """Entries and forms of a problem's Hessian, from function values alone.

    Raises InputError, by name, for nodes, activations and losses that it has no function of.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._loss = require_known(problem)

    @property
    def cost(self) -> int:
        """About how many multiplications an answer takes."""
        return EVALUATIONS * self._problem.examples * multiplications(self._problem.graph)

    def entry(self, parameter: str, row: int, column: int) -> Exact | None:
        """H[row, column] of the block ``parameter``; None if it is not known."""
        unit = np.zeros((layout_of(self._problem, parameter).size, 2))
        unit[row, 0] = unit[column, 1] = 1
        if row == column:
            return self.form(parameter, unit[:, 0])
        u, w = (self._direction(parameter, column) for column in unit.T)
        return self._answer(u, w)

    def form(self, parameter: str, v: Array) -> Exact | None:
        """vᵀHv for v (P,) in the block ``parameter``; None if it is not known."""
        return self._answer(self._direction(parameter, v), None)

    def _direction(self, parameter: str, v: Array) -> _Direction:
        parts = layout_of(self._problem, parameter).split(v.reshape(-1, 1))
        flat = {name: part.reshape(-1) for name, part in parts.items()}
        return {
            name: tuple((int(index), float(part[index])) for index in np.flatnonzero(part))
            for name, part in flat.items()
            if part.any()
        }

    def _answer(self, u: _Direction, w: _Direction | None) -> Exact | None:
        for digits, small in _ROUNDS:
            with mpmath.workdps(digits):
                found = self._quotients(u, w, small)
                if found is None:
                    return None
                coarse, fine = found
                if abs(coarse - fine) <= _AGREE * abs(fine):
                    return Exact(float(fine), str(mp.nstr(fine, _SHOWN)))
                if small == _ROUNDS[-1][1] and max(abs(coarse), abs(fine)) < _NOTHING:
                    return Exact(0.0, "0")
        return None

    def _quotients(
        self, u: _Direction, w: _Direction | None, small: int
    ) -> tuple[Number, Number] | None:
        """The quotient with steps of 10^-small and of the square of it; None at a corner."""
        problem, graph = self._problem, self._problem.graph
        moving = {name for direction in (u, w or {}) for name in direction}
        examples = [n for n in range(problem.examples) if f"{INPUT}[{n}]" in moving]
        moved = graph.downstream({INPUT} if examples else (), moving)
        fixed = [node for node in graph.nodes if node not in moved]
        base = {name: numbers(tensor) for name, tensor in graph.tensors.items()}
        inputs = {n: numbers(problem.inputs[n]) for n in examples or range(problem.examples)}
        largest = max(
            (abs(number) for array in (*base.values(), *inputs.values()) for number in array.flat),
            default=0,
        )
        steps = [mp.mpf(10) ** -(small * times) / max(1, largest) for times in (1, 2)]
        points = _PURE if w is None else _MIXED
        places = [(s * h, t * h) for h in steps for s, t, _ in points]
        totals = [mp.mpf(0) for _ in places]

        here = [_moved(base, u, w, place) for place in places]
        scales = numbers(problem.scales)
        for n, x in inputs.items():
            name = f"{INPUT}[{n}]"
            target = _target(problem, n)
            known = values_of(fixed, {INPUT: x.reshape(graph.input_shape)}, base, [])
            pieces: Pieces = []
            at = values_of(moved, known, base, pieces)
            self._loss(list(at[graph.output].flat), target, pieces)
            self._activity(at, pieces)
            for index, (place, tensors) in enumerate(zip(places, here, strict=True)):
                found: Pieces = []
                given = _moved({name: x}, u, w, place)[name].reshape(graph.input_shape)
                at = values_of(moved, {**known, INPUT: given}, tensors, found)
                loss = self._loss(list(at[graph.output].flat), target, found)
                totals[index] += scales[n] * loss
                totals[index] += self._activity(at, found)
                if found != pieces:
                    return None
        if not self._add_penalties(moving, base, here, totals):
            return None
        of_steps = [totals[: len(points)], totals[len(points) :]]
        coarse, fine = (
            mp.fsum(weight * total for (_, _, weight), total in zip(points, of, strict=True))
            / ((1 if w is None else 4) * h * h)
            for h, of in zip(steps, of_steps, strict=True)
        )
        return coarse, fine

    def _activity(self, at: Mapping[str, Numbers], found: Pieces) -> Number:
        """What the penalties on values add for one example, which has a share of 1/N in them."""
        every = self._problem.graph.activities.items()
        return mp.fsum(
            penalty(number, of, found) for name, of in every for number in at[name].flat
        ) / (self._problem.total)

    def _add_penalties(
        self,
        moving: Collection[str],
        base: Mapping[str, Numbers],
        here: Sequence[Mapping[str, Numbers]],
        totals: list[Number],
    ) -> bool:
        """Adds those of the tensors that move to the totals; False at a corner."""
        for name, of in self._problem.penalties.items():
            if name not in moving:
                continue
            pieces: Pieces = []
            for number in base[name].flat:
                penalty(number, of, pieces)
            for index, tensors in enumerate(here):
                found: Pieces = []
                totals[index] += mp.fsum(penalty(each, of, found) for each in tensors[name].flat)
                if found != pieces:
                    return False
        return True


def _moved(
    base: Mapping[str, Numbers],
    u: _Direction,
    w: _Direction | None,
    place: tuple[Number, Number],
) -> dict[str, Numbers]:
    """``base`` + s u + t w at a place (s, t); what does not move is the same array."""
    found = dict(base)
    for direction, step in zip((u, w or {}), place, strict=True):
        for name in direction.keys() & base.keys():
            array = found[name].copy()
            for index, size in direction[name]:
                array.flat[index] += step * mp.mpf(size)
            found[name] = array
    return found


def _target(problem: Problem, example: int) -> Any:
    target = problem.targets[example]
    return int(target) if target.ndim == 0 else list(numbers(target))


def total(found: Sequence[Exact | None]) -> Exact | None:
    """The sum of some answers; None if one is not known."""
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    if len(known) == 1:
        return known[0]
    value = sum(each.value for each in known)
    return Exact(value, f"{value:.15e}")
