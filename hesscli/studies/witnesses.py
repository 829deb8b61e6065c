"""The two witnesses of one problem, and what a study asks of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hesscli.engines.autodiff import Autodiff
from hesscli.engines.chainrule import ChainRule
from hesscli.engines.rounding import RoundingFloor
from hesscli.problem.network import Layer, Problem
from hesscli.studies.checks import DEFAULT_RTOL
from hesscli.studies.context import Progress


@dataclass(frozen=True)
class CheckOptions:
    """How much is compared (``form`` or ``entries``), how closely, and of which layers.

    ``rtol`` None takes the default of the dtype; no layers mean all of them.
    """

    method: str = "entries"
    rtol: float | None = None
    layers: tuple[str, ...] = ()

    def rtol_for(self, problem: Problem) -> float:
        return DEFAULT_RTOL[problem.dtype.name] if self.rtol is None else self.rtol


@dataclass(frozen=True)
class Witnesses:
    """Both engines on one problem, and the rounding they may differ by."""

    problem: Problem
    chain_rule: ChainRule
    autodiff: Autodiff
    floor: RoundingFloor

    def progress_in(self, progress: Progress) -> Progress:
        """``progress`` with the activation named before each task."""
        activation = self.problem.hidden_activation
        return lambda task, done, total: progress(f"{activation} {task}", done, total)


def each_layer(
    problems: Sequence[Problem], options: CheckOptions
) -> Iterator[tuple[Witnesses, Layer]]:
    """The witnesses of every problem with each of its layers that the options name.

    Raises NumericalError where the chain rule leaves the range of the dtype.
    """
    for problem in problems:
        chain_rule = ChainRule(problem)
        floor = RoundingFloor(chain_rule)
        witnesses = Witnesses(problem, chain_rule, Autodiff(problem), floor)
        for layer in problem.layers:
            if not options.layers or layer.name in options.layers:
                yield witnesses, layer
