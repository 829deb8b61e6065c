"""The chain rule's block of a dense layer: what its structure gives without a product.

Where a layer's tensors are those of one dense node, S being the Hessian at the node's output,

    H[(i,h),(j,l)] = Σ_n a_n[i] a_n[j] S_n[h,l]

``a`` is the node's input with what the parameters multiply: for a kernel a_n itself, for a bias
the constant 1, for a whole layer a_n with a 1 appended.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hesscli.nodes.dense import DenseAt
from hesscli.nodes.multiplied import Multiplied
from hesscli.nodes.passes import Linearized, Term
from hesscli.problem.graph import Array
from hesscli.system import xp
from hesscli.system.arrays import is_numpy
from hesscli.system.pieces import pieces
from hesscli.witnesses.chain_rule.blocks import ProductBlock
from hesscli.witnesses.layout import Layout

# W S Wᵀ is symmetric to some roundings of its largest entry.
_SYMMETRIC = 8
# Up to here products with S take less time than the passes through the layers above.
_FEW_UNITS = 32
_CACHED_BYTES = 2**22
# An input that is 0 in at least this share of the examples has rows that are summed without them.
_SPARSE = 0.4


class DenseBlock(ProductBlock):
    """A block within one dense layer, or one of its tensors.

    ``a`` is (N, inputs), ``S`` (N, units, units), computed when it is first asked for. Nothing of
    size (P, P) is ever formed.
    """

    def __init__(
        self,
        parameter: str,
        layout: Layout,
        linearized: Linearized,
        term: Term,
        node: str,
        S: Callable[[], Array],
    ) -> None:
        super().__init__(parameter, layout, linearized, term)
        self.node = node
        self._second = S
        (segment,) = layout.segments
        self.inputs, self.units = segment.rows, segment.units

    @property
    def S(self) -> Array:
        return self._second()

    @property
    def g(self) -> Array:
        """The gradient (N, units) at the node's output; zeros in the Gauss–Newton term."""
        g = self._record.g
        assert g is not None  # ``reach`` came first
        return g if self.term.bent else xp.zeros_like(g)

    @property
    def _record(self) -> DenseAt:
        record = self.linearized.at(self.node, slice(None))
        assert isinstance(record, DenseAt)  # the node is a dense one
        return record

    def _columns(self, V: Array) -> Array:
        # For a single vector S has to be in the cache, or the passes take less time.
        a, units = self.multiplied, self.units
        size = self._examples * units**2 * self.dtype.itemsize
        if units > _FEW_UNITS or (V.shape[1] == 1 and size > _CACHED_BYTES):
            return super()._columns(V)
        # H·V = Σ_n a_n (S_n u_n)ᵀ,  u_n = Vᵀ a_n
        n, k = self._examples, V.shape[1]
        u = a.times(xp.reshape(V, (self.inputs, units * k)))
        SU = self.S @ xp.reshape(u, (n, units, k))
        return xp.reshape(a.transposed_times(xp.reshape(SU, (n, units * k))), V.shape)

    @property
    def _bytes_of_a_column(self) -> int:
        of_examples = self._examples * self.units * self.dtype.itemsize
        return max(super()._bytes_of_a_column, int(of_examples))

    @cached_property
    def multiplied(self) -> Multiplied:
        """``a`` in products."""
        (segment,) = self.layout.segments
        if len(segment.tensors) > 1 or segment.tensors[0].is_vector:
            return Multiplied(self.a)
        return self._record.x

    @cached_property
    def a(self) -> Array:
        a = self._record.x.a
        (segment,) = self.layout.segments
        ones = xp.ones((a.shape[0], 1), like=a)
        factors = [ones if tensor.is_vector else a for tensor in segment.tensors]
        return factors[0] if len(factors) == 1 else xp.concat(factors, axis=1)

    def panels(self, start: int, stop: int) -> tuple[Array, ...]:
        stop, units = min(stop, self.shape[0]), self.units
        first, last = start // units, -(-stop // units)
        shown = slice(start - first * units, stop - first * units)
        pairs, S = self._pairs
        if last - first == 1 and stop - start < units:
            # Of a few units of one input no more than their rows of S is multiplied.
            S = self.S[:, shown, :]
            pairs, S, shown = None, xp.reshape(S, (S.shape[0], -1)), slice(None)
        seen, chosen, product = self._seen_rows(first, last, S)
        if pairs is not None:
            product = xp.take(product, pairs, axis=2)
        if len(chosen) < last - first or len(seen) < self.inputs:
            whole = np.zeros((self.inputs, last - first, product.shape[2]), dtype=self.dtype)
            whole[np.ix_(seen, chosen - first)] = product
            product = whole
        return (xp.reshape(product, (self.inputs, -1, units))[:, shown, :],)

    def _fill(self, dense: Array, piece: tuple[int, int]) -> None:
        units = self.units
        pairs, S = self._pairs
        seen, chosen, product = self._seen_rows(piece[0] // units, piece[1] // units, S)
        by_input = xp.reshape(dense, (self.inputs, units, self.inputs, units))
        for index, i in enumerate(chosen):
            entries = product[:, index, :]
            if pairs is not None:
                entries = xp.take(entries, pairs, axis=1)
            entries = xp.swapaxes(xp.reshape(entries, (len(seen), units, units)), 0, 1)
            if len(seen) == self.inputs:
                by_input[int(i), ...] = entries
            else:
                by_input[i][:, seen] = entries

    def _seen_rows(
        self, first: int, last: int, S: Array
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
        """The rows of inputs ``first`` to ``last`` where a is not 0 in the whole batch.

        The inputs j that are not, the inputs i of the rows that are not, and the entries
        (j, i, m) at the pairs (h,l) that S (N, m) has:  aᵀ · (a[:, i] ⊗ S), as one matrix
        product, or as one for each i over the examples that i is not 0 in.
        """
        seen, a = self._seen
        low, high = np.searchsorted(seen, (first, last))
        here = a[:, int(low) : int(high)]
        # Overflow is for who judges the numbers.
        with np.errstate(over="ignore", invalid="ignore"):
            if not is_numpy(a) or np.count_nonzero(here) > (1 - _SPARSE) * here.size:
                weighted = here[:, :, None] * S[:, None, :]
                n, columns, pairs = weighted.shape
                product = a.T @ xp.reshape(weighted, (n, columns * pairs))
                product = xp.reshape(product, (len(seen), columns, pairs))
                return seen, seen[low:high], product
            by_input = np.empty((high - low, len(seen), S.shape[1]), dtype=self.dtype)
            for row, a_i in zip(by_input, here.T, strict=True):
                n = np.flatnonzero(a_i)
                np.matmul(a[n].T, a_i[n, None] * S[n], out=row)
        return seen, seen[low:high], by_input.swapaxes(0, 1)

    def rows(self, start: int, stop: int) -> Array:
        (panel,) = self.panels(start, stop)
        return xp.reshape(xp.contiguous(xp.swapaxes(panel, 0, 1)), (-1, self.shape[0]))

    def diagonal(self) -> Array:
        # H[(i,h),(i,h)] = Σ_n a_n[i]² S_n[h,h]
        found = xp.double(xp.zeros((self.inputs, self.units), like=self.a))
        for low, high in pieces(0, self._examples, 8 * (self.inputs + self.units)):
            squares = xp.square(xp.double(self.a[low:high, :]))
            found += squares.T @ xp.double(xp.diagonal(self.S[low:high, ...]))
        return xp.reshape(found, (-1,))

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.intp] | None, Array]:
        """S (N, m) at the pairs h ≤ l, and which of the m each (h,l) is: half of the work.

        Only where S is symmetric up to rounding, far below any tolerance of a check; else None
        and all of S, so that nothing wrong is hidden.
        """
        S, units = self.S, self.units
        flat = xp.reshape(S, (S.shape[0], units * units))
        asymmetry = xp.max(xp.abs(S - xp.swapaxes(S, 1, 2)))
        if not asymmetry <= _SYMMETRIC * float(np.finfo(self.dtype).eps) * xp.max(xp.abs(S)):
            return None, flat
        upper = np.flatnonzero(np.triu(np.ones((units, units), dtype=bool)))
        h, k = np.divmod(np.arange(units * units), units)
        pairs = np.searchsorted(upper, np.minimum(h, k) * units + np.maximum(h, k))
        return pairs, xp.contiguous(xp.take(flat, upper, axis=1))

    @cached_property
    def _seen(self) -> tuple[NDArray[np.intp], Array]:
        """The inputs that are not 0 in the whole batch, and ``a`` in these columns."""
        seen, a = self.multiplied.lit, self.multiplied.a
        return seen, a if seen.size == self.inputs else xp.contiguous(xp.take(a, seen, axis=1))
