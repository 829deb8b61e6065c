"""Does the chain rule's Hessian equal autodiff's, layer by layer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hesscli.problem.network import Problem
from hesscli.studies.checks import Check, check_form, relative
from hesscli.studies.context import (
    Environment,
    ProblemSummary,
    Progress,
    environment,
    no_progress,
    summary,
)
from hesscli.studies.witnesses import CheckOptions, Subject, Witnesses, each_subject

# What is held against autodiff's Hessian: the whole chain rule, or its Gauss–Newton term alone.
Terms = Literal["hessian", "gauss-newton"]


@dataclass(frozen=True)
class VerifiedForm:
    """vᵀ H v at the parameter itself. ``chain_rule`` is the term that is verified."""

    autodiff: float
    chain_rule: float
    gauss_newton: float
    curvature: float

    @property
    def residual(self) -> float:
        return self.autodiff - self.chain_rule

    @property
    def scale(self) -> float:
        """|G| + |C|, which the residual is relative to."""
        return abs(self.gauss_newton) + abs(self.curvature)

    @property
    def relative_residual(self) -> float:
        return relative(self.residual, self.scale)


@dataclass(frozen=True)
class VerifiedBlock:
    """One block: its quadratic form by both witnesses and what was compared.

    ``form_check`` judges the quadratic form; ``check`` what the check's method compares, which
    is the same for the method ``form``.
    """

    activation: str
    layer: str
    block: str
    size: int
    quadratic_form: VerifiedForm
    form_check: Check
    check: Check

    @property
    def passed(self) -> bool:
        return self.form_check.passed and self.check.passed


@dataclass(frozen=True)
class Verification:
    """What ``hesscli verify`` found, a row for each activation and block."""

    environment: Environment
    problem: ProblemSummary
    terms: Terms
    block: str
    method: str
    results: tuple[VerifiedBlock, ...]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.results)


def verify(
    problems: Sequence[Problem],
    options: CheckOptions,
    terms: Terms = "hessian",
    progress: Progress = no_progress,
) -> Verification:
    """Compares blocks of ``problems``, which differ in their activations only.

    Raises NumericalError where a Hessian leaves the range of the dtype, InputError where the
    options name no block.
    """
    rows = [
        _verified_block(witnesses, subject, options, terms, progress)
        for witnesses, subject in each_subject(problems, options)
    ]
    first = problems[0]
    return Verification(
        environment(first), summary(first), terms, options.block, options.method, tuple(rows)
    )


def _verified_block(
    witnesses: Witnesses, subject: Subject, options: CheckOptions, terms: Terms, progress: Progress
) -> VerifiedBlock:
    chain_rule = witnesses.chain_rule
    candidate = chain_rule.hessian if terms == "hessian" else chain_rule.gauss_newton
    form = VerifiedForm(
        autodiff=witnesses.form(witnesses.autodiff.hessian, subject),
        chain_rule=witnesses.form(candidate, subject),
        gauss_newton=witnesses.form(chain_rule.gauss_newton, subject),
        curvature=witnesses.form(chain_rule.curvature, subject),
    )
    rtol = options.rtol_for(witnesses.problem)
    form_floor = witnesses.form_floor(subject)
    form_check = check_form(subject.parameters[0], form.residual, form.scale, form_floor, rtol)
    check = form_check
    if options.method == "entries":
        (check,) = witnesses.check_entries(subject, [candidate], rtol, progress)
    return VerifiedBlock(
        activation=witnesses.problem.hidden_activation,
        layer=subject.layer,
        block=subject.block,
        size=subject.size,
        quadratic_form=form,
        form_check=form_check,
        check=check,
    )
