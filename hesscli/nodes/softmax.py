"""Softmax over an axis, p = exp(x) / Σ exp(x).

push    p ⊙ (Rx − ⟨p, Rx⟩)        pull    p ⊙ (g − ⟨p, g⟩)
bend    Rp ⊙ (g − ⟨p, g⟩) − p ⟨Rp, g⟩,   Rp = push(Rx)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import softmax

from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted
from hesscli.problem.graph import Array


@dataclass(frozen=True)
class SoftmaxAt:
    """The probabilities p (n, *shape), and the cotangent g of the loss once it is known."""

    p: Array
    g: Array | None = None

    def part(self, chosen: slice) -> SoftmaxAt:
        return SoftmaxAt(self.p[chosen], None if self.g is None else self.g[chosen])


class Softmax(Calculus):
    """p = softmax(x) over an axis counted from the last, -1."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, SoftmaxAt]:
        p = np.asarray(softmax(x[0], axis=self.axis))
        return p, SoftmaxAt(p)

    def push(self, at: SoftmaxAt, Rx: Moves, V: Tensors) -> Array:
        (moved,) = Rx
        assert moved is not None  # nothing else can move
        return _jacobian_product(at.p[:, None], moved, self.axis)

    def pull(self, at: SoftmaxAt, g: Array, wanted: Wanted) -> Pulled:
        # The Jacobian diag(p) − p pᵀ is symmetric.
        return Pulled([_jacobian_product(at.p[:, None], g, self.axis)], {})

    def curved(self, at: SoftmaxAt, g: Array) -> SoftmaxAt:
        return replace(at, g=g)

    def bend(self, at: SoftmaxAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        (moved,), (below,) = Rx, into.inputs
        assert at.g is not None  # ``curved`` came first
        if moved is not None and below is not None:
            p, g = at.p[:, None], at.g[:, None]
            Rp, axis = _jacobian_product(p, moved, self.axis), self.axis
            below += Rp * (g - _inner(p, g, axis)) - p * _inner(Rp, g, axis)


def _jacobian_product(p: Array, v: Array, axis: int) -> Array:
    # At the likeliest class v is made 0, which softmax does not see: nothing is then subtracted
    # from 1 where p is nearly 1.
    likeliest = np.expand_dims(p.argmax(axis=axis), axis)
    where = np.broadcast_to(likeliest, (*v.shape[:2], *likeliest.shape[2:]))
    w = v - np.take_along_axis(v, where, axis=axis)
    return np.asarray(p * (w - _inner(p, w, axis)))


def _inner(x: Array, y: Array, axis: int) -> Array:
    return np.asarray((x * y).sum(axis=axis, keepdims=True))
