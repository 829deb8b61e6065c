"""Does the chain rule's Hessian equal autodiff's, layer by layer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hesscli.problem.network import Layer, Problem
from hesscli.studies.checks import Check, check_entries, check_form, relative
from hesscli.studies.context import (
    Environment,
    ProblemSummary,
    Progress,
    environment,
    no_progress,
    summary,
)
from hesscli.studies.witnesses import CheckOptions, Witnesses, each_layer

# What is held against autodiff's Hessian: the whole chain rule, or its Gauss–Newton term alone.
Terms = Literal["hessian", "gauss-newton"]


@dataclass(frozen=True)
class VerifiedForm:
    """vᵀ H v at the kernel itself. ``chain_rule`` is the term that is verified."""

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
class VerifiedLayer:
    """One layer's block: its quadratic form by both witnesses and what was compared.

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
    """What ``hesscli verify`` found, a row for each activation and layer."""

    environment: Environment
    problem: ProblemSummary
    terms: Terms
    method: str
    results: tuple[VerifiedLayer, ...]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.results)


def verify(
    problems: Sequence[Problem],
    options: CheckOptions,
    terms: Terms = "hessian",
    progress: Progress = no_progress,
) -> Verification:
    """Compares the kernel blocks of ``problems``, which differ in their activations only.

    Raises NumericalError where a Hessian leaves the range of the dtype.
    """
    rows = [
        _verified_layer(witnesses, layer, options, terms, progress)
        for witnesses, layer in each_layer(problems, options)
    ]
    first = problems[0]
    return Verification(environment(first), summary(first), terms, options.method, tuple(rows))


def _verified_layer(
    witnesses: Witnesses, layer: Layer, options: CheckOptions, terms: Terms, progress: Progress
) -> VerifiedLayer:
    parameter = f"{layer.name}/kernel"
    chain_rule, floor = witnesses.chain_rule, witnesses.floor
    reference = witnesses.autodiff.hessian(parameter)
    gauss_newton = chain_rule.gauss_newton(parameter)
    candidate = chain_rule.hessian(parameter) if terms == "hessian" else gauss_newton
    form = VerifiedForm(
        autodiff=reference.quadratic_form(layer.kernel),
        chain_rule=candidate.quadratic_form(layer.kernel),
        gauss_newton=gauss_newton.quadratic_form(layer.kernel),
        curvature=chain_rule.curvature(parameter).quadratic_form(layer.kernel),
    )
    rtol = options.rtol_for(witnesses.problem)
    form_floor = floor.quadratic_form(layer.name, layer.kernel)
    form_check = check_form(parameter, form.residual, form.scale, form_floor, rtol)
    check = form_check
    if options.method == "entries":
        (check,) = check_entries(
            reference,
            [candidate],
            layer.units,
            floor.entries(layer.name),
            rtol,
            witnesses.progress_in(progress),
        )
    return VerifiedLayer(
        activation=witnesses.problem.hidden_activation,
        layer=layer.name,
        block="kernel",
        size=reference.shape[0],
        quadratic_form=form,
        form_check=form_check,
        check=check,
    )
