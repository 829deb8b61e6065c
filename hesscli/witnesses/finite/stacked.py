"""Nodes for finite differences: many points at once, values that stay, perturbed numbers.

The passes of hesscli.nodes.passes run over them; k points of n examples are k·n examples.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted
from hesscli.problem.graph import Array
from hesscli.system import xp
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


class Stepped(_Pulled):
    """``base`` with parameters θ + steps of each point's own: ``steps`` are (k, *θ) by role."""

    def __init__(self, base: Calculus, steps: Mapping[str, Array]) -> None:
        self.base = base
        self.steps = steps

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, Any]:
        return self.base.forward(
            x,
            {role: W + self.steps[role] if role in self.steps else W for role, W in theta.items()},
        )

    def pull(self, at: Any, g: Array, wanted: Wanted) -> Pulled:
        return self.base.pull(at, g, wanted)


class Stacked(_Pulled):
    """``base`` at k points one after the other, so that no point depends on which others there are.

    Inputs are (k·n, …), or (n, …) where they stay; the parameters named in ``moved`` are (k, *θ).
    """

    def __init__(self, base: Calculus, examples: int, k: int, moved: Collection[str]) -> None:
        self.base = base
        self.examples = examples
        self.k = k
        self.moved = moved

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, Any]:
        own_x = [self._points(value) for value in x]
        own = {
            role: W if role in self.moved else xp.broadcast_to(W, (self.k, *W.shape))
            for role, W in theta.items()
        }
        y, at = self._forward(own_x, own)
        return xp.reshape(y, (-1, *y.shape[2:])), at

    def pull(self, at: Any, g: Array, wanted: Wanted) -> Pulled:
        pulled = self._pull(at, xp.reshape(g, (self.k, -1, *g.shape[1:])), wanted)
        inputs = [
            None if part is None else xp.reshape(part, (-1, *part.shape[2:]))
            for part in pulled.inputs
        ]
        return Pulled(inputs, pulled.tensors)

    def _points(self, value: Array) -> Array:
        if value.shape[0] == self.examples:
            return xp.broadcast_to(value, (self.k, *value.shape))
        return xp.reshape(value, (self.k, -1, *value.shape[1:]))

    def _forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, Any]:
        """From (k, n, *in) and (k, *θ) to (k, n, *out)."""
        found = [
            self.base.forward(
                [value[i, ...] for value in x], {role: W[i, ...] for role, W in theta.items()}
            )
            for i in range(self.k)
        ]
        return xp.stack([y for y, _ in found]), [at for _, at in found]

    def _pull(self, at: Any, g: Array, wanted: Wanted) -> Pulled:
        """From g (k, n, 1, *out) to (k, n, 1, *in) and (k, *θ)."""
        found = [self.base.pull(own, g[i, ...], wanted) for i, own in enumerate(at)]
        inputs = zip(*(pulled.inputs for pulled in found), strict=True)
        return Pulled(
            [None if parts[0] is None else xp.stack(parts) for parts in inputs],
            {
                role: xp.concat([pulled.tensors[role] for pulled in found])
                for role in found[0].tensors
            },
        )


class StackedDense(Stacked):
    """Dense layers at k points by products of stacks of matrices, whose digits are each one's."""

    def _forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, tuple[Array, Array]]:
        z: Array = x[0] @ theta["kernel"]
        if "bias" in theta:
            z += theta["bias"][:, None, :]
        return z, (x[0], theta["kernel"])

    def _pull(self, at: tuple[Array, Array], g: Array, wanted: Wanted) -> Pulled:
        (x, W), g = at, g[:, :, 0, :]
        tensors = {}
        if "kernel" in wanted.tensors:
            tensors["kernel"] = xp.swapaxes(x, 1, 2) @ g
        if "bias" in wanted.tensors:
            tensors["bias"] = xp.sum(g, axis=1)
        below = (g @ xp.swapaxes(W, 1, 2))[:, :, None, :] if wanted.inputs[0] else None
        return Pulled([below], tensors)


class Perturbed(_Pulled):
    """``base`` with operands and results perturbed by as much as rounding may change them.

    A sum of n products has an error of n u of its terms: √n u of each operand at random. A node
    that does not sum has one rounding of its operands and a few of its result.
    """

    def __init__(self, base: Calculus, noise: Noise, examples: int, *, sums: bool) -> None:
        self.base = base
        self.noise = noise
        self.examples = examples
        self.sums = sums

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, Any]:
        terms = math.prod(x[0].shape[1:]) if self.sums else 1
        noisy = {role: self.noise.operand(W, terms) for role, W in theta.items()}
        y, at = self.base.forward([self.noise.operand(value, terms) for value in x], noisy)
        return self._rounded(y), at

    def pull(self, at: Any, g: Array, wanted: Wanted) -> Pulled:
        # Over examples for θ, and over what a value has for the inputs.
        examples = self.examples if wanted.tensors else 1
        terms = max(examples, math.prod(g.shape[2:])) if self.sums else 1
        pulled = self.base.pull(at, self.noise.operand(g, terms), wanted)
        return Pulled(
            [None if part is None else self._rounded(part) for part in pulled.inputs],
            {role: self._rounded(part) for role, part in pulled.tensors.items()},
        )

    def _rounded(self, y: Array) -> Array:
        rounded = y + self.noise.of_size(ELEMENTARY * xp.abs(y))
        # What is exactly zero stays at the kink that it may hit.
        moved: Array = rounded + self.noise.underflow() * xp.astype(y != 0, y.dtype)
        return moved
