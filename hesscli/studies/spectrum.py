"""The spectrum of a block's Hessian and of its Gauss–Newton term, side by side.

If the subspace that holds all non-zero eigenvalues is small (hesscli.studies.spectra.span)
every number is exact; beyond, the ends of the spectrum come from Lanczos, each within its
residual, and sums over the whole spectrum from stochastic Lanczos quadrature, with error bars.
If only eigenpairs are asked for, a block that is not small has these alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.network import Problem
from hesscli.studies.blocks import chosen
from hesscli.studies.context import Progress, Study, no_progress
from hesscli.studies.evaluation import origin
from hesscli.studies.spectra.classes import ClassParts, class_parts
from hesscli.studies.spectra.ends import pairs_alone
from hesscli.studies.spectra.estimated import estimated
from hesscli.studies.spectra.exact import exact
from hesscli.studies.spectra.subject import SpectrumOptions, Subject, subject_of
from hesscli.studies.spectra.terms import CurvatureNorms, SpectrumCheck, TermSpectrum
from hesscli.studies.verdict import Judged, Verdict, joint
from hesscli.system.errors import InputError
from hesscli.witnesses.summed.engine import chain_rule_of


@dataclass(frozen=True)
class BlockSpectrum(Judged):
    """One block: its ``size`` P, and the dimension ``span`` that can hold non-zero eigenvalues.

    ``check`` is None if the spectrum is exact and the diagonal does not fit into memory,
    ``classes`` if they were not asked for.
    """

    activation: str
    layer: str
    block: str
    parameter: str
    size: int
    span: int
    exact: bool
    hessian: TermSpectrum
    gauss_newton: TermSpectrum
    curvature: CurvatureNorms
    check: SpectrumCheck | None
    classes: ClassParts | None = None

    @property
    def verdict(self) -> Verdict:
        checks = [check for check in (self.check, self.classes) if check is not None]
        return joint([Verdict.PASS, *(check.verdict for check in checks)])


@dataclass(frozen=True)
class Spectrum(Study):
    """The result of ``hesscli spectrum``, a row for each activation and block."""

    options: SpectrumOptions
    results: tuple[BlockSpectrum, ...]


def spectrum(
    problems: Sequence[Problem],
    options: SpectrumOptions,
    progress: Progress = no_progress,
    *,
    execution: Execution = HELD,
) -> Spectrum:
    """The spectra of blocks of ``problems``, which differ in their activations only.

    Raises NumericalError if a Hessian leaves the range of the dtype or Lanczos does not
    converge, InputError if the options name no block or ask for more than it has.
    """
    names = chosen(problems[0], options.block, options.layers)
    total = len(problems) * len(names)
    rows: list[BlockSpectrum] = []
    for problem in problems:
        engine = chain_rule_of(problem, execution)
        for layer, parameter in names:
            task = f"{problem.hidden_activation} {parameter}"
            show = partial(_show, progress, task, len(rows), total)
            show(0.0)
            row = _block_spectrum(subject_of(engine, layer, parameter), options, show)
            if options.classes:
                found = class_parts(problem, parameter, execution, options.top)
                row = replace(row, classes=found)
            rows.append(row)
    return Spectrum(*origin(problems, execution), options, tuple(rows))


def _show(progress: Progress, task: str, done: int, total: int, part: float) -> None:
    progress(task, round(100 * (done + part)), 100 * total)


def _block_spectrum(
    subject: Subject, options: SpectrumOptions, progress: Callable[[float], None]
) -> BlockSpectrum:
    is_exact = options.exact(subject.span.size, structured=subject.structured)
    # Lanczos finds all but one at most.
    allowed = subject.span.size if is_exact else subject.span.size - 1
    if options.top > allowed:
        raise InputError(
            f"--top {options.top}: {subject.parameter} has {allowed:,} eigenvalues to choose from; "
            f"use --top {allowed} or less"
        )
    if is_exact:
        found = exact(subject, options)
    elif options.whole:
        found = estimated(subject, options, progress)
    else:
        found = pairs_alone(subject, options, progress)
    return BlockSpectrum(
        activation=subject.problem.hidden_activation,
        layer=subject.layer,
        block=options.block,
        parameter=subject.parameter,
        size=subject.size,
        span=subject.span.size,
        exact=is_exact,
        hessian=found.hessian,
        gauss_newton=found.gauss_newton,
        curvature=found.curvature,
        check=found.check,
    )
