"""Rows of numbers, one for each parameter of a block, by two witnesses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from hesscli.problem.graph import Array
from hesscli.studies.judge import Seen, of_layers
from hesscli.system.errors import NumericalError
from hesscli.witnesses.layout import Layout


@dataclass(frozen=True)
class Piece:
    """Rows (R, P) from ``start`` of a block's derivative by both witnesses, with their floor.

    ``names_of`` says what a row and a column of the whole derivative are, ``number`` how a number
    in them is called. ``subtracted`` is what was subtracted from each by autodiff, if anything: a
    number is then judged by both.
    """

    layout: Layout
    start: int
    autodiff: Array
    chain_rule: Array
    floor: Callable[[], Array]
    names_of: Callable[[int, int], tuple[str, str]]
    number: str = "∂{}/∂{}"
    subtracted: Array | None = None

    def seen(self, rtol: float) -> Iterator[tuple[int, Seen]]:
        """A summary of the columns of each layer; raises NumericalError if one is not finite.

        The floor is asked for if the tolerance of the piece itself is not enough.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            residual = np.abs(self.autodiff - self.chain_rule)
        layers = of_layers(self.layout, 0, self.layout.size)
        needed = not all(
            residual[:, columns].max() <= rtol * self._scale(columns) for _, columns in layers
        )
        floors = self.floor() if needed else np.zeros(residual.shape)
        doubtful = ~np.isfinite(residual) | ~np.isfinite(floors)
        if doubtful.any():
            output, parameter = self._names(*np.argwhere(doubtful)[0].tolist())
            raise NumericalError(
                f"{self.number.format(output, parameter)}, or its rounding error, is not finite in "
                f"{self.autodiff.dtype}; use smaller weights or dtype float64"
            )
        for layer, columns in layers:
            residuals, floor = residual[:, columns], floors[:, columns]
            names = partial(self._names, low=columns.start)
            scale = self._scale(columns)
            yield layer, Seen.of(residuals.size, scale, residuals, floor, rtol, names)

    def _scale(self, columns: slice) -> float:
        parts = (self.autodiff,) if self.subtracted is None else (self.autodiff, self.subtracted)
        return sum(float(np.abs(part[:, columns]).max()) for part in parts)

    def _names(self, row: int, column: int, low: int = 0) -> tuple[str, str]:
        return self.names_of(self.start + row, low + column)
