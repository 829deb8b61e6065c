"""Is the Gauss–Newton term alone the Hessian, and does the whole chain rule hold?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hesscli.engines.block import Engine
from hesscli.problem.network import Layer, Problem
from hesscli.studies.checks import Check, check_entries, check_form
from hesscli.studies.context import (
    Environment,
    ProblemSummary,
    Progress,
    environment,
    no_progress,
    summary,
)
from hesscli.studies.witnesses import CheckOptions, Witnesses, each_layer


@dataclass(frozen=True)
class SplitForm:
    """The quadratic form at the kernel of the Hessian and of its two terms, by one witness."""

    hessian: float
    gauss_newton: float
    curvature: float


@dataclass(frozen=True)
class ComparedLayer:
    """One layer's split by both witnesses, and the two verdicts.

    ``form_checks`` judge the forms of the Hessian, the Gauss–Newton and the curvature term by
    the chain rule against autodiff's, in this order. ``chain_rule_check`` and
    ``gauss_newton_check`` compare autodiff's Hessian with the whole chain rule and with its
    Gauss–Newton term.
    """

    activation: str
    layer: str
    block: str
    size: int
    autodiff: SplitForm
    chain_rule: SplitForm
    form_checks: tuple[Check, Check, Check]
    chain_rule_check: Check
    gauss_newton_check: Check

    @property
    def gauss_newton_share(self) -> float | None:
        """|G| / (|G| + |C|) of the forms; None where both are zero."""
        G, C = abs(self.chain_rule.gauss_newton), abs(self.chain_rule.curvature)
        return G / (G + C) if G + C > 0 else None

    @property
    def gauss_newton_alone(self) -> bool:
        """Whether the Gauss–Newton term alone is the Hessian."""
        return self.gauss_newton_check.passed

    @property
    def passed(self) -> bool:
        """Whether the whole chain rule holds: its Hessian, and each term's form."""
        return self.chain_rule_check.passed and all(check.passed for check in self.form_checks)


@dataclass(frozen=True)
class Comparison:
    """What ``hesscli compare`` found, a row for each activation and layer."""

    environment: Environment
    problem: ProblemSummary
    method: str
    results: tuple[ComparedLayer, ...]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.results)


def compare(
    problems: Sequence[Problem], options: CheckOptions, progress: Progress = no_progress
) -> Comparison:
    """Splits the kernel blocks of ``problems``, which differ in their activations only.

    Raises NumericalError where a Hessian leaves the range of the dtype.
    """
    rows = [
        _compared_layer(witnesses, layer, options, progress)
        for witnesses, layer in each_layer(problems, options)
    ]
    first = problems[0]
    return Comparison(environment(first), summary(first), options.method, tuple(rows))


def _compared_layer(
    witnesses: Witnesses, layer: Layer, options: CheckOptions, progress: Progress
) -> ComparedLayer:
    parameter = f"{layer.name}/kernel"
    chain_rule, autodiff, floor = witnesses.chain_rule, witnesses.autodiff, witnesses.floor
    mine, reference = _split(chain_rule, parameter, layer), _split(autodiff, parameter, layer)
    scale = abs(mine.gauss_newton) + abs(mine.curvature)
    form_floor = floor.quadratic_form(layer.name, layer.kernel)
    rtol = options.rtol_for(witnesses.problem)

    def form_check(reference: float, candidate: float) -> Check:
        return check_form(parameter, reference - candidate, scale, form_floor, rtol)

    form_checks = (
        form_check(reference.hessian, mine.hessian),
        form_check(reference.gauss_newton, mine.gauss_newton),
        form_check(reference.curvature, mine.curvature),
    )
    whole, alone = form_checks[0], form_check(reference.hessian, mine.gauss_newton)
    if options.method == "entries":
        whole, alone = check_entries(
            autodiff.hessian(parameter),
            [chain_rule.hessian(parameter), chain_rule.gauss_newton(parameter)],
            layer.units,
            floor.entries(layer.name),
            rtol,
            witnesses.progress_in(progress),
        )
    return ComparedLayer(
        activation=witnesses.problem.hidden_activation,
        layer=layer.name,
        block="kernel",
        size=layer.kernel.size,
        autodiff=reference,
        chain_rule=mine,
        form_checks=form_checks,
        chain_rule_check=whole,
        gauss_newton_check=alone,
    )


def _split(engine: Engine, parameter: str, layer: Layer) -> SplitForm:
    return SplitForm(
        hessian=engine.hessian(parameter).quadratic_form(layer.kernel),
        gauss_newton=engine.gauss_newton(parameter).quadratic_form(layer.kernel),
        curvature=engine.curvature(parameter).quadratic_form(layer.kernel),
    )
