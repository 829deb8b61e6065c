"""Curvature at one moment: every number against the dense matrix, a closed form or both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from networks import make_problem

from hesscli.problem.graph import Activation, Layer, chain
from hesscli.problem.network import Loss, Problem
from hesscli.studies.measurement import (
    EIGENVALUE_TOLERANCE,
    accuracy,
    largest_eigenvalue,
    measure,
)
from hesscli.studies.norms import frobenius_norms, layer_block
from hesscli.system.errors import NumericalError
from hesscli.witnesses.chain_rule.engine import ChainRule

# Wide enough that Lanczos is used in the first two layers and in the network.
WIDTHS = (9, 8, 7, 3)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_every_number_is_the_dense_matrixs(activation: str, loss: str) -> None:
    problem = make_problem(WIDTHS, activation, examples=12)
    problem = replace(problem, loss=Loss(reduction=loss))
    engine = ChainRule(problem)
    found = measure(problem, 40, 0.5, {}, 0).measurement
    assert (found.step, found.epoch) == (40, 0.5)
    for layer in found.layers:
        H = engine.hessian(layer.layer).to_dense()
        G = engine.gauss_newton(layer.layer).to_dense()
        C = engine.curvature(layer.layer).to_dense()
        top = np.linalg.eigvalsh(H)[-1]
        # The Rayleigh quotient's error is of second order in the residual that is tolerated.
        assert layer.lambda_max == pytest.approx(top, rel=EIGENVALUE_TOLERANCE / 10)
        assert layer.trace == pytest.approx(np.trace(H), rel=1e-12)
        share = np.linalg.norm(G) / (np.linalg.norm(G) + np.linalg.norm(C))
        assert layer.gauss_newton_share == pytest.approx(share, rel=1e-12)
    H = engine.hessian("network").to_dense()
    assert found.sharpness == pytest.approx(np.linalg.eigvalsh(H)[-1], rel=1e-4)
    assert found.trace == pytest.approx(np.trace(H), rel=1e-12)


def test_the_curvature_along_the_gradient_is_the_second_difference_of_the_loss() -> None:
    """gᵀHg/gᵀg = d²/dt² L(θ + t g/‖g‖), by central differences; it is negative somewhere."""
    from hesscli.witnesses.chain_rule.descent import Descending

    signs = set()
    for seed in range(8):
        problem = make_problem((3, 4, 2), "tanh", examples=2, seed=seed, scale=3.0)
        engine, theta = Descending(problem), problem.graph.vector()
        at = engine.descent(theta, problem)
        direction, h = at.gradient / np.linalg.norm(at.gradient), 1e-4
        up, down = (engine.descent(theta + s * h * direction, problem).loss for s in (1, -1))
        found = measure(problem, 0, 0.0, {}, 0).measurement
        assert found.gradient_norm == pytest.approx(np.linalg.norm(at.gradient), rel=1e-12)
        assert found.gradient_curvature == pytest.approx(
            (up - 2 * at.loss + down) / h**2, rel=1e-4, abs=1e-6
        )
        assert found.negative == (found.gradient_curvature < 0)
        signs.add(found.negative)
    assert signs == {True, False}


def test_softmax_regression_in_closed_form() -> None:
    """H = 1/N Σ_n x_n x_nᵀ ⊗ (diag p_n − p_n p_nᵀ), all of it Gauss–Newton term."""
    generator = np.random.default_rng(1)
    X, W = generator.standard_normal((20, 15)), generator.standard_normal((15, 6))
    layer = Layer("dense1", W.copy(), None, Activation("linear"))
    problem = Problem(chain((layer,)), X.copy(), generator.integers(0, 6, 20))
    p = np.exp(X @ W) / np.exp(X @ W).sum(axis=1, keepdims=True)
    S = [np.diag(q) - np.outer(q, q) for q in p]
    H = sum(np.kron(np.outer(X[n], X[n]), S[n]) for n in range(20)) / 20
    found = measure(problem, 0, 0.0, {}, 0).measurement
    top = np.linalg.eigvalsh(H)[-1]
    assert found.sharpness == pytest.approx(top, rel=1e-4)
    assert found.layers[0].lambda_max == pytest.approx(top, rel=1e-4)
    assert found.trace == pytest.approx(np.trace(H), rel=1e-12)
    assert found.layers[0].gauss_newton_share == 1.0
    g = (X.T @ (p - np.eye(6)[problem.targets]) / 20).ravel()
    assert found.gradient_curvature == pytest.approx(g @ H @ g / (g @ g), rel=1e-12)


def test_an_eigenvector_of_a_smaller_eigenvalue_leads_to_the_largest() -> None:
    """Least squares with H = diag(1.02, 1, 0.9 … 0): from the second direction, without a part in
    the first, Lanczos ends at 1, with a residual that is as small as it should be.
    """
    values = np.r_[1.02, 1.0, np.linspace(0.9, 0, 78)]
    layer = Layer("dense1", np.ones((80, 1)), None, Activation("linear"))
    X = np.diag(np.sqrt(80 / 2 * values))
    problem = Problem(chain((layer,)), X, np.zeros((80, 1)), Loss("mean_squared_error"))
    last = np.zeros(80)
    last[1], last[2:] = 1, 1e-4
    H = ChainRule(problem).hessian("network")
    assert largest_eigenvalue(H, last.copy()).value == pytest.approx(1, rel=1e-4)
    found = measure(problem, 3, 0.0, {"network": last, "dense1": last}, 0).measurement
    assert found.sharpness == pytest.approx(1.02, rel=EIGENVALUE_TOLERANCE)
    assert found.layers[0].lambda_max == pytest.approx(1.02, rel=EIGENVALUE_TOLERANCE)


def test_the_largest_eigenvalue_is_the_largest_not_the_one_largest_in_size() -> None:
    """The sum of the outputs is bilinear in two linear layers: the spectrum is symmetric."""
    problem = make_problem((9, 8, 7), "linear", examples=5)
    problem = replace(problem, loss=Loss("sum"))
    H = ChainRule(problem).hessian("network")
    dense = np.linalg.eigvalsh(H.to_dense())
    assert dense[0] == pytest.approx(-dense[-1]) and dense[-1] > 0
    start = np.random.default_rng(0).standard_normal(H.shape[0])
    assert largest_eigenvalue(H, start).value == pytest.approx(dense[-1], rel=1e-4)


def test_where_the_hessian_is_zero_so_is_everything_read_off_it() -> None:
    problem = make_problem((70, 2), "linear")
    problem = replace(problem, loss=Loss("sum"))
    found = measure(problem, 0, 0.0, {}, 0).measurement
    assert (found.sharpness, found.trace, found.gradient_curvature) == (0.0, 0.0, 0.0)
    assert found.layers[0].gauss_newton_share is None
    assert found.accuracy is None


def test_a_loss_beyond_the_type_is_refused_before_lanczos() -> None:
    problem = make_problem(WIDTHS, "square", dtype="float32")
    with pytest.raises(NumericalError, match=r"range of float32"):
        measure(replace(problem, inputs=1e20 * problem.inputs), 0, 0.0, {}, 0)


@pytest.mark.parametrize("scale", [1e-60, 1e-3, 1e60])
def test_a_block_s_trace_and_norm_neither_vanish_nor_overflow(scale: float) -> None:
    problem = make_problem((5, 4, 3), "tanh", examples=6)
    first, *others = problem.layers
    blind = replace(first, kernel=np.zeros_like(first.kernel))
    problem = replace(problem, graph=chain((blind, *others)), inputs=scale * problem.inputs)
    block = layer_block(ChainRule(problem).hessian("dense1/kernel"))
    dense = block.to_dense()
    unit = np.abs(dense).max()
    assert frobenius_norms([block])[0] / unit == pytest.approx(
        np.linalg.norm(dense / unit), rel=1e-12
    )
    assert block.trace() / unit == pytest.approx(np.trace(dense / unit), rel=1e-12)


def test_accuracy_counts_the_largest_output() -> None:
    f = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 6.0]])
    labels = np.array([1, 0, 0, 1])
    assert accuracy(f, labels, "sparse_categorical_crossentropy") == 0.75
    assert accuracy(f, np.eye(2)[labels], "categorical_crossentropy") == 0.75
    one = np.array([[1.0], [-1.0], [2.0], [-3.0]])
    assert accuracy(one, np.array([[1.0], [0.0], [0.0], [1.0]]), "binary_crossentropy") == 0.5
    assert accuracy(f, f, "mean_squared_error") is None
