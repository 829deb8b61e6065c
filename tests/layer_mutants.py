"""Every method of every node, wrong in one way, through ``verify``: a table of docs/trust.md.

    python tests/layer_mutants.py            prints the table
    python tests/layer_mutants.py --write    puts it into docs/trust.md

What autodiff says does not change with the chain rule, so that it is asked once for each network.
``make test`` takes the right chain rule's Hessian for it, which tests/test_layers.py holds against
autodiff's in the same networks, and is faster; ``make test-thorough`` and the table ask autodiff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from drawn import THOROUGH
from layer_networks import CASES, network
from mutants import CHECKS, DTYPES, print_or_write

from hesscli.nodes.calculus import calculus_of
from hesscli.nodes.node import Calculus, Pulled
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import NETWORK, layout_of

MARKS = "layer mutants", "tests/layer_mutants.py"
# The first case of each calculus that a layer type has.
OF_CALCULUS: dict[type[Calculus], str] = {
    type(calculus_of(node)): case
    for case, of in reversed(CASES.items())
    for node in network(*of).graph.nodes
    if node.layer == "layer"
}
WRONG = 1.01


class Known(HessianBlock):
    """A matrix that was found before."""

    def __init__(self, problem: Problem, H: Array) -> None:
        super().__init__(NETWORK, layout_of(problem, NETWORK), problem.dtype)
        self.matrix = H

    def _matmat(self, V: Array) -> Array:
        return np.asarray(self.matrix @ V)

    def rows(self, start: int, stop: int) -> Array:
        return self.matrix[start:stop]


@cache
def case_of(case: str, dtype: str) -> tuple[Problem, Known]:
    """A network, and what its Hessian is; to be asked before anything is wrong."""
    problem = network(*CASES[case], dtype=dtype)
    right = Autodiff if THOROUGH or __name__ == "__main__" else ChainRule
    block = right(problem).hessian(NETWORK)
    return problem, Known(problem, block.matmat(np.eye(block.shape[0], dtype=dtype)))


def verdict(case: str, dtype: str, method: str = "auto") -> Verdict:
    """What ``verify`` says of all parameters of a case's network."""
    problem, known = case_of(case, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Autodiff, "hessian", lambda *_: known)
        return verify([problem], CheckOptions(method, block=NETWORK)).verdict


def forward_off(right: Callable[..., Any], *arguments: Any) -> Any:
    y, at = right(*arguments)
    return WRONG * y, at


def push_off(right: Callable[..., Any], *arguments: Any) -> Any:
    return WRONG * right(*arguments)


def pull_off(right: Callable[..., Any], *arguments: Any) -> Pulled:
    pulled = right(*arguments)
    return replace(pulled, inputs=[g if g is None else WRONG * g for g in pulled.inputs])


def gradient_off(role: str, right: Callable[..., Any], *arguments: Any) -> Pulled:
    pulled = right(*arguments)
    if role in pulled.tensors:
        pulled.tensors[role] = WRONG * pulled.tensors[role]
    return pulled


def no_bend(right: Callable[..., Any], *arguments: Any) -> None:
    return


def in_place_of(wrong: Callable[..., Any], right: Callable[..., Any]) -> Callable[..., Any]:
    """A method: ``functools.partial`` alone would not be given the object."""
    return lambda *arguments: wrong(right, *arguments)


def wrong_methods(owner: type[Calculus]) -> Iterator[tuple[str, str, Any]]:
    """Every method of a calculus, wrong in one way: (mutant, method, what stands in for it)."""
    nodes = network(*CASES[OF_CALCULUS[owner]]).graph.nodes
    roles = {role for node in nodes if type(calculus_of(node)) is owner for role in node.tensors}
    yield "forward", "forward", forward_off
    yield "push", "push", push_off
    yield "pull", "pull", pull_off
    for role in sorted(roles):
        yield f"pull at {role}", "pull", partial(gradient_off, role)
    if owner.bend is not Calculus.bend:
        yield "bend", "bend", no_bend


@contextmanager
def applied(owner: type[Calculus], method: str, wrong: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, in_place_of(wrong, getattr(owner, method)))
        yield


def verdicts(
    owner: type[Calculus], method: str = "auto", *, both: bool = True
) -> Mapping[tuple[str, str], Verdict]:
    """What ``verify`` says of each mutant of a calculus, by mutant and type.

    Unless they are asked for in ``both`` types, each mutant has the other type than the one before.
    """
    found = {}
    for dtype in DTYPES:
        case_of(OF_CALCULUS[owner], dtype)
    for place, (mutant, of, wrong) in enumerate(wrong_methods(owner)):
        with applied(owner, of, wrong):
            for dtype in DTYPES if both else (DTYPES[place % 2],):
                found[mutant, dtype] = verdict(OF_CALCULUS[owner], dtype, method)
    return found


def table() -> list[str]:
    lines = ["| node | wrong | form | probes | entries | verify |", "|---|---|---|---|---|---|"]
    for owner in sorted(OF_CALCULUS, key=lambda owner: owner.__name__):
        cells = []
        for method in (*CHECKS, "auto"):
            found = verdicts(owner, method)
            seen = sum(of is Verdict.FAIL for of in found.values())
            cells.append(f"{seen} of {len(found)}")
        wrong = ", ".join(mutant for mutant, _, _ in wrong_methods(owner))
        lines.append(f"| {owner.__name__} | {wrong} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print_or_write(MARKS[1], lambda: {MARKS[0]: table()})
