"""The witnesses of one problem, and the blocks that a study asks them for."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import DENSE, Array, Graph
from hesscli.problem.names import MOST_PROBES
from hesscli.problem.network import Problem
from hesscli.studies.blocks import chosen
from hesscli.studies.checks import check_entries, check_form, check_own_products, rtol_for
from hesscli.studies.context import Progress, no_progress
from hesscli.studies.finitechecks import (
    ENTRIES_LIMIT,
    check_finite_entries,
    check_finite_products,
    contradiction,
    merged_finite,
)
from hesscli.studies.judge import Check, excused, merged
from hesscli.studies.ontrial import judged
from hesscli.studies.probes import check_probes
from hesscli.system.ranges import require_not_negative, require_whole
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import INPUT, layout_of, value_of
from hesscli.witnesses.summed.engine import (
    AutodiffEngine,
    ChainRuleEngine,
    Floor,
    Watch,
    autodiff_of,
    chain_rule_of,
    floor_of,
    require_held,
)
from hesscli.witnesses.summed.finite import FiniteEngine, finite_of

# What the default check spends on the entries of a block: multiply-additions by each witness, one
# for every example in every entry, and as many as this for an entry's way through the memory. On
# two cores it is half a minute in float64.
AFFORDABLE_WORK = 5e11
_WORK_OF_AN_ENTRY = 64
# If a block is not that of dense layers each row is a product, by each witness; what the nodes
# multiply is done several times over, and by autodiff op by op.
_WORK_OF_A_PRODUCT = 100
# Passes over chunked examples that a check takes at least: two products; of entries
# they depend on how many rows are taken at a time.
_PASSES = {"form": 0, "probes": 2, "entries": 2}


@dataclass(frozen=True)
class CheckOptions:
    """How much is compared (one of CHECK_METHODS), how closely, and of which blocks.

    ``rtol`` None takes the default of the dtype; no layers mean all of them. ``probes`` is the
    number of random products for the method ``probes``, and ``seed`` that of all random vectors.
    Raises InputError for a number out of its range.
    """

    method: str = "auto"
    rtol: float | None = None
    layers: tuple[str, ...] = ()
    block: str = "kernel"
    probes: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rtol is not None:
            require_not_negative("rtol", self.rtol)
        require_whole("probes", self.probes, 1, MOST_PROBES)
        require_whole("probe_seed", self.seed, 0)

    def rtol_for(self, problem: Problem) -> float:
        return rtol_for(problem.dtype.name, self.rtol)

    def method_for(self, problem: Problem, subject: Subject) -> str:
        """The method, if ``auto`` is every entry while that is affordable."""
        if self.method != "auto":
            return self.method
        examples = 1 if subject.block == INPUT else problem.total
        each: float = subject.size**2 * (examples + _WORK_OF_AN_ENTRY)
        if subject.block != INPUT and not _of_dense(problem, subject.parameters[0]):
            each += subject.size * examples * _WORK_OF_A_PRODUCT * _multiplications(problem.graph)
        return "entries" if len(subject.parameters) * each <= AFFORDABLE_WORK else "probes"


def _of_dense(problem: Problem, parameter: str) -> bool:
    """Whether all that uses a block's tensors are dense nodes."""
    users = problem.graph.users
    tensors = layout_of(problem, parameter).tensors
    return all(node.kind == DENSE for tensor in tensors for node in users[tensor])


def _multiplications(graph: Graph) -> float:
    """The multiplications of all nodes for one example."""
    return math.fsum(
        prod(node.shape) * graph.tensors[name].size / graph.tensors[name].shape[-1]
        for node in graph.nodes
        for name in node.tensors.values()
    )


