"""Softmax over an axis, p = exp(x) / Σ exp(x), and its logarithm.

push    p ⊙ (Rx − ⟨p, Rx⟩)        pull    p ⊙ (g − ⟨p, g⟩)
bend    Rp ⊙ (g − ⟨p, g⟩) − p ⟨Rp, g⟩,   Rp = push(Rx)

log p   push Rx − ⟨p, Rx⟩,   pull g − p Σ g,   bend −Rp Σ g
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_softmax, softmax

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


class LogSoftmax(Softmax):
    """y = x − log Σ exp(x) over an axis counted from the last, -1."""

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, SoftmaxAt]:
        _, at = super().forward(x, theta)
        return np.asarray(log_softmax(x[0], axis=self.axis)), at

    def push(self, at: SoftmaxAt, Rx: Moves, V: Tensors) -> Array:
        (moved,) = Rx
        assert moved is not None  # nothing else can move
        w = _from_likeliest(at.p[:, None], moved, self.axis)
        return w - _inner(at.p[:, None], w, self.axis)

    def pull(self, at: SoftmaxAt, g: Array, wanted: Wanted) -> Pulled:
        # (1 − p) g − p Σ of the others' g, with 1 − p through the other classes.
        p = at.p[:, None]
        others = g.sum(axis=self.axis, keepdims=True) - g
        return Pulled([self._rest(p) * g - p * others], {})

    def bend(self, at: SoftmaxAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        (moved,), (below,) = Rx, into.inputs
        assert at.g is not None  # ``curved`` came first
        if moved is not None and below is not None:
            total = at.g[:, None].sum(axis=self.axis, keepdims=True)
            below -= _jacobian_product(at.p[:, None], moved, self.axis) * total

    def _rest(self, p: Array) -> Array:
        likeliest = p == p.max(axis=self.axis, keepdims=True)
        others = np.where(likeliest, 0, p).sum(axis=self.axis, keepdims=True)
        alone = likeliest.sum(axis=self.axis, keepdims=True) == 1
        return np.where(likeliest & alone, others, 1 - p)


def _jacobian_product(p: Array, v: Array, axis: int) -> Array:
    w = _from_likeliest(p, v, axis)
    return np.asarray(p * (w - _inner(p, w, axis)))


def _from_likeliest(p: Array, v: Array, axis: int) -> Array:
    # At the likeliest class v is made 0, which softmax does not see: nothing is then subtracted
    # from 1 where p is nearly 1.
    likeliest = np.expand_dims(p.argmax(axis=axis), axis)
    where = np.broadcast_to(likeliest, (*v.shape[:2], *likeliest.shape[2:]))
    return np.asarray(v - np.take_along_axis(v, where, axis=axis))


def _inner(x: Array, y: Array, axis: int) -> Array:
    return np.asarray((x * y).sum(axis=axis, keepdims=True))
