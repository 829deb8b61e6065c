"""Stochastic Lanczos quadrature: spectral sums and densities from products with H alone.

For a random unit vector v the Lanczos process makes a tridiagonal T whose eigenvalues θ_i and
squared first components τ_i are a Gauss quadrature of v's spectral measure, so that over many v

    tr f(H) = d E[vᵀ f(H) v] ≈ d · mean over probes of Σ_i τ_i f(θ_i),   d = the dimension.

It is exact for f(λ) = λ; with the length of the next Lanczos vector ‖Hv‖² = α₁² + β₁² is exact too.
For all else the error of the quadrature itself is bounded (tridiagonal.py), and that of the probes
by the distribution of these (bars.py).

Sources: Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature"
(SIAM J. Matrix Anal. Appl. 38, 2017); Ghorbani, Krishnan and Xiao, "An investigation into neural
net optimization via Hessian eigenvalue density" (arXiv:1901.10159).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from hesscli.problem.graph import Array
from hesscli.studies.restarted import orthogonalized
from hesscli.studies.spectra.bars import (
    counts_between,
    frobenius_between,
    measured,
    sum_between,
)
from hesscli.studies.spectra.measures import Density, Measured
from hesscli.studies.spectra.span import Doubles, Span
from hesscli.studies.spectra.tridiagonal import Tridiagonal
from hesscli.system import xp
from hesscli.system.errors import NumericalError
from hesscli.system.memory import require_memory
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock

# The Lanczos vectors of so many probes are alive at once.
_BASIS_BYTES = 256 * 2**20
# What those of one probe may take of the memory that is free; as much is for the work with them.
_SHARE_OF_BASIS = 0.5


@dataclass(frozen=True)
class Quadrature:
    """The tridiagonal matrices of some probes in ``size`` dimensions.

    ``norm`` is ‖H‖₂, and ``rounding`` what rounding makes of a node, relative to it, or of a share.
    """

    probes: tuple[Tridiagonal, ...]
    size: int
    norm: float
    rounding: float

    def frobenius_norm(self) -> Measured:
        """‖H‖_F."""
        unit = self.norm if self.norm > 0 else 1.0
        mean = self.size * float(np.mean([each.square(unit) for each in self.probes]))
        return frobenius_norm(mean, unit, self.norm / unit, len(self.probes))

    def trace(self, frobenius: Measured) -> Measured:
        """Tr H, with what is known of ‖H‖_F."""
        value = self.size * float(np.mean([each.alphas[0] for each in self.probes]))
        most = frobenius.value + (frobenius.error or 0.0)
        bounds = sum_between(value, value, most, self.norm, len(self.probes), positive=False)
        return measured(value, *bounds)

    def effective_rank(self, frobenius: Measured) -> Measured:
        """Σ|λ| / ‖H‖₂, with what is known of ‖H‖_F."""
        if self.norm == 0:
            return Measured(0.0, 0.0)
        found = [each.absolute(self.norm) for each in self.probes]
        value, low, high = (self.size * np.mean(found, axis=0)).tolist()
        most = frobenius.value + (frobenius.error or 0.0)
        bounds = sum_between(low, high, most, self.norm, len(self.probes), positive=True)
        return measured(value / self.norm, *(max(bound, 0.0) / self.norm for bound in bounds))

    def rank(self, tolerance: float) -> Measured:
        """How many eigenvalues are beyond ± ``tolerance``."""
        if self.norm == 0:
            return Measured(0.0, 0.0)
        shares, low, high = self._below(np.array([-tolerance, tolerance]))
        found = [of[:, 0] + 1 - other[:, 1] for of, other in ((low, high), (high, low))]
        return self._count(shares[:, 0] + 1 - shares[:, 1], *found)

    def negative(self, tolerance: float) -> Measured:
        """How many eigenvalues are below −``tolerance``."""
        if self.norm == 0:
            return Measured(0.0, 0.0)
        shares, low, high = self._below(np.array([-tolerance]))
        return self._count(shares[:, 0], low[:, 0], high[:, 0])

    def density(self, edges: Doubles) -> Density:
        """Eigenvalues in each of the bins between ``edges``, of which none is beyond."""
        shares, low, high = self._below(edges[1:-1])

        def inside(of: Doubles, other: Doubles) -> Doubles:
            none, one = np.zeros((len(of), 1)), np.ones((len(of), 1))
            return np.asarray(np.maximum(np.hstack([of, one]) - np.hstack([none, other]), 0))

        value, fewest, most = (
            np.mean(inside(*of), axis=0) for of in ((shares, shares), (low, high), (high, low))
        )
        between = counts_between(
            fewest - self.rounding, most + self.rounding, len(self.probes), self.size
        )
        counts = self.size * value
        errors = np.maximum(between[1] - counts, counts - between[0])
        return Density(edges, counts, np.maximum(errors, 0.0))

    def _below(self, places: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Each probe's share below each place: estimated, at least, at most; (probes, places)."""
        reach = self.rounding * self.norm
        found = [[each.below(x, reach) for x in places] for each in self.probes]
        shares, low, high = np.array(found).reshape(len(found), len(places), 3).transpose(2, 0, 1)
        return shares, low, high

    def _count(self, shares: Doubles, low: Doubles, high: Doubles) -> Measured:
        between = counts_between(
            low.mean() - self.rounding, high.mean() + self.rounding, len(self.probes), self.size
        )
        return measured(self.size * float(shares.mean()), *(float(of[0]) for of in between))