@dataclass(frozen=True)
class Subject:
    """The subject of one row of a result: a layer's block, the inputs, or the network.

    ``parameters`` names its blocks: one, or one for each example for the inputs. ``size`` is
    that of each.
    """

    layer: str
    block: str
    parameters: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class Witnesses:
    """The engines on one problem, and the rounding they may differ by.

    The chain rule is always there, because the floor is made of its quantities; the others are
    made when they are first asked for, so that TensorFlow comes only with autodiff.
    """

    problem: Problem
    chain_rule: ChainRuleEngine
    floor: Floor
    execution: Execution = HELD
    watch: Watch | None = None

    @cached_property
    def autodiff(self) -> AutodiffEngine:
        return autodiff_of(self.problem, self.execution, self.watch)

    @cached_property
    def finite(self) -> FiniteEngine:
        return finite_of(self.problem, self.execution, self.watch)

    def form(self, of: Callable[[str], HessianBlock], subject: Subject) -> float:
        """vᵀHv at the parameter itself, summed over the subject's blocks."""
        return sum(of(name).quadratic_form(self.direction(name)) for name in subject.parameters)

    def form_floor(self, subject: Subject) -> float:
        """How much of ``form`` rounding leaves uncertain."""
        return sum(
            self.floor.quadratic_form(name, self.direction(name)) for name in subject.parameters
        )

    def direction(self, parameter: str) -> Array:
        """The parameter itself, or 1/P, 2/P … 1 if it is zero and every form would vanish.

        (Not ones: a softmax does not see a constant added to all logits.)
        """
        value = value_of(self.problem, parameter)
        if value.any():
            return value
        return np.arange(1, value.size + 1, dtype=value.dtype) / value.size

    def check_form(self, subject: Subject, residual: float, scale: float, rtol: float) -> Check:
        """The check of a difference of two of the subject's quadratic forms."""
        floor = functools.partial(self.form_floor, subject)
        return judged(self.problem, check_form(subject.parameters[0], residual, scale, floor, rtol))

    def finite_form(self, subject: Subject) -> tuple[float, float]:
        """``form`` by finite differences, and its error bar."""
        found = [
            self.finite.hessian(name).form_with_error(self.direction(name))
            for name in subject.parameters
        ]
        return sum(value for value, _ in found), sum(error for _, error in found)

    def contradiction(self, subject: Subject, rtol: float) -> Check | None:
        """The check that fails if loss values contradict the gradients that are differenced."""
        found = (contradiction(self.finite.hessian(name), rtol) for name in subject.parameters)
        return next((check for check in found if check is not None), None)

    def check_finite(
        self,
        subject: Subject,
        exact: Callable[[str], HessianBlock],
        rtol: float,
        seed: int,
        progress: Progress,
    ) -> Check:
        """Finite differences against another witness: every entry, or random directions."""
        small = subject.size <= ENTRIES_LIMIT
        random = functools.partial(check_finite_products, seed=seed)
        compare = check_finite_entries if small else random
        progress = self._naming_the_activation(progress)

        def checked(name: str, floor: Array) -> list[Check]:
            return [compare(exact(name), self.finite.hessian(name), floor, rtol, progress)]

        checks = self._excused(subject, checked)
        return judged(self.problem, merged_finite([check for (check,) in checks]))

    def _excused(
        self, subject: Subject, checked: Callable[[str, Array], Sequence[Check]]
    ) -> list[Sequence[Check]]:
        """The checks of each block, with the floor of its entries if it is needed."""
        checks = []
        for name in subject.parameters:
            groups = layout_of(self.problem, name).groups
            none: Array = np.zeros((groups, groups))
            floor = functools.partial(self.floor.entries, name)
            checks.append(excused(functools.partial(checked, name), none, floor))
        return checks

    def check_entries(
        self,
        subject: Subject,
        candidates: Sequence[Callable[[str], HessianBlock]],
        rtol: float,
        progress: Progress,
    ) -> list[Check]:
        """Every entry of autodiff's Hessian against each candidate's, all blocks in one check."""
        progress = self._naming_the_activation(progress)

        def checked(name: str, floor: Array) -> Sequence[Check]:
            of = [candidate(name) for candidate in candidates]
            return check_entries(self.autodiff.hessian(name), of, floor, rtol, progress)

        checks = self._excused(subject, checked)
        return [merged(of_candidate) for of_candidate in zip(*checks, strict=True)]

    def check_probes(
        self,
        subject: Subject,
        candidates: Sequence[Callable[[str], HessianBlock]],
        options: CheckOptions,
        progress: Progress,
    ) -> list[Check]:
        """Random products with autodiff's Hessian and with each candidate's."""
        checks = [
            check_probes(
                self.autodiff.hessian(name),
                [candidate(name) for candidate in candidates],
                functools.partial(self.floor.product_norm, name),
                options.rtol_for(self.problem),
                options.probes,
                self._naming_the_activation(progress),
                options.seed,
            )
            for name in subject.parameters
        ]
        return [merged(of_candidate) for of_candidate in zip(*checks, strict=True)]

    def check(
        self,
        subject: Subject,
        candidates: Sequence[Callable[[str], HessianBlock]],
        options: CheckOptions,
        progress: Progress,
    ) -> list[Check] | None:
        """Autodiff's Hessian against each candidate's, by what the options compare.

        None if that is the quadratic form alone.
        """
        method = options.method_for(self.problem, subject)
        if method == "form":
            return None
        if method == "probes":
            found = self.check_probes(subject, candidates, options, progress)
        else:
            rtol = options.rtol_for(self.problem)
            entries = self.check_entries(subject, candidates, rtol, progress)
            found = [
                self._with_products(subject, candidate, check, options)
                for candidate, check in zip(candidates, entries, strict=True)
            ]
        return [judged(self.problem, check) for check in found]

    def _with_products(
        self,
        subject: Subject,
        candidate: Callable[[str], HessianBlock],
        entries: Check,
        options: CheckOptions,
    ) -> Check:
        """The check of the entries, or that of products of several vectors if these are wrong.

        The entries are those of rows, and the form a product with one vector.
        """
        if entries.failed:
            return entries
        name = subject.parameters[0]
        groups = layout_of(self.problem, name).groups
        none: Array = np.zeros((groups, groups))
        (own,) = excused(
            lambda floor: [
                check_own_products(
                    candidate(name), floor, options.rtol_for(self.problem), options.seed
                )
            ],
            none,
            functools.partial(self.floor.entries, name),
        )
        return own if own.failed else entries

    def _naming_the_activation(self, progress: Progress) -> Progress:
        activation = self.problem.hidden_activation
        return lambda task, done, total: progress(f"{activation} {task}", done, total)


