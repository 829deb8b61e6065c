"""The tolerance's floor: saturated networks pass, wrong formulas on the same networks fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from networks import make_problem

from hesscli.nodes import calculus
from hesscli.nodes.activations import Derivatives, derivatives
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.network import Loss, Problem
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import Verification, verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.errors import NumericalError
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.rounding.floor import RoundingFloor

# Standard deviations that put |z| of most units far beyond the point where TensorFlow's formula
# for σ′ has no digits left (18 for tanh in float64, 8 in float32).
SATURATED = {"float64": 60.0, "float32": 25.0}
SATURATING = ("tanh", "sigmoid", "softplus", "silu", "gelu", "gelu_tanh", "mish", "elu", "selu")


def saturated(activation: str, dtype: str) -> Problem:
    return make_problem((4, 5, 5, 3), activation, scale=SATURATED[dtype], dtype=dtype)


def checked(problem: Problem) -> Verification:
    return verify([problem], CheckOptions())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", SATURATING)
def test_a_saturated_network_does_not_fail(activation: str, dtype: str) -> None:
    """What rounding leaves uncertain there is about as large as what there is."""
    verification = checked(saturated(activation, dtype))
    assert verification.verdict is not Verdict.FAIL
    for row in verification.results:
        for check in (row.check, row.form_check):
            assert check.passed or check.open_by_rounding


def test_where_tensorflow_has_no_digits_left_the_referee_decides() -> None:
    # tanh(20)² is 1 to the last digit, so autodiff's σ′ and its whole block are zero; the true
    # entry is x² (s σ′² w² (1 − s) + s w σ″), of the order of 1e-17.
    problem = Problem(
        chain(
            (
                Layer("dense1", np.array([[20.0]]), None, Activation("tanh")),
                Layer("dense2", np.array([[0.0, 1.0]]), None, Activation("linear")),
            )
        ),
        np.array([[1.0]]),
        np.array([0]),
    )
    row = checked(problem).results[0]
    assert row.check.max_abs_entry == 0
    assert 1e-18 < row.check.max_abs_residual <= row.check.floor < 1e-13
    assert row.check.verdict is Verdict.UNDECIDED
    assert row.check.open_by_rounding
    assert row.verdict is Verdict.PASS
    ruling = row.pairs[0].ruling
    assert ruling is not None
    assert ruling.standing("autodiff") is not Verdict.PASS


MUTANTS = {
    "σ″ without its factor σ′": lambda sigma: replace(sigma, second=lambda z: -2 * np.tanh(z)),
    "σ′ for σ": lambda sigma: replace(sigma, value=sigma.first),
    "σ′ = 1": lambda sigma: replace(sigma, first=np.ones_like),
    "σ′ = 1 − |σ|": lambda sigma: replace(sigma, first=lambda z: 1 - np.abs(np.tanh(z)) + 1e-3),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_formula_on_the_same_saturated_network_fails(
    dtype: str, mutant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = MUTANTS[mutant]

    def mutated(activation: Activation) -> Derivatives:
        sigma = derivatives(activation)
        return wrong(sigma) if activation.name == "tanh" else sigma

    monkeypatch.setattr(calculus, "derivatives", mutated)
    assert checked(saturated("tanh", dtype)).verdict is Verdict.FAIL


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "softplus", "sigmoid"])
def test_in_a_network_that_is_not_saturated_the_floor_adds_little_to_the_tolerance(
    activation: str, scale: float
) -> None:
    problem = make_problem((6, 7, 7, 4), activation, scale=scale, examples=8)
    floors = RoundingFloor(ChainRule(problem))
    for row in checked(problem).results:
        largest = floors.entries(f"{row.layer}/kernel").max()
        assert largest < 0.1 * row.check.rtol * row.check.max_abs_entry
        assert row.form_check.floor < 0.1 * row.form_check.rtol * row.form_check.max_abs_entry


def test_the_floor_scales_with_the_roundoff_of_the_dtype() -> None:
    single, double = (
        RoundingFloor(ChainRule(make_problem((4, 5, 3), "tanh", dtype=dtype))).entries(
            "dense1/kernel"
        )
        for dtype in ("float32", "float64")
    )
    ratio = np.median(single / double)
    assert 0.25 < ratio / (np.finfo("float32").eps / np.finfo("float64").eps) < 4


def test_a_kink_within_rounding_is_counted_with_its_whole_jump() -> None:
    # z = 0.1 + 0.2 − 0.3 is 5.6e-17 or 0 by the order of the sum: relu's σ′ is 1 or 0.
    problem = make_problem((3, 2, 2), "relu", examples=1)
    kernel = np.array([[0.1, 1.0], [0.2, 1.0], [-0.3, 1.0]])
    first = replace(problem.layers[0], kernel=kernel, bias=None)
    problem = replace(problem, graph=chain((first, problem.layers[1])), inputs=np.ones((1, 3)))
    chain_rule = ChainRule(problem)
    floor = RoundingFloor(chain_rule).entries("dense1/kernel")
    jump = np.abs(chain_rule.second("dense1/activation")[0, 0, 0])
    assert floor[0, 0] >= jump
    assert floor[1, 1] < 1e-12


def test_errors_beyond_float64_are_said_not_passed() -> None:
    problem = make_problem((3, 3, 3), "square", scale=1e100)
    floor = RoundingFloor(ChainRule(problem))
    with pytest.raises(NumericalError, match="dense"):
        floor.entries("dense1/kernel")


def wrong_value(z: Array) -> Array:
    return np.full_like(z, np.nan)


def test_not_a_number_is_never_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        calculus, "derivatives", lambda of: replace(derivatives(of), second=wrong_value)
    )
    with pytest.raises(NumericalError, match="dense"):
        checked(make_problem((3, 4, 2), "tanh"))


def test_what_tensorflow_takes_for_zero_is_within_the_floor() -> None:
    """An input of 1e-45 between weights of 1e29, in float32: TensorFlow has no such numbers.

    Random agreement found it (seed 11121).
    """
    kernel = np.full((2, 2), 1e29, dtype=np.float32)
    problem = Problem(
        graph=chain((Layer("dense1", kernel, None, Activation("linear")),)),
        inputs=np.array([[1e-45, 0]], dtype=np.float32),
        targets=np.zeros((1, 2), dtype=np.float32),
        loss=Loss("mean_squared_error"),
    )
    v = problem.batch[0]
    chain_rule = ChainRule(problem)
    ours, theirs = (
        engine.hessian("input[0]").quadratic_form(v) for engine in (chain_rule, Autodiff(problem))
    )
    # 2/c ‖Wᵀv‖², where 1e-45 is what float32 holds for it
    assert ours == pytest.approx(2 * (1e29 * float(v[0])) ** 2, rel=1e-5)
    assert abs(ours - theirs) <= RoundingFloor(chain_rule).quadratic_form("input[0]", v)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softsign", "gelu", "mish", "sin"])
def test_a_sum_that_rounding_leaves_nothing_of_is_any_number(activation: str) -> None:
    """Where z = 1e149 + 1e149 − 2e149 may come out as 0 or as 1e133: σ′ is open.

    Random agreement found it (seed 7656).
    """
    kernel = np.array([[1.1e149], [1.3e149], [-2.4e149]])
    layers = (
        Layer("dense1", kernel, None, Activation(activation)),
        Layer("dense2", np.array([[1.0]]), None, Activation("linear")),
    )
    problem = Problem(chain(layers), np.ones((1, 3)), np.zeros((1, 1)), Loss("sum"))
    # f = σ(z), so ∂f/∂W = σ′(z), and sup |σ′| is at least a quarter for each of them.
    floor = RoundingFloor(ChainRule(problem)).jacobian("dense1/kernel").rows(0, 1)
    assert (floor >= 0.2).all()


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
    assert abs(chain_rule.second("dense1/activation")[0, 0, 0]) < 1e-14
    of_G = 9 * 2 * (2 / 9) ** 2
    jump = of_G * (1 - 0.2**2)
    for block in ("dense1/kernel", "network"):
        assert RoundingFloor(chain_rule).entries(block)[0, 0] >= jump
