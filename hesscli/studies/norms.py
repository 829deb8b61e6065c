"""How large a layer's block and a vector are: exactly, without forming the block.

With a (N, inputs) and S (N, units, units) of the block H = Σ_n (a_n a_nᵀ) ⊗ S_n:

    ‖H‖_F² = Σ_{n,m} (a_n·a_m)² ⟨S_n, S_m⟩
           = ‖Σ_n vec(a_n a_nᵀ) vec(S_n)ᵀ‖_F²
    ‖H‖₂   = ‖Σ_n (r_n r_nᵀ) ⊗ S_n‖₂,   r_n the rows of R = (a aᵀ)^{1/2}, N numbers each

The first takes N² steps and is cheaper for few examples of many inputs, the second N of them. The
last holds because a = R Q with orthonormal rows of Q. All of it is float64, whatever the
block is in, and relative to the largest numbers there are, so that a square neither overflows nor
vanishes before the norm itself does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from hesscli.problem.graph import Array
from hesscli.studies.eigen import Search, lanczos
from hesscli.studies.spectra.moments import diagonal_sums
from hesscli.system.errors import NumericalError
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.ondevice import on_host
from hesscli.witnesses.penalized import PenalizedBlock, unpenalized

# Below this size LAPACK is faster than Lanczos.
_DENSE_SIZE = 128
# The residual of an eigenvalue, relative to it.
_LANCZOS = Search(rtol=1e-10, remedy="use weights that are not so large, or fewer examples")

Doubles = NDArray[np.float64]


def frobenius_norms(blocks: Sequence[HessianBlock]) -> list[float]:
    """‖H‖_F of blocks of a layer's parameters, such as the Hessian and its terms.

    With penalties d on the diagonal ‖H + diag d‖_F² = ‖H‖_F² + 2 dᵀ diag H + ‖d‖². Takes
    ``frobenius_work`` multiplications. Raises NumericalError beyond float64.
    """
    blocks = [on_host(block) for block in blocks]
    norms = _frobenius_norms([layer_block(block) for block in blocks])
    return [
        _with_penalties(block, norm) if isinstance(block, PenalizedBlock) else norm
        for block, norm in zip(blocks, norms, strict=True)
    ]


def _with_penalties(block: PenalizedBlock, norm: float) -> float:
    d = block.added.astype(np.float64)
    own = diagonal_sums(layer_block(block))[:-2]
    return math.sqrt(max(norm**2 + 2 * float(d @ own) + float(d @ d), 0.0))


def _frobenius_norms(blocks: Sequence[DenseBlock]) -> list[float]:
    a, scale_a = _relative(blocks[0].a)
    parts = [_relative(block.S) for block in blocks]
    # A curvature term that vanishes, as relu's does, costs nothing.
    moving = [_packed(S) if scale_S > 0 else None for S, scale_S in parts]
    totals = _squares(a, moving, blocks[0].units)
    return [
        # Rounding may leave less than nothing of a block that cancels.
        _in_range(scale_a, scale_S, math.sqrt(max(total, 0.0)), block)
        for block, (_, scale_S), total in zip(blocks, parts, totals, strict=True)
    ]


def squared_norms(a: Doubles, parts: Sequence[Doubles]) -> list[float]:
    """‖Σ_n (a_n a_nᵀ) ⊗ S_n‖_F² of each S (N, units, units) in ``parts``."""
    return _squares(a, [_packed(S) for S in parts], parts[0].shape[1])


def _squares(a: Doubles, parts: Sequence[Doubles | None], units: int) -> list[float]:
    """The same of packed S, by the cheaper of the two sums; 0 of None."""
    shape = (*a.shape, units, len(parts))
    squares = _over_pairs if _pairs_work(*shape) <= _moments_work(*shape) else _over_moments
    return squares(a, parts)


def frobenius_work(examples: int, inputs: int, units: int, blocks: int = 3) -> float:
    """Multiplications that ``frobenius_norms`` takes, by the cheaper of the two sums."""
    shape = (examples, inputs, units, blocks)
    return min(_pairs_work(*shape), _moments_work(*shape))


def spectral_norm(block: HessianBlock) -> float:
    """‖H‖₂ of a layer's block, the largest |eigenvalue|. Raises NumericalError beyond float64."""
    if isinstance(on_host(block), PenalizedBlock):
        if block.shape[0] <= _DENSE_SIZE:
            return float(np.abs(np.linalg.eigvalsh(block.to_dense().astype(np.float64))).max())
        values, _ = lanczos(block, block.parameter, _LANCZOS, device=block.device)
        return abs(float(values[0]))
    block = layer_block(block)
    (a, scale_a), (S, scale_S) = _relative(block.a), _relative(block.S)
    if scale_a == 0 or scale_S == 0:
        return 0.0
    if len(a) < a.shape[1]:
        squared, basis = np.linalg.eigh(a @ a.T)
        a = basis * np.sqrt(np.maximum(squared, 0.0))
    return _in_range(scale_a, scale_S, _largest_eigenvalue(block.parameter, a, S), block)


