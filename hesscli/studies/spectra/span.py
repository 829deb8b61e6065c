"""The subspace that holds every eigenvector of a non-zero eigenvalue, and H within it.

A layer's block is Σ_n (a_n a_nᵀ) ⊗ S_n: whatever it makes of a vector lies in span(a_n) ⊗ units,
of at most min(N, inputs) · units dimensions. With an orthonormal basis Q of span(a_n) and
b_n = Qᵀ a_n the whole non-zero spectrum is that of the small matrix

    K = (Q ⊗ I)ᵀ H (Q ⊗ I) = Σ_n (b_n b_nᵀ) ⊗ S_n,

which has the eigenvalues of (R ⊗ I) blkdiag(S_n) (R ⊗ I), R = (A Aᵀ)^{1/2}, and is smaller where
there are more examples than inputs. Of the network only the first layer's parameters can be
projected in this way: between two layers H also holds M_n[j,p] g[q], which leaves span(a_n) of
the upper one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from hesscli.problem.graph import Array
from hesscli.system.memory import available_memory
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.layout import Layout

Doubles = NDArray[np.float64]

# Beyond this share of the free memory the S of all examples are not put together.
_SHARE_OF_S = 0.25


@dataclass(frozen=True)
class Part:
    """One layer's parameters: ``basis`` Q (rows, r) in the rows, None for all of them."""

    rows: int
    units: int
    basis: Doubles | None

    @property
    def size(self) -> int:
        return self.rows * self.units

    @property
    def rank(self) -> int:
        return self.rows if self.basis is None else int(self.basis.shape[1])


@dataclass(frozen=True)
class Span:
    """An orthonormal basis Z of the subspace, (P, size), never put together."""

    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """The dimension of the subspace."""
        return sum(part.rank * part.units for part in self.parts)

    def lift(self, W: Array, dtype: np.dtype[np.floating]) -> Array:
        """Z W of shape (P, k), in ``dtype``, for W of shape (size, k)."""
        columns = W.shape[1]
        starts = accumulate((part.rank * part.units for part in self.parts), initial=0)
        lifted = []
        for part, (low, high) in zip(self.parts, pairwise(starts), strict=True):
            inside = W[low:high]
            if part.basis is not None:
                inside = part.basis @ inside.reshape(part.rank, part.units * columns)
            lifted.append(inside.reshape(part.size, columns).astype(dtype, copy=False))
        return lifted[0] if len(lifted) == 1 else np.concatenate(lifted)

    def restrict(self, V: Array) -> Doubles:
        """Zᵀ V of shape (size, k) for V of shape (P, k)."""
        columns = V.shape[1]
        starts = accumulate((part.size for part in self.parts), initial=0)
        restricted = []
        for part, (low, high) in zip(self.parts, pairwise(starts), strict=True):
            inside = V[low:high].astype(np.float64, copy=False)
            if part.basis is not None:
                inside = part.basis.T @ inside.reshape(part.rows, part.units * columns)
            restricted.append(inside.reshape(-1, columns))
        return restricted[0] if len(restricted) == 1 else np.concatenate(restricted)


def layer_span(block: DenseBlock) -> Span:
    """The subspace of a layer's block."""
    return Span((_projected(block),))


def whole_span(layout: Layout) -> Span:
    """All of the space: what there is without a look at every example."""
    return Span(tuple(Part(segment.rows, segment.units, None) for segment in layout.segments))


def network_span(layers: Sequence[DenseBlock]) -> Span:
    """The subspace of the network, whose layers' own blocks are ``layers``."""
    first, *others = layers
    return Span((_projected(first), *(Part(b.inputs, b.units, None) for b in others)))


def small_matrix(block: HessianBlock, span: Span, own: Sequence[DenseBlock]) -> Doubles:
    """K = Zᵀ H Z of shape (size, size), in double precision, symmetric to the last bit.

    ``own`` are the blocks of the layers in it: the block itself, or the network's diagonal; none
    of a block in chunks, with penalties or of other layers, whose span is all of the space.
    """
    if not own:
        K = _whole(block, span)
    elif not all(affordable(layer) for layer in own):
        K = _from_products(block, span)
    elif len(own) == 1:
        K = _from_examples(own[0], span.parts[0])
    else:
        K = _from_rows(block, span, own[0])
    return np.asarray((K + K.T) / 2)


def affordable(block: DenseBlock) -> bool:
    """Whether the S_n of all examples fit into memory."""
    available = available_memory()
    needed = len(block.a) * block.units**2 * block.dtype.itemsize
    return available is None or needed <= _SHARE_OF_S * available


def _projected(block: DenseBlock) -> Part:
    examples, inputs = block.a.shape
    if examples >= inputs:
        return Part(inputs, block.units, None)
    # The columns of Q are orthonormal whatever the rank of A.
    return Part(inputs, block.units, np.linalg.qr(block.a.T.astype(np.float64)).Q)


def _from_examples(block: DenseBlock, part: Part) -> Doubles:
    # K[(i,h),(j,l)] = Σ_n (b_n[i] b_n[j]) S_n[h,l]
    rank, units = part.rank, part.units
    K = np.zeros((rank * rank, units * units))
    for low, high in pieces(0, len(block.a), 8 * (rank**2 + units**2)):
        b = block.a[low:high].astype(np.float64)
        b = b if part.basis is None else b @ part.basis
        outer = (b[:, :, None] * b[:, None, :]).reshape(high - low, -1)
        K += outer.T @ block.S[low:high].reshape(high - low, -1).astype(np.float64)
    interleaved = K.reshape(rank, rank, units, units).transpose(0, 2, 1, 3)
    return np.asarray(interleaved.reshape(rank * units, rank * units))


def _from_rows(block: HessianBlock, span: Span, first: DenseBlock) -> Doubles:
    # Where Z is the identity rows of H are rows of H Z, and quicker than products.
    known = span.parts[0].rank * span.parts[0].units
    K = np.empty((span.size, span.size))
    K[:known, :known] = _from_examples(first, span.parts[0])
    left_out = block.shape[0] - span.size
    for low, high in pieces(known, span.size, 2 * 8 * block.shape[0]):
        K[low:high] = span.restrict(block.rows(low + left_out, high + left_out).T).T
    K[:known, known:] = K[known:, :known].T
    return K


def _whole(block: HessianBlock, span: Span) -> Doubles:
    K = np.empty((span.size, span.size))
    for low, high in pieces(0, span.size, 8 * block.shape[0]):
        K[low:high] = block.rows(low, high)
    return K


def _from_products(block: HessianBlock, span: Span) -> Doubles:
    K = np.empty((span.size, span.size))
    for low, high in pieces(0, span.size, 8 * block.shape[0]):
        Z = np.zeros((span.size, high - low))
        Z[np.arange(low, high), np.arange(high - low)] = 1
        K[:, low:high] = span.restrict(block.matmat(span.lift(Z, block.dtype)))
    return K
