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

import numpy as np
from numpy.typing import NDArray

from hesscli.engines.pieces import pieces
from hesscli.problem.network import Array, Layer

# A layer's inputs that are 0 in the whole batch (the border of MNIST) are left out of its
# products where they are at least this share: what multiplies them is exactly 0.
_WORTH_LEAVING_OUT = 0.1


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
    def active(self) -> NDArray[np.intp] | None:
        """The inputs that are not 0 in the whole batch; None where leaving out is not worth it."""
        active = np.flatnonzero(self.a.any(axis=0))
        inputs = self.a.shape[1]
        return active if inputs - active.size >= _WORTH_LEAVING_OUT * inputs else None

    @cached_property
    def active_a(self) -> Array:
        """``a`` in the columns ``active``."""
        return self.a if self.active is None else np.ascontiguousarray(self.a[:, self.active])


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

    ``moved`` (n, k, units) is a V + v, ``Rg_z`` (n, k, units) the derivative of the gradient at
    the pre-activation, and ``Ra`` (n, k, inputs) that of the layer's input; None is zero.
    """

    index: int
    moved: Array
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
        nodes: Sequence[Node],
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
            swept_layers, _ = self.sweep(directions, term, chosen)
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
            swept_layers, _ = self.sweep(directions, term, chosen)
            for direction, swept in zip(directions, swept_layers, strict=True):
                total += float(np.vdot(swept.moved, swept.Rg_z))
                if term.bent and swept.Ra is not None and direction.kernel is not None:
                    pushed = swept.Ra[:, 0] @ direction.kernel[:, 0]
                    total += float(np.vdot(pushed, self.nodes[swept.index].g_z[chosen]))
        return total

    def input_products(self, V: Array, chosen: slice, term: Term) -> Array:
        """The products of each chosen example's input block with its directions V (n, k, d)."""
        _, Rg = self.sweep((), term, chosen, V)
        return Rg

    def sweep(
        self,
        directions: Sequence[Direction],
        term: Term,
        chosen: slice,
        Ra: Array | None = None,
    ) -> tuple[list[Swept], Array]:
        """The two passes for the chosen examples, and Rg at the lowest layer's input.

        ``Ra`` (n, k, d) is a direction of the network's input. ``directions`` are in the order of
        their layers. Rg is only computed where the input moves.
        """
        of_layer = {direction.index: direction for direction in directions}
        first = 0 if Ra is not None else directions[0].index
        to_input, last = Ra is not None, len(self.layers) - 1
        inputs: list[Array | None] = []
        moved: list[Array] = []
        pushed: list[Array] = []
        for index in range(first, last + 1):
            inputs.append(Ra)
            Rz = None if Ra is None else _times(Ra, self.layers[index].kernel)
            if index in of_layer:
                moved.append(self._moved(of_layer[index], chosen))
                Rz = moved[-1] if Rz is None else Rz + moved[-1]
            assert Rz is not None  # the lowest layer moves, or what is below it
            pushed.append(Rz)
            Ra = self.nodes[index].slope[chosen][:, None] * Rz
        assert Ra is not None
        Rg = self._scale * self._loss_product(chosen, Ra) if term.seeded else np.zeros_like(Ra)
        swept: list[Swept] = []
        for index in range(last, first - 1, -1):
            node = self.nodes[index]
            Rg_z = node.slope[chosen][:, None] * Rg
            if term.bent:
                Rg_z += node.bend[chosen][:, None] * pushed[index - first]
            direction = of_layer.get(index)
            if direction is not None:
                swept.append(Swept(index, moved[-1 - len(swept)], Rg_z, inputs[index - first]))
            if index > first or to_input:
                Rg = _times(Rg_z, self.layers[index].kernel.T)
                if term.bent and direction is not None and direction.kernel is not None:
                    # g_z V_kᵀ for each direction
                    Rg += np.swapaxes(node.g_z[chosen] @ direction.kernel.transpose(1, 2, 0), 0, 1)
        return swept[::-1], Rg

    def _moved(self, direction: Direction, chosen: slice) -> Array:
        node = self.nodes[direction.index]
        if direction.kernel is None:
            assert direction.bias is not None
            n = len(node.z[chosen])
            return np.broadcast_to(direction.bias, (n, *direction.bias.shape))
        V = direction.kernel if node.active is None else direction.kernel[node.active]
        _, k, units = V.shape
        U = node.active_a[chosen] @ V.reshape(len(V), k * units)
        U = U.reshape(len(U), *direction.kernel.shape[1:])
        return U if direction.bias is None else U + direction.bias

    def _read_off(self, swept: Swept, direction: Direction, term: Term, chosen: slice) -> Direction:
        node, Rg_z = self.nodes[swept.index], swept.Rg_z
        kernel: Array | None = None
        if direction.kernel is not None:
            kernel = self._weighted_sum(node, chosen, Rg_z)
            if term.bent and swept.Ra is not None:
                # Raᵀ g_z for each direction
                kernel += np.swapaxes(swept.Ra.transpose(1, 2, 0) @ node.g_z[chosen], 0, 1)
        bias = None if direction.bias is None else Rg_z.sum(axis=0)
        return replace(direction, kernel=kernel, bias=bias)

    def _weighted_sum(self, node: Node, chosen: slice, Rg_z: Array) -> Array:
        """aᵀ Rg_z, (inputs, k, units)."""
        product: Array = node.active_a[chosen].T @ Rg_z.reshape(len(Rg_z), -1)
        if node.active is not None:
            active = product
            product = np.zeros((node.a.shape[1], active.shape[1]), dtype=active.dtype)
            product[node.active] = active
        return product.reshape(-1, *Rg_z.shape[1:])

    def _chunks(self, directions: Sequence[Direction]) -> list[slice]:
        """Chunks of examples for which the passes' arrays stay small."""
        first = directions[0]
        moving = first.kernel if first.kernel is not None else first.bias
        assert moving is not None
        k = moving.shape[-2]
        widths = sum(layer.units for layer in self.layers[first.index :])
        each = k * widths * self.nodes[0].z.itemsize
        return [slice(*piece) for piece in pieces(0, len(self.nodes[0].z), each)]


def _times(x: Array, W: Array) -> Array:
    """(n, k, d) times (d, m), as one matrix product."""
    n, k, d = x.shape
    return np.asarray((x.reshape(n * k, d) @ W).reshape(n, k, -1))


def _sum(one: Direction, other: Direction) -> Direction:
    def added(a: Array | None, b: Array | None) -> Array | None:
        return None if a is None or b is None else a + b

    return Direction(one.index, added(one.kernel, other.kernel), added(one.bias, other.bias))
