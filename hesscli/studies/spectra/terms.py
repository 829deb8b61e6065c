"""What is found of one block: the numbers of H and G, the norms of C, and a check."""

from __future__ import annotations

from dataclasses import dataclass

from hesscli.studies.spectra.lanczos import Eigenpairs
from hesscli.studies.spectra.measures import Density, Doubles, Measured
from hesscli.studies.verdict import Judged, Verdict


@dataclass(frozen=True)
class TermSpectrum:
    """The numbers of one term; those without an error bar are exact, and None is not computed.

    ``rank`` counts the eigenvalues beyond ±``tolerance``, ``negative`` those below −tolerance;
    ``effective_rank`` is Σ|λ| / max|λ|. ``diagonal`` is the range of the diagonal, None where the
    S_n of all examples do not fit into memory. ``eigenvalues`` (span,) are all that can differ
    from zero, ascending; None where they are too many. ``top`` are the eigenpairs asked for.

    Where only they were asked for (``SpectrumOptions.whole``), and all else is not cheap, they
    come with ‖H‖₂ and the end of the spectrum that they show.
    """

    rank: Measured | None
    effective_rank: Measured | None
    largest: Measured | None
    smallest: Measured | None
    negative: Measured | None
    trace: Measured | None
    frobenius_norm: Measured | None
    spectral_norm: Measured
    diagonal: tuple[float, float] | None
    tolerance: float | None
    outliers: Doubles | None
    density: Density | None
    eigenvalues: Doubles | None
    top: Eigenpairs | None


@dataclass(frozen=True)
class CurvatureNorms:
    """How large the curvature term is; None where only eigenpairs were asked for."""

    frobenius_norm: Measured | None
    spectral_norm: Measured | None


@dataclass(frozen=True)
class SpectrumCheck(Judged):
    """Whether what was found holds together.

    ``method`` is ``trace`` (of the diagonal, against the sum of the eigenvalues) or ``residuals``
    (‖Hv − λv‖ of the eigenpairs that Lanczos found). ``residual`` is relative: to what the
    trace is summed from, Σ|λ| + Σ|G_ii| + Σ|C_ii|, or to ‖H‖₂; it passes up to ``rtol``.
    """

    method: str
    residual: float
    rtol: float

    @property
    def verdict(self) -> Verdict:
        return Verdict.of(self.residual <= self.rtol)


@dataclass(frozen=True)
class Terms:
    """All of them together."""

    hessian: TermSpectrum
    gauss_newton: TermSpectrum
    curvature: CurvatureNorms
    check: SpectrumCheck | None
