"""A sum of values of one shape, y = Σ x_i. It is linear: push adds, pull repeats, bend is 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted
from hesscli.problem.graph import Array


@dataclass(frozen=True)
class AddAt:
    """Nothing is needed again."""

    def part(self, chosen: slice) -> AddAt:
        return self


class Add(Calculus):
    """y = x_1 + … + x_m."""

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, AddAt]:
        return _sum(x), AddAt()

    def push(self, at: AddAt, Rx: Moves, V: Tensors) -> Array:
        return _sum([moved for moved in Rx if moved is not None])

    def pull(self, at: AddAt, g: Array, wanted: Wanted) -> Pulled:
        return Pulled([g if asked else None for asked in wanted.inputs], {})


def _sum(arrays: Sequence[Array]) -> Array:
    first, *others = arrays
    total = first
    for array in others:
        total = total + array
    return np.asarray(total)
