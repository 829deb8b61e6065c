"""The chain rule's blocks as operators: what is read off the sweep at the dense layers.

Everywhere ``a`` is the layer's input with what the parameters multiply: for a kernel a_n itself,
for a bias the constant 1, for a whole layer a_n with a 1 appended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hesscli.engines.block import HessianBlock
from hesscli.engines.layout import Layout
from hesscli.engines.pieces import pieces
from hesscli.problem.network import Array


class LayerBlock(HessianBlock):
    """A block within one layer: H[(i,h),(j,l)] = Σ_n a_n[i] a_n[j] S_n[h,l].

    ``a`` is (N, inputs), ``S`` (N, units, units). Nothing of size (P, P) is ever formed.
    """

    def __init__(self, parameter: str, layout: Layout, a: Array, S: Array) -> None:
        self.a = a
        self.S = S
        self.inputs, self.units = a.shape[1], S.shape[1]
        super().__init__(parameter, layout, a.dtype)

    def _matmat(self, V: Array) -> Array:
        # H·V = Σ_n a_n (S_n u_n)ᵀ,  u_n = Vᵀ a_n
        examples, columns = len(self.a), V.shape[1]
        U = self.a @ V.reshape(self.inputs, -1)
        SU = self.S @ U.reshape(examples, self.units, columns)
        product: Array = self.a.T @ SU.reshape(examples, -1)
        return product.reshape(-1, columns)

    def rows(self, start: int, stop: int) -> Array:
        # Row (i,h) as an (inputs, units) array:  aᵀ · (a[:, i] ⊙ S[:, h, :])
        stop = min(stop, self.shape[0])
        rows = np.empty((stop - start, self.inputs, self.units), dtype=self.dtype)
        S = self.S.transpose(1, 0, 2)
        for low, high in pieces(start, stop, self.S[:, 0].nbytes):
            i, h = np.divmod(np.arange(low, high), self.units)
            weighted = self.a.T[i, :, None] * S[h]
            np.matmul(self.a.T, weighted, out=rows[low - start : high - start])
        return rows.reshape(stop - start, self.shape[0])

    def quadratic_form(self, v: Array) -> float:
        # Σ_n u_nᵀ S_n u_n,  u_n = Vᵀ a_n
        u = self.a @ np.asarray(v, dtype=self.dtype).reshape(self.inputs, self.units)
        return float(np.einsum("nh,nhl,nl->", u, self.S, u, optimize=True))


class InputBlock(HessianBlock):
    """The block of one example's input, W S Wᵀ; ``W`` is (inputs, units), ``S`` (units, units)."""

    def __init__(self, parameter: str, layout: Layout, W: Array, S: Array) -> None:
        self.W = W
        self.S = S
        super().__init__(parameter, layout, W.dtype)

    def _matmat(self, V: Array) -> Array:
        product: Array = self.W @ (self.S @ (self.W.T @ V))
        return product

    def rows(self, start: int, stop: int) -> Array:
        rows: Array = self.W[start:stop] @ self.S @ self.W.T
        return rows


class InputsBlock(HessianBlock):
    """All inputs of the batch: W S_n Wᵀ for each example, and 0 between two of them.

    The loss is a sum over examples, each of which sees its own input only. ``W`` is (inputs,
    units), ``S`` (N, units, units).
    """

    def __init__(self, parameter: str, layout: Layout, W: Array, S: Array) -> None:
        self.W = W
        self.S = S
        super().__init__(parameter, layout, W.dtype)

    def _matmat(self, V: Array) -> Array:
        by_example = V.reshape(len(self.S), self.W.shape[0], V.shape[1])
        product: Array = self.W @ (self.S @ (self.W.T @ by_example))
        return product.reshape(V.shape)


@dataclass(frozen=True)
class CrossTerm:
    """What connects layers k < l: H[(j,q),(i,p)] = Σ_n a_k[i] (M[j,p] g_l[q] + a_l[j] B[q,p]).

    ``M`` (N, inputs of l, units of k) is ∂a_{l-1}/∂z_k, with a row of zeros for the bias, and
    ``B`` (N, units of l, units of k) is S_l W_lᵀ M. A term without the first part has g = 0.
    """

    M: Array
    B: Array


