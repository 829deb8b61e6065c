"""Tries each definition of a plugin in a small random network of its own.

An activation stands in 3-4-3 under a cross-entropy, a loss over 4-3 without an activation, a layer
over a dense one (layer_trial.py). The first derivative is compared with TensorFlow's, or against
differences of its own values; the second one, once the first is right, against every entry of the
Hessian of all parameters. Numbers as moderate as these cost no function many digits: what only a
floor would excuse is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from hesscli.problem.execution import HELD
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.names import WITNESSES
from hesscli.problem.network import Loss, Problem
from hesscli.problem.registry import (
    ACTIVATION,
    LABELS,
    LAYER,
    LOSS,
    lacks_tensorflow,
    plugin_names,
    targets_of,
)
from hesscli.studies.context import Progress, Study, environment, no_progress, summary
from hesscli.studies.finitechecks import SLOPES
from hesscli.studies.first_derivatives import FirstDerivative, verify_first
from hesscli.studies.judge import Check
from hesscli.studies.layer_trial import Judgement, bends, problem_with, push_check, value_check
from hesscli.studies.verdict import Judged, Verdict, joint
from hesscli.studies.verification import VerifiedBlock, verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.errors import NumericalError

_EXAMPLES = 5
# The functions of each kind, in the order in which they are judged, and what they are in the
# calculus of a node.
_FUNCTIONS = {
    ACTIVATION: (("value", "forward"), ("first", "push and pull"), ("second", "bend in x")),
    LOSS: (("value", "ℓ"), ("gradient", "∂ℓ/∂f"), ("hessian_product", "∂²ℓ/∂f² v")),
    LAYER: (
        ("forward", "y"),
        ("pull", "Jᵀ g"),
        ("push", "J (Rx, V)"),
        ("bend", "bend in x"),
        ("bend", "bend in θ"),
    ),
}


@dataclass(frozen=True)
class Tried(Judged):
    """One function of what is defined, and what it is; ``check`` is None if there is nothing
    to compare it with, or if what comes before it is wrong.
    """

    kind: str
    name: str
    function: str
    method: str
    widths: tuple[int, ...]
    examples: int
    check: Check | None
    verdict: Verdict


@dataclass(frozen=True)
class Trial(Study):
    """The result of ``hesscli verify --plugin`` of what the plugin defines."""

    probe_seed: int
    results: tuple[Tried, ...]


def try_plugins(seed: int, progress: Progress = no_progress) -> Trial:
    """Everything that plugins define, in networks that ``seed`` draws."""
    names = [(kind, name) for kind in _FUNCTIONS for name in plugin_names(kind)]
    rows: list[Tried] = []
    problems: list[Problem] = []
    for done, (kind, name) in enumerate(names):
        progress(f"{kind} {name}", done, len(names))
        problem, found = _tried(kind, name, seed)
        problems.append(problem)
        rows += found
    first = problems[0]
    return Trial(environment(first, HELD), summary(first, HELD), seed, tuple(rows))


def _tried(kind: str, name: str, seed: int) -> tuple[Problem, list[Tried]]:
    of_any, of_some = _PROBLEMS[kind](name, seed)
    try:
        return of_any, list(_rows(kind, name, of_any, seed))
    except NumericalError:
        # Not every function is one of all numbers.
        return of_some, list(_rows(kind, name, of_some, seed))


def _rows(kind: str, name: str, problem: Problem, seed: int) -> Iterator[Tried]:
    for (function, method), (check, verdict) in zip(
        _FUNCTIONS[kind], _judged(kind, name, problem, seed), strict=False
    ):
        if check is not None and check.limited_by_rounding:
            check, verdict = check.on_trial(), joint((verdict, Verdict.UNDECIDED))
        yield Tried(kind, name, function, method, problem.widths, problem.examples, check, verdict)


def _judged(kind: str, name: str, problem: Problem, seed: int) -> Iterator[Judgement]:
    """The check of each function in turn, up to the first that is wrong."""
    witnesses: tuple[str, ...] = WITNESSES
    if lacks_tensorflow(name, kind):
        witnesses = tuple(witness for witness in WITNESSES if witness != "autodiff")
    options = CheckOptions("entries", block="network", seed=seed)

    def second(options: CheckOptions) -> VerifiedBlock:
        (block,) = verify([problem], options, witnesses=witnesses).results
        return block

    whole, rtol = second(options), options.rtol_for(problem)
    value, slopes = None, _slopes(whole)
    first = slopes
    if "autodiff" in witnesses:
        value = value_check(problem, rtol) if kind == LAYER else None
        of: FirstDerivative = "jacobian" if kind == LAYER else "gradient"
        first = verify_first([problem], of, options).results[0].check
    if first is not None and first.passed and slopes is not None:
        # The derivative is TensorFlow's, and no slope of the values.
        value = slopes
    yield value, Verdict.PASS if value is None else value.verdict
    if value is not None and not value.passed:
        return
    yield first, Verdict.PASS if first is None else first.verdict
    if first is not None and not first.passed:
        return
    if kind != LAYER:
        yield whole.check, whole.verdict
        return
    push = push_check(problem, rtol)
    yield push, push.verdict
    if push.passed:
        yield from bends(
            problem,
            whole,
            lambda layer: second(replace(options, block="layer", layers=(layer,))),
        )


def _slopes(block: VerifiedBlock) -> Check | None:
    """The check that fails if loss values contradict the gradients."""
    checks = (pair.check for pair in block.pairs if pair.has_finite)
    return next((check for check in checks if check.method == SLOPES), None)


def _of_activation(name: str, seed: int) -> Iterator[Problem]:
    """With numbers of both signs, and with positive ones alone."""
    for of in (lambda array: array, np.abs):
        generator = np.random.default_rng(seed)
        layers = _layers(generator, (3, 4, 3), (Activation(name), Activation("linear")), of)
        inputs = of(generator.standard_normal((_EXAMPLES, 3)))
        yield Problem(chain(layers), inputs, generator.integers(0, 3, _EXAMPLES))


def _of_loss(name: str, seed: int) -> Iterator[Problem]:
    """Of any outputs, and of outputs that are probabilities of their own."""
    for activation in ("linear", "sigmoid"):
        generator = np.random.default_rng(seed)
        layers = _layers(generator, (4, 3), (Activation(activation),), lambda array: array)
        inputs = generator.standard_normal((_EXAMPLES, 4))
        targets = generator.dirichlet(np.ones(3), _EXAMPLES)
        labels = targets.argmax(axis=1) if targets_of(name) == LABELS else targets
        yield Problem(chain(layers), inputs, labels, Loss(name))


def _of_layer(name: str, seed: int) -> Iterator[Problem]:
    """With numbers of both signs, and with positive ones alone."""
    for of in (lambda array: array, np.abs):
        yield problem_with(name, seed, _EXAMPLES, of)


def _layers(
    generator: np.random.Generator,
    widths: Sequence[int],
    activations: Sequence[Activation],
    of: Callable[[Array], Array],
) -> list[Layer]:
    return [
        Layer(
            f"dense{index}",
            of(generator.standard_normal((inputs, units))),
            of(generator.standard_normal(units)),
            activation,
        )
        for index, ((inputs, units), activation) in enumerate(
            zip(pairwise(widths), activations, strict=True), 1
        )
    ]


_PROBLEMS: Mapping[str, Callable[[str, int], Iterator[Problem]]] = {
    ACTIVATION: _of_activation,
    LOSS: _of_loss,
    LAYER: _of_layer,
}
