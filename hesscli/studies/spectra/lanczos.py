"""Eigenvalues at the ends of a block's spectrum by Lanczos, each with its residual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count as count_from

import numpy as np

from hesscli.problem.graph import Array
from hesscli.studies.eigen import Product, Search, lanczos
from hesscli.studies.spectra.span import Doubles, Span
from hesscli.system import xp
from hesscli.system.memory import require_memory
from hesscli.witnesses.block import HessianBlock

_MAX_RESTARTS = 500
_MIN_VECTORS = 20
# With a shift an end that is near zero is one of many eigenvalues of nearly one size.
_MIN_VECTORS_OF_AN_END = 40


@dataclass(frozen=True)
class Eigenpairs:
    """K eigenvalues (K,), their eigenvectors (P, K), and ‖Hv − λv‖ (K,) of each pair.

    Within the residual of λ there is an eigenvalue of H, whatever was left to converge.
    """

    values: Doubles
    vectors: Array
    residuals: Doubles


def eigenpairs(block: HessianBlock, values: Doubles, vectors: Array) -> Eigenpairs:
    """``vectors`` (P, K), on the block's device, with the residuals that a product with H gives."""
    return _with_residuals(block, values, vectors, block.matmat(vectors))


def _with_residuals(
    block: HessianBlock, values: Doubles, vectors: Array, images: Array
) -> Eigenpairs:
    on = block.device
    residual = xp.double(images) - xp.double(vectors) * xp.asarray(values, like=vectors)
    squares = on.fetch(xp.sum(xp.square(residual), axis=0))
    return Eigenpairs(values, on.fetch(vectors), np.sqrt(squares))


def no_watch(products: int) -> None:
    """For callers who do not watch."""


def largest(
    block: HessianBlock,
    span: Span,
    count: int,
    seed: int,
    rtol: float,
    shift: float = 0.0,
    watch: Callable[[int], None] = no_watch,
) -> Eigenpairs:
    """The ``count`` eigenvalues of H for which |λ + shift| is largest, largest first.

    Those of largest magnitude without a shift. With a shift of ‖H‖₂ or more they are the largest
    ones, of −‖H‖₂ or less the smallest ones; Lanczos finds an end that is near zero only in this
    way, because it converges relative to what it looks for. ``rtol`` bounds the residuals
    relative to |λ + shift|; an isolated eigenvalue is accurate to the square of its residual.
    ``watch`` is told how many products there were; how many there will be nobody knows.

    ``count`` must be below P. Raises InputError where the vectors do not fit into memory,
    NumericalError where Lanczos does not converge.
    """
    size, dtype = block.shape[0], block.dtype
    least = _MIN_VECTORS_OF_AN_END if shift else _MIN_VECTORS
    vectors = min(size, max(2 * count + 1, least))
    _require_memory(block, vectors + 2 * count)
    start = np.random.default_rng(seed).standard_normal((span.size, 1))
    on = block.device
    v0 = on.put(span.lift(start / np.linalg.norm(start), dtype)[:, 0])
    image = block.matvec(v0)
    if not xp.any(image):
        # H is zero: a random vector is orthogonal to its range with probability 0.
        return eigenpairs(block, np.zeros(count), on.put(np.eye(size, count, dtype=dtype)))

    # Powers of two, so that dtype's range is no matter and no digit is changed.
    reach = max(float(xp.max(xp.abs(image))), abs(shift))
    scale = 2.0 ** -float(np.round(np.log2(reach)))
    moved = shift * scale
    products = count_from(1)

    def product(v: Array) -> Array:
        watch(next(products))
        image: Array = block.matvec(v) * scale + moved * v
        return image

    operator = Product(block.shape, dtype, product)
    search = Search(rtol, "use a smaller --top, or --which magnitude", vectors, _MAX_RESTARTS)
    _, found = lanczos(operator, block.parameter, search, v0, count=count, device=on)
    # Rayleigh quotients of H itself: the shift cost digits.
    images = block.matmat(found)
    exact = on.fetch(xp.sum(xp.double(found * images), axis=0))
    order = np.argsort(-np.abs(exact + shift), kind="stable")
    found, images = (xp.contiguous(xp.take(of, order, axis=1)) for of in (found, images))
    return _with_residuals(block, exact[order], found, images)


def _require_memory(block: HessianBlock, vectors: int) -> None:
    needed = vectors * block.shape[0] * block.dtype.itemsize
    what = f"{block.parameter}: {vectors} vectors of {block.shape[0]:,} parameters need"
    require_memory(needed, what, "use a smaller --top")
