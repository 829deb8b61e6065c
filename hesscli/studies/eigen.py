"""Eigenvalues at an end of a spectrum by Lanczos: SciPy's ``eigsh`` and its errors, in one place.

ARPACK's implicitly restarted Lanczos process: Lehoucq, Sorensen and Yang, "ARPACK Users' Guide"
(SIAM, 1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from hesscli.problem.graph import Array
from hesscli.system.errors import NumericalError, reason
from hesscli.witnesses.block import HessianBlock


@dataclass(frozen=True)
class Search:
    """How Lanczos looks.

    ``rtol`` bounds its estimate of ‖Hv − λv‖ relative to |λ|. It holds ``vectors`` at a time and
    starts over up to ``restarts`` times; None leaves them to SciPy. ``remedy`` is what the user
    can do if that is not enough.
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
    each time. ``count`` must be below P. Raises NumericalError, which says ``name``, if it does
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
        # A direction that is partly random is in the null space only if everything is.
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
