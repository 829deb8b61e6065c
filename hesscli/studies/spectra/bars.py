"""Error bars that hold with the probability CONFIDENCE, at any number of probes.

Probes v are uniform on the sphere of d dimensions. They are g/‖g‖ for normal g, and d vᵀAv is the
mean of gᵀAg over the lengths of g, so that bounds for gᵀAg by exponential moments hold for it.

Counts. The share of v in an eigenspace of m dimensions is a Beta(m/2, (d−m)/2); the mean of n of
them is taken for the Beta of the same mean and variance. The bar holds every m for which the
observed share is no rarity.

Sums. For n probes and A with eigenvalues a, each of

    d vᵀAv − tr A ≤ 2 ‖A‖_F √(x/n) + 2 ‖A‖₂ x/n        tr A − d vᵀAv ≤ 2 ‖A‖_F √(x/n)

fails with probability e^−x at most, the second where A ≥ 0 (Laurent and Massart, Annals of
Statistics 28, 2000, lemma 1). With A = H² they bound ‖H‖_F, by ‖H²‖_F ≤ ‖H‖₂ ‖H‖_F.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

from hesscli.studies.spectra.measures import Doubles, Measured

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
# x for one of the bounds of a sum, of which four have to hold together: both of ‖H‖_F's.
_X = math.log(4 / (1 - CONFIDENCE))


def measured(value: float, low: float, high: float) -> Measured:
    """A value with the smallest bar that holds everything between ``low`` and ``high``."""
    return Measured(value, max(high - value, value - low, 0.0))


def counts_between(
    low: ArrayLike, high: ArrayLike, probes: int, size: int
) -> tuple[Doubles, Doubles]:
    """Between which counts of ``size`` eigenvalues some lie whose mean share is low to high."""
    low, high = np.atleast_1d(low), np.atleast_1d(high)
    # The sum of the parameters of the Beta distribution of the mean.
    total = probes * (size / 2 + 1) - 1

    def below(share: Doubles, count: Doubles) -> Doubles:
        """The probability of a mean share up to ``share`` where there are ``count``."""
        mean = np.clip(count / size, 1e-300, 1 - 1e-16)
        return np.asarray(betainc(mean * total, (1 - mean) * total, np.clip(share, 0, 1)))

    # From low on the share is no rarity; up to high it is none.
    fewest = _first(lambda count: 1 - below(low, count) >= _TAIL, size, low.shape)
    beyond = _first(lambda count: below(high, count) < _TAIL, size, high.shape)
    return np.where(low > 0, np.maximum(fewest, 1), 0), np.where(high < 1, beyond - 1, size)


def _first(
    holds: Callable[[Doubles], NDArray[np.bool_]], size: int, shape: tuple[int, ...]
) -> Doubles:
    """The first counts from 1 on for which something holds; ``size`` + 1 where it never does."""
    low, high = np.zeros(shape), np.full(shape, size + 1.0)
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        found = holds(middle)
        low, high = np.where(found, low, middle), np.where(found, middle, high)
    return high


def frobenius_between(mean: float, norm: float, probes: int) -> tuple[float, float]:
    """Between which ‖H‖_F lies, for the ``mean`` of d ‖Hv‖² and ‖H‖₂ = ``norm``."""
    half = norm * math.sqrt(_X / probes)
    above = half + math.sqrt(half * half + mean)
    below = math.sqrt(max(mean - half * half, 0.0)) - half
    return max(below, 0.0), above


def sum_between(
    low: float, high: float, frobenius: float, norm: float, probes: int, *, positive: bool
) -> tuple[float, float]:
    """Between which tr A lies, for a mean of d vᵀAv from low to high, ‖A‖_F and ‖A‖₂."""
    spread = 2 * frobenius * math.sqrt(_X / probes)
    heavy = 2 * norm * _X / probes
    return low - spread - heavy, high + spread + (0.0 if positive else heavy)
