"""Nodes for finite differences: many points at once, values that stay, perturbed numbers.

The passes of hesscli.nodes.passes run over them; k points of n examples are k·n examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted
from hesscli.problem.graph import Array
from hesscli.witnesses.rounding.noise import Noise

# Roundings in one evaluation of a function, in units of the roundoff.
ELEMENTARY = 4.0


class _Pulled(Calculus):
    """A calculus of which finite differences use the function itself and its pull."""

    def push(self, at: Any, Rx: Moves, V: Tensors) -> Array:
        raise NotImplementedError("finite differences push nothing")


class Known(_Pulled):
    """A node that stays where it is: ``value`` (n, *out) at every point."""

    def __init__(self, value: Array) -> None:
        self.value = value

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, None]:
        return self.value, None

    def pull(self, at: None, g: Array, wanted: Wanted) -> Pulled:
        raise NotImplementedError("nothing is pulled through what stays")


class Stacked(_Pulled):
    """``base`` at k points one after the other, with parameters θ + steps of their own.

    ``steps`` are (k, *θ) by role. Inputs are (k·n, …), or (n, …) where they stay. So the numbers
    of a point do not depend on which others are taken with it.
    """

    def __init__(self, base: Calculus, examples: int, steps: Mapping[str, Array], k: int) -> None:
        self.base = base
        self.steps = steps
        self.rows = [slice(i * examples, (i + 1) * examples) for i in range(k)]
        self.examples = examples

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, list[Any]]:
        found = []
        for i, rows in enumerate(self.rows):
            own = {
                role: W + self.steps[role][i] if role in self.steps else W
                for role, W in theta.items()
            }
            own_x = [value if len(value) == self.examples else value[rows] for value in x]
            found.append(self.base.forward(own_x, own))
        return np.concatenate([y for y, _ in found]), [at for _, at in found]

    def pull(self, at: list[Any], g: Array, wanted: Wanted) -> Pulled:
        found = [
            self.base.pull(own, g[rows], wanted) for own, rows in zip(at, self.rows, strict=True)
        ]
        inputs = zip(*(pulled.inputs for pulled in found), strict=True)
        return Pulled(
            [None if parts[0] is None else np.concatenate(parts) for parts in inputs],
            {
                role: np.concatenate([pulled.tensors[role] for pulled in found])
                for role in found[0].tensors
            },
        )


class Perturbed(_Pulled):
    """``base`` with operands and results perturbed by as much as rounding may change them.

    A sum of n products has an error of n u of its terms: √n u of each operand at random. A node
    that does not sum has one rounding of its operands and a few of its result.
    """

    def __init__(self, base: Calculus, noise: Noise, *, sums: bool) -> None:
        self.base = base
        self.noise = noise
        self.sums = sums

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, Any]:
        terms = math.prod(x[0].shape[1:]) if self.sums else 1
        noisy = {role: self.noise.operand(W, terms) for role, W in theta.items()}
        y, at = self.base.forward([self.noise.operand(value, terms) for value in x], noisy)
        return self._rounded(y), at

    def pull(self, at: Any, g: Array, wanted: Wanted) -> Pulled:
        # Over examples for θ, and over what a value has for the inputs.
        terms = max(len(g) if wanted.tensors else 1, math.prod(g.shape[2:])) if self.sums else 1
        pulled = self.base.pull(at, self.noise.operand(g, terms), wanted)
        return Pulled(
            [None if part is None else self._rounded(part) for part in pulled.inputs],
            {role: self._rounded(part) for role, part in pulled.tensors.items()},
        )

    def _rounded(self, y: Array) -> Array:
        rounded = y + self.noise.of_size(ELEMENTARY * np.abs(y))
        # What is exactly zero stays at the kink that it may hit.
        return np.asarray(rounded + self.noise.underflow() * (y != 0))
