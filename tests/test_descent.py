"""The lean gradient: against the chain rule's sweep, finite differences and a closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from networks import make_problem, problems
from random_graphs import random_graph_problem

from hesscli.problem.network import Problem
from hesscli.studies import sgd
from hesscli.studies.sgd import SGD, Batches
from hesscli.system.errors import NumericalError
from hesscli.system.pieces import pieces
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


def test_a_step_in_pieces_is_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """θ − η g, g the gradient of the whole batch: pieces of a few examples, one of them smaller."""
    for seed in range(6):
        problem = random_graph_problem(seed)
        theta = problem.graph.vector()
        whole = Descending(problem).descent(theta, problem)
        batches = Batches(problem.examples, problem.examples, 0)
        at = {"parameters": theta, "velocity": np.zeros_like(theta)}
        monkeypatch.setattr(sgd, "pieces", lambda start, stop, each: pieces(start, stop, 1, 2))
        step = SGD(problem, batches, 0.5, 0.0, **at)
        assert step.advance() == pytest.approx(whole.loss, rel=1e-12)
        size = np.abs(whole.gradient).max()
        assert np.allclose(step.parameters, theta - 0.5 * whole.gradient, atol=1e-12 * size)


@pytest.mark.parametrize("seed", range(12))
def test_both_terms_at_once_are_the_terms(seed: int) -> None:
    """By one way up and a way down of twice as many cotangents: the same as two products."""
    problem = random_graph_problem(seed)
    engine = ChainRule(problem)
    V = np.random.default_rng(seed).standard_normal((problem.parameter_count, 3))
    found = engine.terms("network", V)
    for term, product in zip((engine.gauss_newton, engine.curvature), found, strict=True):
        expected = term("network").to_dense() @ V
        assert np.allclose(product, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
