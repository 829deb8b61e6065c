"""Is the Gauss–Newton term alone the Hessian, and does the whole chain rule hold?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.network import Problem
from hesscli.studies.context import Progress, Study, no_progress
from hesscli.studies.evaluation import origin
from hesscli.studies.judge import Check
from hesscli.studies.verdict import Judged, Verdict, joint
from hesscli.studies.witnesses import CheckOptions, Subject, Witnesses, each_subject
from hesscli.witnesses.block import Engine

# Passes over the examples for the quadratic forms of a block: H, G and C twice.
_FORMS = 6


@dataclass(frozen=True)
class SplitForm:
    """The quadratic forms of the Hessian and of its two terms at the parameter itself."""

    hessian: float
    gauss_newton: float
    curvature: float


@dataclass(frozen=True)
class ComparedBlock(Judged):
    """One block's split by both witnesses, and the two verdicts.

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
        """|G| / (|G| + |C|) of the forms; None if both are zero."""
        G, C = abs(self.chain_rule.gauss_newton), abs(self.chain_rule.curvature)
        return G / (G + C) if G + C > 0 else None

    @property
    def gauss_newton_alone(self) -> bool:
        """Whether the Gauss–Newton term alone is the Hessian."""
        return self.gauss_newton_check.passed

    @property
    def verdict(self) -> Verdict:
        """Whether the whole chain rule holds: its Hessian, and each term's form."""
        return joint(check.verdict for check in (self.chain_rule_check, *self.form_checks))


@dataclass(frozen=True)
class Comparison(Study):
    """The result of ``hesscli compare``, a row for each activation and block."""

    block: str
    method: str
    probe_seed: int
    results: tuple[ComparedBlock, ...]


def compare(
    problems: Sequence[Problem],
    options: CheckOptions,
    progress: Progress = no_progress,
    *,
    execution: Execution = HELD,
) -> Comparison:
    """Splits blocks of ``problems``, which differ in their activations only.

    Raises NumericalError if a Hessian leaves the range of the dtype, InputError if the
    options name no block.
    """
    rows = [
        _compared_block(witnesses, subject, options, progress)
        for witnesses, subject in each_subject(
            problems, options, progress, _FORMS, execution=execution
        )
    ]
    return Comparison(
        *origin(problems, execution),
        options.block,
        options.method,
        options.seed,
        tuple(rows),
    )


def _compared_block(
    witnesses: Witnesses, subject: Subject, options: CheckOptions, progress: Progress
) -> ComparedBlock:
    chain_rule = witnesses.chain_rule
    mine = _split(witnesses, chain_rule, subject)
    reference = _split(witnesses, witnesses.autodiff, subject)
    scale = abs(mine.gauss_newton) + abs(mine.curvature)
    rtol = options.rtol_for(witnesses.problem)

    def form_check(reference: float, candidate: float) -> Check:
        return witnesses.check_form(subject, reference - candidate, scale, rtol)

    form_checks = (
        form_check(reference.hessian, mine.hessian),
        form_check(reference.gauss_newton, mine.gauss_newton),
        form_check(reference.curvature, mine.curvature),
    )
    whole, alone = form_checks[0], form_check(reference.hessian, mine.gauss_newton)
    candidates = [chain_rule.hessian, chain_rule.gauss_newton]
    checks = witnesses.check(subject, candidates, options, progress)
    if checks is not None:
        whole, alone = checks
    return ComparedBlock(
        activation=witnesses.problem.hidden_activation,
        layer=subject.layer,
        block=subject.block,
        size=subject.size,
        autodiff=reference,
        chain_rule=mine,
        form_checks=form_checks,
        chain_rule_check=whole,
        gauss_newton_check=alone,
    )


def _split(witnesses: Witnesses, engine: Engine, subject: Subject) -> SplitForm:
    return SplitForm(
        hessian=witnesses.form(engine.hessian, subject),
        gauss_newton=witnesses.form(engine.gauss_newton, subject),
        curvature=witnesses.form(engine.curvature, subject),
    )
