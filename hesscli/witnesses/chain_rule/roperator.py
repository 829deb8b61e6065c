"""The chain rule's products with a Hessian block, by the R-operator: nothing units × units.

R is the derivative along a direction of the block's parameters, V_k in the kernel and v_k in the
bias of its layers (or a direction Ra_0 of the input). Pushed forward through the network and
swept back once, with everything (N, units):

    forward     Rz_k = Ra_{k-1} W_k + a_{k-1} V_k + v_k,   Ra_k = σ′ ⊙ Rz_k
    loss        Rg_f = c ∂²ℓ/∂f² Ra_K
    activation  Rg_z = σ′ ⊙ Rg_a + (σ″ ⊙ g_a) ⊙ Rz
    dense       Rg_{k-1} = Rg_z W_kᵀ + g_z V_kᵀ
    product     (H·V)_k = a_{k-1}ᵀ Rg_z + Ra_{k-1}ᵀ g_z,   for the bias Σ_n Rg_z

The Gauss–Newton term lacks the summands with g, the curvature term starts with Rg_f = 0.

Source: Pearlmutter, "Fast exact multiplication by the Hessian" (Neural Computation 6, 1994), and
Schraudolph, "Fast curvature matrix-vector products" (Neural Computation 14, 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from hesscli.problem.graph import Array, Layer
from hesscli.system.pieces import pieces
from hesscli.witnesses.chain_rule.multiplied import Multiplied

# Elementwise work is done in blocks of rows: they stay in the cache, and no intermediate result
# is as large as the arrays themselves.
_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Term:
    """One term of the Hessian: ``seeded`` with the loss's own, ``bent`` by the activations."""

    name: str
    seeded: bool
    bent: bool


HESSIAN = Term("hessian", seeded=True, bent=True)
GAUSS_NEWTON = Term("gauss_newton", seeded=True, bent=False)
CURVATURE = Term("curvature", seeded=False, bent=True)


@dataclass(frozen=True)
class Node:
    """The first-order quantities at one dense layer.

    ``a`` (N, inputs) is the layer's input and ``z`` (N, units) its pre-activation; ``slope`` and
    ``bend`` (N, units) are σ′ and σ″ ⊙ g_a at z, ``g_a`` and ``g_z`` (N, units) the gradients at
    the activation's output and at z.
    """

    a: Array
    z: Array
    slope: Array
    bend: Array
    g_a: Array
    g_z: Array

    @cached_property
    def multiplied(self) -> Multiplied:
        """``a`` in products."""
        return Multiplied(self.a)


class Passed(Protocol):
    """What the R-operator needs of a layer: some of a Node's quantities."""

    @property
    def slope(self) -> Array: ...

    @property
    def bend(self) -> Array: ...

    @property
    def g_z(self) -> Array: ...

    @property
    def multiplied(self) -> Multiplied: ...


class LeanNode:
    """A Node that computes what it is asked for."""

    def __init__(
        self,
        slope_and_bend: Callable[[], tuple[Array, Array]],
        a: Callable[[], Array],
        g_z: Callable[[], Array],
    ) -> None:
        self._slope_and_bend = slope_and_bend
        self._a = a
        self._g_z = g_z

    @property
    def slope(self) -> Array:
        return self._slope_and_bend()[0]

    @property
    def bend(self) -> Array:
        return self._slope_and_bend()[1]

    @cached_property
    def multiplied(self) -> Multiplied:
        return Multiplied(self._a())

    @property
    def g_z(self) -> Array:
        return self._g_z()


@dataclass(frozen=True)
class Direction:
    """k directions in the parameters of layer ``index``, as it multiplies them.

    ``kernel`` is (inputs, k, units), ``bias`` (k, units); None for what does not move.
    """

    index: int
    kernel: Array | None
    bias: Array | None


