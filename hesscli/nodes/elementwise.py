"""An activation, y = σ(z) for each number.

push    σ′ ⊙ Rz        pull    σ′ ⊙ g        bend    σ″ ⊙ g ⊙ Rz
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from hesscli.nodes.activations import Derivatives
from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted
from hesscli.problem.graph import Array
from hesscli.system import xp


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
        return Sloped(self.slope[chosen, ...], None)


@dataclass(frozen=True)
class Sloped:
    """σ′ and σ″ ⊙ g (n, *shape), without z, which nothing needs any more."""

    slope: Array
    bent: Array | None

    def part(self, chosen: slice) -> Sloped:
        return Sloped(
            self.slope[chosen, ...], None if self.bent is None else self.bent[chosen, ...]
        )


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
        moved: Array = at.slope[:, None, ...] * Rz
        return moved

    def pull(self, at: ElementwiseAt | Sloped, g: Array, wanted: Wanted) -> Pulled:
        return Pulled([at.slope[:, None, ...] * g], {})

    def curved(self, at: ElementwiseAt, g: Array) -> Sloped:
        return Sloped(at.slope, by_rows(lambda z, g: at.sigma.second(z) * g, at.z, g))

    def bend(self, at: Sloped, Rx: Moves, V: Tensors, into: Pulled) -> None:
        (Rz,), (below,) = Rx, into.inputs
        assert at.bent is not None  # ``curved`` came first
        if Rz is not None and below is not None:
            for low, high in xp.row_pieces(below):
                below[low:high, ...] += at.bent[low:high, None, ...] * Rz[low:high, ...]

    def second(self, at: Sloped, S: Array, position: int, inputs: int, *, bent: bool) -> Array:
        # diag(σ′) S diag(σ′) + diag(σ″ ⊙ g)
        n, d = S.shape[:2]
        slope = xp.reshape(at.slope, (n, d))
        below = slope[:, :, None] * xp.reshape(S, (n, d, d)) * slope[:, None, :]
        if bent:
            assert at.bent is not None  # ``curved`` came first
            bent_by_slope = xp.diagonal(below) + xp.reshape(at.bent, (n, d))
            below = xp.with_diagonal(below, bent_by_slope)
        return xp.reshape(below, S.shape)


def by_rows(function: Callable[..., Array], first: Array, *others: Array) -> Array:
    """An elementwise function of arrays (n, …) of one type, in blocks of rows."""
    blocks = list(xp.row_pieces(first))
    if len(blocks) == 1:
        return function(first, *others)
    result = xp.empty_like(first)
    for low, high in blocks:
        result[low:high, ...] = function(
            first[low:high, ...], *(array[low:high, ...] for array in others)
        )
    return result
