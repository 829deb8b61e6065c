"""The chain rule's blocks as operators: what is read off the sweep at the dense layers.

Everywhere ``a`` is the layer's input with what the parameters multiply: for a kernel a_n itself,
for a bias the constant 1, for a whole layer a_n with a 1 appended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hesscli.problem.graph import Array
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.multiplied import Multiplied
from hesscli.witnesses.chain_rule.roperator import Direction, ROperator, Term
from hesscli.witnesses.layout import Layout

# W S Wᵀ is symmetric to some roundings of its largest entry.
_SYMMETRIC = 8
# Up to here products with S take less time than the passes through the layers above.
_FEW_UNITS = 32
_CACHED_BYTES = 2**22
# An input that is 0 in at least this share of the examples has rows that are summed without them.
_SPARSE = 0.4


class _ParameterBlock(HessianBlock):
    """A block of parameters, whose products go through the R-operator.

    ``indices`` are the layers of the layout's segments.
    """

    def __init__(
        self,
        parameter: str,
        layout: Layout,
        r_operator: ROperator,
        term: Term,
        indices: tuple[int, ...],
    ) -> None:
        self._r_operator = r_operator
        self._term = term
        self._indices = indices
        super().__init__(parameter, layout, r_operator.nodes[indices[0]].slope.dtype)

    def _matmat(self, V: Array) -> Array:
        columns = list(pieces(0, V.shape[1], self.shape[0] * self.dtype.itemsize))
        # What takes a piece whole is the result itself: at large widths it is large.
        if len(columns) == 1:
            return self._columns(V)
        product = np.empty(V.shape, dtype=self.dtype)
        for low, high in columns:
            product[:, low:high] = self._columns(V[:, low:high])
        return product

    def _columns(self, V: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            results = self._r_operator.products(self._directions(V), self._term)
            return _joined([_flat(result) for result in results])

    def quadratic_form(self, v: Array) -> float:
        flat = np.asarray(v, dtype=self.dtype).reshape(-1, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._r_operator.form(self._directions(flat), self._term)

    def _directions(self, V: Array) -> list[Direction]:
        """The columns of V (P, k) as directions in the layers' parameters."""
        directions = []
        for segment, low, index in zip(
            self.layout.segments, self.layout.starts, self._indices, strict=False
        ):
            part = V[low : low + segment.size].reshape(segment.rows, segment.units, -1)
            part = np.ascontiguousarray(part.swapaxes(1, 2), dtype=self.dtype)
            kernel = None if segment.tensors[0].is_vector else part[: segment.tensors[0].rows]
            bias = part[-1] if segment.tensors[-1].is_vector else None
            directions.append(Direction(index, kernel, bias))
        return directions


