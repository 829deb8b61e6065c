"""Do the witnesses give the same Hessian, layer by layer?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import OWN_LAYER
from hesscli.problem.names import DEFAULT_WITNESSES, WITNESSES
from hesscli.problem.network import Problem
from hesscli.problem.registry import LAYER, LOSS, lacks_tensorflow
from hesscli.studies.context import Progress, Study, environment, no_progress
from hesscli.studies.evaluation import evaluated
from hesscli.studies.finitechecks import check_finite_form
from hesscli.studies.judge import Check, relative
from hesscli.studies.ontrial import judged
from hesscli.studies.referee import Ruling, ruling
from hesscli.studies.verdict import Judged, Verdict, joint
from hesscli.studies.witnesses import CheckOptions, Subject, Witnesses, each_subject
from hesscli.system.errors import InputError
from hesscli.witnesses.block import HessianBlock

# What the chain rule says that the Hessian is: all of it, or its Gauss–Newton term alone.
Terms = Literal["hessian", "gauss-newton"]
Blocks = Callable[[str], HessianBlock]

# Passes over the examples for the quadratic forms of a block: H twice, G and C.
_FORMS = 4


@dataclass(frozen=True)
class VerifiedForm:
    """vᵀ H v at the parameter itself by each witness; None for those that do not take part.

    ``chain_rule`` is the term that is verified. ``gauss_newton`` and ``curvature`` are the chain
    rule's terms, or autodiff's if the chain rule does not take part. ``residual`` is that of
    the first comparison.
    """

    autodiff: float | None
    chain_rule: float | None
    finite: float | None
    finite_error: float | None
    gauss_newton: float
    curvature: float
    residual: float

    @property
    def scale(self) -> float:
        """|G| + |C|, which the residual is relative to."""
        return abs(self.gauss_newton) + abs(self.curvature)

    @property
    def relative_residual(self) -> float:
        return relative(self.residual, self.scale)


@dataclass(frozen=True)
class WitnessPair:
    """One witness compared with another: autodiff if it takes part, else finite differences.

    ``form_check`` judges the quadratic form; ``check`` what the check's method compares, which
    is the same for the method ``form``. If the gradients that are differenced are not the slopes
    of the loss, both are the check ``slopes``, which has failed. Of what is open ``ruling`` is the
    referee's, or ``unruled`` says why there is none.
    """

    candidate: str
    reference: str
    form_check: Check
    check: Check
    ruling: Ruling | None = None
    unruled: str | None = None

    @property
    def verdict(self) -> Verdict:
        if self.ruling is not None:
            return self.ruling.verdict
        return joint((self.form_check.verdict, self.check.verdict))

    @property
    def names(self) -> frozenset[str]:
        return frozenset((self.candidate, self.reference))

    @property
    def has_finite(self) -> bool:
        return "finite" in (self.candidate, self.reference)


@dataclass(frozen=True)
class VerifiedBlock(Judged):
    """One block: its quadratic form by each witness, and what was compared of each pair."""

    activation: str
    layer: str
    block: str
    size: int
    quadratic_form: VerifiedForm
    pairs: tuple[WitnessPair, ...]

    @property
    def form_check(self) -> Check:
        """The first pair's check of the quadratic form."""
        return self.pairs[0].form_check

    @property
    def check(self) -> Check:
        """The first pair's check."""
        return self.pairs[0].check

    @property
    def finite_pair(self) -> WitnessPair | None:
        """The pair with finite differences, if they take part."""
        return next((pair for pair in self.pairs if pair.has_finite), None)

    @property
    def convicted(self) -> str | None:
        """The witness that two others, which agree within their bars, contradict."""
        ruled = self.pairs[0].ruling
        if ruled is not None:
            lost = [name for name in ruled.witnesses if ruled.standing(name) is not Verdict.PASS]
            return lost[0] if len(lost) == 1 < len(ruled.witnesses) else None
        by_names = {pair.names: pair.verdict for pair in self.pairs}
        for name in WITNESSES:
            against = {names: verdict for names, verdict in by_names.items() if name in names}
            others = frozenset(WITNESSES) - {name}
            agree = by_names.get(others) is Verdict.PASS
            if agree and list(against.values()) == [Verdict.FAIL, Verdict.FAIL]:
                return name
        return None

    @property
    def verdict(self) -> Verdict:
        return joint(pair.verdict for pair in self.pairs)


@dataclass(frozen=True)
class Verification(Study):
    """The result of ``hesscli verify``, a row for each activation and block."""

    terms: Terms
    block: str
    method: str
    witnesses: tuple[str, ...]
    probe_seed: int
    results: tuple[VerifiedBlock, ...]


def verify(
    problems: Sequence[Problem],
    options: CheckOptions,
    terms: Terms = "hessian",
    progress: Progress = no_progress,
    witnesses: Sequence[str] = DEFAULT_WITNESSES,
    *,
    execution: Execution = HELD,
) -> Verification:
    """Compares blocks of ``problems``, which differ in their activations only.

    ``witnesses`` are two or three of WITNESSES, in any order; finite differences take the place
    of autodiff if an activation has no TensorFlow function. Raises NumericalError if a
    Hessian leaves the range of the dtype, InputError if the options name no block, or terms
    that no witness has.
    """
    problem_summary = evaluated(problems, execution)
    chosen = tuple(name for name in WITNESSES if name in witnesses)
    untold = _without_tensorflow(problems)
    if untold and "autodiff" in chosen:
        chosen = tuple(name for name in WITNESSES if name in {*chosen, "finite"} - {"autodiff"})
        note = f"{', '.join(untold)} without TensorFlow function: finite differences for autodiff"
        problem_summary = replace(problem_summary, notes=(*problem_summary.notes, note))
    if terms != "hessian" and "chain_rule" not in chosen:
        raise InputError("--terms gauss-newton: only chain_rule has them; add it to --witnesses")
    rows = [
        _verified_block(engines, subject, options, terms, progress, chosen)
        for engines, subject in each_subject(
            problems, options, progress, _FORMS, execution=execution
        )
    ]
    return Verification(
        environment(problems[0], execution),
        problem_summary,
        terms,
        options.block,
        options.method,
        chosen,
        options.seed,
        tuple(rows),
    )


