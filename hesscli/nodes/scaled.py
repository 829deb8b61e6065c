"""Nodes that multiply a function of each number by a parameter, y = m(x) + γ ⊙ w(x) + β.

push    (m′ + γ w′) ⊙ Rx + V_γ ⊙ w + V_β
pull    (m′ + γ w′) ⊙ g;   at γ: Σ w ⊙ g,   at β: Σ g
bend    V_γ ⊙ w′ ⊙ g;   at γ: Σ w′ ⊙ g ⊙ Rx

    batch normalization    w = (x − mean) / √(variance + ε), with statistics that are constants
    scale                  w = x, behind a normalization
    PReLU                  m = max(x, 0), w = min(x, 0), with the parameter alpha
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hesscli.nodes.bilinear import aligned, summed
from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted, added
from hesscli.problem.graph import Array
from hesscli.system import xp

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ScaledAt:
    """w (n, *shape), w′ and m′ + γ w′ (n or 1, *shape), and g once it is known.

    ``wide`` is the shape of γ and β with axes of one, for one example, ``own`` their own.
    """

    w: Array
    w_slope: Array
    slope: Array
    wide: Shape
    own: Shape
    g: Array | None = None

    def part(self, chosen: slice) -> ScaledAt:
        def of(array: Array) -> Array:
            return array if array.shape[0] == 1 < self.w.shape[0] else array[chosen, ...]

        g = None if self.g is None else self.g[chosen, ...]
        w = self.w[chosen, ...]
        return replace(self, w=w, w_slope=of(self.w_slope), slope=of(self.slope), g=g)


class Scaled(Calculus):
    """``axes`` are those of one example that the parameters have; ``role`` is that of γ."""

    bends_in_x = False
    role = "gamma"

    def __init__(self, axes: Shape) -> None:
        self.axes = axes

    @abstractmethod
    def weighted(self, x: Array) -> tuple[Array, Array]:
        """W (n, *shape) and w′ (n or 1, *shape)."""

    def plain(self, x: Array) -> tuple[Array, Array] | None:
        """M and m′ (n, *shape); None where m is 0."""
        return None

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, ScaledAt]:
        (value,) = x
        own = next((tensor.shape for tensor in theta.values()), ())
        sizes = iter(own)
        axes = range(value.ndim - 1)
        wide = tuple(next(sizes) if own and axis in self.axes else 1 for axis in axes)
        w, w_slope = self.weighted(value)
        y, slope, plain = w, w_slope, self.plain(value)
        if self.role in theta:
            gamma = xp.reshape(theta[self.role], wide)
            y, slope = gamma * w, gamma * w_slope
        if plain is not None:
            y, slope = plain[0] + y, plain[1] + slope
        if "beta" in theta:
            y = y + xp.reshape(theta["beta"], wide)
        return y, ScaledAt(w, w_slope, slope, wide, own)

    def push(self, at: ScaledAt, Rx: Moves, V: Tensors) -> Array:
        (moved,), parts = Rx, []
        if moved is not None:
            parts.append(at.slope[:, None, ...] * moved)
        if self.role in V:
            parts.append(at.w[:, None, ...] * _directions(V[self.role], at))
        if "beta" in V:
            beta = _directions(V["beta"], at)
            parts.append(xp.broadcast_to(beta, (at.w.shape[0], beta.shape[1], *at.w.shape[1:])))
        return added(parts)

    def pull(self, at: ScaledAt, g: Array, wanted: Wanted) -> Pulled:
        tensors = {}
        if self.role in wanted.tensors:
            tensors[self.role] = _summed(at.w[:, None, ...] * g, at)
        if "beta" in wanted.tensors:
            tensors["beta"] = _summed(g, at)
        return Pulled([at.slope[:, None, ...] * g if wanted.inputs[0] else None], tensors)

    def curved(self, at: ScaledAt, g: Array) -> ScaledAt:
        return replace(at, g=g)

    def bend(self, at: ScaledAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        (moved,), (below,) = Rx, into.inputs
        assert at.g is not None  # ``curved`` came first
        bent = (at.w_slope * at.g)[:, None, ...]
        if below is not None and self.role in V:
            below += bent * _directions(V[self.role], at)
        if moved is not None and self.role in into.tensors:
            into.tensors[self.role] += _summed(bent * moved, at)


def _directions(V: Array, at: ScaledAt) -> Array:
    return aligned(V, at.wide, len(at.wide))


def _summed(g: Array, at: ScaledAt) -> Array:
    return xp.reshape(summed(g, at.wide), (g.shape[1], *at.own))


class Scale(Scaled):
    """y = γ ⊙ x + β."""

    def weighted(self, x: Array) -> tuple[Array, Array]:
        return x, xp.ones((1, *x.shape[1:]), like=x)


class BatchNormalization(Scaled):
    """At inference, y = γ ⊙ (x − mean) / √(variance + ε) + β."""

    def __init__(self, axis: int, epsilon: float, constants: Mapping[str, Array]) -> None:
        super().__init__((axis,))
        self.epsilon = epsilon
        self.mean = constants["moving_mean"]
        self.variance = constants["moving_variance"]

    def weighted(self, x: Array) -> tuple[Array, Array]:
        (axis,) = self.axes
        wide = [-1 if other == axis else 1 for other in range(x.ndim - 1)]
        mean, variance = (
            xp.reshape(xp.astype(xp.asarray(of, like=x), x.dtype), wide)
            for of in (self.mean, self.variance)
        )
        slope = 1 / xp.sqrt(variance + self.epsilon)
        return (x - mean) * slope, xp.broadcast_to(slope, (1, *x.shape[1:]))


class PReLU(Scaled):
    """y = max(x, 0) + α ⊙ min(x, 0). At 0 both slopes are 0, as those of TensorFlow's relu."""

    role = "alpha"

    def weighted(self, x: Array) -> tuple[Array, Array]:
        return xp.minimum(x, 0), xp.astype(x < 0, x.dtype)

    def plain(self, x: Array) -> tuple[Array, Array]:
        return xp.maximum(x, 0), xp.astype(x > 0, x.dtype)

    def margins(self, at: ScaledAt, x: Sequence[Array]) -> Array:
        return x[0]
