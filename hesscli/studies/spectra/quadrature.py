"""Stochastic Lanczos quadrature: spectral sums and densities from products with H alone.

For a random unit vector v the Lanczos process makes a tridiagonal T whose eigenvalues θ_i and
squared first components τ_i are a Gauss quadrature of v's spectral measure, so that over many v

    tr f(H) = d E[vᵀ f(H) v] ≈ d · mean over probes of Σ_i τ_i f(θ_i),   d = the dimension.

Sources: Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature"
(SIAM J. Matrix Anal. Appl. 38, 2017); Ghorbani, Krishnan and Xiao, "An investigation into neural
net optimization via Hessian eigenvalue density" (arXiv:1901.10159).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from hesscli.problem.graph import Array
from hesscli.studies.spectra.measures import Measured
from hesscli.studies.spectra.span import Doubles, Span
from hesscli.system.errors import NumericalError
from hesscli.system.memory import require_memory
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock

# The Lanczos vectors of so many probes are alive at once.
_BASIS_BYTES = 256 * 2**20
# What those of one probe may take of the memory that is free; as much is for the work with them.
_SHARE_OF_BASIS = 0.5
# Vectors that lose more of their length than this are orthogonalized again: Daniel, Gragg,
# Kaufman and Stewart (Math. Comp. 30, 1976).
_KEPT = 0.7


@dataclass(frozen=True)
class Quadrature:
    """Nodes and weights, (probes, steps): each probe's weights sum to 1; unused ones are 0.

    ``size`` is the dimension d that the weights are shares of.
    """

    nodes: Doubles
    weights: Doubles
    size: int

    def sum_of(self, f: Callable[[Doubles], Doubles]) -> Measured:
        """Tr f(H) with its standard error over the probes."""
        return _mean(self.size * (self.weights * f(self.nodes)).sum(axis=1))

    def count(self, counted: Callable[[Doubles], NDArray[np.bool_]]) -> Measured:
        """How many eigenvalues are in a set that leaves out a neighbourhood of zero.

        To the standard error comes the weight of the node of the set that is nearest to zero
        on either side: it stands for a cluster that may reach beyond the edge, and by the
        inequalities of Chebyshev, Markov and Stieltjes no more than it is counted too much. A
        node so near to zero that it is not in the set is taken for eigenvalues that are zero.
        """
        inside = counted(self.nodes) & (self.weights > 0)
        spread = np.zeros(len(self.nodes))
        for sign in (-1, 1):
            distance = np.where(inside & (sign * self.nodes > 0), np.abs(self.nodes), np.inf)
            nearest = distance.argmin(axis=1)[:, None]
            found = np.isfinite(np.take_along_axis(distance, nearest, axis=1)[:, 0])
            weight = np.take_along_axis(self.weights, nearest, axis=1)[:, 0]
            spread += np.where(found, weight, 0.0)
        estimate = _mean(self.size * np.where(inside, self.weights, 0.0).sum(axis=1))
        assert estimate.error is not None
        return Measured(estimate.value, estimate.error + self.size * float(spread.mean()))

    def histogram(self, edges: Doubles) -> tuple[Doubles, Doubles]:
        """Eigenvalues in each of the bins between ``edges``, and their standard errors."""
        bins = np.clip(np.searchsorted(edges, self.nodes, side="right") - 1, 0, len(edges) - 2)
        counts = np.zeros((len(self.nodes), len(edges) - 1))
        for probe, (where, weights) in enumerate(zip(bins, self.weights, strict=True)):
            np.add.at(counts[probe], where, self.size * weights)
        return counts.mean(axis=0), counts.std(axis=0, ddof=1) / np.sqrt(len(counts))


def quadrature(
    block: HessianBlock,
    span: Span,
    probes: int,
    steps: int,
    seed: int,
    progress: Callable[[float], None] = lambda part: None,  # noqa: ARG005
) -> Quadrature:
    """``probes`` Lanczos processes of ``steps`` steps, with full reorthogonalization.

    The probes are uniform on the unit sphere of ``span``, which holds all eigenvectors of
    non-zero eigenvalues. Raises InputError where the vectors of one do not fit into memory,
    NumericalError where a product is not finite.
    """
    steps = min(steps, span.size)
    each = steps * block.shape[0] * block.dtype.itemsize
    what = f"{block.parameter}: {steps} Lanczos vectors need"
    require_memory(each, what, "use fewer --steps or dtype float32", _SHARE_OF_BASIS)
    generator = np.random.default_rng(seed)
    nodes, weights = np.zeros((probes, steps)), np.zeros((probes, steps))
    for low, high in pieces(0, probes, each, _BASIS_BYTES):
        start = generator.standard_normal((high - low, span.size)).T
        start /= np.linalg.norm(start, axis=0)
        alphas, betas = _lanczos(
            block,
            span.lift(start, block.dtype),
            steps,
            partial(_of_some, progress, low / probes, high / probes),
        )
        for probe, (alpha, beta) in enumerate(zip(alphas, betas, strict=True), start=low):
            theta, vectors = eigh_tridiagonal(alpha, beta)
            nodes[probe, : len(theta)] = theta
            weights[probe, : len(theta)] = vectors[0] ** 2
    return Quadrature(nodes, weights, span.size)


def mean_square(block: HessianBlock, span: Span, probes: int, seed: int) -> Measured:
    """‖H‖_F² = d E‖Hv‖², with its standard error over the probes."""
    generator = np.random.default_rng(seed)
    squares = np.zeros(probes)
    for low, high in pieces(0, probes, 4 * block.shape[0] * block.dtype.itemsize):
        start = generator.standard_normal((high - low, span.size)).T
        start /= np.linalg.norm(start, axis=0)
        products = block.matmat(span.lift(start, block.dtype)).astype(np.float64)
        squares[low:high] = (products**2).sum(axis=0)
    return _mean(span.size * squares)


def _of_some(progress: Callable[[float], None], low: float, high: float, part: float) -> None:
    """Shows the part of some probes as that of all."""
    progress(low + part * (high - low))


def _mean(estimates: Doubles) -> Measured:
    error = estimates.std(ddof=1) / np.sqrt(len(estimates))
    return Measured(float(estimates.mean()), float(error))


def _lanczos(
    block: HessianBlock, start: Array, steps: int, progress: Callable[[float], None]
) -> tuple[list[Doubles], list[Doubles]]:
    """The diagonals α and β of T for each column of ``start``, all columns in step."""
    count = start.shape[1]
    basis = np.empty((count, steps, start.shape[0]), dtype=block.dtype)
    basis[:, 0] = start.T
    alphas: list[list[float]] = [[] for _ in range(count)]
    betas: list[list[float]] = [[] for _ in range(count)]
    running = list(range(count))
    for step in range(steps):
        products = np.ascontiguousarray(block.matmat(basis[running, step].T).T)
        if not np.isfinite(products).all():
            raise NumericalError(
                f"{block.parameter}: a product with the Hessian is not finite in {block.dtype}; "
                "use smaller weights or dtype float64"
            )
        going_on = []
        for probe, w in zip(running, products, strict=True):
            known = basis[probe, : step + 1]
            alphas[probe].append(float(known[step] @ w))
            w, length = _orthogonalized(w, known)
            scale = max(map(abs, (*alphas[probe], *betas[probe])))
            # An invariant subspace: the quadrature is exact.
            exhausted = length <= np.finfo(block.dtype).eps * (step + 2) * scale
            if step + 1 < steps and not exhausted:
                betas[probe].append(length)
                basis[probe, step + 1] = w / length
                going_on.append(probe)
        running = going_on
        progress((step + 1) / steps)
        if not running:
            break
    progress(1.0)
    return [np.array(alpha) for alpha in alphas], [np.array(beta) for beta in betas]


def _orthogonalized(w: Array, known: Array) -> tuple[Array, float]:
    before = float(np.linalg.norm(w))
    w = w - (known @ w) @ known
    length = float(np.linalg.norm(w))
    if length < _KEPT * before:
        w = w - (known @ w) @ known
        length = float(np.linalg.norm(w))
    return w, length