class LayerBlock(_ParameterBlock):
    """A block within one layer: H[(i,h),(j,l)] = Σ_n a_n[i] a_n[j] S_n[h,l].

    ``a`` is (N, inputs), ``S`` (N, units, units), computed when it is first asked for. Nothing of
    size (P, P) is ever formed.
    """

    def __init__(
        self,
        parameter: str,
        layout: Layout,
        r_operator: ROperator,
        term: Term,
        index: int,
        S: Callable[[], Array],
    ) -> None:
        self._second = S
        (segment,) = layout.segments
        self.inputs, self.units = segment.rows, segment.units
        super().__init__(parameter, layout, r_operator, term, (index,))

    @property
    def S(self) -> Array:
        return self._second()

    def _matmat(self, V: Array) -> Array:
        # For a single vector S has to be in the cache, or the R-operator takes less time.
        a, units = self.multiplied, self.units
        size = len(a.a) * units**2 * self.dtype.itemsize
        if units > _FEW_UNITS or (V.shape[1] == 1 and size > _CACHED_BYTES):
            return super()._matmat(V)
        # H·V = Σ_n a_n (S_n u_n)ᵀ,  u_n = Vᵀ a_n
        columns = list(pieces(0, V.shape[1], size // units))
        product = np.empty(V.shape, dtype=self.dtype) if len(columns) > 1 else None
        for low, high in columns:
            k = high - low
            by_input = V[:, low:high].reshape(self.inputs, units * k)
            with np.errstate(over="ignore", invalid="ignore"):
                SU = self.S @ a.times(by_input, slice(None)).reshape(-1, units, k)
                part = a.transposed_times(SU.reshape(-1, units * k), slice(None)).reshape(-1, k)
            if product is None:
                return part
            product[:, low:high] = part
        assert product is not None  # there is one column at least
        return product

    @cached_property
    def multiplied(self) -> Multiplied:
        """``a`` in products."""
        (segment,) = self.layout.segments
        if len(segment.tensors) > 1 or segment.tensors[0].is_vector:
            return Multiplied(self.a)
        return self._r_operator.nodes[self._indices[0]].multiplied

    @cached_property
    def a(self) -> Array:
        a = self._r_operator.nodes[self._indices[0]].multiplied.a
        (segment,) = self.layout.segments
        ones = np.ones((len(a), 1), dtype=a.dtype)
        factors = [ones if tensor.is_vector else a for tensor in segment.tensors]
        return factors[0] if len(factors) == 1 else np.concatenate(factors, axis=1)

    def panels(self, start: int, stop: int) -> tuple[Array, ...]:
        stop, units = min(stop, self.shape[0]), self.units
        first, last = start // units, -(-stop // units)
        seen, chosen, product = self._seen_rows(first, last)
        pairs, _ = self._pairs
        if pairs is not None:
            product = np.take(product, pairs, axis=2)
        if len(chosen) < last - first or len(seen) < self.inputs:
            whole = np.zeros((self.inputs, last - first, units * units), dtype=self.dtype)
            whole[np.ix_(seen, chosen - first)] = product
            product = whole
        panel = product.reshape(self.inputs, (last - first) * units, units)
        return (panel[:, start - first * units : stop - first * units],)

    def _fill(self, dense: Array, piece: tuple[int, int]) -> None:
        units = self.units
        seen, chosen, product = self._seen_rows(piece[0] // units, piece[1] // units)
        pairs, _ = self._pairs
        by_input = dense.reshape(self.inputs, units, self.inputs, units)
        for index, i in enumerate(chosen):
            entries = product[:, index]
            if pairs is not None:
                entries = np.take(entries, pairs, axis=1)
            by_input[i][:, seen] = entries.reshape(len(seen), units, units).swapaxes(0, 1)

    def _seen_rows(self, first: int, last: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
        """The rows of inputs ``first`` to ``last`` where a is not 0 in the whole batch.

        The inputs j that are not, the inputs i of the rows that are not, and the entries
        (j, i, m) at the pairs (h,l), or at those of ``_pairs``:  aᵀ · (a[:, i] ⊗ S), as one
        matrix product, or as one for each i over the examples that i is not 0 in.
        """
        seen, a = self._seen
        low, high = np.searchsorted(seen, (first, last))
        _, S = self._pairs
        here = a[:, low:high]
        # Overflow is for who judges the numbers.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.count_nonzero(here) > (1 - _SPARSE) * here.size:
                weighted = here[:, :, None] * S[:, None]
                product = a.T @ weighted.reshape(len(a), (high - low) * S.shape[1])
                return seen, seen[low:high], product.reshape(len(seen), high - low, S.shape[1])
            by_input = np.empty((high - low, len(seen), S.shape[1]), dtype=self.dtype)
            for row, a_i in zip(by_input, here.T, strict=True):
                n = np.flatnonzero(a_i)
                np.matmul(a[n].T, a_i[n, None] * S[n], out=row)
        return seen, seen[low:high], by_input.swapaxes(0, 1)

    def rows(self, start: int, stop: int) -> Array:
        (panel,) = self.panels(start, stop)
        return np.ascontiguousarray(panel.swapaxes(0, 1)).reshape(-1, self.shape[0])

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.intp] | None, Array]:
        """S (N, m) at the pairs h ≤ l, and which of the m each (h,l) is: half of the work.

        Only where S is symmetric up to rounding, far below any tolerance of a check; else None
        and all of S, so that nothing wrong is hidden.
        """
        S, units = self.S, self.units
        flat = S.reshape(len(S), units * units)
        asymmetry = np.abs(S - S.swapaxes(1, 2)).max()
        if not asymmetry <= _SYMMETRIC * np.finfo(S.dtype).eps * np.abs(S).max():
            return None, flat
        upper = np.flatnonzero(np.triu(np.ones((units, units), dtype=bool)))
        h, k = np.divmod(np.arange(units * units), units)
        pairs = np.searchsorted(upper, np.minimum(h, k) * units + np.maximum(h, k))
        return pairs, np.ascontiguousarray(flat[:, upper])

    @cached_property
    def _seen(self) -> tuple[NDArray[np.intp], Array]:
        """The inputs that are not 0 in the whole batch, and ``a`` in these columns."""
        seen, a = self.multiplied.lit, self.multiplied.a
        return seen, a if seen.size == self.inputs else np.ascontiguousarray(a[:, seen])


class InputBlock(HessianBlock):
    """The block of one example's input, W S Wᵀ; ``W`` is (inputs, units), ``S`` (units, units)."""

    def __init__(
        self,
        parameter: str,
        layout: Layout,
        r_operator: ROperator,
        term: Term,
        example: int,
        W: Array,
        S: Callable[[], Array],
    ) -> None:
        self._r_operator = r_operator
        self._term = term
        self._chosen = slice(example, example + 1)
        self._W = W
        self._second = S
        super().__init__(parameter, layout, W.dtype)

    @cached_property
    def S(self) -> Array:
        return self._second()

    def _matmat(self, V: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            products = self._r_operator.input_products(V.T[None], self._chosen, self._term)
        product: Array = products[0].T
        return product

    def rows(self, start: int, stop: int) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            rows: Array = self._W[start:stop] @ self.S @ self._W.T
        return rows


class InputsBlock(HessianBlock):
    """All inputs of the batch: W S_n Wᵀ for each example, and 0 between two of them.

    The loss is a sum over examples, each of which sees its own input only.
    """

    def __init__(self, parameter: str, layout: Layout, r_operator: ROperator, term: Term) -> None:
        self._r_operator = r_operator
        self._term = term
        super().__init__(parameter, layout, r_operator.nodes[0].slope.dtype)

    def _matmat(self, V: Array) -> Array:
        examples, inputs = self._r_operator.nodes[0].multiplied.a.shape
        by_example = V.reshape(examples, inputs, -1).swapaxes(1, 2)
        with np.errstate(over="ignore", invalid="ignore"):
            products = self._r_operator.input_products(
                np.ascontiguousarray(by_example), slice(None), self._term
            )
        product: Array = products.swapaxes(1, 2).reshape(V.shape)
        return product


@dataclass(frozen=True)
class CrossTerm:
    """What connects layers k < l: H[(j,q),(i,p)] = Σ_n a_k[i] (M[j,p] g_l[q] + a_l[j] B[q,p]).

    ``M`` (N, inputs of l, units of k) is ∂a_{l-1}/∂z_k, with a row of zeros for the bias, and
    ``B`` (N, units of l, units of k) is S_l W_lᵀ M. A term without the first part has g = 0.
    """

    M: Array
    B: Array


class NetworkBlock(_ParameterBlock):
    """All parameters at once: the layers' own blocks, and the blocks between each two layers.

    ``layers`` are the diagonal blocks, ``cross`` gives the CrossTerm of each pair (k, l), k < l.
    """

    def __init__(
        self,
        parameter: str,
        layout: Layout,
        r_operator: ROperator,
        term: Term,
        layers: tuple[LayerBlock, ...],
        cross: Callable[[tuple[LayerBlock, ...]], dict[tuple[int, int], CrossTerm]],
    ) -> None:
        self.layers = layers
        self._make_cross = cross
        super().__init__(parameter, layout, r_operator, term, tuple(range(len(layers))))

    @cached_property
    def cross(self) -> dict[tuple[int, int], CrossTerm]:
        return self._make_cross(self.layers)

    @cached_property
    def g(self) -> tuple[Array, ...]:
        """The gradients (N, units) at the pre-activations; zeros for the Gauss–Newton term."""
        share = self.dtype.type(self._term.bent)
        return tuple(share * node.g_z for node in self._r_operator.nodes)

    def rows(self, start: int, stop: int) -> Array:
        stop = min(stop, self.shape[0])
        rows = np.empty((stop - start, self.shape[0]), dtype=self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
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


def _flat(direction: Direction) -> Array:
    """A layer's products as columns (P, k), kernel before bias."""
    parts = [
        part.swapaxes(1, 2).reshape(-1, part.shape[1])
        for part in (direction.kernel, None if direction.bias is None else direction.bias[None])
        if part is not None
    ]
    return _joined(parts)


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
