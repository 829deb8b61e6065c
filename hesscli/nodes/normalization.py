"""Normalization by an example's own mean and variance, x̂ = i (x − mean), i = 1 / √(var + ε).

push    P(Rx),   P(r) = i (r − mean r − x̂ mean(x̂ ⊙ r))
pull    P(g)
bend    −i mean(x̂ ⊙ Rx) P(g) − i (Rx̂ mean(x̂ ⊙ g) + x̂ mean(Rx̂ ⊙ g)),   Rx̂ = P(Rx)

P is symmetric. The means are over some axes (LayerNormalization), or over a group of channels and
all places (GroupNormalization).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted
from hesscli.problem.graph import Array
from hesscli.system import xp

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NormalizedAt:
    """x̂ (n, *parted) and i with axes of one, and the cotangent g of the loss once it is known."""

    x: Array
    i: Array
    g: Array | None = None

    def part(self, chosen: slice) -> NormalizedAt:
        g = None if self.g is None else self.g[chosen, ...]
        return NormalizedAt(self.x[chosen, ...], self.i[chosen, ...], g)


class Normalization(Calculus):
    """``axes`` of one example are normalized over; ``groups`` parts its last axis first.

    With groups, axes are those of the example whose last axis is (groups, channels of a group).
    """

    def __init__(self, axes: Shape, epsilon: float, groups: int = 0) -> None:
        self.axes = axes
        self.epsilon = epsilon
        self.groups = groups

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, NormalizedAt]:
        parted = self._parted(x[0])
        centred = parted - self._mean(parted, 1)
        variance = self._mean(centred * centred, 1)
        i = 1 / xp.sqrt(variance + self.epsilon)
        normal = centred * i
        return xp.reshape(normal, x[0].shape), NormalizedAt(normal, i)

    def push(self, at: NormalizedAt, Rx: Moves, V: Tensors) -> Array:
        (moved,) = Rx
        assert moved is not None  # nothing else can move
        return xp.reshape(self._projected(at, self._parted(moved)), moved.shape)

    def pull(self, at: NormalizedAt, g: Array, wanted: Wanted) -> Pulled:
        return Pulled([xp.reshape(self._projected(at, self._parted(g)), g.shape)], {})

    def curved(self, at: NormalizedAt, g: Array) -> NormalizedAt:
        return replace(at, g=self._parted(g))

    def bend(self, at: NormalizedAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        (moved,), (below,) = Rx, into.inputs
        assert at.g is not None  # ``curved`` came first
        if moved is None or below is None:
            return
        x, i, g, r = at.x[:, None, ...], at.i[:, None, ...], at.g[:, None, ...], self._parted(moved)
        Rx̂, Pg = self._projected(at, r), self._projected(at, g)
        bent = -i * self._mean(x * r) * Pg
        bent -= i * (Rx̂ * self._mean(x * g) + x * self._mean(Rx̂ * g))
        below += xp.reshape(bent, below.shape)

    def fan(self, x: Sequence[Array], theta: Tensors) -> int:
        shape = self._parted(x[0]).shape[1:]
        return math.prod(shape[axis] for axis in self.axes)

    def _projected(self, at: NormalizedAt, r: Array) -> Array:
        x, i = at.x[:, None, ...], at.i[:, None, ...]
        projected: Array = i * (r - self._mean(r) - x * self._mean(x * r))
        return projected

    def _parted(self, x: Array) -> Array:
        if not self.groups:
            return x
        return xp.reshape(x, (*x.shape[:-1], self.groups, x.shape[-1] // self.groups))

    def _mean(self, x: Array, leading: int = 2) -> Array:
        return xp.mean(x, axis=tuple(leading + a for a in self.axes), keepdims=True)
