"""Eigenpairs at the ends of a spectrum, and nothing else: what ``--top`` alone asks for.

A pair takes some 50 products with H. What is known of the rest of the spectrum (its rank, its
density, sums over it) takes `probes` × `steps` of them more, for H and for G each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MappingProxyType

import numpy as np

from hesscli.studies.spectra.lanczos import Eigenpairs, largest
from hesscli.studies.spectra.measures import Measured
from hesscli.studies.spectra.subject import SpectrumOptions, Subject
from hesscli.studies.spectra.terms import CurvatureNorms, SpectrumCheck, Terms, TermSpectrum
from hesscli.system import xp
from hesscli.witnesses.block import HessianBlock

# Residuals relative to the eigenvalue.
RTOL = MappingProxyType({"float64": 1e-8, "float32": 1e-4})
# ARPACK judges by its own estimates; by a product with H residuals may be so much larger.
RESIDUAL_SLACK = 10.0
# A shift this much beyond ‖H‖₂ makes one end of the spectrum the largest magnitude.
BEYOND = 1.1
# Lanczos takes about so many products; it is only for the progress.
USUAL_PRODUCTS = 100


def pairs_alone(
    subject: Subject, options: SpectrumOptions, progress: Callable[[float], None]
) -> Terms:
    """The eigenpairs of H and G that the options ask for; every other number is None.

    Raises InputError where the vectors do not fit into memory, NumericalError where Lanczos does
    not converge.
    """
    G, norm_G = _pairs(subject.gauss_newton, subject, options, lambda part: progress(part / 2))
    H, norm_H = G, norm_G
    # Without curvature H is G to the last bit.
    if not _vanishes(subject.curvature, subject, options.seed):
        H, norm_H = _pairs(subject.hessian, subject, options, lambda part: progress((1 + part) / 2))
    progress(1.0)
    worst = max(_worst_residual(H, norm_H), _worst_residual(G, norm_G))
    return Terms(
        hessian=_term(H, norm_H),
        gauss_newton=_term(G, norm_G),
        curvature=CurvatureNorms(None, None),
        check=SpectrumCheck("residuals", worst, RESIDUAL_SLACK * RTOL[subject.hessian.dtype.name]),
    )


def both_ends(
    block: HessianBlock, subject: Subject, options: SpectrumOptions, norm: float
) -> Eigenpairs:
    """Half of the pairs from either end, the odd one from the upper; ``norm`` is ‖H‖₂."""
    span, seed, rtol = subject.span, options.seed, RTOL[block.dtype.name]
    shift = BEYOND * norm
    parts = [largest(block, span, (options.top + 1) // 2, seed, rtol, shift)]
    if options.top > 1:
        lower = largest(block, span, options.top // 2, seed, rtol, -shift)
        descending = Eigenpairs(lower.values[::-1], lower.vectors[:, ::-1], lower.residuals[::-1])
        parts.append(descending)
    return Eigenpairs(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.vectors for part in parts], axis=1),
        np.concatenate([part.residuals for part in parts]),
    )


def _pairs(
    block: HessianBlock,
    subject: Subject,
    options: SpectrumOptions,
    progress: Callable[[float], None],
) -> tuple[Eigenpairs, Measured]:
    """The pairs that are asked for, and ‖H‖₂."""
    leading = largest(
        block,
        subject.span,
        1 if options.ends else options.top,
        options.seed,
        RTOL[block.dtype.name],
        watch=partial(_show, progress),
    )
    norm = Measured(float(abs(leading.values[0])), float(leading.residuals[0]))
    return (both_ends(block, subject, options, norm.value) if options.ends else leading), norm


def _show(progress: Callable[[float], None], products: int) -> None:
    progress(products / (products + USUAL_PRODUCTS))


def _vanishes(block: HessianBlock, subject: Subject, seed: int) -> bool:
    # A random vector is orthogonal to the range of what is not zero with probability 0.
    start = np.random.default_rng(seed).standard_normal((subject.span.size, 1))
    v = block.device.put(subject.span.lift(start, block.dtype))
    return not xp.any(block.matmat(v))


def _worst_residual(pairs: Eigenpairs, norm: Measured) -> float:
    return float(pairs.residuals.max()) / norm.value if norm.value > 0 else 0.0


def _term(pairs: Eigenpairs, norm: Measured) -> TermSpectrum:
    high, low = int(pairs.values.argmax()), int(pairs.values.argmin())
    # Of those of largest magnitude, and of those at both ends, the largest positive one is the
    # largest of all, and the negative one that is farthest from zero the smallest of all. Where
    # all of them have one sign, the other end was not looked for.
    at_an_end = norm.value == 0
    return TermSpectrum(
        rank=None,
        effective_rank=None,
        largest=_measured(pairs, high) if at_an_end or pairs.values[high] > 0 else None,
        smallest=_measured(pairs, low) if at_an_end or pairs.values[low] < 0 else None,
        negative=None,
        trace=None,
        frobenius_norm=None,
        spectral_norm=norm,
        diagonal=None,
        tolerance=None,
        outliers=None,
        density=None,
        eigenvalues=None,
        top=pairs,
    )


def _measured(pairs: Eigenpairs, index: int) -> Measured:
    return Measured(float(pairs.values[index]), float(pairs.residuals[index]))
