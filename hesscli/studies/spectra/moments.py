"""What a layer's a and S say about its block without its spectrum: trace, diagonal, ‖H‖_F."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hesscli.engines.chainblocks import LayerBlock
from hesscli.engines.pieces import pieces

# Multiplications in the sum over all pairs of examples: a few seconds on one core.
_PAIRS_WORK = 1e11


@dataclass(frozen=True)
class Diagonal:
    """The sum of H's diagonal and its range, and what they are summed from.

    ``absolute`` is Σ_n ‖a_n‖² Σ_h |S_n[h,h]|, and ``summands`` Σ_n max|a_n|² max|S_n|, which no
    entry's summands exceed together: where examples cancel, H is much smaller.
    """

    trace: float
    absolute: float
    summands: float
    smallest: float
    largest: float


def diagonal(block: LayerBlock) -> Diagonal:
    """The diagonal of a layer's block: H[(i,h),(i,h)] = Σ_n a_n[i]² S_n[h,h]."""
    values = np.zeros((block.inputs, block.units))
    absolute = summands = 0.0
    for low, high in pieces(0, len(block.a), 8 * (block.inputs + block.units**2)):
        squares = block.a[low:high].astype(np.float64) ** 2
        S = block.S[low:high]
        own = np.diagonal(S, axis1=1, axis2=2).astype(np.float64)
        values += squares.T @ own
        absolute += float(squares.sum(axis=1) @ np.abs(own).sum(axis=1))
        summands += float(squares.max(axis=1) @ np.abs(S).max(axis=(1, 2)).astype(np.float64))
    extremes = float(values.min()), float(values.max())
    return Diagonal(float(values.sum()), absolute, summands, *extremes)


def together(diagonals: list[Diagonal]) -> Diagonal:
    """The diagonal of the network out of its layers'."""
    return Diagonal(
        trace=sum(each.trace for each in diagonals),
        absolute=sum(each.absolute for each in diagonals),
        summands=max(each.summands for each in diagonals),
        smallest=min(each.smallest for each in diagonals),
        largest=max(each.largest for each in diagonals),
    )


def frobenius_norm(block: LayerBlock) -> float | None:
    """‖H‖_F of a layer's block; None where there are too many pairs of examples.

    ‖H‖_F² = Σ_{n,m} (a_n·a_m)² ⟨S_n, S_m⟩
    """
    examples = len(block.a)
    if examples**2 * (block.inputs + block.units**2) > _PAIRS_WORK:
        return None
    largest_a, largest_S = float(np.abs(block.a).max()), float(np.abs(block.S).max())
    if largest_a == 0 or largest_S == 0:
        return 0.0
    # Squares of squares: small weights would vanish, large ones overflow.
    a = block.a.astype(np.float64) / largest_a
    S = block.S.reshape(examples, -1).astype(np.float64) / largest_S
    square = 0.0
    for low, high in pieces(0, examples, 16 * examples):
        square += float((((a[low:high] @ a.T) ** 2) * (S[low:high] @ S.T)).sum())
    return float(np.sqrt(max(0.0, square))) * largest_a**2 * largest_S
