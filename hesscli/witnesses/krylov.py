"""(H + λI) x = v by products alone: SciPy's MINRES and CG.

MINRES takes any symmetric system (Paige and Saunders, SIAM J. Numer. Anal. 12, 1975), the
conjugate gradients positive definite ones (Hestenes and Stiefel 1952).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg, minres

from hesscli.problem.graph import Array
from hesscli.system.errors import NumericalError

# Called with how many products there were; how many there will be nobody knows.
Watch = Callable[[int], None]

MINRES, CG = "minres", "cg"
# MINRES estimates its residual, relative to ‖H‖ ‖x‖. The residual itself, for which there is
# another product, is looked at after so many steps.
_STEPS = 10
# The residual that CG updates drifts from the true one by less than this.
_DRIFT = 0.5
# A sum of products is good to so many roundings of the largest curvature.
_ROUNDINGS = 1000


def no_watch(products: int) -> None:
    """For callers who do not watch."""


@dataclass(frozen=True)
class Iterated:
    """x (P,), found by ``products`` of H.

    ``curvature`` is the least uᵀ(H + λI)u of the unit vectors u that were multiplied, 0 if
    rounding leaves nothing of it.
    """

    x: Array
    method: str
    products: int
    curvature: float


@dataclass
class _Counting:
    """H + λI, which counts its products."""

    multiply: Callable[[Array], Array]
    damping: float
    watch: Watch
    products: int = 0
    least: float = np.inf
    most: float = -np.inf

    def times(self, u: Array) -> Array:
        self.products += 1
        self.watch(self.products)
        product = self.multiply(u).astype(np.float64) + self.damping * u
        curvature = float(u @ product) / float(u @ u)
        self.least, self.most = min(self.least, curvature), max(self.most, curvature)
        return product

    def curvature(self, dtype: np.dtype[np.floating]) -> float:
        """The least one, by products that are good to ``dtype``."""
        rounding = np.finfo(dtype).eps * max(abs(self.least), abs(self.most))
        return 0.0 if abs(self.least) <= _ROUNDINGS * rounding else self.least


def iterated(
    block: LinearOperator,
    name: str,
    v: Array,
    damping: float,
    *,
    method: str,
    rtol: float,
    most: int,
    watch: Watch,
) -> Iterated:
    """Solves (H + λI) x = v by MINRES or CG, to a residual of ``rtol`` of v or for ``most`` steps.

    Of a singular system MINRES gives an x of least residual, the shortest one if v is in the range
    of H. Raises NumericalError, which says ``name``, if CG meets a direction u with
    uᵀ(H + λI)u ≤ 0.
    """
    operator = _Counting(block.matvec, damping, watch)
    image = operator.times(v) if v.any() else v
    if not image.any():
        # v is 0, or in the null space: nothing is nearer to it than 0.
        return Iterated(np.zeros_like(v), method, operator.products, 0.0)
    # MINRES takes numbers below 1e-16 for 0. Powers of two change no digit.
    size, reach = (2.0 ** float(np.round(np.log2(np.linalg.norm(each)))) for each in (v, image))
    scale, b = size / reach, v / size

    def scaled(u: Array) -> Array:
        product = operator.times(u)
        if method == CG and operator.least <= 0:
            raise NumericalError(
                f"{name}: H + λI has the curvature {operator.least:.2e} in a direction, so it "
                f"is not positive definite, which {CG} needs; use {MINRES} or a larger damping"
            )
        return np.asarray(scale * product)

    best, steps = np.zeros_like(v), count(1)

    def look(y: Array) -> None:
        nonlocal best
        best = y
        if next(steps) % _STEPS == 0:
            residual = b - scaled(y)
            if np.linalg.norm(residual) <= rtol * np.linalg.norm(b):
                raise StopIteration

    system = LinearOperator(block.shape, dtype=np.float64, matvec=scaled)
    try:
        if method == CG:
            best, _ = cg(system, b, rtol=_DRIFT * rtol, maxiter=most)
        else:
            best, _ = minres(system, b, rtol=0.0, maxiter=most, callback=look)
    except StopIteration:
        # The residual is small enough.
        pass
    return Iterated(best * scale * size, method, operator.products, operator.curvature(block.dtype))
