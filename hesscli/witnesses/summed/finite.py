"""Finite differences of a loss over more examples than are held at a time.

A difference quotient of a sum is the sum of the quotients, whose errors add up at most.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from hesscli.problem.execution import Execution
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.finite.engine import FiniteDifferences, FiniteHessian, Slopes
from hesscli.witnesses.layout import layout_of
from hesscli.witnesses.summed.engine import Chunks, OtherChunks, Watch


class SummedFinite:
    """Finite differences on a problem in chunks."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def hessian(self, parameter: str) -> SummedFiniteHessian:
        return SummedFiniteHessian(parameter, self._chunks)


class SummedFiniteHessian(HessianBlock):
    """FiniteHessian as the sum of its chunks'; float64 whatever the problem's type."""

    in_threads = False

    def __init__(self, parameter: str, chunks: Chunks) -> None:
        layout = layout_of(chunks.problem, parameter)
        super().__init__(parameter, layout, np.dtype(np.float64))
        self._chunks = chunks
        self._slopes: Slopes | None = None

    @property
    def slopes(self) -> Slopes:
        """vᵀg and vᵀHv along the random directions of FiniteHessian, the same for every chunk."""
        # Before Python 3.12 a cached_property has a lock of its class's own, and workers that are
        # threads would wait for each other with it.
        if self._slopes is None:
            self._slopes = Slopes(*self._chunks.sum(self._stacked))
        return self._slopes

    def _stacked(self, part: Problem) -> Array:
        of = self._of(part).slopes
        return np.stack([of.by_gradients, of.by_values, of.bars])

    def product_with_error(self, V: Array) -> tuple[Array, Array]:
        values, errors = self._chunks.sum(
            lambda part: np.stack(self._of(part).product_with_error(V))
        )
        return values, errors

    def rows_with_error(self, start: int, stop: int) -> tuple[Array, Array]:
        values, errors = self._chunks.sum(
            lambda part: np.stack(self._of(part).rows_with_error(start, stop))
        )
        return values, errors

    def form_with_error(self, v: Array) -> tuple[float, float]:
        value, error = self._chunks.sum(lambda part: np.array(self._of(part).form_with_error(v)))
        return float(value), float(error)

    def _matmat(self, V: Array) -> Array:
        return self.product_with_error(V)[0]

    def _of(self, part: Problem) -> FiniteHessian:
        return FiniteDifferences(part).hessian(self.parameter)


FiniteEngine: TypeAlias = FiniteDifferences | SummedFinite
FiniteBlock: TypeAlias = FiniteHessian | SummedFiniteHessian


def finite_of(problem: Problem, execution: Execution, watch: Watch | None = None) -> FiniteEngine:
    """Finite differences on a problem, in chunks if it is not to be held at once."""
    if not execution.summed:
        return FiniteDifferences(problem)
    return SummedFinite(OtherChunks(problem, execution, watch))
