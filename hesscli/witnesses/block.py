"""The interface that everything above the engines speaks: a Hessian block as a linear operator."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator

from hesscli.problem.graph import Array
from hesscli.system import xp
from hesscli.system.arrays import is_foreign, namespace, place
from hesscli.system.devices import CPU, Device
from hesscli.system.memory import require_memory
from hesscli.system.pieces import pieces
from hesscli.system.threads import in_threads
from hesscli.witnesses.jacobian import JacobianBlock
from hesscli.witnesses.krylov import Watch, no_watch
from hesscli.witnesses.layout import Layout
from hesscli.witnesses.solution import AUTO, Asked, Exact, Solution, of_matrix, solution, vector_of

# to_dense() leaves this share of the available memory for everything else.
_DENSE_SHARE = 0.8
_PIECE_BYTES = 8 * 2**20


class HessianBlock(LinearOperator):  # type: ignore[misc]  # SciPy ships no types
    """The symmetric (P, P) Hessian of the loss, or one of its terms, in some of its parameters.

    ``parameter`` names the block, as in ``dense1/kernel``, and ``layout`` its parameters: those
    of a tensor in C order of the Keras shape, tensors and layers one after the other. The
    operator is a SciPy ``LinearOperator``: ``H @ v``, ``H.matmat(V)`` and SciPy's eigensolvers
    take it as it is. Its products are of the library, and on the device, of the problem's arrays.
    """

    # Where products are quickest of vectors that are there.
    device: Device = CPU
    # Whether rows and products may be asked for from several threads at once.
    in_threads = True
    # Whether vᵀHv ≥ 0 for every v, by what the block is.
    semidefinite = False
    # Up to so many parameters a system is solved by all eigenvalues: half a second.
    most_eigenvalues = 1000

    def __init__(self, parameter: str, layout: Layout, dtype: np.dtype[np.floating]) -> None:
        super().__init__(dtype=dtype, shape=(layout.size, layout.size))
        self.parameter = parameter
        self.layout = layout

    @abstractmethod
    def _matmat(self, V: Array) -> Array:
        """H V for V of shape (P, k)."""

    def _matvec(self, v: Array) -> Array:
        return xp.reshape(self._matmat(xp.reshape(v, (-1, 1))), v.shape)

    # SciPy makes NumPy's arrays of what it is given.

    def matmat(self, V: Any) -> Array:
        """H V (P, k), for V (P, k); raises ValueError for another shape."""
        return self._of_foreign(V) if is_foreign(V) else super().matmat(V)

    def matvec(self, v: Any) -> Array:
        """H v, for v (P,); raises ValueError for another shape."""
        return self._of_foreign(v) if is_foreign(v) else super().matvec(v)

    def dot(self, x: Any) -> Array:
        """H x, for x (P,) or (P, k), which is also ``H @ x``."""
        return self._of_foreign(x) if is_foreign(x) else super().dot(x)

    def _of_foreign(self, x: Array) -> Array:
        if x.ndim not in (1, 2) or x.shape[0] != self.shape[1]:
            raise ValueError(f"dimension mismatch: {self.shape}, {x.shape}")
        given, own = (f"{namespace(of).__name__} on {place(of)}" for of in (x, self.operand))
        if given != own:
            raise TypeError(f"{self.parameter} multiplies arrays of {own}, not of {given}")
        return self._matvec(x) if x.ndim == 1 else self._matmat(x)

    @property
    def operand(self) -> Array:
        """An array of the library and on the device of what it multiplies, beside NumPy's."""
        return self._like

    def _adjoint(self) -> HessianBlock:
        return self

    def rows(self, start: int, stop: int) -> Array:
        """Rows ``start`` to ``stop`` of H, (stop − start, P), without ever holding (P, P)."""
        # H is symmetric: its rows are its products with unit vectors.
        size = self.shape[0]
        stop = min(stop, size)
        units = xp.eye(size, stop - start, k=-start, like=self._like)
        return xp.contiguous(self._matmat(units).T)

    @property
    def _like(self) -> Array:
        """An array of the library, the device and the type of the block's own."""
        return np.empty(0, dtype=self.dtype)

    @property
    def row_bytes(self) -> int:
        """The bytes that one of many rows takes while it is computed."""
        return int(self.shape[0] * self.dtype.itemsize)

    def row_pieces(self, piece_bytes: int, row_bytes: int = 0) -> list[tuple[int, int]]:
        """(start, stop) of all rows in pieces that take about ``piece_bytes`` to compute.

        If the block has one segment, the rows of all units of an input are together.
        ``row_bytes`` is what another witness needs for a row, if that is more.
        """
        segments = self.layout.segments
        units = segments[0].units if len(segments) == 1 else 1
        each = max(self.row_bytes, row_bytes) * units
        return [
            (low * units, high * units)
            for low, high in pieces(0, self.shape[0] // units, each, piece_bytes)
        ]

    def panels(self, start: int, stop: int) -> tuple[Array, ...]:
        """Rows ``start`` to ``stop`` as an (n, stop − start, units) array for each segment.

        panel[j, r, l] = H[start + r, (j,l)], for j of the segment's n rows: the order in which
        one matrix product gives the rows of a layer's block.
        """
        rows = self.rows(start, stop)
        return tuple(
            xp.swapaxes(
                xp.reshape(
                    rows[:, low : low + segment.size], (rows.shape[0], segment.rows, segment.units)
                ),
                0,
                1,
            )
            for segment, low in zip(self.layout.segments, self.layout.starts, strict=False)
        )

    def quadratic_form(self, v: Array) -> float:
        """vᵀ H v for v of shape (P,) or of the parameter's own shape."""
        flat = flat_of(v, self.dtype)
        # Overflow is refused when the number is judged.
        with np.errstate(over="ignore", invalid="ignore"):
            # The last sum is in double precision: of the type's own digits it may leave none.
            return float(xp.double(flat) @ xp.double(self._matvec(flat)))

    def hvp(self, v: Any) -> Array:
        """H v, like v: of shape (P,) or of the parameter's own shape.

        Raises InputError for a v that does not fit.
        """
        flat = xp.astype(vector_of(self, v), self.dtype)
        return xp.reshape(self._matvec(flat), v.shape if is_foreign(v) else np.shape(v))

    def diagonal(self) -> Array:
        """H[i,i] (P,), in double precision: by rows, a piece of them at a time."""
        found = xp.double(xp.empty((self.shape[0],), like=self._like))
        threads = None if self.in_threads else 1

        def fill(piece: tuple[int, int]) -> None:
            start, stop = piece
            own = self.rows(start, stop)[:, start:stop]
            found[start:stop] = xp.double(xp.diagonal(own))

        for _ in in_threads(fill, self.row_pieces(_PIECE_BYTES), threads):
            pass
        return found

    def trace(self) -> float:
        """The sum of the diagonal."""
        return float(xp.sum(self.diagonal()))

    def solve(
        self,
        v: ArrayLike,
        damping: float = 0.0,
        method: str = AUTO,
        *,
        rtol: float | None = None,
        products: int = Asked.products,
        watch: Watch = no_watch,
    ) -> Solution:
        """(H + λI) x = v for v of shape (P,) or of the parameter's own shape, λ = ``damping`` ≥ 0.

        ``method`` is exact (by factors or eigenvalues), minres, cg, or the first of these that can
        be had; minres and cg take ``products`` steps at most, and go on to the relative residual
        ``rtol``. The residual that is reported is the true one: ask ``passed`` of what comes back.
        A singular system has the shortest x of least residual. Raises InputError for a v that
        does not fit and a number out of its range, NumericalError if cg meets a direction in
        which H + λI is not positive.
        """
        return solution(self, v, damping, Asked(method, rtol, products), watch)

    def exactly(self, v: Array, damping: float) -> Exact | None:
        """The solution by the block's structure, or by all eigenvalues of a small one, or None."""
        if self.shape[0] > self.most_eigenvalues:
            return None
        return of_matrix(self, self.to_dense(), v, damping)

    def to_dense(self) -> Array:
        """H as a (P, P) array; raises InputError, with the size, beyond the memory there is."""
        size = self.shape[0]
        what = f"{self.parameter}: the dense {size:,} × {size:,} block needs"
        needed = size * size * self.dtype.itemsize
        require_memory(needed, what, "use rows() or products instead", _DENSE_SHARE)
        dense = xp.zeros(self.shape, like=self._like)
        threads = None if self.in_threads else 1
        for _ in in_threads(partial(self._fill, dense), self.row_pieces(_PIECE_BYTES), threads):
            pass
        return dense

    def _fill(self, dense: Array, piece: tuple[int, int]) -> None:
        """Writes one of ``row_pieces`` into an array of zeros."""
        start, stop = piece
        if len(self.layout.segments) > 1:
            dense[start:stop, :] = self.rows(start, stop)
            return
        (panel,) = self.panels(start, stop)
        # Neighbouring rows in another shape are a view.
        by_row = xp.reshape(dense[start:stop, :], (stop - start, panel.shape[0], panel.shape[2]))
        by_row[...] = xp.swapaxes(panel, 0, 1)


def flat_of(v: Any, dtype: np.dtype[np.floating]) -> Array:
    """Numbers of any shape one after the other, in a type; of their own library if it is one."""
    array = v if is_foreign(v) else np.asarray(v)
    return xp.reshape(xp.astype(array, dtype), (-1,))


class Engine(Protocol):
    """One witness: it turns a Problem into Hessian blocks.

    ``parameter`` is the name of a block (hesscli.witnesses.layout); an unknown one raises KeyError.
    For every parameter, hessian = gauss_newton + curvature. ``gradient`` is ∂L/∂θ (P,), in the
    order of the block's layout.
    """

    def hessian(self, parameter: str) -> HessianBlock: ...

    def gauss_newton(self, parameter: str) -> HessianBlock: ...

    def curvature(self, parameter: str) -> HessianBlock: ...

    def gradient(self, parameter: str) -> Array: ...

    def jacobian(self, parameter: str) -> JacobianBlock: ...
