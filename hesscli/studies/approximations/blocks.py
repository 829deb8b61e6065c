"""The approximations as blocks, each with its diagonal and how many numbers it holds.

``contracted`` (N, units, units) is what makes distances exact: with a (N, rows) of a dense layer
whose block is T = Σ_n a_n a_nᵀ ⊗ S_n,

    ⟨T, X⟩ = Σ_n ⟨S_n, X(a_n)⟩,      X(a)[h,l] = Σ_{i,j} a_i X[(i,h),(j,l)] a_j
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.approximations.factors import Factors
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import Layout
from hesscli.witnesses.solution import Exact, in_eigenbasis
from hesscli.witnesses.summed.engine import Chunks

# Up to so many parameters blocks are formed: 18 MB each.
DENSE_SIZE = 1500


class Approximation(HessianBlock):
    """A block that stands for another one, (P, P)."""

    storage: int
    semidefinite = True


class Structured(Approximation):
    """An approximation whose distance from a dense layer's block is exact."""

    @property
    @abstractmethod
    def squared_norm(self) -> float:
        """‖X‖_F²."""

    @abstractmethod
    def contracted(self, a: Array) -> Array:
        """X(a_n), (N, units, units)."""


class Fisher(Approximation):
    """F = Σ_{n,k} vec J vec Jᵀ by products, over all chunks; ``made`` gives a part's factors."""

    in_threads = False

    def __init__(
        self,
        parameter: str,
        layout: Layout,
        chunks: Chunks,
        made: Callable[[Problem], Factors],
        diagonal: Array,
    ) -> None:
        super().__init__(parameter, layout, chunks.problem.dtype)
        self.chunks, self.made, self._diagonal = chunks, made, diagonal
        self.storage = self.shape[0] * (self.shape[0] + 1) // 2

    def diagonal(self) -> Array:
        return self._diagonal

    @cached_property
    def dense(self) -> Array:
        """F (P, P), in double precision."""
        return self.chunks.sum(lambda part: self.made(part).dense())

    def to_dense(self) -> Array:
        if self.shape[0] > DENSE_SIZE:
            return super().to_dense()
        return self.dense.astype(self.dtype, copy=False)

    def _matmat(self, V: Array) -> Array:
        V = np.asarray(V, dtype=self.dtype)
        total = self.chunks.sum(lambda part: self.made(part).product(V))
        return total.astype(self.dtype, copy=False)