def gauss_newton_share(G: float, C: float) -> float | None:
    """G / (G + C) of the norms of Gauss–Newton and curvature term; None if both are 0."""
    largest = max(G, C)
    return None if largest == 0 else (G / largest) / (G / largest + C / largest)


def layer_block(block: HessianBlock) -> DenseBlock:
    """The block of a layer as what it is, without penalties; TypeError for one of another kind."""
    own = unpenalized(block)
    if not isinstance(own, DenseBlock):
        raise TypeError(f"{type(own).__name__} is not a layer's block")
    return own


def _relative(array: Array) -> tuple[Doubles, float]:
    """``array`` in float64 with a largest entry of 1, and what it is the multiple of."""
    values = np.asarray(array, dtype=np.float64)
    largest = float(np.abs(values).max(initial=0.0))
    return (values / largest if largest > 0 else values), largest


def _triangle(size: int) -> int:
    """Entries of a symmetric matrix that are not there twice."""
    return size * (size + 1) // 2


def _pairs_work(examples: int, inputs: int, units: int, blocks: int) -> float:
    return examples**2 / 2 * (inputs + blocks * _triangle(units))


def _moments_work(examples: int, inputs: int, units: int, blocks: int) -> float:
    return float(examples) * _triangle(inputs) * (1 + blocks * _triangle(units))


def _packed(symmetric: Doubles) -> Doubles:
    """(N, n(n+1)/2) with the scalar products of the symmetric matrices (N, n, n)."""
    rows, columns = np.triu_indices(symmetric.shape[1])
    # ⟨S, T⟩ = Σ_i S_ii T_ii + 2 Σ_{i<j} S_ij T_ij
    return np.asarray(symmetric[:, rows, columns] * np.where(rows == columns, 1.0, math.sqrt(2)))


def _over_pairs(a: Doubles, parts: Sequence[Doubles | None]) -> list[float]:
    """Σ_{n,m} (a_n·a_m)² ⟨S_n, S_m⟩ of each part, S packed; 0 of None."""
    examples = len(a)
    totals = [0.0] * len(parts)
    for low, high in pieces(0, examples, 2 * examples * a.itemsize):
        squares = (a[low:high] @ a[low:].T) ** 2
        # Pairs with examples before ``low`` were counted already, those with later ones once.
        squares[:, high - low :] *= 2
        for index, S in enumerate(parts):
            if S is not None:
                totals[index] += float(np.vdot(S[low:high], squares @ S[low:]))
    return totals


def _over_moments(a: Doubles, parts: Sequence[Doubles | None]) -> list[float]:
    """‖Σ_n vec(a_n a_nᵀ) vec(S_n)ᵀ‖_F² of each part, S packed; 0 of None.

    The sums are no larger than S if this is the cheaper way.
    """
    inputs = a.shape[1]
    sums: list[Doubles | float] = [0.0] * len(parts)
    for low, high in pieces(0, len(a), 2 * inputs**2 * a.itemsize):
        outer = _packed(a[low:high, :, None] * a[low:high, None, :])
        for index, S in enumerate(parts):
            if S is not None:
                sums[index] = sums[index] + outer.T @ S[low:high]
    return [float(np.vdot(total, total)) for total in sums]


def _in_range(scale_a: float, scale_S: float, norm: float, block: DenseBlock) -> float:
    # Python's product of floats is infinite without a warning.
    value = scale_a * scale_S * scale_a * norm
    if not math.isfinite(value):
        raise NumericalError(
            f"{block.parameter}: the norm of its Hessian leaves the range of float64; use smaller "
            "weights"
        )
    return value


def _largest_eigenvalue(name: str, a: Doubles, S: Doubles) -> float:
    rank, units = a.shape[1], S.shape[1]
    size = rank * units

    def product(v: Doubles) -> Doubles:
        # H·V = Σ_n a_n (S_n u_n)ᵀ,  u_n = Vᵀ a_n
        u = a @ v.reshape(rank, units)
        result: Doubles = a.T @ np.matmul(S, u[:, :, None])[:, :, 0]
        return result.reshape(-1)

    if size > _DENSE_SIZE:
        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        values, _ = lanczos(operator, name, _LANCZOS)
        return abs(float(values[0]))
    dense = np.einsum("ni,nj,nhl->ihjl", a, a, S, optimize=True).reshape(size, size)
    return float(np.abs(np.linalg.eigvalsh(dense)).max())
