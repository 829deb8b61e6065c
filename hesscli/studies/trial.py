"""What a plugin defines, each on its own: in a small network of random numbers that is its own.

An activation stands in 3-4-3 under a cross-entropy, a loss over 4-3 without an activation. The
first derivative is held against TensorFlow's gradient, or against differences of its own values;
the second one, once the first is right, against every entry of the Hessian of all parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hesscli.problem.execution import HELD
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.names import WITNESSES
from hesscli.problem.network import Loss, Problem
from hesscli.problem.registry import (
    ACTIVATION,
    LABELS,
    LOSS,
    lacks_tensorflow,
    plugin_names,
    targets_of,
)
from hesscli.studies.context import (
    Environment,
    ProblemSummary,
    Progress,
    environment,
    no_progress,
    summary,
)
from hesscli.studies.finitechecks import SLOPES
from hesscli.studies.first_derivatives import verify_first
from hesscli.studies.judge import Check
from hesscli.studies.verdict import JudgedRows, Verdict
from hesscli.studies.verification import VerifiedBlock, verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.errors import NumericalError

_EXAMPLES = 5
# The functions of each kind, in the order in which they are judged, and what they are in the
# calculus of a node.
_FUNCTIONS = {
    ACTIVATION: (("value", "forward"), ("first", "push and pull"), ("second", "bend in x")),
    LOSS: (("value", "ℓ"), ("gradient", "∂ℓ/∂f"), ("hessian_product", "∂²ℓ/∂f² v")),
}


@dataclass(frozen=True)
class Tried:
    """One function of what is defined, and what it is; ``check`` is None where there is nothing
    to compare it with, or where what comes before it is wrong.
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
class Trial(JudgedRows):
    """What ``hesscli verify --plugin`` found of what the plugin defines."""

    environment: Environment
    problem: ProblemSummary
    probe_seed: int
    results: tuple[Tried, ...]


def try_plugins(seed: int, progress: Progress = no_progress) -> Trial:
    """Every activation and loss that plugins define, in networks that ``seed`` draws."""
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
    of_any, of_some = (_of_activation if kind == ACTIVATION else _of_loss)(name, seed)
    try:
        return of_any, list(_rows(kind, name, of_any, seed))
    except NumericalError:
        # Not every function is one of all numbers.
        return of_some, list(_rows(kind, name, of_some, seed))


def _rows(kind: str, name: str, problem: Problem, seed: int) -> Iterator[Tried]:
    witnesses: tuple[str, ...] = WITNESSES
    if lacks_tensorflow(name, kind):
        witnesses = tuple(witness for witness in WITNESSES if witness != "autodiff")
    options = CheckOptions("entries", block="network", seed=seed)
    (block,) = verify([problem], options, witnesses=witnesses).results
    slopes = _slopes(block)
    first = None
    if "autodiff" in witnesses:
        (gradient,) = verify_first([problem], "gradient", options).results
        first = gradient.check
    # Where the derivative is TensorFlow's, and no slope of the values, these are wrong.
    wrong_value = slopes is not None and first is not None and first.passed
    if first is None:
        first = slopes
    found: list[tuple[Check | None, Verdict]] = [
        (slopes if wrong_value else None, Verdict.of(not wrong_value))
    ]
    right = first is None or first.passed
    found.append((first, Verdict.PASS if first is None else first.verdict))
    if right and not wrong_value:
        found.append((block.check, block.verdict))
    for (function, method), (check, verdict) in zip(_FUNCTIONS[kind], found, strict=False):
        yield Tried(kind, name, function, method, problem.widths, problem.examples, check, verdict)


def _slopes(block: VerifiedBlock) -> Check | None:
    """The check that fails where loss values contradict the gradients."""
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
