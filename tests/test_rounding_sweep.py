"""The steps of the floor at the ends of a type's range, each against what it stands for.

Random agreement found the cases (tests/soak.py; the seeds stand beside them).
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import make_problem
from scipy.special import expit, softmax

from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.network import Loss, Problem
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.rounding.floor import RoundingFloor
from hesscli.witnesses.rounding.sweep import SAFETY, ErrorSweep
from hesscli.witnesses.rounding.terms import loss_errors, loss_product_error

SIZES = st.sampled_from([-150, -120, -40, -3, 0, 2, 40, 120, 150]).map(lambda power: 10.0**power)


@given(st.lists(st.tuples(SIZES, SIZES, SIZES, SIZES), min_size=1, max_size=4))
def test_the_error_of_a_product_of_sizes_that_are_far_apart(terms: list[tuple[float, ...]]) -> None:
    """Between the root of the sum of squares, in exact arithmetic, and the sum of sizes.

    A weight of 1e150 beside one of 1e-4 is where squares of the smaller vanish (seeds 2515,
    5131 and 15699).
    """
    swept = ErrorSweep(ChainRule(make_problem((2, 2), "tanh")))
    x, e_x, y, e_y = (np.array(column) for column in zip(*terms, strict=True))
    found = float(swept.both_errors(x[None], e_x[None], y[:, None], e_y[:, None])[0, 0])
    u, n = Fraction(swept.u), len(terms)
    squares = sum(
        (a * q) ** 2 + ((p**2 + a**2) * b**2) + n * (u * p * q) ** 2
        for p, a, q, b in ([Fraction(value) for value in term] for term in terms)
    )
    # Below this, in the 1e-5 that a sum of squares may lose, doubles have no numbers.
    root = math.exp((math.log(squares.numerator) - math.log(squares.denominator)) / 2)
    assert root * (1 - 1e-5) <= found <= 2 * math.sqrt(n) * root + n * swept.tiny * 1.01


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softsign", "gelu", "mish", "sin"])
@pytest.mark.parametrize("order", [1, 2])
def test_a_sum_that_rounding_leaves_nothing_of_is_any_number(activation: str, order: int) -> None:
    """Where z = 1e149 + 1e149 − 2e149 may come out as 0 or as 1e133: σ′ and σ″ are open.

    (seed 7656)
    """
    kernel = np.array([[1.1e149], [1.3e149], [-2.4e149]])
    first = Layer("dense1", kernel, None, Activation(activation))
    problem = make_problem((3, 1, 2), activation, examples=1)
    problem = Problem(
        chain((first, problem.layers[1])), np.ones((1, 3)), problem.targets, problem.loss
    )
    swept = ErrorSweep(ChainRule(problem))
    error = swept.errors[0].first if order == 1 else swept.errors[0].second
    # sup |σ′| and sup |σ″| are at least these for each of them
    assert SAFETY * error[0, 0] >= {1: 0.9, 2: 0.09}[order]


LOSSES = ("categorical_crossentropy", "binary_crossentropy")


def gradient_and_hessian(loss: str, f: Array, t: Array) -> tuple[Array, Array]:
    """The closed forms of one example: p − t and diag(p) − ppᵀ; (s − t)/c and s(1 − s)/c."""
    if loss == "categorical_crossentropy":
        p = softmax(f)
        return p - t, np.diag(p) - np.outer(p, p)
    return (expit(f) - t) / len(f), np.diag(expit(f) * expit(-f)) / len(f)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1e-9, 0.1, 1.0, 5.0, 900.0, 1e100])
def test_outputs_of_which_little_is_known_leave_probabilities_open(loss: str, size: float) -> None:
    """Errors of logits of any size: the loss moves by no more than is said of it (seed 19437)."""
    generator = np.random.default_rng(3)
    t = np.eye(4)[1]
    for scale in (0.1, 3.0, 40.0):
        f, v = scale * generator.standard_normal(4), generator.standard_normal(4)
        e_f, e_v = size * generator.uniform(0.1, 1, 4), size * generator.uniform(0.1, 1, 4)
        u = 2.0**-53
        e_g, E = loss_errors(loss, f[None], e_f[None], t[None], u)
        e_product = loss_product_error(loss, f[None], e_f[None], v[None], e_v[None], u)
        g, S = gradient_and_hessian(loss, f, t)
        for signs in itertools.product([-1.0, 1.0], repeat=4):
            moved, moved_S = gradient_and_hessian(loss, f + np.array(signs) * e_f, t)
            assert (abs(moved - g) <= SAFETY * e_g[0] + 1e-15).all()
            assert (abs(moved_S - S) <= SAFETY * E[0] + 1e-15).all()
            moved_product = moved_S @ (v + np.array(signs) * e_v)
            assert (abs(moved_product - S @ v) <= SAFETY * e_product[0] + 1e-15).all()


def test_products_that_vanish_in_the_type_are_within_the_floor_of_the_form() -> None:
    """Inputs of 1e-20 in float32: each number of H v is 1e-39, zero in TensorFlow (seed 13985)."""
    kernel = np.array([[100.0, -300.0]], dtype=np.float32)
    problem = Problem(
        graph=chain((Layer("dense1", kernel, None, Activation("linear")),)),
        inputs=np.array([[1e-20]], dtype=np.float32),
        targets=np.zeros((1, 2), dtype=np.float32),
        loss=Loss("mean_squared_error"),
    )
    v = kernel.reshape(-1)
    chain_rule = ChainRule(problem)
    ours, theirs = (
        engine.hessian("dense1/kernel").quadratic_form(v)
        for engine in (chain_rule, Autodiff(problem))
    )
    # 2/c ‖aᵀV‖² = 1e-40 · (1e4 + 9e4)
    assert ours == pytest.approx(1e-35, rel=1e-2)
    assert abs(ours - theirs) <= RoundingFloor(chain_rule).quadratic_form("dense1/kernel", v)


def test_a_second_derivative_that_vanishes_in_the_type_is_within_the_floor_of_the_form() -> None:
    """Where σ″ g is 1e-312 below large z, and TensorFlow rounds in 1e-308 (seed 14419)."""
    layers = (
        Layer("dense1", np.array([[9e3]]), None, Activation("softsign")),
        Layer("dense2", np.array([[1.5e-300]]), None, Activation("linear")),
    )
    problem = Problem(chain(layers), np.ones((1, 1)), np.ones((1, 1)), Loss("sum"))
    v = np.array([9e3])
    chain_rule, floor = ChainRule(problem), RoundingFloor(ChainRule(problem))
    ours, theirs = (
        engine.hessian("dense1/kernel").quadratic_form(v)
        for engine in (chain_rule, Autodiff(problem))
    )
    # w σ″(z) v², with σ″(z) = −2/(1 + z)³
    assert ours == pytest.approx(-1.5e-300 * 2 / 9001**3 * 81e6, rel=1e-3)
    assert abs(ours - theirs) <= floor.quadratic_form("dense1/kernel", v)


def test_a_kink_counts_with_the_gauss_newton_term_that_the_curvature_cancels() -> None:
    """The floor holds for the entries of G, too, where those of H are zero (seed 38102).

    z = 0.1 + 0.2 − 0.3 is 0 or 6e-17, so leaky_relu's σ′ is 0.2 or 1. Above it, with f = s(z₂) and
    the loss f², ∂²L/∂z₂² = 2s′² + 2ss″ is zero where s = 2/3.
    """
    layers = (
        Layer("dense1", np.array([[0.1], [0.2], [-0.3]]), None, Activation("leaky_relu")),
        Layer("dense2", np.array([[3.0]]), np.array([np.log(2)]), Activation("sigmoid")),
    )
    problem = Problem(chain(layers), np.ones((1, 3)), np.zeros(1), Loss("sum_of_squares"))
    chain_rule = ChainRule(problem)
    assert abs(chain_rule.second_at_activation(0, slice(None))[0, 0, 0]) < 1e-14
    of_G = 9 * 2 * (2 / 9) ** 2
    jump = of_G * (1 - 0.2**2)
    for block in ("dense1/kernel", "network"):
        assert RoundingFloor(chain_rule).entries(block)[0, 0] >= jump