def _without_tensorflow(problems: Sequence[Problem]) -> list[str]:
    """The activations, losses and layers that autodiff cannot witness."""
    nodes = [node for problem in problems for node in problem.graph.nodes]
    names = {node.activation.name for node in nodes if node.activation is not None}
    losses = {problem.loss.name for problem in problems}
    layers = {node.attributes["layer"] for node in nodes if node.kind == OWN_LAYER}
    return sorted(
        {name for name in names if lacks_tensorflow(name)}
        | {name for name in losses if lacks_tensorflow(name, LOSS)}
        | {name for name in layers if lacks_tensorflow(name, LAYER)}
    )


@dataclass(frozen=True)
class _Inquiry:
    """One row's question: which block of which problem is compared, how much and how closely."""

    engines: Witnesses
    subject: Subject
    options: CheckOptions
    scale: float
    progress: Progress

    @property
    def rtol(self) -> float:
        return self.options.rtol_for(self.engines.problem)

    def exact(self, candidate: Blocks, chain_rule: float, autodiff: float) -> WitnessPair:
        """The chain rule's candidate against autodiff, and what is open by the referee."""
        form_check = self.engines.check_form(
            self.subject, autodiff - chain_rule, self.scale, self.rtol
        )
        found = self.engines.check(self.subject, [candidate], self.options, self.progress)
        check = form_check if found is None else found[0]
        pair = WitnessPair("chain_rule", "autodiff", form_check, check)
        of = {"chain_rule": candidate, "autodiff": self.engines.autodiff.hessian}
        return self.ruled(pair, of)

    def ruled(self, pair: WitnessPair, of: Mapping[str, Blocks]) -> WitnessPair:
        """A pair with the referee's ruling on the witnesses ``of``, if it is open."""
        if pair.verdict is not Verdict.UNDECIDED:
            return pair
        checks = [check for check in (pair.form_check, pair.check) if not check.passed]
        found = ruling(self.engines, self.subject, of, checks, self.options)
        if isinstance(found, str):
            return replace(pair, unruled=found)
        return replace(pair, ruling=found)

    def finite(
        self, exact: Blocks, form: float, finite: tuple[float, float], names: tuple[str, str]
    ) -> WitnessPair:
        """An exact witness with finite differences, the candidate's name first."""
        wrong = self.engines.contradiction(self.subject, self.rtol)
        if wrong is not None:
            return WitnessPair(*names, wrong, wrong)
        name = self.subject.parameters[0]
        floor = partial(self.engines.form_floor, self.subject)
        form_check = check_finite_form(name, form, finite, self.scale, floor, self.rtol)
        form_check = judged(self.engines.problem, form_check)
        check = form_check
        if self.options.method != "form":
            check = self.engines.check_finite(
                self.subject, exact, self.rtol, self.options.seed, self.progress
            )
        return WitnessPair(*names, form_check, check)


def _verified_block(
    engines: Witnesses,
    subject: Subject,
    options: CheckOptions,
    terms: Terms,
    progress: Progress,
    witnesses: tuple[str, ...],
) -> VerifiedBlock:
    chain_rule = engines.chain_rule
    candidate = chain_rule.hessian if terms == "hessian" else chain_rule.gauss_newton
    mine = engines.form(candidate, subject) if "chain_rule" in witnesses else None
    theirs = engines.form(engines.autodiff.hessian, subject) if "autodiff" in witnesses else None
    finite = engines.finite_form(subject) if "finite" in witnesses else None
    split = engines.autodiff if mine is None else chain_rule
    G, C = engines.form(split.gauss_newton, subject), engines.form(split.curvature, subject)

    inquiry = _Inquiry(engines, subject, options, abs(G) + abs(C), progress)
    pairs: list[WitnessPair] = []
    residuals: list[float] = []
    if mine is not None and theirs is not None:
        pairs.append(inquiry.exact(candidate, mine, theirs))
        residuals.append(theirs - mine)
    if theirs is not None and finite is not None:
        names = ("finite", "autodiff")
        pairs.append(inquiry.finite(engines.autodiff.hessian, theirs, finite, names))
        residuals.append(theirs - finite[0])
    # Of three witnesses the third pair tells which one is wrong.
    apart = any(pair.verdict is Verdict.FAIL for pair in pairs)
    if mine is not None and finite is not None and (theirs is None or apart):
        pair = inquiry.finite(candidate, mine, finite, ("chain_rule", "finite"))
        pairs.append(inquiry.ruled(pair, {"chain_rule": candidate}) if theirs is None else pair)
        residuals.append(finite[0] - mine)
    value, error = finite or (None, None)
    return VerifiedBlock(
        activation=engines.problem.hidden_activation,
        layer=subject.layer,
        block=subject.block,
        size=subject.size,
        quadratic_form=VerifiedForm(theirs, mine, value, error, G, C, residuals[0]),
        pairs=tuple(pairs),
    )
