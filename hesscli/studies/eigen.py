"""Eigenvalues at an end of a spectrum by Lanczos, and what goes wrong with it, in one place.

NumPy's vectors are for SciPy's ``eigsh``, those on a device for hesscli.studies.restarted. The
first is ARPACK's implicitly restarted Lanczos process: Lehoucq, Sorensen and Yang, "ARPACK Users'
Guide" (SIAM, 1998).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, aslinearoperator, eigsh

from hesscli.problem.graph import Array
from hesscli.studies.restarted import restarted
from hesscli.system.devices import CPU, Device
from hesscli.system.errors import NumericalError, reason
from hesscli.witnesses.block import HessianBlock

# After fewer products the eigenvector of another eigenvalue, from which Lanczos began, might pass
# for that of the largest.
_LEAST = 8


class Symmetric(Protocol):
    """A symmetric operator (P, P) by its products, such as a HessianBlock."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def matvec(self) -> Callable[[Array], Array]: ...


@dataclass(frozen=True)
class Product:
    """The operator (P, P) whose product is ``matvec``."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    matvec: Callable[[Array], Array]


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
    operator: Symmetric,
    name: str,
    search: Search,
    start: Array | None = None,
    *,
    count: int = 1,
    which: str = "LM",
    device: Device = CPU,
) -> tuple[NDArray[np.floating], Array]:
    """``count`` eigenvalues (count,) and eigenvectors (P, count) of a symmetric operator (P, P).

    Those of largest magnitude (``which`` LM), the largest (LA) or the smallest ones (SA), in no
    particular order; ``start`` (P,) is where Lanczos begins, partly random at least; None is the
    same random vector each time. The operator multiplies vectors on ``device``, where those that
    are found stay. ``count`` must be below P. Raises NumericalError, which says ``name``, if it
    does not converge.
    """
    if start is None:
        normal = np.random.default_rng(0).standard_normal(operator.shape[0])
        start = normal.astype(operator.dtype)
    if not device.is_cpu:
        found = restarted(
            operator.matvec,
            device.put(start),
            device,
            count=count,
            which=which,
            rtol=search.rtol,
            vectors=search.vectors,
            restarts=search.restarts,
        )
        if found.converged < count:
            raise _not_found(
                name, search, f"has found {found.converged} of {count}", "no more restarts"
            )
        return found.values, found.vectors
    try:
        values, vectors = eigsh(
            aslinearoperator(operator),
            k=count,
            which=which,
            v0=start,
            ncv=search.vectors,
            tol=search.rtol,
            maxiter=search.restarts,
        )
    except ArpackError as error:
        # A direction that is partly random is in the null space only if everything is.
        if not operator.matvec(start).any():
            return np.zeros(count), np.eye(len(start), count, dtype=operator.dtype)
        some = isinstance(error, ArpackNoConvergence)
        so_far = f"has found {len(error.eigenvalues)}" if some else "finds none"
        raise _not_found(name, search, f"{so_far} of {count}", reason(error)) from error
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
    ``search.vectors`` of them, and it gives its basis, in which most of H is. Raises
    NumericalError if it does not converge.
    """
    device, name = block.device, block.parameter
    found = restarted(
        block.matvec,
        device.put(start),
        device,
        count=1,
        which="LA",
        rtol=search.rtol,
        vectors=search.vectors,
        restarts=search.restarts,
        watched=_LEAST,
    )
    (value,) = found.values
    if not np.isfinite(value):
        raise NumericalError(f"{name}: H v leaves the range of {block.dtype}")
    if not found.converged:
        raise _not_found(name, search, "has found 0 of 1", "no more restarts")
    vector, basis = device.fetch(found.vectors)[:, 0], device.fetch(found.basis)
    return Leading(float(value), vector, basis)


def _not_found(name: str, search: Search, found: str, why: str) -> NumericalError:
    return NumericalError(
        f"{name}: Lanczos {found} eigenvalues to {search.rtol:g} ({why}); {search.remedy}"
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
        on = block.device
        values, vectors = lanczos(
            block, block.parameter, search, count=count, which="LA", device=on
        )
        vectors = on.fetch(vectors)
    order = np.argsort(-values)[:count]
    return values[order], vectors[:, order]