def quadrature(
    block: HessianBlock,
    span: Span,
    probes: int,
    steps: int,
    seed: int,
    norm: float,
    progress: Callable[[float], None] = lambda part: None,  # noqa: ARG005
) -> Quadrature:
    """``probes`` Lanczos processes of ``steps`` steps, with full reorthogonalization.

    The probes are uniform on the unit sphere of ``span``, which holds all eigenvectors of
    non-zero eigenvalues; ``norm`` is ‖H‖₂. Raises InputError where the vectors of one do not fit
    into memory, NumericalError where a product is not finite.
    """
    steps = min(steps, span.size)
    each = steps * block.shape[0] * block.dtype.itemsize
    what = f"{block.parameter}: {steps} Lanczos vectors need"
    require_memory(each, what, "use fewer --steps or dtype float32", _SHARE_OF_BASIS)
    generator = np.random.default_rng(seed)
    found: list[Tridiagonal] = []
    for low, high in pieces(0, probes, each, _BASIS_BYTES):
        start = generator.standard_normal((high - low, span.size)).T
        start /= np.linalg.norm(start, axis=0)
        found += _lanczos(
            block,
            block.device.put(span.lift(start, block.dtype)),
            steps,
            partial(_of_some, progress, low / probes, high / probes),
        )
    return Quadrature(tuple(found), span.size, norm, float(np.finfo(block.dtype).eps) * steps)


def mean_square(block: HessianBlock, span: Span, probes: int, seed: int, norm: float) -> Measured:
    """‖H‖_F by d E‖Hv‖², with its error bar; ``norm`` is ‖H‖₂."""
    generator = np.random.default_rng(seed)
    unit = norm if norm > 0 else 1.0
    squares = np.zeros(probes)
    for low, high in pieces(0, probes, 4 * block.shape[0] * block.dtype.itemsize):
        start = generator.standard_normal((high - low, span.size)).T
        start /= np.linalg.norm(start, axis=0)
        products = block.matmat(block.device.put(span.lift(start, block.dtype)))
        each = xp.sum(xp.square(xp.double(products) / unit), axis=0)
        squares[low:high] = block.device.fetch(each)
    return frobenius_norm(span.size * float(squares.mean()), unit, norm / unit, probes)


def frobenius_norm(mean: float, unit: float, norm: float, probes: int) -> Measured:
    """``unit`` · √mean, the mean of d ‖Hv‖² in this unit, with its error bar."""
    low, high = frobenius_between(mean, norm, probes)
    return measured(unit * float(np.sqrt(mean)), unit * low, unit * high)


def _of_some(progress: Callable[[float], None], low: float, high: float, part: float) -> None:
    """Shows the part of some probes as that of all."""
    progress(low + part * (high - low))


def _lanczos(
    block: HessianBlock, start: Array, steps: int, progress: Callable[[float], None]
) -> list[Tridiagonal]:
    """T for each column of ``start``, all columns in step."""
    count = start.shape[1]
    size = start.shape[0]
    basis = [xp.empty((steps, size), like=start) for _ in range(count)]
    for probe in range(count):
        basis[probe][0, :] = start[:, probe]
    alphas: list[list[float]] = [[] for _ in range(count)]
    betas: list[list[float]] = [[] for _ in range(count)]
    running = list(range(count))
    for step in range(steps):
        last = xp.stack([basis[probe][step, :] for probe in running])
        products = xp.contiguous(block.matmat(last.T).T)
        if not xp.all(xp.isfinite(products)):
            raise NumericalError(
                f"{block.parameter}: a product with the Hessian is not finite in {block.dtype}; "
                "use smaller weights or dtype float64"
            )
        going_on = []
        for at, probe in enumerate(running):
            known, w = basis[probe][: step + 1, :], products[at, :]
            alphas[probe].append(float(known[step, :] @ w))
            w, _, left = orthogonalized(w, known)
            scale = max(map(abs, (*alphas[probe], *betas[probe])))
            # An invariant subspace: the quadrature is exact.
            exhausted = left <= np.finfo(block.dtype).eps * (step + 2) * scale
            betas[probe].append(0.0 if exhausted else left)
            if step + 1 < steps and not exhausted:
                basis[probe][step + 1, :] = w / left
                going_on.append(probe)
        running = going_on
        progress((step + 1) / steps)
        if not running:
            break
    progress(1.0)
    return [Tridiagonal(*map(np.array, of)) for of in zip(alphas, betas, strict=True)]
