"""Softmax over an axis, p = exp(x) / Σ exp(x), and its logarithm.

push    p ⊙ (Rx − ⟨p, Rx⟩)        pull    p ⊙ (g − ⟨p, g⟩)
bend    Rp ⊙ (g − ⟨p, g⟩) − p ⟨Rp, g⟩,   Rp = push(Rx)

log p   push Rx − ⟨p, Rx⟩,   pull g − p Σ g,   bend −Rp Σ g
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted
from hesscli.problem.graph import Array
from hesscli.system import xp


@dataclass(frozen=True)
class SoftmaxAt:
    """The probabilities p (n, *shape), and the cotangent g of the loss once it is known."""

    p: Array
    g: Array | None = None

    def part(self, chosen: slice) -> SoftmaxAt:
        return SoftmaxAt(self.p[chosen, ...], None if self.g is None else self.g[chosen, ...])


class Softmax(Calculus):
    """p = softmax(x) over an axis counted from the last, -1."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, SoftmaxAt]:
        p = softmax(x[0], self.axis)
        return p, SoftmaxAt(p)

    def push(self, at: SoftmaxAt, Rx: Moves, V: Tensors) -> Array:
        (moved,) = Rx
        assert moved is not None  # nothing else can move
        return _jacobian_product(at.p[:, None, ...], moved, self.axis)

    def pull(self, at: SoftmaxAt, g: Array, wanted: Wanted) -> Pulled:
        # The Jacobian diag(p) − p pᵀ is symmetric.
        return Pulled([_jacobian_product(at.p[:, None, ...], g, self.axis)], {})

    def curved(self, at: SoftmaxAt, g: Array) -> SoftmaxAt:
        return replace(at, g=g)

    def bend(self, at: SoftmaxAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        (moved,), (below,) = Rx, into.inputs
        assert at.g is not None  # ``curved`` came first
        if moved is not None and below is not None:
            p, g = at.p[:, None, ...], at.g[:, None, ...]
            Rp, axis = _jacobian_product(p, moved, self.axis), self.axis
            below += Rp * (g - _inner(p, g, axis)) - p * _inner(Rp, g, axis)


class LogSoftmax(Softmax):
    """y = x − log Σ exp(x) over an axis counted from the last, -1."""

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, SoftmaxAt]:
        _, at = super().forward(x, theta)
        return x[0] - logsumexp(x[0], self.axis), at

    def push(self, at: SoftmaxAt, Rx: Moves, V: Tensors) -> Array:
        (moved,) = Rx
        assert moved is not None  # nothing else can move
        w = from_likeliest(at.p[:, None, ...], moved, self.axis)
        return w - _inner(at.p[:, None, ...], w, self.axis)

    def pull(self, at: SoftmaxAt, g: Array, wanted: Wanted) -> Pulled:
        # (1 − p) g − p Σ of the others' g, with 1 − p through the other classes.
        p = at.p[:, None, ...]
        others = xp.sum(g, axis=self.axis, keepdims=True) - g
        return Pulled([self._rest(p) * g - p * others], {})

    def bend(self, at: SoftmaxAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        (moved,), (below,) = Rx, into.inputs
        assert at.g is not None  # ``curved`` came first
        if moved is not None and below is not None:
            total = xp.sum(at.g[:, None, ...], axis=self.axis, keepdims=True)
            below -= _jacobian_product(at.p[:, None, ...], moved, self.axis) * total

    def _rest(self, p: Array) -> Array:
        likeliest = p == xp.max(p, axis=self.axis, keepdims=True)
        others = xp.sum(xp.where(likeliest, 0.0, p), axis=self.axis, keepdims=True)
        alone = xp.count_nonzero(likeliest, axis=self.axis, keepdims=True) == 1
        return xp.where(likeliest & alone, others, 1 - p)


def _jacobian_product(p: Array, v: Array, axis: int) -> Array:
    w = from_likeliest(p, v, axis)
    product: Array = p * (w - _inner(p, w, axis))
    return product


def from_likeliest(p: Array, v: Array, axis: int) -> Array:
    """V (n, k, …) less what it is at the likeliest class of p (n, 1, …).

    Softmax does not see it, and nothing is then subtracted from 1 where p is nearly 1.
    """
    likeliest = xp.expand_dims(xp.argmax(p, axis=axis), axis=axis)
    where = xp.broadcast_to(likeliest, (*v.shape[:2], *likeliest.shape[2:]))
    difference: Array = v - xp.take_along_axis(v, where, axis=axis)
    return difference


def softmax(x: Array, axis: int = -1) -> Array:
    """P = exp(x) / Σ exp(x) over an axis."""
    e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    p: Array = e / xp.sum(e, axis=axis, keepdims=True)
    return p


def logsumexp(x: Array, axis: int = -1) -> Array:
    """Log Σ exp(x) over an axis, which stays with length 1: m + log(1 + Σ exp(others − m)).

    m is the maximum, so that the others keep their digits where their sum is small next to 1.
    """
    m = xp.max(x, axis=axis, keepdims=True)
    first = xp.expand_dims(xp.argmax(x, axis=axis), axis=axis)
    others = xp.where(_places(x, axis) == first, 0.0, xp.exp(x - m))
    total: Array = m + xp.log1p(xp.sum(others, axis=axis, keepdims=True))
    return total


def _places(x: Array, axis: int) -> Array:
    """0, 1, … along an axis counted from the last, as integers."""
    return xp.reshape(xp.arange(x.shape[axis], like=x), (-1, *[1] * (-1 - axis)))


def _inner(x: Array, y: Array, axis: int) -> Array:
    return xp.sum(x * y, axis=axis, keepdims=True)