class NetworkBlock(HessianBlock):
    """All parameters at once: the layers' own blocks, and the blocks between each two layers.

    ``layers`` are the diagonal blocks, ``g`` the gradients (N, units) at their pre-activations
    (zeros for the Gauss–Newton term), ``cross`` the CrossTerm of each pair (k, l), k < l.
    """

    def __init__(
        self,
        parameter: str,
        layout: Layout,
        layers: tuple[LayerBlock, ...],
        g: tuple[Array, ...],
        cross: dict[tuple[int, int], CrossTerm],
    ) -> None:
        self.layers = layers
        self.g = g
        self.cross = cross
        super().__init__(parameter, layout, layers[0].dtype)

    def _matmat(self, V: Array) -> Array:
        columns = V.shape[1]
        parts = [V[low:high] for low, high in pairwise(self.layout.starts)]
        results: list[Array] = [
            layer.matmat(part) for layer, part in zip(self.layers, parts, strict=True)
        ]
        examples = len(self.layers[0].a)
        shaped = [
            part.reshape(layer.inputs, layer.units, columns)
            for layer, part in zip(self.layers, parts, strict=True)
        ]
        pushed = [
            np.einsum("ni,iuc->nuc", layer.a, part, optimize=True)
            for layer, part in zip(self.layers, shaped, strict=True)
        ]
        for (k, other), term in self.cross.items():
            lower, upper = self.layers[k], self.layers[other]
            # To the upper layer: (M U_k)ᵀ g_l + a_lᵀ (B U_k).
            upwards = np.einsum("njc,nq->jqc", term.M @ pushed[k], self.g[other], optimize=True)
            upwards += (upper.a.T @ (term.B @ pushed[k]).reshape(examples, -1)).reshape(
                upwards.shape
            )
            # To the lower layer: a_kᵀ (Mᵀ V_l g_l + Bᵀ U_l).
            through = np.einsum("jqc,nq->njc", shaped[other], self.g[other], optimize=True)
            back = term.M.transpose(0, 2, 1) @ through + term.B.transpose(0, 2, 1) @ pushed[other]
            results[other] = results[other] + upwards.reshape(results[other].shape)
            results[k] = results[k] + (lower.a.T @ back.reshape(examples, -1)).reshape(
                results[k].shape
            )
        return np.concatenate(results)

    def rows(self, start: int, stop: int) -> Array:
        stop = min(stop, self.shape[0])
        rows = np.empty((stop - start, self.shape[0]), dtype=self.dtype)
        for layer, low, high in self._by_layer(start, stop):
            first = self.layout.starts[layer]
            target = rows[low - start : high - start]
            for other in range(len(self.layers)):
                columns = slice(self.layout.starts[other], self.layout.starts[other + 1])
                target[:, columns] = self._rows_between(layer, other, low - first, high - first)
        return rows

    def _by_layer(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(layer, low, high) for the part of start … stop that lies in each layer."""
        for layer in range(len(self.layers)):
            low = max(start, self.layout.starts[layer])
            high = min(stop, self.layout.starts[layer + 1])
            if low < high:
                yield layer, low, high

    def _rows_between(self, layer: int, other: int, start: int, stop: int) -> Array:
        """Rows of one layer's parameters in the columns of another's."""
        if layer == other:
            return self.layers[layer].rows(start, stop)
        mine, theirs = self.layers[layer], self.layers[other]
        rows = np.empty((stop - start, theirs.inputs, theirs.units), dtype=self.dtype)
        each = max(mine.S[:, 0].nbytes, theirs.S[:, 0].nbytes, theirs.a.nbytes)
        for low, high in pieces(start, stop, each):
            i, h = np.divmod(np.arange(low, high), mine.units)
            a = mine.a.T[i, :, None]
            if layer < other:
                term = self.cross[layer, other]
                M, B = term.M.transpose(2, 0, 1)[h], term.B.transpose(2, 0, 1)[h]
                part = (a * M).transpose(0, 2, 1) @ self.g[other] + theirs.a.T @ (a * B)
            else:
                term = self.cross[other, layer]
                M, B = term.M.transpose(1, 0, 2)[i], term.B.transpose(1, 0, 2)[h]
                part = theirs.a.T @ (M * self.g[layer].T[h, :, None] + a * B)
            rows[low - start : high - start] = part
        return rows.reshape(stop - start, theirs.shape[0])
