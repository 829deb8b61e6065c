"""Each type of layer: the chain rule, autodiff and finite differences agree in every block.

``python tests/test_layers.py 2000 [first]`` compares so many random networks.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from layer_networks import CASES, TANH, layer, network, random_network

from hesscli.nodes.passes import HESSIAN
from hesscli.problem.graph import INPUT, Activation, Array
from hesscli.problem.layertypes import TYPES
from hesscli.problem.network import Loss, Problem
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.finite.engine import FiniteDifferences
from hesscli.witnesses.layout import NETWORK

RTOL = 1e-11
RELU = Activation("relu")


def close(found: Array, right: Array) -> bool:
    return bool(np.abs(found - right).max() <= RTOL * max(1e-3, np.abs(right).max()))


def disagreements(problem: Problem, *, entries: bool = False) -> list[str]:
    """In which terms and blocks the chain rule is not autodiff's, by products or all entries."""
    chain_rule, autodiff = ChainRule(problem), Autodiff(problem)
    found = []
    for block in (NETWORK, f"{INPUT}[1]"):
        H, G, C = (
            getattr(chain_rule, term)(block).to_dense()
            for term in ("hessian", "gauss_newton", "curvature")
        )
        generator = np.random.default_rng(0)
        V = np.eye(len(H)) if entries else generator.standard_normal((len(H), 2))
        if not close(G + C, H):
            found.append(f"G + C in {block}")
        if not close(chain_rule.hessian(block).matmat(V), H @ V):
            found.append(f"products in {block}")
        if not close(H @ V, autodiff.hessian(block).matmat(V)):
            found.append(f"H in {block}")
        if not close(G @ V, autodiff.gauss_newton(block).matmat(V)):
            found.append(f"G in {block}")
    return found


def test_every_type_has_a_case() -> None:
    covered = {spec.type for specs, _ in CASES.values() for spec in specs}
    assert set(TYPES) <= covered


@pytest.mark.parametrize("name", CASES)
def test_the_chain_rule_is_autodiff_in_every_term(name: str) -> None:
    problem = network(*CASES[name])
    assert disagreements(problem) == []
    first, other = ChainRule(problem), Autodiff(problem)
    assert close(first.gradient(NETWORK), other.gradient(NETWORK))
    J = first.jacobian(NETWORK).rows(0, 6)
    assert close(J, other.jacobian(NETWORK).rows(0, 6))


@pytest.mark.parametrize("name", CASES)
def test_finite_differences_agree_within_their_bars(name: str) -> None:
    problem = network(*CASES[name])
    block = FiniteDifferences(problem).hessian(NETWORK)
    V = np.random.default_rng(1).standard_normal((block.shape[0], 2))
    values, bars = block.product_with_error(V)
    right = ChainRule(problem).hessian(NETWORK).matmat(V)
    assert np.isfinite(bars).all()
    assert (np.abs(values - right) <= bars).all()
    assert np.median(bars) < 1e-4 * np.abs(right).max()


@pytest.mark.parametrize("seed", range(24))
def test_random_networks_of_all_layers(seed: int) -> None:
    assert disagreements(random_network(seed)) == []


def tied(type_: str, inputs: Array, **arguments: object) -> Problem:
    """A relu, whose zeros are equal, and equal numbers that are not zero, before the layer."""
    specs = (
        layer("bent", "conv2d", filters=2, kernel_size=1, activation=RELU),
        layer("layer", type_, "bent", **arguments),
        layer("flat", "flatten", "layer"),
        layer("hidden", "dense", "flat", units=3, activation=Activation("tanh")),
        layer("logits", "dense", "hidden", units=3),
    )
    return network(specs, (4, 4, 2), inputs=inputs)


TIES = {
    "max_pooling2d": {},
    "max_pooling2d overlapping": {"pool_size": 3, "strides": 1, "padding": "same"},
    "global_max_pooling2d": {},
    "prelu": {},
}


@pytest.mark.parametrize("name", TIES)
def test_of_equal_numbers_all_witnesses_take_tensorflows_choice(name: str) -> None:
    # One image whose pixels are all equal, one that has few different ones, one that is zero.
    generator = np.random.default_rng(0)
    few = generator.integers(-1, 2, 32).astype(np.float64)
    inputs = np.stack([np.full(32, 0.7), few, np.zeros(32)])
    problem = tied(name.partition(" ")[0], inputs, **TIES[name])
    assert disagreements(problem) == []


def test_the_first_of_two_equal_values_is_the_maximum() -> None:
    specs = (
        layer("a", "dense", units=3, activation=RELU),
        layer("b", "dense", units=3, activation=RELU),
        layer("layer", "maximum", "a", "b"),
        layer("hidden", "dense", "layer", units=3, activation=Activation("tanh")),
        layer("logits", "dense", "hidden", units=3),
    )
    problem = network(specs, (2,))
    twin = {
        "b/kernel": problem.graph.tensors["a/kernel"],
        "b/bias": problem.graph.tensors["a/bias"],
    }
    tensors = {name: twin.get(name, of) for name, of in problem.graph.tensors.items()}
    equal = Problem(
        problem.graph.with_tensors(tensors), problem.batch, problem.targets, problem.loss
    )
    assert disagreements(equal) == []
    assert not ChainRule(equal).hessian("b").to_dense().any()


def test_layers_that_the_output_does_not_depend_on_have_hessians_of_0() -> None:
    specs = (
        layer("first", "dense", units=2, activation=TANH),
        layer("dead", "dense", "first", units=2, activation=TANH),
        layer("dead2", "activation", "dead", activation=TANH),
        layer("logits", "dense", "first", units=3),
    )
    problem = network(specs, (2,))
    assert disagreements(problem) == []
    engine = ChainRule(problem)
    for value in ("dead", "dead/activation", "dead2"):
        *_, (name, S) = engine.linearized.second(slice(None), HESSIAN, value)
        linear, curved = engine.linearized.split_second(slice(None), value)
        assert name == value
        assert S.shape == linear.shape == curved.shape == (2, 2, 2)
        assert not (S.any() or linear.any() or curved.any())


def test_the_example_of_the_page_on_convolutions() -> None:
    specs = (
        layer("conv", "conv2d", filters=1, kernel_size=2, use_bias=False),
        layer("flat", "flatten", "conv"),
    )
    image = np.array([[1.0, 0, 2, 0, 1, 0, 1, 0, 1]])
    problem = network(specs, (3, 3, 1), inputs=image)
    squares = Problem(problem.graph, image, np.zeros(1), Loss("sum_of_squares", "sum"))
    H = ChainRule(squares).hessian("conv/kernel").to_dense()
    right = [[4, 0, 0, 4], [0, 10, 6, 0], [0, 6, 4, 0], [4, 0, 0, 4]]
    assert np.allclose(H, right, rtol=0, atol=1e-14)


if __name__ == "__main__":
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    wrong = 0
    for seed in range(first, first + count):
        problem = random_network(seed)
        found = disagreements(problem)
        # Where TensorFlow subtracts, as in 1 − tanh², its rounding may exceed RTOL.
        options = CheckOptions(method="entries", block=NETWORK, rtol=RTOL)
        said = "rounding" if found and verify([problem], options).passed else "wrong"
        wrong += bool(found) and said == "wrong"
        for text in found:
            kinds = [node.kind for node in problem.graph.nodes]
            print(f"seed {seed}: {text} ({said}); {kinds}", flush=True)
    print(f"{count} networks, {wrong} wrong")
