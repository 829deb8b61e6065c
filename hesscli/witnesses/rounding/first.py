"""The floor of a Jacobian's entries, row by row like the Jacobian itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.witnesses.jacobian import JacobianBlock


@dataclass(frozen=True)
class Uncertain:
    """The size of a quantity, and its typical error, of the same shape."""

    size: Array
    error: Array


class ParameterFloor(JacobianBlock):
    """The errors of a_n[i] J_n[o,h], times ``safety``, layer by layer.

    ``factors`` are, for each layer of the block, a (N, inputs) and J (N, c, units); ``u`` is the
    unit roundoff and ``tiny`` the smallest normal number.
    """

    def __init__(
        self,
        problem: Problem,
        parameter: str,
        factors: tuple[tuple[Uncertain, Uncertain], ...],
        u: float,
        tiny: float,
        safety: float,
    ) -> None:
        super().__init__(problem, parameter)
        self._factors = factors
        self._u, self._tiny, self._safety = u, tiny, safety

    def rows(self, start: int, stop: int) -> Array:
        n, o = self._examples_and_outputs(start, stop)
        parts = []
        for a, J in self._factors:
            a_n, e_a = (value[n][:, :, None] for value in (a.size, a.error))
            J_n, e_J = (value[n, o][:, None, :] for value in (J.size, J.error))
            # What leaves the range is said by who judges the floor.
            with np.errstate(over="ignore", invalid="ignore"):
                error = a_n * (e_J + self._u * J_n) + e_a * (J_n + e_J) + self._tiny
                parts.append(self._safety * error.reshape(len(n), -1))
        return np.concatenate(parts, axis=1)


class InputFloor(JacobianBlock):
    """The errors of J_n W_1ᵀ of one example, (c, d), which are held as they are."""

    def __init__(self, problem: Problem, parameter: str, floor: Array) -> None:
        super().__init__(problem, parameter)
        self._floor = floor

    def rows(self, start: int, stop: int) -> Array:
        return self._floor[start:stop]
