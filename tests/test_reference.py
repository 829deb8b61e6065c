"""Each witness by itself gives the answers of outside programs, and closed forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from networks import make_problem
from scipy.sparse.linalg import eigsh
from scipy.special import softmax

from hesscli.problem.graph import Activation, Layer, chain
from hesscli.problem.network import Loss, Problem
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule

ENGINES = [pytest.param(ChainRule, id="chain rule"), pytest.param(Autodiff, id="autodiff")]
EngineType = type[ChainRule] | type[Autodiff]
LAYERS = ("dense1", "dense2", "dense3")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("layer", LAYERS)
def test_quadratic_forms_are_jax_s_to_1e_10(
    engine: EngineType,
    activation: str,
    layer: str,
    reference_problem: Problem,
    reference_answers: Mapping[str, Any],
) -> None:
    problem = reference_problem.with_activation(Activation(activation))
    witness = engine(problem)
    expected = reference_answers[activation][layer]["quadratic_form"]
    kernel = problem.layers[problem.layer_index(layer)].kernel
    scale = abs(expected["gauss_newton"]) + abs(expected["curvature"])
    for term, value in expected.items():
        form = getattr(witness, term)(f"{layer}/kernel").quadratic_form(kernel)
        assert abs(form - value) <= 1e-10 * scale, term


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("layer", ["dense2", "dense3"])
def test_norm_trace_and_eigenvalues_are_jax_s_to_1e_10(
    engine: EngineType,
    activation: str,
    layer: str,
    reference_problem: Problem,
    reference_answers: Mapping[str, Any],
) -> None:
    witness = engine(reference_problem.with_activation(Activation(activation)))
    expected = reference_answers[activation][layer]
    dense = witness.hessian(f"{layer}/kernel").to_dense()
    eigenvalues = np.linalg.eigvalsh(dense)
    norm = expected["frobenius_norm"]
    assert abs(np.linalg.norm(dense) - norm) <= 1e-10 * norm
    assert abs(np.trace(dense) - expected["trace"]) <= 1e-10 * norm
    largest = np.array(expected["largest_eigenvalues"])
    assert np.abs(eigenvalues[::-1][: len(largest)] - largest).max() <= 1e-10 * norm
    assert abs(eigenvalues[0] - expected["smallest_eigenvalue"]) <= 1e-10 * norm


def test_scipy_s_eigensolver_takes_a_block_as_it_is(
    reference_problem: Problem, reference_answers: Mapping[str, Any]
) -> None:
    block = ChainRule(reference_problem.with_activation(Activation("tanh"))).hessian(
        "dense2/kernel"
    )
    expected = reference_answers["tanh"]["dense2"]["largest_eigenvalues"]
    found = np.sort(eigsh(block, k=3, which="LA", v0=np.ones(900), return_eigenvectors=False))
    assert np.allclose(found[::-1], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_softmax_regression_has_the_textbook_hessian(engine: EngineType, reduction: str) -> None:
    # One layer: H = c Σ_n x_n x_nᵀ ⊗ (diag p_n − p_n p_nᵀ)
    generator = np.random.default_rng(1)
    x, W = generator.standard_normal((5, 4)), generator.standard_normal((4, 3))
    layer = Layer("dense1", W, None, Activation("linear"))
    problem = Problem(chain((layer,)), x, generator.integers(0, 3, 5), Loss(reduction=reduction))
    p = softmax(x @ W, axis=1)
    expected = sum(
        np.kron(np.outer(x[n], x[n]), np.diag(p[n]) - np.outer(p[n], p[n])) for n in range(5)
    ) * (1 / 5 if reduction == "mean" else 1)
    assert np.allclose(engine(problem).hessian("dense1/kernel").to_dense(), expected, atol=1e-14)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_single_path_has_the_hessian_of_the_scalar_chain_rule(engine: EngineType) -> None:
    # f = (0, w sin(v x)) with label 0: L = log(1 + eᵗ), t = w sin(vx);
    # L″ = s(1−s) t′² + s t″, t′ = w x cos(vx), t″ = −w x² sin(vx), s = 1/(1 + e⁻ᵗ).
    x, v, w = 0.7, 1.3, 2.0
    problem = Problem(
        chain(
            (
                Layer("inner", np.array([[v]]), None, Activation("sin")),
                Layer("outer", np.array([[0.0, w]]), None, Activation("linear")),
            )
        ),
        np.array([[x]]),
        np.array([0]),
    )
    s = 1 / (1 + np.exp(-w * np.sin(v * x)))
    gauss_newton = s * (1 - s) * (w * x * np.cos(v * x)) ** 2
    curvature = -s * w * x**2 * np.sin(v * x)
    witness = engine(problem)
    assert witness.gauss_newton("inner/kernel").to_dense().item() == pytest.approx(gauss_newton)
    assert witness.curvature("inner/kernel").to_dense().item() == pytest.approx(curvature)
    assert witness.hessian("inner/kernel").to_dense().item() == pytest.approx(
        gauss_newton + curvature
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("activation", ["tanh", "gelu", "softplus", "square"])
def test_second_differences_of_the_loss_agree(engine: EngineType, activation: str) -> None:
    problem = make_problem((3, 4, 3), activation)
    direction = np.random.default_rng(2).standard_normal((3, 4))
    step = 1e-3

    def loss(scale: float) -> float:
        a = problem.inputs
        z = a @ (problem.layers[0].kernel + scale * direction) + problem.layers[0].bias
        a = {
            "tanh": np.tanh,
            "gelu": _gelu,
            "softplus": lambda t: np.log1p(np.exp(t)),
            "square": np.square,
        }[activation](z)
        f = a @ problem.layers[1].kernel + problem.layers[1].bias
        p = softmax(f, axis=1)
        return float(-np.log(p[np.arange(len(p)), problem.targets]).mean())

    # Fourth-order central second difference: error ~ step⁴.
    second = (
        -loss(2 * step) + 16 * loss(step) - 30 * loss(0) + 16 * loss(-step) - loss(-2 * step)
    ) / (12 * step**2)
    form = engine(problem).hessian("dense1/kernel").quadratic_form(direction)
    assert form == pytest.approx(second, rel=1e-7, abs=1e-8)


def _gelu(z: np.ndarray) -> np.ndarray:
    from math import erf, sqrt

    return z * (1 + np.vectorize(erf)(z / sqrt(2))) / 2
