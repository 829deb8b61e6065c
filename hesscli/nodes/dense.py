"""A dense layer's linear map, z = x W + b.

push    Rz = Rx W + x V_W + V_b
pull    g Wᵀ;   at W: xᵀ g,   at b: Σ_n g_n
bend    g V_Wᵀ;   at W: Rxᵀ g
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hesscli.nodes.multiplied import Multiplied
from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted
from hesscli.problem.graph import Array
from hesscli.system import xp


@dataclass(frozen=True)
class DenseAt:
    """The input x (n, inputs), the kernel W (inputs, units), and g (n, units) once it is known."""

    x: Multiplied
    W: Array
    g: Array | None = None

    def part(self, chosen: slice) -> DenseAt:
        return replace(self, x=self.x.part(chosen), g=None if self.g is None else self.g[chosen, :])


class Dense(Calculus):
    """z = x W + b for x (n, inputs)."""

    bends_in_x = False

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, DenseAt]:
        W = theta["kernel"]
        z: Array = x[0] @ W
        if "bias" in theta:
            z += theta["bias"]
        return z, DenseAt(Multiplied(x[0]), W)

    def push(self, at: DenseAt, Rx: Moves, V: Tensors) -> Array:
        (moved,) = Rx
        Rz = None if moved is None else times(moved, at.W)
        if "kernel" in V:
            # All directions by one matrix product: (inputs, k · units).
            by_input = xp.swapaxes(V["kernel"], 0, 1)
            inputs, k, units = by_input.shape
            U = at.x.times(xp.reshape(by_input, (inputs, k * units)))
            U = xp.reshape(U, (U.shape[0], k, units))
            Rz = U if Rz is None else Rz + U
        if "bias" in V:
            v = V["bias"]
            Rz = xp.broadcast_to(v, (at.x.a.shape[0], *v.shape)) if Rz is None else Rz + v
        assert Rz is not None  # something moves
        return Rz

    def pull(self, at: DenseAt, g: Array, wanted: Wanted) -> Pulled:
        tensors = {}
        if "kernel" in wanted.tensors:
            n, k, units = g.shape
            W = at.x.transposed_times(xp.reshape(g, (n, k * units)))
            tensors["kernel"] = xp.swapaxes(xp.reshape(W, (W.shape[0], k, units)), 0, 1)
        if "bias" in wanted.tensors:
            tensors["bias"] = xp.sum(g, axis=0)
        return Pulled([times(g, at.W.T) if wanted.inputs[0] else None], tensors)

    def curved(self, at: DenseAt, g: Array) -> DenseAt:
        return replace(at, g=g)

    def bend(self, at: DenseAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        assert at.g is not None  # ``curved`` came first
        (moved,), (below,) = Rx, into.inputs
        if below is not None and "kernel" in V:
            # g V_Wᵀ for each direction
            below += xp.swapaxes(at.g @ xp.swapaxes(V["kernel"], 1, 2), 0, 1)
        if moved is not None and "kernel" in into.tensors:
            # Rxᵀ g for each direction
            into.tensors["kernel"] += xp.permute_dims(moved, (1, 2, 0)) @ at.g

    def second(self, at: DenseAt, S: Array, position: int, inputs: int, *, bent: bool) -> Array:
        below: Array = at.W @ S @ at.W.T
        return below


def times(x: Array, W: Array) -> Array:
    """(n, k, d) times (d, m), as one matrix product."""
    n, k, d = x.shape
    return xp.reshape(xp.reshape(x, (n * k, d)) @ W, (n, k, W.shape[1]))
