"""Eigenvalues at an end of a spectrum by Lanczos: SciPy's ``eigsh`` and its errors, in one place.

ARPACK's implicitly restarted Lanczos process: Lehoucq, Sorensen and Yang, "ARPACK Users' Guide"
(SIAM, 1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal, norm
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from hesscli.problem.graph import Array
from hesscli.system.errors import NumericalError, reason
from hesscli.witnesses.block import HessianBlock

# After fewer products the eigenvector of another eigenvalue, from which Lanczos began, might pass
# for that of the largest.
_LEAST = 8


@dataclass(frozen=True)
class Search:
    """How Lanczos looks.

    ``rtol`` bounds its estimate of ‖Hv − λv‖ relative to |λ|. It holds ``vectors`` at a time and
    starts over up to ``restarts`` times; None leaves them to SciPy. ``remedy`` is what the user
    can do where that is not enough.
    """

    rtol: float
    remedy: str
    vectors: int | None = None
    restarts: int | None = None


def lanczos(
    operator: LinearOperator,
    name: str,
    search: Search,
    start: Array | None = None,
    *,
    count: int = 1,
    which: str = "LM",
) -> tuple[NDArray[np.floating], Array]:
    """``count`` eigenvalues (count,) and eigenvectors (P, count) of a symmetric operator (P, P).

    Those of largest magnitude (``which`` LM) or the largest ones (LA), in no particular order;
    ``start`` (P,) is where Lanczos begins, partly random at least; None is the same random vector
    each time. ``count`` must be below P. Raises NumericalError, which says ``name``, where it does
    not converge.
    """
    if start is None:
        normal = np.random.default_rng(0).standard_normal(operator.shape[0])
        start = normal.astype(operator.dtype)
    try:
        values, vectors = eigsh(
            operator,
            k=count,
            which=which,
            v0=start,
            ncv=search.vectors,
            tol=search.rtol,
            maxiter=search.restarts,
        )
    except ArpackError as error:
        # A direction that is partly random is in the null space only where everything is.
        if not (operator @ start).any():
            return np.zeros(count), np.eye(len(start), count, dtype=operator.dtype)
        found = (
            f"has found {len(error.eigenvalues)} of {count}"
            if isinstance(error, ArpackNoConvergence)
            else f"finds none of {count}"
        )
        raise NumericalError(
            f"{name}: Lanczos {found} eigenvalues to {search.rtol:g} ({reason(error)}); "
            f"{search.remedy}"
        ) from error
    return values, vectors


@dataclass(frozen=True)
class Leading:
    """The largest eigenvalue with its eigenvector (P,), and the Krylov basis (P, k) it is in."""

    value: float
    vector: Array
    basis: Array


def leading(block: HessianBlock, start: Array, search: Search) -> Leading:
    """The algebraically largest eigenvalue of H, by Lanczos from ``start`` (P,).

    After the first few products it looks after each whether it is done, which ARPACK does after
    ``search.vectors`` of them, and it gives its basis, in which most of H is. From the best vector
    in ``search.vectors`` it begins again, ``search.restarts`` times. Every vector is made
    orthogonal to all others, twice. Raises NumericalError where it does not arrive.

    Source: Parlett, "The Symmetric Eigenvalue Problem" (SIAM 1998), chapter 13.
    """
    q, vectors, restarts = start, search.vectors or len(start), search.restarts or 1
    for _ in range(restarts):
        basis: list[Array] = []
        diagonal: list[float] = []
        beside: list[float] = []
        rest, length = q, float(norm(q))
        while len(basis) < min(vectors, len(start)):
            basis.append(rest / rest.dtype.type(length))
            Q = np.stack(basis)
            image = block.matvec(basis[-1])
            diagonal.append(float(basis[-1] @ image))
            rest = image - (Q @ image) @ Q
            rest -= (Q @ rest) @ Q
            length = float(norm(rest, check_finite=False))
            if not np.isfinite(diagonal[-1] + length):
                raise NumericalError(f"{block.parameter}: H v leaves the range of {block.dtype}")
            values, within = eigh_tridiagonal(diagonal, beside)
            done = length * abs(within[-1, -1]) <= search.rtol * abs(values[-1])
            if done and (len(basis) >= _LEAST or length == 0):
                v = within[:, -1].astype(Q.dtype) @ Q
                return Leading(float(values[-1]), v / norm(v), Q.T)
            beside.append(length)
        q = within[:, -1].astype(Q.dtype) @ Q
    raise NumericalError(
        f"{block.parameter}: Lanczos does not find the largest eigenvalue to {search.rtol:g}; "
        f"{search.remedy}"
    )


def largest(
    block: HessianBlock, search: Search, *, count: int = 1, whole: int
) -> tuple[NDArray[np.floating], Array]:
    """The ``count`` largest eigenvalues, in descending order, with eigenvectors (P, count).

    A block of ``whole`` parameters or fewer is diagonalized, others go to Lanczos.
    """
    if block.shape[0] <= max(whole, count):
        values, vectors = np.linalg.eigh(block.to_dense().astype(np.float64))
    else:
        values, vectors = lanczos(block, block.parameter, search, count=count, which="LA")
    order = np.argsort(-values)[:count]
    return values[order], vectors[:, order]
