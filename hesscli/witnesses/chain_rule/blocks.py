"""The chain rule's blocks of any graph, by products alone.

A product goes up and down the graph once for all of its columns (hesscli.nodes.passes); a row is
the product with a unit vector. What the structure of a dense layer adds stands in dense.py.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from hesscli.nodes.node import added
from hesscli.nodes.passes import BOTH, Linearized, Moved, Term
from hesscli.problem.graph import CONV, INPUT, Array, Node
from hesscli.system import xp
from hesscli.system.arrays import dtype_of, is_numpy
from hesscli.system.pieces import pieces
from hesscli.system.threads import at_once
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import Layout

# What the passes hold at a time for some of the examples: it fits into a cache.
_PIECE_BYTES = 2**24
# What a product may hold at a time on a device.
_DEVICE_PIECE_BYTES = 2**30
# The block of one example's input is held up to this size, 64 MB in float64.
_MOST_ENTRIES = 2**23


class ProductBlock(HessianBlock):
    """A block of parameters."""

    def __init__(self, parameter: str, layout: Layout, linearized: Linearized, term: Term) -> None:
        linearized.reach(layout.tensors)
        self.linearized = linearized
        self.term = term
        super().__init__(parameter, layout, dtype_of(linearized.f))

    def _matmat(self, V: Array) -> Array:
        V = xp.astype(V, self.dtype)
        columns = list(pieces(0, V.shape[1], self._bytes_of_a_column))
        # Overflow is for who judges the numbers.
        with np.errstate(over="ignore", invalid="ignore"):
            # What takes a piece whole is the result itself: at large widths it is large.
            if len(columns) == 1:
                return self._columns(V)
            product = xp.empty(V.shape, like=V)
            for low, high in columns:
                product[:, low:high] = self._columns(V[:, low:high])
        return product

    @property
    def _like(self) -> Array:
        return self.linearized.f

    @property
    def _bytes_of_a_column(self) -> int:
        return int(self.shape[0] * self.dtype.itemsize)

    @property
    def _examples(self) -> int:
        return int(self.linearized.targets.shape[0])

    def terms(self, V: Array) -> tuple[Array, Array]:
        """G V and C V for V (P, k), whatever the block's own term, by one way up the graph."""
        GV, CV = xp.empty(V.shape, like=V), xp.empty(V.shape, like=V)
        for low, high in pieces(0, V.shape[1], self._bytes_of_a_column):
            both = self._summed(V[:, low:high], BOTH)
            GV[:, low:high], CV[:, low:high] = both[:, : high - low], both[:, high - low :]
        return GV, CV

    def _columns(self, V: Array) -> Array:
        return self._summed(V, self.term)

    def _summed(self, V: Array, term: Term) -> Array:
        """The sum over the examples, (P, k), or (P, 2k) of both terms."""
        moved, tensors = Moved(self.layout.split(V)), self.layout.tensors
        columns = V.shape[1] * (2 if term.apart else 1)

        def of_examples(piece: tuple[int, int]) -> Array:
            with np.errstate(over="ignore", invalid="ignore"):
                found, _ = self.linearized.product(moved, term, tensors, (), slice(*piece))
            for tensor, shape in self.layout.shapes.items():
                if tensor not in found.tensors:
                    # The output does not depend on it.
                    found.tensors[tensor] = xp.zeros((columns, *shape), like=V)
            return self.layout.join(found.tensors)

        # Each piece has a result, which at large widths is larger than what it is made of.
        held = max(_PIECE_BYTES, self._bytes_of_a_column * columns)
        # A device is kept busy by many examples, one piece after the other.
        threads, held = (None, held) if is_numpy(V) else (1, _DEVICE_PIECE_BYTES)
        each = pieces(0, self._examples, self._bytes_of_an_example(columns), held)
        return added(at_once(of_examples, each, threads))

    def _bytes_of_an_example(self, columns: int) -> int:
        """What the passes' arrays take for one example."""
        nodes = self.linearized.graph.downstream((), self.layout.tensors)
        numbers = sum(math.prod(node.shape) + self._unfolded(node) for node in nodes)
        return int(columns * numbers * self.dtype.itemsize)

    def _unfolded(self, node: Node) -> int:
        """What the patches of a convolution are more than what it reads."""
        if node.kind != CONV:
            return 0
        taps, channels = math.prod(node.attributes["kernel_size"]), node.shape[-1]
        kernel = self.linearized.graph.tensors[node.tensors["kernel"]]
        of_place = taps * kernel.shape[-2] * node.attributes["groups"]
        return int(math.prod(node.shape) // channels * of_place)


class InputsBlock(HessianBlock):
    """The inputs of ``chosen`` examples: 0 between two of them.

    The loss is a sum over examples, each of which sees its own input only.
    """

    def __init__(
        self, parameter: str, layout: Layout, linearized: Linearized, term: Term, chosen: slice
    ) -> None:
        linearized.reach(values=[INPUT])
        self.linearized = linearized
        self.term = term
        self.chosen = chosen
        super().__init__(parameter, layout, dtype_of(linearized.f))

    def _matmat(self, V: Array) -> Array:
        V, shape = xp.astype(V, self.dtype), self.linearized.graph.input_shape
        by_example = xp.reshape(V, (self._examples, -1, V.shape[1]))
        by_example = xp.contiguous(xp.swapaxes(by_example, 1, 2))
        moved = xp.reshape(by_example, (*by_example.shape[:2], *shape))
        with np.errstate(over="ignore", invalid="ignore"):
            found, _ = self.linearized.product(
                Moved(values={INPUT: moved}), self.term, (), [INPUT], self.chosen
            )
        if INPUT not in found.values:
            return xp.zeros_like(V)
        product = xp.reshape(found.values[INPUT], by_example.shape)
        return xp.reshape(xp.swapaxes(product, 1, 2), V.shape)

    @property
    def _like(self) -> Array:
        return self.linearized.f

    @property
    def _examples(self) -> int:
        return int(self.linearized.targets[self.chosen, ...].shape[0])

    def rows(self, start: int, stop: int) -> Array:
        size = self.shape[0]
        if self._examples > 1 or size * size > _MOST_ENTRIES:
            return super().rows(start, stop)
        return self._whole[start:stop, :]

    @cached_property
    def _whole(self) -> Array:
        """The block of one example."""
        *_, (_, S) = self.linearized.second(self.chosen, self.term, INPUT)
        return S[0, ...]