@dataclass(frozen=True)
class Swept:
    """What a direction does at the layer that it moves, for n examples and k directions.

    ``Rg_z`` (n, k, units) is the derivative of the gradient at the pre-activation, and ``Ra``
    (n, k, inputs) that of the layer's input; None is zero.
    """

    index: int
    Rg_z: Array
    Ra: Array | None


class ROperator:
    """Products with the Hessian of one problem and its terms.

    ``loss_product`` multiplies (N, k, c) with ∂²ℓ/∂f² of each example, ``scale`` is the factor c
    of the loss's reduction.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        nodes: Sequence[Passed],
        loss_product: Callable[[slice, Array], Array],
        scale: np.floating,
    ) -> None:
        self.layers = layers
        self.nodes = nodes
        self._loss_product = loss_product
        self._scale = scale

    def products(self, directions: Sequence[Direction], term: Term) -> list[Direction]:
        """H times k directions: the same layers' parameters, in the same shapes."""
        results: list[Direction] = []
        for chosen in self._chunks(directions):
            swept_layers, _ = self.sweep(directions, term, chosen, self._moved(directions, chosen))
            summands = [
                self._read_off(swept, direction, term, chosen)
                for direction, swept in zip(directions, swept_layers, strict=True)
            ]
            results = (
                [_sum(*pair) for pair in zip(results, summands, strict=True)]
                if results
                else summands
            )
        return results

    def form(self, directions: Sequence[Direction], term: Term) -> float:
        """vᵀ H v of one direction: Σ_n (a V + v)·Rg_z + (Ra V)·g_z."""
        total = 0.0
        for chosen in self._chunks(directions):
            moved = self._moved(directions, chosen)
            swept_layers, _ = self.sweep(directions, term, chosen, list(moved))
            for direction, moves, swept in zip(directions, moved, swept_layers, strict=True):
                total += float(np.vdot(moves, swept.Rg_z))
                if term.bent and swept.Ra is not None and direction.kernel is not None:
                    pushed = swept.Ra[:, 0] @ direction.kernel[:, 0]
                    total += float(np.vdot(pushed, self.nodes[swept.index].g_z[chosen]))
        return total

    def input_products(self, V: Array, chosen: slice, term: Term) -> Array:
        """The products of each chosen example's input block with its directions V (n, k, d)."""
        _, Rg = self.sweep((), term, chosen, [], V)
        return Rg

    def sweep(
        self,
        directions: Sequence[Direction],
        term: Term,
        chosen: slice,
        moved: list[Array],
        Ra: Array | None = None,
    ) -> tuple[list[Swept], Array]:
        """The two passes for the chosen examples, and Rg at the lowest layer's input.

        ``Ra`` (n, k, d) is a direction of the network's input. ``directions`` are in the order of
        their layers, and ``moved`` is a V + v (n, k, units) of each, which are taken off the list
        as they are used up. Rg is only computed where the input moves.
        """
        of_layer = {direction.index: direction for direction in directions}
        first = 0 if Ra is not None else directions[0].index
        to_input, last = Ra is not None, len(self.layers) - 1
        inputs: dict[int, Array | None] = {}
        pushed: list[Array] = []
        for index in range(first, last + 1):
            if index in of_layer:
                inputs[index] = Ra
            Rz = None if Ra is None else _times(Ra, self.layers[index].kernel)
            if index in of_layer:
                moves = moved.pop(0)
                Rz = moves if Rz is None else Rz + moves
                del moves
            assert Rz is not None  # the lowest layer moves, or what is below it
            Ra = self.nodes[index].slope[chosen][:, None] * Rz
            pushed.append(Rz)
            del Rz
        assert Ra is not None
        Rg = self._scale * self._loss_product(chosen, Ra) if term.seeded else np.zeros_like(Ra)
        del Ra
        swept: list[Swept] = []
        for index in range(last, first - 1, -1):
            node = self.nodes[index]
            Rg_z = Rg
            Rg_z *= node.slope[chosen][:, None]
            Rz = pushed.pop()
            if term.bent:
                _add_product(Rg_z, node.bend[chosen][:, None], Rz)
            del Rz
            direction = of_layer.get(index)
            if direction is not None:
                swept.append(Swept(index, Rg_z, inputs[index]))
            if index > first or to_input:
                Rg = _times(Rg_z, self.layers[index].kernel.T)
                if term.bent and direction is not None and direction.kernel is not None:
                    # g_z V_kᵀ for each direction
                    Rg += np.swapaxes(node.g_z[chosen] @ direction.kernel.transpose(1, 2, 0), 0, 1)
        return swept[::-1], Rg

    def _moved(self, directions: Sequence[Direction], chosen: slice) -> list[Array]:
        """What each direction moves its layer by, a V + v (n, k, units)."""
        return [self._moved_layer(direction, chosen) for direction in directions]

    def _moved_layer(self, direction: Direction, chosen: slice) -> Array:
        node = self.nodes[direction.index]
        if direction.kernel is None:
            assert direction.bias is not None
            n = len(node.slope[chosen])
            return np.broadcast_to(direction.bias, (n, *direction.bias.shape))
        V = direction.kernel
        U = node.multiplied.times(V.reshape(len(V), -1), chosen)
        U = U.reshape(len(U), *V.shape[1:])
        return U if direction.bias is None else U + direction.bias

    def _read_off(self, swept: Swept, direction: Direction, term: Term, chosen: slice) -> Direction:
        node, Rg_z = self.nodes[swept.index], swept.Rg_z
        kernel: Array | None = None
        if direction.kernel is not None:
            # aᵀ Rg_z
            kernel = node.multiplied.transposed_times(Rg_z.reshape(len(Rg_z), -1), chosen)
            kernel = kernel.reshape(-1, *Rg_z.shape[1:])
            if term.bent and swept.Ra is not None:
                # Raᵀ g_z for each direction
                kernel += np.swapaxes(swept.Ra.transpose(1, 2, 0) @ node.g_z[chosen], 0, 1)
        bias = None if direction.bias is None else Rg_z.sum(axis=0)
        return replace(direction, kernel=kernel, bias=bias)

    def _chunks(self, directions: Sequence[Direction]) -> list[slice]:
        """Chunks of examples for which the passes' arrays stay small."""
        first = directions[0]
        moving = first.kernel if first.kernel is not None else first.bias
        assert moving is not None
        k = moving.shape[-2]
        widths = sum(layer.units for layer in self.layers[first.index :])
        slope = self.nodes[first.index].slope
        each = k * widths * slope.itemsize
        return [slice(*piece) for piece in pieces(0, len(slope), each)]


def by_rows(function: Callable[..., Array], first: Array, *others: Array) -> Array:
    """An elementwise function of arrays (N, d) of one type, in blocks of rows."""
    result = np.empty_like(first)
    for low, high in pieces(0, len(first), first[0].nbytes, _BLOCK_BYTES):
        result[low:high] = function(first[low:high], *(array[low:high] for array in others))
    return result


def _add_product(target: Array, x: Array, y: Array) -> None:
    """Adds x ⊙ y to ``target``, arrays (n, …), in blocks of rows."""
    for low, high in pieces(0, len(target), target[0].nbytes, _BLOCK_BYTES):
        target[low:high] += x[low:high] * y[low:high]


def _times(x: Array, W: Array) -> Array:
    """(n, k, d) times (d, m), as one matrix product."""
    n, k, d = x.shape
    return np.asarray((x.reshape(n * k, d) @ W).reshape(n, k, -1))


def _sum(one: Direction, other: Direction) -> Direction:
    def added(a: Array | None, b: Array | None) -> Array | None:
        return None if a is None or b is None else a + b

    return Direction(one.index, added(one.kernel, other.kernel), added(one.bias, other.bias))