class _Passes:
    """Shows how many of the passes over all examples are done, ``expected`` of them or more."""

    def __init__(self, progress: Progress, task: str, expected: int) -> None:
        self._progress = progress
        self._task = task
        self._expected = expected
        self._done = 0

    def __call__(self, done: int, examples: int) -> None:
        passes = max(self._expected, self._done + 1)
        self._progress(self._task, self._done * examples + done, passes * examples)
        self._done += done == examples


def each_subject(
    problems: Sequence[Problem],
    options: CheckOptions,
    progress: Progress = no_progress,
    forms: int = 1,
    *,
    execution: Execution = HELD,
) -> Iterator[tuple[Witnesses, Subject]]:
    """The witnesses of every problem with each of the subjects that the options name.

    ``forms`` is how many passes over the examples a subject takes in addition to its check.

    Raises NumericalError if the chain rule leaves the range of the dtype, InputError if
    the options name no block.
    """
    for problem in problems:
        subjects = _subjects(problem, execution, options)
        passes = sum(forms + _PASSES[options.method_for(problem, of)] for of in subjects)
        watch = _Passes(progress, f"{problem.hidden_activation} examples", passes)
        chain_rule = chain_rule_of(problem, execution, watch)
        witnesses = Witnesses(problem, chain_rule, floor_of(chain_rule), execution, watch)
        for subject in subjects:
            yield witnesses, subject


def _subjects(problem: Problem, execution: Execution, options: CheckOptions) -> list[Subject]:
    if options.block == INPUT:
        require_held(problem, execution, "each example's input is a block of its own")
    subjects: list[Subject] = []
    for layer, name in chosen(problem, options.block, options.layers):
        examples = range(problem.examples) if name == INPUT else None
        names = (name,) if examples is None else tuple(f"{INPUT}[{n}]" for n in examples)
        size = layout_of(problem, names[0]).size
        subjects.append(Subject(layer, options.block, names, size))
    return subjects
