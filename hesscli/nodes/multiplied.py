"""What a layer's parameters multiply: products with its input a, without what is 0 in it.

Images have pixels that no example of a batch has lit, or hardly any; so do units behind relu. The
columns of a (N, inputs) are of three kinds:

    0 in all examples         left out: what multiplies them is exactly 0
    0 in nearly all           held as a sparse array
    the others                one dense array, by BLAS

Which columns they are is only asked of NumPy's arrays: other libraries' are one dense array.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hesscli.problem.graph import Array
from hesscli.system.arrays import is_numpy
from hesscli.system.pieces import pieces

# Of a column with fewer numbers than this share of the examples a sparse product takes less time.
_SPARSE = 0.02
# Columns are set apart where they are at least this share of all; else a is taken as it is.
_WORTH_SETTING_APART = 0.1
# Up to so many columns of V, BLAS is faster at Vᵀ aᵀ than at a V.
_FEW = 64
_BLOCK_BYTES = 2**21


class Multiplied:
    """An array a (N, inputs) and the products a V and aᵀ Y."""

    def __init__(self, a: Array, whole: Multiplied | None = None) -> None:
        self.a = a
        if whole is not None:
            # Which columns are of which kind is a question to all examples.
            self.lit, self.dense_columns = whole.lit, whole.dense_columns
            self.sparse_columns = whole.sparse_columns

    def part(self, chosen: slice) -> Multiplied:
        """The same for some of the examples."""
        a = self.a[chosen, :]
        if a.shape[0] == self.a.shape[0]:
            return self
        part = Multiplied(a, self)
        part.dense = self.dense[chosen, :]
        if self.sparse_columns.size:
            part.sparse = self.sparse[chosen]
        return part

    @cached_property
    def lit(self) -> NDArray[np.intp]:
        """The columns that are not 0 in the whole batch."""
        if not is_numpy(self.a):
            return np.arange(self.a.shape[1])
        return np.flatnonzero(self._counts)

    @cached_property
    def dense_columns(self) -> NDArray[np.intp] | None:
        """The columns that are multiplied as a dense array; None where those are all."""
        if not is_numpy(self.a):
            return None
        dense = np.flatnonzero(self._counts >= max(1, _SPARSE * len(self.a)))
        inputs = self.a.shape[1]
        return dense if inputs - dense.size >= _WORTH_SETTING_APART * inputs else None

    @cached_property
    def dense(self) -> Array:
        """``a`` in the columns ``dense_columns``."""
        chosen = self.dense_columns
        return self.a if chosen is None else np.ascontiguousarray(self.a[:, chosen])

    @cached_property
    def sparse_columns(self) -> NDArray[np.intp]:
        """The columns that are multiplied as a sparse array."""
        if self.dense_columns is None:
            return np.empty(0, dtype=np.intp)
        return np.setdiff1d(self.lit, self.dense_columns, assume_unique=True)

    @cached_property
    def sparse(self) -> csr_array:
        """``a`` in the columns ``sparse_columns``."""
        return csr_array(self.a[:, self.sparse_columns])

    def times(self, V: Array) -> Array:
        """The product a V (N, m), for V (inputs, m)."""
        columns, a = self.dense_columns, self.dense
        part = V if columns is None else V[columns]
        if V.shape[1] > _FEW or not is_numpy(a):
            U: Array = a @ part
        else:
            U = np.ascontiguousarray((part.T @ a.T).T)
        if self.sparse_columns.size:
            U += self.sparse @ V[self.sparse_columns]
        return U

    def transposed_times(self, Y: Array) -> Array:
        """aᵀ Y (inputs, m), the sum over the examples, for Y (N, m)."""
        columns, a = self.dense_columns, self.dense
        if columns is None:
            whole: Array = a.T @ Y
            return whole
        product = np.zeros((self.a.shape[1], Y.shape[1]), dtype=np.result_type(a, Y))
        if Y.shape[1] <= _FEW:
            product[columns] = (Y.T @ a).T
        else:
            # In blocks, so that there is no second array of the product's size.
            for low, high in pieces(0, columns.size, product[0].nbytes, _BLOCK_BYTES):
                product[columns[low:high]] = a[:, low:high].T @ Y
        if self.sparse_columns.size:
            product[self.sparse_columns] = self.sparse.T @ Y
        return product

    @cached_property
    def _counts(self) -> NDArray[np.intp]:
        """How many examples each column is not 0 in."""
        counts: NDArray[np.intp] = np.count_nonzero(self.a, axis=0)
        return counts