class Kronecker(Structured):
    """A ⊗ B, A (rows, rows) and B (units, units)."""

    def __init__(self, parameter: str, layout: Layout, A: Array, B: Array) -> None:
        super().__init__(parameter, layout, np.dtype(A.dtype))
        self.A, self.B = A, B
        self.storage = sum(len(each) * (len(each) + 1) // 2 for each in (A, B))

    def diagonal(self) -> Array:
        return np.outer(np.diagonal(self.A), np.diagonal(self.B)).reshape(-1)

    @property
    def squared_norm(self) -> float:
        return float(np.vdot(self.A, self.A) * np.vdot(self.B, self.B))

    def contracted(self, a: Array) -> Array:
        return np.asarray(np.einsum("ni,ni->n", a @ self.A, a)[:, None, None] * self.B)

    def exactly(self, v: Array, damping: float) -> Exact:
        (of_A, U_A), (of_B, U_B) = (
            np.linalg.eigh(each.astype(np.float64)) for each in (self.A, self.B)
        )
        whole = Eigenbasis(self.parameter, self.layout, U_A, U_B, np.outer(of_A, of_B))
        return whole.exactly(v, damping)

    def _matmat(self, V: Array) -> Array:
        return _times(self.A, self.B, V)


class Eigenbasis(Structured):
    """(U_A ⊗ U_B) diag(D) (U_A ⊗ U_B)ᵀ, D (rows, units): EKFAC (George et al. 2018)."""

    def __init__(self, parameter: str, layout: Layout, U_A: Array, U_B: Array, D: Array) -> None:
        super().__init__(parameter, layout, np.dtype(D.dtype))
        self.U_A, self.U_B, self.D = U_A, U_B, D
        self.storage = U_A.size + U_B.size + D.size

    def diagonal(self) -> Array:
        return np.asarray(np.square(self.U_A) @ self.D @ np.square(self.U_B).T).reshape(-1)

    @property
    def squared_norm(self) -> float:
        return float(np.vdot(self.D, self.D))

    def contracted(self, a: Array) -> Array:
        weights = np.square(a @ self.U_A) @ self.D
        return np.asarray((self.U_B * weights[:, None]) @ self.U_B.T)

    def exactly(self, v: Array, damping: float) -> Exact:
        c = _times(self.U_A.T, self.U_B.T, v)
        found = in_eigenbasis(c, self.D.reshape(-1), damping, self.dtype)
        return replace(found, x=_times(self.U_A, self.U_B, found.x))

    def _matmat(self, V: Array) -> Array:
        turned = _times(self.U_A.T, self.U_B.T, V) * self.D.reshape(-1, 1)
        return _times(self.U_A, self.U_B, turned)


class LowRankPlusDiagonal(Structured):
    """Q diag(λ) Qᵀ + diag(d), Q (P, k); with k = 0 the diagonal."""

    def __init__(self, parameter: str, layout: Layout, Q: Array, values: Array, d: Array) -> None:
        super().__init__(parameter, layout, np.dtype(d.dtype))
        self.Q, self.values, self.d = Q, values, d
        self.storage = Q.size + values.size + d.size

    @cached_property
    def _own(self) -> Array:
        """The diagonal of Q diag(λ) Qᵀ."""
        return np.asarray(np.square(self.Q) @ self.values)

    def diagonal(self) -> Array:
        return np.asarray(self._own + self.d)

    @property
    def squared_norm(self) -> float:
        mixed = 2 * float(self._own @ self.d)
        return float(np.vdot(self.values, self.values) + mixed + np.vdot(self.d, self.d))

    def contracted(self, a: Array) -> Array:
        rows = a.shape[1]
        u = (a @ self.Q.reshape(rows, -1)).reshape(len(a), len(self.d) // rows, len(self.values))
        own = np.square(a) @ self.d.reshape(rows, -1)
        low: Array = (u * self.values) @ np.swapaxes(u, 1, 2)
        return np.asarray(low + own[:, :, None] * np.eye(own.shape[1], dtype=own.dtype))

    def exactly(self, v: Array, damping: float) -> Exact | None:
        if self.values.size > 0:
            return super().exactly(v, damping)
        return in_eigenbasis(v, self.d.astype(np.float64), damping, self.dtype)

    def _matmat(self, V: Array) -> Array:
        low = self.Q @ (self.values[:, None] * (self.Q.T @ V))
        return np.asarray(low + self.d[:, None] * V)


class BlockDiagonal(Approximation):
    """The blocks of the layers on the diagonal of the network's, in order."""

    in_threads = False

    def __init__(
        self, parameter: str, layout: Layout, blocks: tuple[HessianBlock, ...], trace: float
    ) -> None:
        super().__init__(parameter, layout, blocks[0].dtype)
        self.blocks, self._trace = blocks, trace
        self.storage = sum(
            getattr(block, "storage", block.shape[0] * (block.shape[0] + 1) // 2)
            for block in blocks
        )

    def diagonal(self) -> Array:
        return np.concatenate([block.diagonal() for block in self.blocks])

    def trace(self) -> float:
        # It is known; a layer's diagonal would take a product for each parameter.
        return self._trace

    def exactly(self, v: Array, damping: float) -> Exact | None:
        found = [block.exactly(part, damping) for block, part in self._with(v)]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        return Exact(
            np.concatenate([each.x for each in known]),
            " and ".join(dict.fromkeys(each.method for each in known)),
            min(each.smallest for each in known),
            sum(each.null for each in known),
            sum(each.negative for each in known),
        )

    def _matmat(self, V: Array) -> Array:
        return np.concatenate([block.matmat(part) for block, part in self._with(V)])

    def _with(self, V: Array) -> Iterator[tuple[HessianBlock, Array]]:
        """Each block with its part of V (P, …)."""
        ends = np.cumsum([block.shape[0] for block in self.blocks])
        return zip(self.blocks, np.split(V, ends[:-1]), strict=True)


def _times(A: Array, B: Array, V: Array) -> Array:
    """(A ⊗ B) V for V (rows · units, k)."""
    AV = (A @ V.reshape(len(A), -1)).reshape(len(A), len(B), -1)
    return np.asarray(B @ AV).reshape(V.shape)
