"""The network on the batch: its loss, its accuracy, and the range of its inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hesscli.problem.execution import Execution
from hesscli.problem.graph import Array
from hesscli.problem.names import FOCAL
from hesscli.problem.network import Problem, Targets
from hesscli.studies.context import BatchLoss, Environment, ProblemSummary, environment, summary
from hesscli.system.pieces import pieces
from hesscli.witnesses.chain_rule.descent import Descending
from hesscli.workers.share import Workers

_CLASSIFYING = ("sparse_categorical_crossentropy", "categorical_crossentropy", FOCAL)
# Examples whose outputs are held at a time.
_EVALUATED = 8192
# Another preparation of the inputs is looked at on so many examples. It is mentioned if chance
# explains the accuracy, to so many deviations, and the other one is right so much more often.
_TRIED, _DEVIATIONS, _FAR_MORE = 512, 3.0, 0.3


def accuracy(f: Array, targets: Targets, loss: str) -> float | None:
    """The share of examples whose largest output (N, c) is the target's class.

    None for the losses that do not choose a class; with binary cross-entropy and one output the
    classes are f > 0 and f ≤ 0.
    """
    if loss == "binary_crossentropy" and f.shape[1] == 1:
        return float(np.mean((f > 0) == (targets > 0.5)))
    if loss not in _CLASSIFYING:
        return None
    labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
    return float(np.mean(f.argmax(axis=1) == labels))


def batch_loss(
    problem: Problem, workers: Workers, theta: Array | None = None, own: slice = slice(None)
) -> BatchLoss:
    """Loss, penalty and accuracy at the parameters ``theta`` (P,), the problem's own without them.

    ``own`` are the examples that this one of the workers looks at. Numbers beyond the range of
    the type are infinite or NaN.
    """
    engine = Descending(problem)
    theta = problem.graph.vector() if theta is None else theta
    # The losses, how many are right, which is a whole number, and the penalties of values.
    sums = np.zeros(3)
    classified = True
    start, stop, _ = own.indices(problem.examples)
    for low, high in pieces(start, stop, 1, _EVALUATED):
        targets = problem.targets[low:high]
        f, activity = engine.outputs_and_activity(theta, problem.inputs[low:high])
        right = accuracy(f, targets, problem.loss.name)
        classified = classified and right is not None
        losses = problem.scales[low:high] * engine.losses(f, targets)
        activity *= problem.of_activity
        sums += float(losses.sum()), round((right or 0.0) * len(f)), activity
    total = workers.sum(sums)
    return BatchLoss(
        activation=problem.hidden_activation,
        data=float(total[0]),
        penalty=engine.penalty(theta) + float(total[2]),
        accuracy=float(total[1]) / problem.total if classified else None,
    )


def origin(problems: Sequence[Problem], execution: Execution) -> tuple[Environment, ProblemSummary]:
    """The first fields of a Study, for problems that differ in their activations only."""
    return environment(problems[0], execution), evaluated(problems, execution)


def evaluated(problems: Sequence[Problem], execution: Execution) -> ProblemSummary:
    """The summary of problems that differ in their activations only, with the loss of each."""
    first = problems[0]
    every = tuple(batch_loss(problem, execution.workers) for problem in problems)
    # What leaves the range of the type has no loss to speak of.
    losses = tuple(loss for loss in every if math.isfinite(loss.total))
    hint: tuple[str, ...] = ()
    if losses and execution.workers.count == 1:
        hint = _other_preparation(first, losses[0])
    found = summary(first, execution)
    return replace(
        found,
        notes=(*found.notes, *hint),
        losses=losses,
        largest_input=_largest_input(first, execution),
    )


def _largest_input(problem: Problem, execution: Execution) -> float:
    """The largest |x| of the batch."""
    own = max(
        float(np.abs(problem.inputs[low:high]).max())
        for low, high in pieces(0, problem.examples, 1, _EVALUATED)
    )
    # Workers only add up: each has its own place.
    of_all = np.zeros(execution.workers.count)
    of_all[execution.workers.index] = own
    return float(execution.workers.sum(of_all).max())


def _other_preparation(problem: Problem, found: BatchLoss) -> tuple[str, ...]:
    """A sentence if the inputs were probably prepared otherwise when the model was trained."""
    original, right = problem.original, found.accuracy
    if original is None or right is None or len(original.inputs) != problem.examples:
        return ()
    classes = max(2, problem.outputs)
    chance = 1 / classes
    if right > chance + _DEVIATIONS * math.sqrt(chance * (1 - chance) / problem.examples):
        return ()
    some = slice(0, min(problem.examples, _TRIED))
    engine, theta = Descending(problem), problem.graph.vector()
    others = {
        scale: accuracy(
            engine.outputs(theta, stored[some]), problem.targets[some], problem.loss.name
        )
        for scale, stored in original.prepared_otherwise.items()
    }
    best = max(others, key=lambda scale: others[scale] or 0.0, default=None)
    if best is None or (others[best] or 0.0) < right + _FAR_MORE:
        return ()
    return (
        f"accuracy is no better than chance; with data.scale: {best} it is {others[best]:.1%}: "
        "was the model trained on inputs that were prepared so?",
    )
