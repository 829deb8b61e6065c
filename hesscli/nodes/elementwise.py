"""An activation, y = σ(z) for each number.

push    σ′ ⊙ Rz        pull    σ′ ⊙ g        bend    σ″ ⊙ g ⊙ Rz
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hesscli.nodes.activations import Derivatives
from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted
from hesscli.problem.graph import Array
from hesscli.system.pieces import pieces

# Elementwise work is done in blocks of rows: they stay in the cache, and no intermediate result
# is as large as the arrays themselves.
_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class ElementwiseAt:
    """The pre-activation z (n, *shape)."""

    sigma: Derivatives
    z: Array

    @cached_property
    def slope(self) -> Array:
        """σ′ (n, *shape)."""
        return by_rows(self.sigma.first, self.z)

    def part(self, chosen: slice) -> Sloped:
        return Sloped(self.slope[chosen], None)


@dataclass(frozen=True)
class Sloped:
    """σ′ and σ″ ⊙ g (n, *shape), without z, which nothing needs any more."""

    slope: Array
    bent: Array | None

    def part(self, chosen: slice) -> Sloped:
        return Sloped(self.slope[chosen], None if self.bent is None else self.bent[chosen])


class Elementwise(Calculus):
    """y = σ(z)."""

    def __init__(self, sigma: Derivatives) -> None:
        self.sigma = sigma

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, ElementwiseAt]:
        (z,) = x
        return by_rows(self.sigma.value, z), ElementwiseAt(self.sigma, z)

    def push(self, at: ElementwiseAt | Sloped, Rx: Moves, V: Tensors) -> Array:
        (Rz,) = Rx
        assert Rz is not None  # nothing else can move
        return np.asarray(at.slope[:, None] * Rz)

    def pull(self, at: ElementwiseAt | Sloped, g: Array, wanted: Wanted) -> Pulled:
        return Pulled([at.slope[:, None] * g], {})

    def curved(self, at: ElementwiseAt, g: Array) -> Sloped:
        return Sloped(at.slope, by_rows(lambda z, g: at.sigma.second(z) * g, at.z, g))

    def bend(self, at: Sloped, Rx: Moves, V: Tensors, into: Pulled) -> None:
        (Rz,), (below,) = Rx, into.inputs
        assert at.bent is not None  # ``curved`` came first
        if Rz is not None and below is not None:
            for low, high in pieces(0, len(below), below[0].nbytes, _BLOCK_BYTES):
                below[low:high] += at.bent[low:high, None] * Rz[low:high]

    def second(self, at: Sloped, S: Array, position: int, inputs: int, *, bent: bool) -> Array:
        # diag(σ′) S diag(σ′) + diag(σ″ ⊙ g)
        n, d = S.shape[:2]
        slope = at.slope.reshape(n, d)
        below = slope[:, :, None] * S.reshape(n, d, d) * slope[:, None, :]
        if bent:
            assert at.bent is not None  # ``curved`` came first
            diagonal = np.arange(d)
            below[:, diagonal, diagonal] += at.bent.reshape(n, d)
        return below.reshape(S.shape)


def by_rows(function: Callable[..., Array], first: Array, *others: Array) -> Array:
    """An elementwise function of arrays (n, …) of one type, in blocks of rows."""
    if first.nbytes <= _BLOCK_BYTES:
        return function(first, *others)
    result = np.empty_like(first)
    for low, high in pieces(0, len(first), first[0].nbytes, _BLOCK_BYTES):
        result[low:high] = function(first[low:high], *(array[low:high] for array in others))
    return result
