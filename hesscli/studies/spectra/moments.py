"""What a layer's a and S say about its block's diagonal, without its spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hesscli.system.pieces import pieces
from hesscli.witnesses.chain_rule.dense import DenseBlock

Doubles = NDArray[np.float64]


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


def diagonal(block: DenseBlock) -> Diagonal:
    """What a layer's block says about its diagonal."""
    return from_sums(diagonal_sums(block))


def from_sums(sums: Doubles) -> Diagonal:
    """The diagonal out of ``diagonal_sums``, of a block or added up over chunks of examples."""
    values, (absolute, summands) = sums[:-2], sums[-2:]
    return Diagonal(
        trace=float(values.sum()),
        absolute=float(absolute),
        summands=float(summands),
        smallest=float(values.min()),
        largest=float(values.max()),
    )


def diagonal_sums(block: DenseBlock) -> Doubles:
    """The diagonal (P,), then ``absolute`` and ``summands``: what adds up over examples."""
    absolute = summands = 0.0
    for low, high in pieces(0, len(block.a), 8 * (block.inputs + block.units**2)):
        squares = block.a[low:high].astype(np.float64) ** 2
        S = block.S[low:high]
        own = np.diagonal(S, axis1=1, axis2=2).astype(np.float64)
        absolute += float(squares.sum(axis=1) @ np.abs(own).sum(axis=1))
        summands += float(squares.max(axis=1) @ np.abs(S).max(axis=(1, 2)).astype(np.float64))
    return np.append(block.diagonal(), [absolute, summands])


def together(diagonals: list[Diagonal]) -> Diagonal:
    """The diagonal of the network out of its layers'."""
    return Diagonal(
        trace=sum(each.trace for each in diagonals),
        absolute=sum(each.absolute for each in diagonals),
        summands=max(each.summands for each in diagonals),
        smallest=min(each.smallest for each in diagonals),
        largest=max(each.largest for each in diagonals),
    )
