"""The lean gradient: against the chain rule's sweep, finite differences and a closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from networks import make_problem, problems

from hesscli.problem.network import Problem
from hesscli.system.errors import NumericalError
from hesscli.witnesses.chain_rule.descent import Descending
from hesscli.witnesses.chain_rule.engine import ChainRule


@given(problems())
@settings(max_examples=60)
def test_the_gradient_is_the_second_order_sweeps(problem: Problem) -> None:
    """In the order of the block ``network``, for every loss, activation, bias and reduction."""
    try:
        expected = ChainRule(problem).gradient("network")
    except NumericalError:
        return
    theta = problem.graph.vector()
    descent = Descending(problem).descent(theta, problem)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(descent.gradient, expected, rtol=1e-12, atol=1e-13 * scale)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "softplus"])
def test_the_gradient_is_the_slope_of_the_loss(activation: str) -> None:
    problem = make_problem((3, 4, 2), activation)
    engine, theta = Descending(problem), problem.graph.vector()
    gradient = engine.descent(theta, problem).gradient
    h = 1e-5

    def loss(at: np.ndarray) -> float:
        return engine.descent(at, problem).loss

    slopes = [(loss(theta + h * e) - loss(theta - h * e)) / (2 * h) for e in np.eye(len(theta))]
    np.testing.assert_allclose(gradient, slopes, atol=1e-9)


def test_the_loss_is_that_of_the_outputs() -> None:
    problem = make_problem((3, 4, 2), "tanh", examples=7)
    engine, theta = Descending(problem), problem.graph.vector()
    f = engine.outputs(theta, problem.inputs)
    np.testing.assert_array_equal(f.shape, (7, 2))
    # Cross-entropy by its definition, −log of the softmax at the label.
    p = np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)
    expected = -np.log(p[np.arange(7), problem.targets])
    np.testing.assert_allclose(engine.losses(f, problem.targets), expected, rtol=1e-13)
    descent = engine.descent(theta, problem)
    assert descent.loss == pytest.approx(expected.mean(), rel=1e-13)


def test_a_vector_becomes_a_problem_and_back() -> None:
    problem = make_problem((3, 4, 2), "tanh")
    vector = np.arange(problem.parameter_count, dtype=float)
    moved = replace(problem, graph=problem.graph.with_vector(vector))
    np.testing.assert_array_equal(moved.layers[0].kernel, vector[:12].reshape(3, 4))
    np.testing.assert_array_equal(moved.layers[0].bias, vector[12:16])
    np.testing.assert_array_equal(moved.graph.vector(), vector)
