"""A product of two values, y = E(x₁, x₂): Multiply, and Dot over an axis.

push    E(Rx₁, x₂) + E(x₁, Rx₂)
pull    at x₁: E(g, x₂),   at x₂: E(g, x₁)
bend    at x₁: E(g, Rx₂),   at x₂: E(g, Rx₁)

E is a sum of products, which an equation of ``einsum`` says, as in bilinear.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted, added
from hesscli.problem.graph import Array
from hesscli.system import xp


@dataclass(frozen=True)
class ProductAt:
    """What is multiplied, (n, *in) each, and the cotangent g of the loss once it is known."""

    x: tuple[Array, Array]
    g: Array | None = None

    def part(self, chosen: slice) -> ProductAt:
        first, second = self.x
        g = None if self.g is None else self.g[chosen, ...]
        return ProductAt((first[chosen, ...], second[chosen, ...]), g)


class Product(Calculus):
    """The equation has no n, for examples, and no k, for directions."""

    def __init__(self, equation: str) -> None:
        operands, self.y = equation.split("->")
        self.x = operands.split(",")

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, ProductAt]:
        a, b = self.x
        return xp.einsum(f"n{a},n{b}->n{self.y}", *x), ProductAt((x[0], x[1]))

    def push(self, at: ProductAt, Rx: Moves, V: Tensors) -> Array:
        return added(
            xp.einsum(f"nk{self.x[i]},n{self.x[1 - i]}->nk{self.y}", moved, at.x[1 - i])
            for i, moved in enumerate(Rx)
            if moved is not None
        )

    def pull(self, at: ProductAt, g: Array, wanted: Wanted) -> Pulled:
        return Pulled(
            [
                xp.einsum(f"nk{self.y},n{self.x[1 - i]}->nk{self.x[i]}", g, at.x[1 - i])
                if asked
                else None
                for i, asked in enumerate(wanted.inputs)
            ],
            {},
        )

    def curved(self, at: ProductAt, g: Array) -> ProductAt:
        return replace(at, g=g)

    def bend(self, at: ProductAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        assert at.g is not None  # ``curved`` came first
        for i, below in enumerate(into.inputs):
            moved = Rx[1 - i]
            if below is not None and moved is not None:
                below += xp.einsum(f"n{self.y},nk{self.x[1 - i]}->nk{self.x[i]}", at.g, moved)

    def fan(self, x: Sequence[Array], theta: Tensors) -> int:
        sizes = zip(self.x[0], x[0].shape[1:], strict=True)
        return math.prod(n for letter, n in sizes if letter not in self.y)
