"""A layer of the user's, y = F(x; θ), by the four functions that a plugin gives.

    forward(x, θ)            y                                   x (n, *in) → y (n, *out)
    push(x, θ, Rx, V)        J (Rx, V)                           Rx (n, k, *in), V (k, *θ)
    pull(x, θ, g)            Jᵀ g, at x and at θ                 g (n, k, *out)
    bend(x, θ, g, Rx, V)     Σ_h g[h] ∂²F_h (Rx, V), likewise    g (n, *out)

θ and V are mappings by role; what does not move is zero. All take the layer's arguments by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hesscli.nodes.guarded import Function, Guard
from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted
from hesscli.problem.graph import Array
from hesscli.system import xp

Shape = tuple[int, ...]
METHODS = ("forward", "push", "pull", "bend")


@dataclass(frozen=True)
class Methods:
    """The four functions by name, and what messages say of each."""

    functions: Mapping[str, Function]
    guards: Mapping[str, Guard]


@dataclass(frozen=True)
class OwnAt:
    """The inputs x (n, *in), θ, and the cotangent g (n, *out) of the loss once it is known."""

    x: Array
    theta: Tensors
    g: Array | None = None

    def part(self, chosen: slice) -> OwnAt:
        g = None if self.g is None else self.g[chosen, ...]
        return OwnAt(self.x[chosen, ...], self.theta, g)


class OwnLayer(Calculus):
    """``shape`` is that of y for one example; ``arguments`` are the layer's."""

    def __init__(self, shape: Shape, methods: Methods, arguments: Mapping[str, Any]) -> None:
        self.shape = shape
        self.methods = methods
        self.arguments = arguments

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, OwnAt]:
        (value,) = x
        return self._array("forward", (value.shape[0],), value, theta), OwnAt(value, theta)

    def push(self, at: OwnAt, Rx: Moves, V: Tensors) -> Array:
        directions = _directions(at, Rx, V)
        return self._array("push", directions[0].shape[:2], at.x, at.theta, *directions)

    def pull(self, at: OwnAt, g: Array, wanted: Wanted) -> Pulled:
        below, tensors = self._parts("pull", g.shape[1], at, g)
        return Pulled(
            [xp.copy(below) if wanted.inputs[0] else None],
            {role: xp.copy(tensors[role]) for role in wanted.tensors},
        )

    def curved(self, at: OwnAt, g: Array) -> OwnAt:
        return replace(at, g=g)

    def bend(self, at: OwnAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        if Rx[0] is None and not V:
            return
        directions = _directions(at, Rx, V)
        below, tensors = self._parts("bend", directions[0].shape[1], at, at.g, *directions)
        (at_x,) = into.inputs
        if at_x is not None:
            at_x += below
        for role, part in into.tensors.items():
            part += tensors[role]

    def fan(self, x: Sequence[Array], theta: Tensors) -> int:
        return math.prod(x[0].shape[1:])

    def _array(self, method: str, leading: Shape, *given: Any) -> Array:
        guard, function = self.methods.guards[method], self.methods.functions[method]
        return guard.array(function, (*leading, *self.shape), "x", *given, **self.arguments)

    def _parts(self, method: str, k: int, at: OwnAt, *given: Any) -> tuple[Array, dict[str, Array]]:
        guard, function = self.methods.guards[method], self.methods.functions[method]
        shape = (at.x.shape[0], k, *at.x.shape[1:])
        shapes = {role: (k, *tensor.shape) for role, tensor in at.theta.items()}
        return guard.parts(function, shape, shapes, at.x, at.theta, *given, **self.arguments)


def _directions(at: OwnAt, Rx: Moves, V: Tensors) -> tuple[Array, dict[str, Array]]:
    """How x and every parameter move, by zero where they do not."""
    (moved,) = Rx
    k = next(iter(V.values())).shape[0] if moved is None else moved.shape[1]
    if moved is None:
        moved = xp.zeros((at.x.shape[0], k, *at.x.shape[1:]), like=at.x)
    return moved, {
        role: V[role] if role in V else xp.zeros((k, *tensor.shape), like=tensor)
        for role, tensor in at.theta.items()
    }


_registered: dict[str, Methods] = {}


def own_layer(shape: Shape, layer: str, **arguments: Any) -> OwnLayer:
    """The calculus of the layer that is registered as ``layer``."""
    return OwnLayer(shape, _registered[layer], arguments)


def register(name: str, methods: Methods) -> None:
    """Makes a layer's calculus known."""
    _registered[name] = methods


def forget(name: str) -> None:
    """Takes it out again."""
    _registered.pop(name, None)
