"""The chain rule on graphs with fan-out and shared layers: every block, every term, two witnesses.

(That autodiff itself is right on such graphs is test_graph_autodiff.py's.) One matrix of autodiff,
the network's Hessian or one of its terms, has every block of the parameters as a part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from drawn import cases
from random_graphs import random_graph_problem

from hesscli.problem.graph import (
    ADD,
    DENSE,
    ELEMENTWISE,
    INPUT,
    Activation,
    Array,
    Graph,
    Node,
    chain,
)
from hesscli.problem.network import Loss, Problem
from hesscli.studies.checks import check_entries
from hesscli.studies.context import no_progress
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.chain_rule.network import NetworkBlock
from hesscli.witnesses.finite.engine import FiniteDifferences
from hesscli.witnesses.layout import NETWORK, layout_of
from hesscli.witnesses.rounding.floor import RoundingFloor

GRAPHS = cases(500)
# Finite differences take as long for one graph as the others for five.
OF_FINITE = cases(100)
BATCHES = 10
TERMS = ("hessian", "gauss_newton", "curvature")
RTOL = 1e-10


def places_of(problem: Problem, parameter: str) -> list[int]:
    """Where the parameters of a block stand in the network's."""
    whole, own = layout_of(problem, NETWORK), layout_of(problem, parameter)
    return [whole.index_of(own.name_of(index)) for index in range(own.size)]


def dense(block: object) -> Array:
    matrix: Array = block.matmat(np.eye(block.shape[0], dtype=block.dtype))  # type: ignore[attr-defined]
    return matrix


def agree(
    found: Array, expected: Array, scale: Array, floor: Callable[[], Array], what: str
) -> None:
    """The floor, which takes a while, is asked for where the tolerance alone does not do.

    ``scale`` are the numbers that the expected ones are made from: of the curvature term, which
    autodiff has as the difference H − G, those of H.
    """
    residual, allowed = np.abs(found - expected), RTOL * np.abs(scale).max(initial=0.0)
    if not (residual <= allowed).all():
        assert (residual <= allowed + floor()).all(), what


def entries(floor: RoundingFloor, problem: Problem, parameter: str) -> Array:
    layout = layout_of(problem, parameter)
    groups = layout.groups_of(0, layout.size)
    return floor.entries(parameter)[np.ix_(groups, groups)]


def _term(term: str, H: Array, G: Array) -> Array:
    return {"hessian": H, "gauss_newton": G, "curvature": H - G}[term]


def compared(problem: Problem) -> None:
    """All blocks of the parameters and of the inputs, in three terms, by rows and by products."""
    mine, theirs, floor = ChainRule(problem), Autodiff(problem), RoundingFloor(ChainRule(problem))
    graph = problem.graph
    tensors = [name for names in graph.layer_tensors.values() for name in names]
    found = {
        of: (dense(theirs.hessian(of)), dense(theirs.gauss_newton(of))) for of in (NETWORK, INPUT)
    }
    for term in TERMS:
        whole, of_inputs = (_term(term, *found[of]) for of in (NETWORK, INPUT))
        for parameter in (NETWORK, *graph.layer_tensors, *tensors):
            places = places_of(problem, parameter)
            expected = whole[np.ix_(places, places)]
            block = getattr(mine, term)(parameter)
            what = f"seed {problem.seed}: {term} of {parameter}"
            allowed = partial(entries, floor, problem, parameter)
            scale = np.abs(found[NETWORK]).max(axis=0)[np.ix_(places, places)]
            agree(block.rows(0, len(places)), expected, scale, allowed, what)
            agree(dense(block), expected, scale, allowed, what)
        all_inputs, expected = dense(getattr(mine, term)(INPUT)), of_inputs.copy()
        width = problem.widths[0]
        for n in range(problem.examples):
            own = slice(n * width, (n + 1) * width)
            name = f"{INPUT}[{n}]"
            what = f"seed {problem.seed}: {term} of {name}"
            allowed = partial(entries, floor, problem, name)
            scale = np.abs(found[INPUT]).max(axis=0)[own, own]
            agree(all_inputs[own, own], expected[own, own], scale, allowed, what)
            rows = getattr(mine, term)(name).rows(0, width)
            agree(rows, expected[own, own], scale, allowed, what)
            all_inputs[own, own] = expected[own, own] = 0
        assert not all_inputs.any() and not expected.any()
    g = theirs.gradient(NETWORK)
    agree(
        mine.gradient(NETWORK),
        g,
        g,
        partial(floor.gradient, NETWORK),
        f"seed {problem.seed}: gradient",
    )


def finite_differences_agree(problem: Problem) -> None:
    finite = FiniteDifferences(problem).hessian(NETWORK)
    H = ChainRule(problem).hessian(NETWORK)
    values, bars = finite.rows_with_error(0, H.shape[0])
    floor = RoundingFloor(ChainRule(problem))
    rows = H.rows(0, H.shape[0])
    agree(
        values,
        rows,
        rows,
        lambda: bars + entries(floor, problem, NETWORK),
        f"seed {problem.seed}: finite",
    )


