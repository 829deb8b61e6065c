"""Eigenvalues at an end of a spectrum by Lanczos with vectors of any array library.

The thick-restart Lanczos process: of an orthonormal basis V of m vectors, A V = V T + β w e_mᵀ, the
best Ritz vectors V u (T u = θ u) are kept, w becomes the next one after them, and the basis is
filled again. ‖A V u − θ V u‖ = β |u_m|. Each new vector is orthogonalized against all others: that
takes little time next to a product. The vectors stay where the first one is; only the numbers of T
come to the host.

Source: Wu and Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems" (SIAM
Journal on Matrix Analysis and Applications 22, 2000).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hesscli.problem.graph import Array
from hesscli.system import xp
from hesscli.system.arrays import dtype_of
from hesscli.system.devices import Device

Doubles = NDArray[np.float64]

# Which eigenvalues come first, as ``eigsh`` names them.
_FIRST: dict[str, Callable[[Doubles], Doubles]] = {
    "LM": lambda theta: -np.abs(theta),
    "LA": lambda theta: -theta,
    "SA": lambda theta: theta,
}
# What is below this share of the vector that was multiplied is rounding: the basis holds all.
_NOTHING = 8
# Vectors that lose more of their length than this are orthogonalized again: Daniel, Gragg,
# Kaufman and Stewart (Math. Comp. 30, 1976).
_KEPT = 0.7
_SEED = 0


@dataclass(frozen=True)
class Found:
    """Ritz values (K,), their vectors (P, K), and how many of them have converged.

    ``basis`` (P, m) is the orthonormal one that the vectors are in, and most of the operator.
    Values that are not finite have no vectors to speak of.
    """

    values: Doubles
    vectors: Array
    converged: int
    basis: Array


def restarted(
    multiply: Callable[[Array], Array],
    start: Array,
    device: Device,
    *,
    count: int,
    which: str,
    rtol: float,
    vectors: int | None,
    restarts: int | None,
    watched: int | None = None,
) -> Found:
    """``count`` eigenpairs of a symmetric operator, whose product is ``multiply``.

    It begins at ``start`` (P,), which is on ``device``. The others are those of SciPy's ``eigsh``:
    a pair has converged once its residual is at most rtol · max(ε^⅔, |θ|). Whether all have is
    looked at when the basis is full, or after each product once the basis has ``watched`` vectors.
    """
    size = start.shape[0]
    most = min(size, max(2 * count + 1, 20) if vectors is None else max(vectors, count + 2))
    epsilon = float(np.finfo(dtype_of(start)).eps)
    V = xp.zeros((most + 1, size), like=start)
    V[0, :] = start / _length(start)
    T, kept = np.zeros((most, most)), 0
    for _ in range(10 * size if restarts is None else restarts):
        for m in range(kept + 1, most + 1):
            w, parts, beta = orthogonalized(multiply(V[m - 1, :]), V[:m, :])
            h = np.asarray(device.fetch(parts), dtype=np.float64)
            if not np.isfinite(h).all():
                return Found(np.full(count, np.nan), V[:count, :].T, 0, V[:m, :].T)
            T[:m, m - 1] = T[m - 1, :m] = h
            if beta <= _NOTHING * epsilon * np.linalg.norm(h):
                beta = 0.0
                if m < size:
                    w = _another(V[:m, :], device, m)
            V[m, :] = w / (beta or _length(w) or 1.0)
            T[m - 1, m : m + 1] = T[m : m + 1, m - 1] = beta
            if m < most and (watched is None or m < watched):
                continue
            theta, U = np.linalg.eigh(T[:m, :m])
            order = np.argsort(_FIRST[which](theta), kind="stable")
            first = order[:count]
            residuals = beta * np.abs(U[-1, first])
            good = residuals <= rtol * np.maximum(epsilon ** (2 / 3), np.abs(theta[first]))
            if good.all():
                break
        if good.all():
            break
        kept = min(count + (most - count) // 2, most - 1)
        V[:kept, :] = _combined(V, U[:, order[:kept]])
        V[kept, :] = V[most, :]
        T = np.zeros_like(T)
        T[range(kept), range(kept)] = theta[order[:kept]]
    found = _combined(V, U[:, first]).T
    return Found(theta[first], found, int(good.sum()), V[:m, :].T)


def orthogonalized(w: Array, V: Array) -> tuple[Array, Array, float]:
    """``w`` (P,) without its parts in the orthonormal rows of V, these parts (m,), and ‖w‖ then."""
    before, parts = _length(w), V @ w
    w = w - parts @ V
    left = _length(w)
    if left < _KEPT * before:
        again = V @ w
        w, parts = w - again @ V, parts + again
        left = _length(w)
    return w, parts, left


def _another(V: Array, device: Device, seed: int) -> Array:
    """A random vector that is orthogonal to the rows of V."""
    normal = np.random.default_rng((_SEED, seed)).standard_normal(V.shape[1])
    return orthogonalized(device.put(np.asarray(normal, dtype=dtype_of(V))), V)[0]


def _combined(V: Array, U: Doubles) -> Array:
    """Combinations (k, P) of the rows of V (≥ m, P), for U (m, k)."""
    weights = xp.asarray(np.asarray(U.T, dtype=dtype_of(V)), like=V)
    combined: Array = weights @ V[: len(U), :]
    return combined


def _length(w: Array) -> float:
    """‖w‖ of a vector (P,)."""
    return math.sqrt(float(w @ w))
