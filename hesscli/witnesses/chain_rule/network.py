"""The chain rule's block of all parameters of a network whose layers are dense.

The layers' own blocks are those of dense.py. Between two of them, l reading what k has computed or
standing beside it,

    H[(j,q),(i,p)] = Σ_n a_k[i] (M[p,j] g_l[q] + a_l[j] B[p,q]),

M_n = ∂a_l/∂z_k being how l's input moves with the output z_k of k, and B_n = ∂g_l/∂z_k how the
gradient at z_l does. Both come from one product with unit directions at z_k.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hesscli.nodes.passes import Linearized, Moved, Term
from hesscli.problem.graph import Array
from hesscli.system import xp
from hesscli.system.pieces import pieces
from hesscli.witnesses.chain_rule.blocks import ProductBlock
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.layout import Layout


@dataclass(frozen=True)
class Cross:
    """M (units of k, N, inputs of l), with zeros for a bias, and B (units of k, N, units of l)."""

    M: Array
    B: Array


class NetworkBlock(ProductBlock):
    """All parameters at once; ``layers`` are the blocks on the diagonal, in the layout's order."""

    def __init__(
        self,
        parameter: str,
        layout: Layout,
        linearized: Linearized,
        term: Term,
        layers: tuple[DenseBlock, ...],
    ) -> None:
        super().__init__(parameter, layout, linearized, term)
        self.layers = layers

    @cached_property
    def cross(self) -> Mapping[tuple[int, int], Cross]:
        """What connects the layers k and l, for k before l in the graph."""
        order = [node.name for node in self.linearized.graph.nodes]
        by_node = sorted(range(len(self.layers)), key=lambda k: order.index(self.layers[k].node))
        cross: dict[tuple[int, int], Cross] = {}
        with np.errstate(over="ignore", invalid="ignore"):
            for place, k in enumerate(by_node):
                above = by_node[place + 1 :]
                for upper, found in zip(above, self._between(k, above), strict=True):
                    cross[k, upper] = found
        return cross

    def _between(self, k: int, above: list[int]) -> Iterator[Cross]:
        if not above:
            return
        lower, graph = self.layers[k], self.linearized.graph
        examples = self._examples
        units = xp.broadcast_to(
            xp.eye(lower.units, like=self._like), (examples, lower.units, lower.units)
        )
        nodes = [self.layers[upper].node for upper in above]
        below = [value for node in nodes for value in graph.by_name[node].inputs]
        found, R = self.linearized.product(
            Moved(values={lower.node: units}), self.term, (), nodes, shown=below
        )
        for upper, node in zip(above, nodes, strict=True):
            layer = self.layers[upper]
            M = xp.zeros((lower.units, examples, layer.inputs), like=self._like)
            (value,) = graph.by_name[node].inputs
            if value in R:
                M[:, :, : R[value].shape[2]] = xp.swapaxes(R[value], 0, 1)
            B = xp.zeros((lower.units, examples, layer.units), like=self._like)
            if node in found.values:
                B[...] = xp.swapaxes(found.values[node], 0, 1)
            yield Cross(M, B)

    def rows(self, start: int, stop: int) -> Array:
        stop = min(stop, self.shape[0])
        rows = xp.empty((stop - start, self.shape[0]), like=self._like)
        with np.errstate(over="ignore", invalid="ignore"):
            for layer, low, high in self._by_layer(start, stop):
                first = self.layout.starts[layer]
                inside = slice(low - start, high - start)
                for other in range(len(self.layers)):
                    columns = slice(self.layout.starts[other], self.layout.starts[other + 1])
                    rows[inside, columns] = self._rows_between(
                        layer, other, low - first, high - first
                    )
        return rows

    def diagonal(self) -> Array:
        return xp.concat([layer.diagonal() for layer in self.layers])

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
        rows = xp.empty((stop - start, theirs.inputs, theirs.units), like=self._like)
        each = self.dtype.itemsize * self._examples * max(mine.units, theirs.units, theirs.inputs)
        for low, high in pieces(start, stop, each):
            i, h = np.divmod(np.arange(low, high), mine.units)
            a = xp.take(mine.a.T, i, axis=0)[:, :, None]
            if (layer, other) in self.cross:
                term = self.cross[layer, other]
                M, B = (xp.take(of, h, axis=0) for of in (term.M, term.B))
                part = xp.swapaxes(a * M, 1, 2) @ theirs.g + theirs.a.T @ (a * B)
            else:
                term = self.cross[other, layer]
                M = xp.take(xp.permute_dims(term.M, (2, 1, 0)), i, axis=0)
                B = xp.take(xp.permute_dims(term.B, (2, 1, 0)), h, axis=0)
                g = xp.take(mine.g.T, h, axis=0)[:, :, None]
                part = theirs.a.T @ (M * g + a * B)
            rows[low - start : high - start, ...] = part
        return xp.reshape(rows, (stop - start, theirs.shape[0]))
