"""A Jacobian over more examples than are held at a time: each chunk has the rows of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.witnesses.jacobian import JacobianBlock


class ChunkedJacobian(JacobianBlock):
    """The rows of every chunk's Jacobian; that of the chunk looked at last is kept."""

    def __init__(
        self,
        problem: Problem,
        parameter: str,
        chunks: Sequence[tuple[int, int]],
        of: Callable[[Problem], JacobianBlock],
    ) -> None:
        super().__init__(problem, parameter)
        self._problem, self._chunks, self._of = problem, sorted(chunks), of
        self._at_hand: tuple[int, JacobianBlock] | None = None

    def rows(self, start: int, stop: int) -> Array:
        stop = min(stop, self.shape[0])
        rows = np.empty((stop - start, self.shape[1]), dtype=self.dtype)
        for first, last in self._chunks:
            low, high = max(start, first * self.outputs), min(stop, last * self.outputs)
            if low < high:
                before = first * self.outputs
                of_chunk = self._of_chunk(first, last).rows(low - before, high - before)
                rows[low - start : high - start] = of_chunk
        return rows

    def _of_chunk(self, first: int, last: int) -> JacobianBlock:
        if self._at_hand is None or self._at_hand[0] != first:
            self._at_hand = first, self._of(self._problem.part(first, last))
        return self._at_hand[1]
