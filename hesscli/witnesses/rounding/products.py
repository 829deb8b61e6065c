"""The rounding errors of a product H·v, along the R-operator, without anything units × units.

The R-operator's quantities get errors as those of the other sweeps do (rounding.py, steps 1 and
2), with u for the error of what is multiplied:

    Ra = σ′ ⊙ Rz       e = e_1 |Rz| + (|σ′| + e_1) e_Rz
    Rg_f = c ∂²ℓ Ra    rounding_terms.loss_product_error
    Rg_z               e = e_1 |Rg_a| + (|σ′| + e_1) e_Rga + e_b (|Rz| + e_Rz) + |σ″ g_a| e_Rz,
                       e_b = e_2 |g_a| + (|σ″| + e_2) e_ga, the error of σ″ ⊙ g_a
    products x W       as everywhere; of sums over examples, whose errors may have the same sign,
                       the sizes are added
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hesscli.nodes.losses import loss_derivatives
from hesscli.problem.graph import Array
from hesscli.system.pieces import pieces
from hesscli.witnesses.layout import INPUT, input_example, layer_of, layout_of
from hesscli.witnesses.rounding.sweep import (
    ErrorSweep,
    SweptErrors,
    SweptNode,
    root_of_squares,
)
from hesscli.witnesses.rounding.terms import loss_product_error


@dataclass(frozen=True)
class Rounded:
    """A quantity and its typical error, of the same shape."""

    value: Array
    error: Array

    def __add__(self, other: Rounded) -> Rounded:
        return Rounded(self.value + other.value, self.error + other.error)


@dataclass(frozen=True)
class _Layer:
    """What the direction does at a layer that it moves, (N, units); ``Ra`` (N, inputs)."""

    index: int
    V: Array | None
    moved: Rounded
    Rg_z: Rounded
    Ra: Rounded | None


class ProductErrors:
    """The typical errors of H v and vᵀ H v for one direction ``v`` (P,) of a block.

    (Not of the block of all inputs at once: each example's is a block of its own.)
    """

    def __init__(self, swept: ErrorSweep, parameter: str, v: Array) -> None:
        if parameter == INPUT:
            raise KeyError(parameter)
        self._swept = swept
        self._example = input_example(parameter)
        chosen = self._example
        self._rows = slice(None) if chosen is None else slice(chosen, chosen + 1)
        self._v = v
        self._directions: dict[int, tuple[Array | None, Array | None]] = {}
        if self._example is None:
            self._split(parameter)
        self._layers, self._Rg = self._sweep()

    def form(self) -> float:
        """The error of vᵀ H v."""
        if self._example is not None:
            return float(self._of_sum(self._given(self._v[None]), self._Rg))
        floor = 0.0
        for layer in self._layers:
            floor += self._of_sum(layer.moved, layer.Rg_z) + self._vanished(layer)
            if layer.Ra is not None and layer.V is not None:
                pushed = self._times(layer.Ra, layer.V)
                floor += self._of_sum(pushed, self._gradient(layer.index))
        return floor

    def _vanished(self, layer: _Layer) -> float:
        """What is lost where every example's part of a number of H v is below the smallest."""
        parts = (part for part in self._directions[layer.index] if part is not None)
        sizes = sum(float(np.abs(part).sum()) for part in parts)
        return sizes * len(layer.Rg_z.value) * self._swept.tiny

    def norm(self) -> float:
        """The root of the sum of squares of the errors of H v."""
        if self._example is not None:
            return float(root_of_squares(self._Rg.error))
        parts: list[float] = []
        for layer in self._layers:
            kernel, bias = self._directions[layer.index]
            if bias is not None:
                ones = _exact(np.ones((len(layer.Rg_z.value), 1)))
                parts.append(float(root_of_squares(self._read_off(ones, layer.Rg_z))))
            if kernel is not None:
                node, error = self._at(layer.index)
                for low, high in pieces(0, node.W.shape[0], 8 * max(node.W.shape[1], len(node.a))):
                    chosen = np.s_[self._rows, low:high]
                    e = self._read_off(Rounded(node.a[chosen], error.a[chosen]), layer.Rg_z)
                    if layer.Ra is not None:
                        Ra = Rounded(layer.Ra.value[:, low:high], layer.Ra.error[:, low:high])
                        e = e + self._read_off(Ra, self._gradient(layer.index))
                    parts.append(float(root_of_squares(e)))
        return math.hypot(*parts)

    def _split(self, parameter: str) -> None:
        """The kernel's (inputs, units) and the bias's (units,) part of v, for each layer."""
        layout = layout_of(self._swept.problem, parameter)
        for segment, low in zip(layout.segments, layout.starts, strict=False):
            part = self._v[low : low + segment.size].reshape(segment.rows, segment.units)
            index = self._swept.problem.layer_index(layer_of(segment.tensors[0].name))
            kernel = None if segment.tensors[0].is_vector else part[: segment.tensors[0].rows]
            bias = part[-1] if segment.tensors[-1].is_vector else None
            self._directions[index] = kernel, bias

    def _sweep(self) -> tuple[list[_Layer], Rounded]:
        swept, of_input = self._swept, self._example is not None
        first, last = (0 if of_input else min(self._directions)), len(swept.nodes) - 1
        Ra = self._given(self._v[None]) if of_input else None
        inputs: list[Rounded | None] = []
        pushed: list[Rounded] = []
        moved: dict[int, Rounded] = {}
        for index in range(first, last + 1):
            node, error = self._at(index)
            inputs.append(Ra)
            Rz = None if Ra is None else self._times(Ra, node.W)
            if index in self._directions:
                moved[index] = self._moved(index)
                Rz = moved[index] if Rz is None else Rz + moved[index]
            assert Rz is not None  # the lowest layer moves, or what is below it
            pushed.append(Rz)
            Ra = self._sloped(node, error, Rz)
        assert Ra is not None
        Rg = self._through_loss(Ra)
        layers: list[_Layer] = []
        for index in range(last, first - 1, -1):
            node, error = self._at(index)
            Rg = self._sloped(node, error, Rg) + self._bent(node, error, pushed[index - first])
            if index in self._directions:
                V = self._directions[index][0]
                layers.append(_Layer(index, V, moved[index], Rg, inputs[index - first]))
            if index > first or of_input:
                Rg = self._times(Rg, node.W.T)
                if index in self._directions and (V := self._directions[index][0]) is not None:
                    Rg = Rg + self._times(self._gradient(index), V.T)
        return layers, Rg

    def _at(self, index: int) -> tuple[SweptNode, SweptErrors]:
        return self._swept.nodes[index], self._swept.errors[index]

    def _gradient(self, index: int) -> Rounded:
        node, error = self._at(index)
        return Rounded(node.g_z[self._rows], error.g[self._rows])

    def _moved(self, index: int) -> Rounded:
        kernel, bias = self._directions[index]
        node, errors = self._at(index)
        total = _exact(np.zeros(node.z.shape))
        if kernel is not None:
            total = self._times(Rounded(node.a, errors.a), kernel)
        if bias is not None:
            error = self._swept.u * np.abs(bias) + self._swept.flushed(bias)
            total = Rounded(total.value + bias, total.error + error)
        return total

    def _given(self, value: Array) -> Rounded:
        return Rounded(value, self._swept.flushed(value))

    def _times(self, x: Rounded, W: Array) -> Rounded:
        return Rounded(x.value @ W, self._swept.product_error(x.value, x.error, W))

    def _sloped(self, node: SweptNode, error: SweptErrors, x: Rounded) -> Rounded:
        slope, e_1 = node.slope[self._rows], error.first[self._rows]
        e = e_1 * np.abs(x.value) + (np.abs(slope) + e_1) * x.error + self._swept.tiny
        return Rounded(slope * x.value, e)

    def _bent(self, node: SweptNode, error: SweptErrors, Rz: Rounded) -> Rounded:
        rows = self._rows
        g_a, second, e_2 = node.g_a[rows], node.second[rows], error.second[rows]
        bend = second * g_a
        e_bend = e_2 * np.abs(g_a) + (np.abs(second) + e_2) * error.g_a[rows] + self._swept.tiny
        return Rounded(
            bend * Rz.value, e_bend * (np.abs(Rz.value) + Rz.error) + np.abs(bend) * Rz.error
        )

    def _through_loss(self, Ra: Rounded) -> Rounded:
        swept, problem = self._swept, self._swept.problem
        f, targets = swept.f[self._rows], problem.targets[self._rows]
        product = loss_derivatives(problem.loss).hessian_product(f, targets)
        error = loss_product_error(
            problem.loss.name, f, swept.e_f[self._rows], Ra.value, Ra.error, swept.u
        )
        value = product(slice(None), Ra.value[:, None])[:, 0]
        return Rounded(swept.scale * value, swept.scale * error)

    def _read_off(self, a: Rounded, g: Rounded) -> Array:
        """The error of aᵀ g, whose examples' errors may have the same sign."""
        size, error = np.abs(a.value).T, a.error.T
        of_sum = self._swept.product_error(size, np.zeros_like(size), np.abs(g.value))
        return np.asarray(size @ g.error + error @ (np.abs(g.value) + g.error) + of_sum)

    def _of_sum(self, x: Rounded, y: Rounded) -> float:
        """The error of Σ x y."""
        size, other = np.abs(x.value), np.abs(y.value)
        each = size * y.error + x.error * (other + y.error)
        rounding = self._swept.u * np.sqrt(size.size) * root_of_squares(size * other)
        return float(each.sum() + rounding + len(size) * self._swept.tiny)


def _exact(value: Array) -> Rounded:
    return Rounded(value, np.zeros_like(value))
