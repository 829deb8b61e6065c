"""(H + λI) x = v for a block H: exactly if its eigenvalues are at hand, else by products."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hesscli.problem.graph import Array
from hesscli.problem.names import SOLVERS
from hesscli.system import xp
from hesscli.system.arrays import is_foreign
from hesscli.system.errors import InputError, NumericalError
from hesscli.system.near import nearest
from hesscli.system.ranges import require_above_zero, require_not_negative, require_whole
from hesscli.witnesses.krylov import CG, MINRES, Iterated, Watch, iterated, no_watch

if TYPE_CHECKING:
    from hesscli.witnesses.block import HessianBlock

AUTO, EXACT, *_ = SOLVERS
RTOL = MappingProxyType({"float64": 1e-8, "float32": 1e-4})


@dataclass(frozen=True)
class Asked:
    """How a system is solved: ``method`` is one of SOLVERS, auto the quickest that there is.

    ``rtol`` bounds ‖(H + λI) x − v‖ / ‖v‖, by default 1e-8 in float64 and 1e-4 in float32;
    ``products`` is the most steps that MINRES or CG take. Raises InputError for what is out of its
    range.
    """

    method: str = AUTO
    rtol: float | None = None
    products: int = 1000

    def __post_init__(self) -> None:
        if self.method not in SOLVERS:
            raise InputError(f"method: {self.method!r} is unknown{nearest(self.method, SOLVERS)}")
        if self.rtol is not None:
            require_above_zero("rtol", self.rtol)
        require_whole("products", self.products, 1)


@dataclass(frozen=True)
class Exact:
    """x (P,) of a system whose eigenvalues are known; otherwise as in Solution."""

    x: Array
    method: str
    smallest: float
    null: int
    negative: int


@dataclass(frozen=True)
class Solution:
    """x (P,) of (H + λI) x = v, and how good it is.

    ``residual`` is ‖(H + λI) x − v‖ / ‖v‖ by a product with x, and the system solved
    (``passed``) if that is at most ``rtol``; ``form`` is xᵀHx. ``method`` is factors,
    eigenvalues, minres or cg, the last two by so many ``products``. ``smallest`` is the smallest
    eigenvalue of H, and of those of H + λI ``null`` are 0 up to rounding and ``negative`` below 0:
    None if the method does not see them. ``curvature`` is the least uᵀ(H + λI)u that was met in
    a unit vector u, 0 if rounding leaves nothing of it and None if none was looked at.
    """

    x: Array
    damping: float
    method: str
    residual: float
    rtol: float
    form: float
    products: int = 0
    curvature: float | None = None
    smallest: float | None = None
    null: int | None = None
    negative: int | None = None

    @property
    def passed(self) -> bool:
        return self.residual <= self.rtol


def solution(
    block: HessianBlock, v: Any, damping: float, asked: Asked, watch: Watch = no_watch
) -> Solution:
    """The result of HessianBlock.solve."""
    damping = require_not_negative("damping", damping)
    if not math.isfinite(damping):
        raise InputError(f"damping: {damping:g}; it must be finite")
    v = vector_of(block, v)
    rtol = RTOL[block.dtype.name] if asked.rtol is None else asked.rtol
    found: Exact | Iterated | None = None
    if asked.method in (AUTO, EXACT):
        found = block.exactly(v, damping)
    if asked.method == EXACT and found is None:
        raise InputError(
            f"method: {EXACT}: {block.parameter} has no factors, and {block.shape[0]:,} "
            f"parameters are too many for its eigenvalues; use {MINRES}"
        )
    if found is None:
        method = asked.method
        if method == AUTO:
            method = CG if block.semidefinite and damping > 0 else MINRES
        found = iterated(
            block,
            block.parameter,
            v,
            damping,
            method=method,
            rtol=rtol,
            most=asked.products,
            watch=watch,
        )
    Hx = block.matvec(found.x).astype(np.float64)
    left, size = (float(np.linalg.norm(each)) for each in (Hx + damping * found.x - v, v))
    if not math.isfinite(left):
        raise NumericalError(
            f"{block.parameter}: the solution leaves the range of {block.dtype}; use a larger "
            "damping"
        )
    residual = left / size if size > 0 else left
    form = float(found.x @ Hx)
    return Solution(damping=damping, residual=residual, rtol=rtol, form=form, **vars(found))


def of_matrix(block: HessianBlock, K: Array, v: Array, damping: float) -> Exact:
    """The solution by the eigenvalues of a dense K (k, k): a block, or what it is in a subspace.

    Raises NumericalError if K is not finite.
    """
    if not np.isfinite(K).all():
        raise NumericalError(
            f"{block.parameter}: the Hessian is not finite; use smaller weights or inputs"
        )
    eigenvalues, U = np.linalg.eigh(K.astype(np.float64))
    found = in_eigenbasis(U.T @ v, eigenvalues, damping, block.dtype)
    return replace(found, x=U @ found.x, method="eigenvalues")


def in_eigenbasis(c: Array, eigenvalues: Array, damping: float, dtype: np.dtype[Any]) -> Exact:
    """x_i = c_i / (λ_i + λ), and 0 if rounding in ``dtype`` leaves nothing of λ_i + λ.

    That is the shortest of the x that leave the least residual.
    """
    shifted = eigenvalues + damping
    scale = float(np.abs(eigenvalues).max(initial=0.0))
    # As numpy.linalg.matrix_rank takes a singular value for 0.
    rounding = np.finfo(dtype).eps * eigenvalues.size * scale
    zero = np.abs(shifted) <= rounding
    x = np.where(zero, 0.0, c / np.where(zero, 1.0, shifted))
    smallest = float(eigenvalues.min())
    negative = int((~zero & (shifted < 0)).sum())
    return Exact(
        x, "factors", 0.0 if abs(smallest) <= rounding else smallest, int(zero.sum()), negative
    )


def vector_of(block: HessianBlock, v: Any) -> Array:
    """The given vector v (P,); InputError if it is not a vector of the block's parameters."""
    try:
        array = xp.double(v if is_foreign(v) else np.asarray(v))
    except (TypeError, ValueError) as error:
        raise InputError("v: it must be an array of real numbers") from error
    size, shapes = block.shape[0], list(block.layout.shapes.values())
    if array.shape != (size,) and [array.shape] != shapes:
        raise InputError(
            f"v: of shape {array.shape}; {block.parameter} has {size:,} parameters, so it must be "
            f"({size},)"
        )
    if not xp.all(xp.isfinite(array)):
        raise InputError("v: every number in it must be finite")
    return xp.reshape(array, (-1,))