@pytest.mark.parametrize("batch", range(BATCHES))
def test_three_witnesses_agree_on_random_graphs(batch: int) -> None:
    """Many graphs, since fan-out, sharing and sums combine in many ways, few at a time."""
    for seed in range(batch, GRAPHS, BATCHES):
        problem = random_graph_problem(seed)
        compared(problem)
        if seed < OF_FINITE:
            finite_differences_agree(problem)


def residual(activation: str = "tanh") -> Problem:
    """x₂ = x₁ + W₂ σ(W₁ x₁), then W₁ again: dense1 is used by two nodes, dense2 by one."""
    generator = np.random.default_rng(0)
    normal = generator.standard_normal
    shared = {"kernel": "dense1/kernel", "bias": "dense1/bias"}
    sigma = Activation(activation)
    nodes = (
        Node("dense1", DENSE, (INPUT,), (3,), shared),
        Node("act1", ELEMENTWISE, ("dense1",), (3,), activation=sigma),
        Node("dense2", DENSE, ("act1",), (3,), {"kernel": "dense2/kernel"}),
        Node("add1", ADD, (INPUT, "dense2"), (3,)),
        Node("dense1/2", DENSE, ("add1",), (3,), shared),
        Node("act2", ELEMENTWISE, ("dense1/2",), (3,), activation=sigma),
        Node("dense3", DENSE, ("act2",), (2,), {"kernel": "dense3/kernel"}),
    )
    tensors = {
        "dense1/kernel": normal((3, 3)),
        "dense1/bias": normal(3),
        "dense2/kernel": normal((3, 3)),
        "dense3/kernel": normal((3, 2)),
    }
    return Problem(Graph(nodes, tensors, (3,)), normal((4, 3)), np.array([0, 1, 1, 0]))


def test_a_layer_that_two_nodes_share_has_no_kronecker_structure_and_the_others_have() -> None:
    engine = ChainRule(residual())
    assert not isinstance(engine.hessian("dense1/kernel"), DenseBlock)
    assert isinstance(engine.hessian("dense2/kernel"), DenseBlock)
    assert isinstance(engine.hessian("dense3"), DenseBlock)
    assert not isinstance(engine.hessian(NETWORK), NetworkBlock)


@pytest.mark.parametrize("block", ["kernel", "layer", "network", "input"])
def test_verify_judges_a_graph(block: str) -> None:
    witnesses = (
        ("chain_rule", "autodiff") if block == "input" else ("chain_rule", "autodiff", "finite")
    )
    found = verify([residual()], CheckOptions(block=block), witnesses=witnesses)
    assert found.passed


def test_two_branches_beside_each_other_have_what_lies_between_them() -> None:
    """F = W₁x ⊙-free sum of tanh(W₁x) and tanh(W₂x): neither branch reads the other."""
    generator = np.random.default_rng(1)
    normal = generator.standard_normal
    nodes = (
        Node("left", DENSE, (INPUT,), (2,), {"kernel": "left/kernel"}),
        Node("right", DENSE, (INPUT,), (2,), {"kernel": "right/kernel"}),
        Node("left/activation", ELEMENTWISE, ("left",), (2,), activation=Activation("tanh")),
        Node("right/activation", ELEMENTWISE, ("right",), (2,), activation=Activation("sin")),
        Node("add", ADD, ("left/activation", "right/activation"), (2,)),
    )
    tensors = {"left/kernel": normal((3, 2)), "right/kernel": normal((3, 2))}
    x = normal((5, 3))
    problem = Problem(Graph(nodes, tensors, (3,)), x, np.zeros(5), Loss("sum_of_squares", "sum"))
    H = ChainRule(problem).hessian(NETWORK)
    assert isinstance(H, NetworkBlock)
    # f_q = tanh(l_q) + sin(r_q), L = Σ f²:  ∂²L/∂l_q ∂r_q = 2 (1 − tanh²(l_q)) cos(r_q)
    left, right = x @ tensors["left/kernel"], x @ tensors["right/kernel"]
    between = 2 * (1 - np.tanh(left) ** 2) * np.cos(right)
    expected = np.einsum("ni,nj,nq,qp->iqjp", x, x, between, np.eye(2)).reshape(6, 6)
    np.testing.assert_allclose(H.rows(0, 6)[:, 6:], expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(H.rows(6, 12)[:, :6], expected.T, rtol=1e-12, atol=1e-14)
    (check,) = check_entries(
        Autodiff(problem).hessian(NETWORK),
        [H],
        RoundingFloor(ChainRule(problem)).entries(NETWORK),
        RTOL,
        no_progress,
    )
    assert check.passed


def test_the_arrays_of_whoever_makes_a_problem_stay_writable() -> None:
    kernel, x, y = np.ones((2, 2)), np.ones((1, 2)), np.array([0])
    nodes = (Node("dense1", DENSE, (INPUT,), (2,), {"kernel": "dense1/kernel"}),)
    problem = Problem(Graph(nodes, {"dense1/kernel": kernel}, (2,)), x, y)
    for array in (kernel, x, y):
        array[...] = 0
    for own in (problem.graph.tensors["dense1/kernel"], problem.batch, problem.targets):
        with pytest.raises(ValueError, match="read-only"):
            own[...] = 1
    assert chain(problem.layers).nodes[0].name == "dense1"
