"""What a plugin defines is on trial: the floor that it has made does not vouch for it."""

from __future__ import annotations

from hesscli.problem.graph import OWN_LAYER
from hesscli.problem.network import Problem
from hesscli.problem.registry import LOSS, plugin_names
from hesscli.studies.judge import Check


def is_on_trial(problem: Problem) -> bool:
    """Whether a plugin's layer or loss is in the problem.

    (Of an activation the floor takes the functions on a grid, where noise is none.)
    """
    own_loss = problem.loss.name in plugin_names(LOSS)
    return own_loss or any(node.kind == OWN_LAYER for node in problem.graph.nodes)


def judged(problem: Problem, check: Check) -> Check:
    """``check``, UNDECIDED if only the floor of what is on trial would excuse it."""
    return check.on_trial() if is_on_trial(problem) else check
