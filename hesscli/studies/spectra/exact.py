"""Every number of a spectrum from the eigenvalues of the small matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hesscli.studies.checks import DEFAULT_RTOL, frobenius_norm
from hesscli.studies.spectra.lanczos import Eigenpairs, eigenpairs
from hesscli.studies.spectra.measures import (
    Density,
    Doubles,
    Measured,
    density_edges,
    histogram,
    outliers,
    zero_tolerance,
)
from hesscli.studies.spectra.moments import Diagonal
from hesscli.studies.spectra.span import small_matrix
from hesscli.studies.spectra.subject import SpectrumOptions, Subject
from hesscli.studies.spectra.terms import CurvatureNorms, SpectrumCheck, Terms, TermSpectrum
from hesscli.system.errors import NumericalError
from hesscli.witnesses.block import HessianBlock


@dataclass(frozen=True)
class _Decomposed:
    """The eigenvalues (span,) of a small matrix, ascending, and its eigenvectors if wanted."""

    block: HessianBlock
    eigenvalues: Doubles
    vectors: Doubles | None

    @property
    def norm(self) -> float:
        return float(np.abs(self.eigenvalues).max())


def exact(subject: Subject, options: SpectrumOptions) -> Terms:
    """The terms of a block whose small matrix is decomposed.

    Raises NumericalError where it leaves the range of floating point.
    """
    # H is the sum, so that three matrices cost two sweeps and C keeps its digits.
    K_G = small_matrix(subject.gauss_newton, subject.span, [G for _, G, _ in subject.own])
    K_C = small_matrix(subject.curvature, subject.span, [C for _, _, C in subject.own])
    K_H = K_G + K_C
    if not np.isfinite(K_H).all():
        raise NumericalError(
            f"{subject.parameter}: the Hessian is not finite; use smaller weights or inputs"
        )
    with_vectors = options.top > 0
    G = _decomposed(subject.gauss_newton, K_G, with_vectors)
    curved = bool(K_C.any())
    H = _decomposed(subject.hessian, K_H, with_vectors) if curved else G
    C = np.asarray(np.linalg.eigvalsh(K_C)) if curved else np.zeros(1)
    diagonals = subject.diagonals()
    of_H, of_G, of_C = diagonals or (None, None, None)
    # What cancels, in G + C or between examples, is as uncertain as its parts.
    scale_G = max(G.norm, _summands(of_G))
    scale_H = max(H.norm, G.norm, _summands(of_G) + _summands(of_C))
    tolerance_H, tolerance_G = _tolerance(scale_H, subject), _tolerance(scale_G, subject)
    edges = density_edges(max(H.norm, G.norm), tolerance_H)
    return Terms(
        hessian=_term(H, subject, options, tolerance_H, edges, of_H),
        gauss_newton=_term(G, subject, options, tolerance_G, edges, of_G),
        curvature=CurvatureNorms(Measured(frobenius_norm(C)), Measured(float(np.abs(C).max()))),
        check=None if diagonals is None else _check(H, G, diagonals, subject),
    )


def _summands(diagonal: Diagonal | None) -> float:
    return 0.0 if diagonal is None else diagonal.summands


def _tolerance(scale: float, subject: Subject) -> float:
    return zero_tolerance(scale, subject.span.size, subject.hessian.dtype)


def _decomposed(block: HessianBlock, K: Doubles, with_vectors: bool) -> _Decomposed:
    if with_vectors:
        eigenvalues, vectors = np.linalg.eigh(K)
        return _Decomposed(block, np.asarray(eigenvalues), np.asarray(vectors))
    return _Decomposed(block, np.asarray(np.linalg.eigvalsh(K)), None)


def _term(
    found: _Decomposed,
    subject: Subject,
    options: SpectrumOptions,
    tolerance: float,
    edges: Doubles,
    diagonal: Diagonal | None,
) -> TermSpectrum:
    eigenvalues = found.eigenvalues
    # What cannot be told from zero is zero; and so is all that the small matrix leaves out.
    settled = np.where(np.abs(eigenvalues) <= tolerance, 0.0, eigenvalues)
    left_out = subject.size - subject.span.size
    ends = (settled.min(), settled.max()) if left_out == 0 else (settled.min(), settled.max(), 0.0)
    nuclear = float(np.abs(eigenvalues).sum())
    trace = float(eigenvalues.sum()) if diagonal is None else diagonal.trace
    counts = histogram(settled, edges)
    counts[len(counts) // 2] += left_out
    return TermSpectrum(
        rank=Measured(int((settled != 0).sum())),
        effective_rank=Measured(nuclear / found.norm if found.norm > 0 else 0.0),
        largest=Measured(float(max(ends))),
        smallest=Measured(float(min(ends))),
        negative=Measured(int((settled < 0).sum())),
        trace=Measured(trace),
        frobenius_norm=Measured(frobenius_norm(eigenvalues)),
        spectral_norm=Measured(found.norm),
        diagonal=None if diagonal is None else (diagonal.smallest, diagonal.largest),
        tolerance=tolerance,
        outliers=outliers(settled, subject.classes, tolerance),
        density=Density(edges, counts, None),
        eigenvalues=eigenvalues,
        top=_top(found, subject, options),
    )


def _top(found: _Decomposed, subject: Subject, options: SpectrumOptions) -> Eigenpairs | None:
    if found.vectors is None:
        return None
    if options.ends:
        upper = np.arange(len(found.eigenvalues))[::-1][: (options.top + 1) // 2]
        order = np.concatenate([upper, np.arange(options.top // 2)[::-1]])
    else:
        order = np.argsort(-np.abs(found.eigenvalues), kind="stable")[: options.top]
    vectors = subject.span.lift(found.vectors[:, order], found.block.dtype)
    return eigenpairs(found.block, found.eigenvalues[order], found.block.device.put(vectors))


def _check(
    H: _Decomposed,
    G: _Decomposed,
    diagonals: tuple[Diagonal, Diagonal, Diagonal],
    subject: Subject,
) -> SpectrumCheck:
    of_H, of_G, of_C = diagonals
    residual = 0.0
    for found, own, summands in (
        (H, of_H, of_G.absolute + of_C.absolute),
        (G, of_G, of_G.absolute),
    ):
        scale = summands + float(np.abs(found.eigenvalues).sum())
        if scale > 0:
            residual = max(residual, abs(float(found.eigenvalues.sum()) - own.trace) / scale)
    return SpectrumCheck("trace", residual, DEFAULT_RTOL[subject.hessian.dtype.name])
