"""Numbers that sum up a spectrum, and its density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

# Bins in each power of ten, and the powers of ten below the largest eigenvalue that are told
# apart; what is nearer to zero is one bin.
BINS_PER_DECADE = 4
DECADES = 8
# An outlier stands apart: the gap below the outliers is at least this ratio of neighbours.
OUTLIER_RATIO = 1.5


@dataclass(frozen=True)
class Measured:
    """A number, and for an estimate its error bar; None where the number is exact."""

    value: float
    error: float | None = None


@dataclass(frozen=True)
class Density:
    """How many eigenvalues lie in each of the bins between ``edges`` (B + 1,), ascending.

    The bins are equal on a logarithmic scale on either side of zero; the one in the middle holds
    zero. ``counts`` is (B,) and adds up to P; ``errors`` (B,) are the error bars of an
    estimate, None for counts.
    """

    edges: Doubles
    counts: Doubles
    errors: Doubles | None

    @property
    def zero(self) -> int:
        """The bin that holds zero."""
        return len(self.counts) // 2


def zero_tolerance(scale: float, size: int, dtype: np.dtype[np.floating]) -> float:
    """What rounding cannot tell from zero: eps · size · scale, as in numpy.linalg.matrix_rank."""
    return float(np.finfo(dtype).eps) * size * scale


def density_edges(norm: float, tolerance: float) -> Doubles:
    """Edges of bins from −norm to norm; none of them is nearer to zero than ``tolerance``."""
    if norm == 0:
        return np.array([-1.0, 1.0])
    decades = DECADES if tolerance == 0 else min(DECADES, int(np.log10(norm / tolerance)))
    powers = np.arange(-max(decades, 1) * BINS_PER_DECADE, 1) / BINS_PER_DECADE
    positive = norm * 10.0**powers
    return np.concatenate([-positive[::-1], positive])


def histogram(eigenvalues: Doubles, edges: Doubles) -> Doubles:
    """How many of ``eigenvalues`` lie in each bin; those beyond the last edge by rounding too."""
    bins = np.clip(np.searchsorted(edges, eigenvalues, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(bins, minlength=len(edges) - 1).astype(np.float64)


def outliers(eigenvalues: Doubles, classes: int, tolerance: float) -> Doubles:
    """The eigenvalues above the widest gap, largest magnitude first; none where no gap is wide.

    Among the 2·classes + 1 eigenvalues of largest magnitude, and beyond ``tolerance``, the gap is
    where the ratio of one magnitude to the next is largest; it is a gap from OUTLIER_RATIO on.
    The literature finds about as many outliers as classes: Sagun, Evci, Guney, Dauphin and
    Bottou (arXiv:1706.04454); Papyan (J. Mach. Learn. Res. 21, 2020).
    """
    ordered = eigenvalues[np.argsort(-np.abs(eigenvalues), kind="stable")][: 2 * classes + 1]
    sizes = np.abs(ordered)
    sizes = sizes[sizes > tolerance]
    if len(sizes) < 2:
        return ordered[:0]
    ratios = sizes[:-1] / sizes[1:]
    widest = int(ratios.argmax())
    return ordered[: widest + 1] if ratios[widest] >= OUTLIER_RATIO else ordered[:0]
