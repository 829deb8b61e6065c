"""A spectrum too large to decompose: its ends by Lanczos, sums over it by quadrature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hesscli.studies.spectra.ends import (
    BEYOND,
    RESIDUAL_SLACK,
    RTOL,
    USUAL_PRODUCTS,
    both_ends,
)
from hesscli.studies.spectra.lanczos import Eigenpairs, largest
from hesscli.studies.spectra.measures import (
    Doubles,
    Measured,
    density_edges,
    outliers,
)
from hesscli.studies.spectra.moments import Diagonal
from hesscli.studies.spectra.quadrature import Quadrature, mean_square, quadrature
from hesscli.studies.spectra.subject import SpectrumOptions, Subject
from hesscli.studies.spectra.terms import CurvatureNorms, SpectrumCheck, Terms, TermSpectrum
from hesscli.witnesses.block import HessianBlock

# Residuals relative to ‖H‖₂ of the end that is nearer to zero and may lie in a crowd of
# eigenvalues.
_CROWDED_RTOL = MappingProxyType({"float64": 1e-5, "float32": 1e-3})
# Quadrature cannot tell apart what is nearer to zero than this share of ‖H‖₂.
_RESOLUTION = 1e-6


@dataclass(frozen=True)
class _Found:
    """What Lanczos and quadrature give of one term."""

    leading: Eigenpairs
    largest: Measured
    smallest: Measured
    worst_residual: float
    quadrature: Quadrature
    top: Eigenpairs | None

    @property
    def norm(self) -> float:
        return float(abs(self.leading.values[0]))


def estimated(
    subject: Subject, options: SpectrumOptions, progress: Callable[[float], None]
) -> Terms:
    """The terms of a block of which only products and what a and S give at once are affordable.

    Raises InputError where the vectors do not fit into memory, NumericalError where Lanczos does
    not converge.
    """
    diagonals = subject.diagonals()
    frobenius_H, frobenius_G, frobenius_C = subject.frobenius_norms()
    # Without curvature H is G to the last bit; of the network the diagonal is not enough to say.
    curved = frobenius_C != 0
    G = _found(subject.gauss_newton, subject, options, lambda part: progress(part / 2))
    H = G
    if curved:
        H = _found(subject.hessian, subject, options, lambda part: progress((1 + part) / 2))
    of_H, of_G = diagonals[:2] if diagonals is not None else (None, None)
    tolerance_H = _tolerance(max(H.norm, G.norm), subject, options)
    edges = density_edges(max(H.norm, G.norm), tolerance_H)
    tolerance_G = _tolerance(G.norm, subject, options)
    worst = max(H.worst_residual, G.worst_residual)
    rtol = RESIDUAL_SLACK * RTOL[subject.hessian.dtype.name]
    return Terms(
        hessian=_term(H, subject, tolerance_H, edges, of_H, frobenius_H),
        gauss_newton=_term(G, subject, tolerance_G, edges, of_G, frobenius_G),
        curvature=_curvature(subject, options, frobenius_C),
        check=SpectrumCheck("residuals", worst, rtol),
    )


def _tolerance(norm: float, subject: Subject, options: SpectrumOptions) -> float:
    rounding = float(np.finfo(subject.hessian.dtype).eps) * options.steps
    return norm * max(rounding, _RESOLUTION)


def _found(
    block: HessianBlock,
    subject: Subject,
    options: SpectrumOptions,
    progress: Callable[[float], None],
) -> _Found:
    span, seed = subject.span, options.seed
    rtol = RTOL[block.dtype.name]
    by_magnitude = 0 if options.ends else options.top
    wanted = min(max(by_magnitude, 2 * subject.classes + 1), subject.size - 1)
    leading = largest(
        block, span, wanted, seed, rtol, watch=lambda n: progress(0.1 * n / (n + USUAL_PRODUCTS))
    )
    norm = float(abs(leading.values[0]))
    sign = 1.0 if leading.values[0] >= 0 else -1.0
    crowded = _CROWDED_RTOL[block.dtype.name]
    other = largest(
        block,
        span,
        1,
        seed,
        crowded,
        -sign * BEYOND * norm,
        lambda n: progress(0.1 + 0.1 * n / (n + USUAL_PRODUCTS)),
    )
    progress(0.2)
    residuals = leading.residuals
    one_end = Measured(float(leading.values[0]), float(leading.residuals[0]))
    other_end = Measured(float(other.values[0]), float(other.residuals[0]))
    if subject.size > span.size and sign * other_end.value > 0:
        # Beyond the subspace H is zero.
        other_end = Measured(0.0)
    upper, lower = (one_end, other_end) if sign > 0 else (other_end, one_end)
    top = _first(leading, by_magnitude)
    if options.ends and options.top > 0:
        top = both_ends(block, subject, options, norm)
        residuals = np.concatenate([residuals, top.residuals])
    found = quadrature(
        block,
        span,
        options.probes,
        options.steps,
        seed,
        # Within the residual there is an eigenvalue.
        norm + float(leading.residuals[0]),
        lambda part: progress(0.2 + 0.8 * part),
    )
    return _Found(
        leading=leading,
        largest=upper,
        smallest=lower,
        worst_residual=float(residuals.max()) / norm if norm > 0 else 0.0,
        quadrature=found,
        top=top,
    )


def _first(pairs: Eigenpairs, count: int) -> Eigenpairs | None:
    if count == 0:
        return None
    return Eigenpairs(pairs.values[:count], pairs.vectors[:, :count], pairs.residuals[:count])


def _term(
    found: _Found,
    subject: Subject,
    tolerance: float,
    edges: Doubles,
    diagonal: Diagonal | None,
    frobenius: float | None,
) -> TermSpectrum:
    of = found.quadrature
    density = of.density(edges)
    density.counts[density.zero] += subject.size - subject.span.size
    norm_F = of.frobenius_norm() if frobenius is None else Measured(frobenius)
    trace = of.trace(norm_F) if diagonal is None else Measured(diagonal.trace)
    return TermSpectrum(
        rank=of.rank(tolerance),
        effective_rank=of.effective_rank(norm_F),
        largest=found.largest,
        smallest=found.smallest,
        negative=of.negative(tolerance),
        trace=trace,
        frobenius_norm=norm_F,
        spectral_norm=Measured(found.norm, float(found.leading.residuals[0])),
        diagonal=None if diagonal is None else (diagonal.smallest, diagonal.largest),
        tolerance=tolerance,
        outliers=outliers(found.leading.values, subject.classes, tolerance),
        density=density,
        eigenvalues=None,
        top=found.top,
    )


def _curvature(
    subject: Subject, options: SpectrumOptions, frobenius: float | None
) -> CurvatureNorms:
    if frobenius == 0:
        return CurvatureNorms(Measured(0.0), Measured(0.0))
    C, span = subject.curvature, subject.span
    first = largest(C, span, 1, options.seed, RTOL[C.dtype.name])
    norm = Measured(float(abs(first.values[0])), float(first.residuals[0]))
    if frobenius is not None:
        return CurvatureNorms(Measured(frobenius), norm)
    most = norm.value + float(first.residuals[0])
    return CurvatureNorms(mean_square(C, span, options.probes, options.seed, most), norm)
