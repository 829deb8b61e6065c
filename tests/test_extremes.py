"""Extreme networks: the answer is right, or one line says what left the range and where.

Expected values are closed forms, or mpmath's numerical differentiation of the loss at hundreds of
digits (the loss written here once more, in mpmath's functions). What is claimed is checked twice:
the chain rule's entries against those values, and the verdict of ``verify``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from drawn import THOROUGH
from mpmath import mp
from networks import make_problem
from soak import ByProducts

from hesscli.cli.main import main
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.network import Loss, Problem
from hesscli.studies.checks import DEFAULT_RTOL, check_entries, check_form
from hesscli.studies.context import no_progress
from hesscli.studies.finitechecks import (
    check_finite_entries,
    check_finite_form,
    check_finite_products,
)
from hesscli.studies.judge import Check
from hesscli.studies.probes import check_probes
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import Verification, verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.errors import NumericalError
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import layout_of
from hesscli.witnesses.rounding.floor import RoundingFloor

Real = mpmath.mpf
LINEAR = Activation("linear")
CROSSENTROPY = "sparse_categorical_crossentropy"


def _below_zero(scale: float, alpha: float) -> Callable[[Real], Real]:
    return lambda z: scale * (z if z > 0 else alpha * mp.expm1(z))


SIGMA: dict[str, Callable[[Real], Real]] = {
    "linear": lambda z: z,
    "relu": lambda z: max(z, mp.mpf(0)),
    "elu": _below_zero(1.0, 1.0),
    "selu": _below_zero(1.0507009873554805, 1.6732632423543772),
    "gelu": lambda z: z * mp.ncdf(z),
    "gelu_tanh": lambda z: (
        z / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (z + mp.mpf(0.044715) * z**3)))
    ),
    "silu": lambda z: z / (1 + mp.exp(-z)),
    "mish": lambda z: z * mp.tanh(mp.log1p(mp.exp(z))),
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "tanh": mp.tanh,
    "softplus": lambda z: mp.log1p(mp.exp(z)),
    "softsign": lambda z: z / (1 + abs(z)),
    "exponential": mp.exp,
    "square": lambda z: z * z,
    "sin": mp.sin,
}


@cache
def _activated(name: str, z: Real, precision: int) -> Real:
    """σ(z): the same z comes back for each entry of one matrix."""
    return SIGMA[name](z)


def _loss(problem: Problem, f: list[Real], n: int) -> Real:
    target = problem.targets[n]
    if problem.loss.name == CROSSENTROPY:
        return mp.log(mp.fsum(mp.exp(value) for value in f)) - f[int(target)]
    if problem.loss.name == "mean_squared_error":
        return mp.fsum((value - t) ** 2 for value, t in zip(f, target, strict=True)) / len(f)
    assert problem.loss.name == "binary_crossentropy"
    each = (mp.log1p(mp.exp(v)) - mp.mpf(float(t)) * v for v, t in zip(f, target, strict=True))
    return mp.fsum(each) / len(f)


def _value(problem: Problem, parameters: list[Real]) -> Real:
    """The loss at these parameters, in the order of the network's block."""
    total = mp.mpf(0)
    for n in range(problem.examples):
        left = iter(parameters)
        a = [mp.mpf(float(x)) for x in problem.inputs[n]]
        for layer in problem.layers:
            W = [[next(left) for _ in range(layer.units)] for _ in range(layer.inputs)]
            b = [mp.mpf(0) if layer.bias is None else next(left) for _ in range(layer.units)]
            z = [
                mp.fsum(x * row[h] for x, row in zip(a, W, strict=True)) + b[h]
                for h in range(layer.units)
            ]
            a = [_activated(layer.activation.name, value, mp.prec) for value in z]
        total += _loss(problem, a, n)
    return total * mp.mpf(problem.loss.scale(problem.examples))


def expected(problem: Problem, i: int, j: int, digits: int = 60) -> float:
    """∂²L/∂θ_i ∂θ_j of the network's parameters, by mpmath's differentiation."""
    parts = [
        part.reshape(-1)
        for layer in problem.layers
        for part in (layer.kernel, layer.bias)
        if part is not None
    ]
    with mp.workdps(digits):
        at = [mp.mpf(float(value)) for value in np.concatenate(parts)]

        def moved(s: Real, t: Real = 0) -> Real:
            parameters = list(at)
            parameters[i] += s
            parameters[j] += t
            return _value(problem, parameters)

        if i == j:
            return float(mp.diff(moved, 0, 2))
        return float(mp.diff(moved, (0, 0), (1, 1)))


def scalar_network(
    weights: tuple[float, ...],
    activation: str,
    *,
    loss: str = "mean_squared_error",
    inputs: tuple[float, ...] = (0.7, -1.3),
    dtype: str = "float64",
) -> Problem:
    """One unit a layer, with biases of a third; the last layer is linear."""
    layers = tuple(
        Layer(
            f"dense{index + 1}",
            np.array([[weight]], dtype),
            np.array([1 / 3], dtype),
            Activation(activation if index < len(weights) - 1 else "linear"),
        )
        for index, weight in enumerate(weights)
    )
    targets = np.full((len(inputs), 1), 0.25, dtype)
    return Problem(chain(layers), np.array(inputs, dtype)[:, None], targets, Loss(loss))


def assert_right(problem: Problem, rtol: float, digits: int = 60, parameter: str = "") -> None:
    """Every entry of the network's block, each relative to itself."""
    H = ChainRule(problem).hessian("network")
    rows, size = H.rows(0, H.shape[0]), H.shape[0]
    products = H.matmat(np.eye(size, dtype=H.dtype))
    tiny = float(np.finfo(problem.dtype).tiny)
    for i in range(size):
        for j in range(i, size):
            right = expected(problem, i, j, digits)
            for found in (rows[i, j], rows[j, i], products[i, j]):
                names = H.layout.name_of(i), H.layout.name_of(j)
                assert found == pytest.approx(right, rel=rtol, abs=tiny), names


def in_float32(problem: Problem) -> Problem:
    layers = tuple(
        replace(
            layer,
            kernel=layer.kernel.astype(np.float32),
            bias=None if layer.bias is None else layer.bias.astype(np.float32),
        )
        for layer in problem.layers
    )
    return replace(problem, graph=chain(layers), inputs=problem.batch.astype(np.float32))


def verified(problem: Problem, **options: object) -> Verification:
    return verify([problem], CheckOptions(**options))  # type: ignore[arg-type]


def every_entry_agrees(problem: Problem) -> bool:
    """Autodiff's entries of the whole network's block against the chain rule's.

    They are its products with unit vectors, for which nothing is traced: tracing takes a second
    for each activation.
    """
    chain_rule = ChainRule(problem)
    (check,) = check_entries(
        ByProducts(Autodiff(problem).hessian("network")),
        [chain_rule.hessian("network")],
        RoundingFloor(chain_rule).entries("network"),
        DEFAULT_RTOL[problem.dtype.name],
        no_progress,
    )
    return check.passed


# Weights at the ends of float64.


@pytest.mark.parametrize("activation", ["tanh", "gelu", "softplus", "sin", "mish", "square"])
def test_weights_of_1e_minus_300_give_the_entries_that_float64_can_hold(activation: str) -> None:
    # Products of two such weights are below float64's range: their entries are 0, or σ″'s.
    for weights in ((1e-300, 0.5), (0.5, 1e-300)):
        problem = scalar_network(weights, activation)
        assert_right(problem, 1e-12, digits=700)
        assert verified(problem, block="network").passed


def test_weights_of_1e_plus_150_give_the_entries_that_float64_can_hold() -> None:
    # f = w₂ w₁ x: the entries are 2 w₂² x² = 2e-300 x², 2 w₁² x² = 2e300 x², and about 1.
    w1, w2, x = 1e150, 1e-150, 0.5
    problem = Problem(
        chain(
            (
                Layer("dense1", np.array([[w1]]), None, Activation("linear")),
                Layer("dense2", np.array([[w2]]), None, Activation("linear")),
            )
        ),
        np.array([[x]]),
        np.array([[0.25]]),
        Loss("mean_squared_error"),
    )
    H = ChainRule(problem).hessian("network")
    cross = 2 * w1 * w2 * x * x + 2 * (w1 * w2 * x - 0.25) * x
    right = np.array([[2 * (w2 * x) ** 2, cross], [cross, 2 * (w1 * x) ** 2]])
    np.testing.assert_allclose(H.rows(0, 2), right, rtol=1e-14)
    np.testing.assert_allclose(H.matmat(np.eye(2)), right, rtol=1e-14)
    assert verified(problem).passed


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softsign", "relu", "softplus", "gelu"])
def test_weights_of_1e_plus_150_pass_or_are_refused_in_a_line_that_names_the_layer(
    activation: str,
) -> None:
    problem = scalar_network((1e150, 0.5), activation)
    try:
        found = verified(problem)
    except NumericalError as error:
        assert "dense" in str(error)
        assert "\n" not in str(error)
        return
    assert found.verdict is not Verdict.FAIL
    for index, row in enumerate(found.results):
        size = row.size
        block = ChainRule(problem).hessian(f"{row.layer}/kernel").rows(0, size)
        right = expected(problem, 2 * index, 2 * index, digits=700)
        assert block[0, 0] == pytest.approx(right, rel=1e-12, abs=1e-300)
        assert row.check.compared == size * size


@pytest.mark.parametrize(
    ("weight", "activation", "line"),
    [
        (1e200, "square", "dense1: the chain rule's forward pass (square) leaves the range"),
        (
            1e4,
            "exponential",
            "dense1: the chain rule's forward pass (exponential) leaves the range",
        ),
    ],
)
def test_overflow_is_one_line_that_says_what_and_where(
    weight: float,
    activation: str,
    line: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "huge.yaml"
    path.write_text(
        f"model: {{inputs: 1, layers: [{{units: 1, activation: {activation}, kernel: [[{weight!r}]]"
        "}, {units: 2}]}\ndata: {inputs: [[1.0]], targets: [0]}\n",
        encoding="utf-8",
    )
    with pytest.raises(SystemExit) as exit_:
        main(["verify", "--config", str(path)])
    out, err = capfd.readouterr()
    assert exit_.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert line in err


EXPONENTS = (-300, -160, -40, -20, 20, 40, 100, 150, 154, 200, 300)
HUGE_OR_TINY = [
    (activation, exponent, dtype)
    for i, activation in enumerate(("linear", "relu", "tanh", "square", "gelu", "softsign"))
    for j, exponent in enumerate(EXPONENTS)
    for k, dtype in enumerate(("float64", "float32"))
    # Every activation at every size, in types that take turns; all of both in the thorough run.
    if THOROUGH or (i + j + k) % 2 == 0
]


@pytest.mark.parametrize(("activation", "exponent", "dtype"), HUGE_OR_TINY)
def test_any_size_of_the_weights_is_answered_or_refused_without_a_warning(
    activation: str, exponent: int, dtype: str
) -> None:
    # The tests run with warnings as errors: what NumPy would warn of is a failure here.
    factor = np.dtype(dtype).type(10.0) ** min(exponent, 37 if dtype == "float32" else 300)
    problem = make_problem((3, 3, 2), activation, dtype=dtype)
    layers = tuple(
        Layer(layer.name, layer.kernel * factor, layer.bias, layer.activation)
        for layer in problem.layers[:1]
    )
    problem = Problem(chain((*layers, problem.layers[1])), problem.inputs, problem.targets)
    for block in ("kernel", "input"):
        # The probes come with the form; where they are refused, the form may still be answered.
        for method in ("probes", "form"):
            try:
                found = verified(problem, method=method, block=block)
            except NumericalError as error:
                assert "\n" not in str(error)
                continue
            assert found.verdict is not Verdict.FAIL
            for row in found.results:
                for check in (row.check, row.form_check):
                    numbers = check.max_abs_residual, check.max_abs_entry, check.floor
                    assert all(math.isfinite(number) for number in numbers)
            break


# Saturation, logits, zeros, ones, depth.


@pytest.mark.parametrize("weight", [40.0, -40.0, 300.0, -300.0])
@pytest.mark.parametrize(
    "activation",
    ["tanh", "sigmoid", "softplus", "silu", "mish", "gelu", "gelu_tanh", "elu", "selu"],
)
def test_saturated_units_keep_their_digits(activation: str, weight: float) -> None:
    # σ′ and σ″ down to 1e-300, each to its own digits: none is a difference of two large numbers.
    problem = scalar_network((weight, 0.5), activation, inputs=(1.0,))
    assert_right(problem, 1e-11, digits=400)
    assert verified(problem, block="network").verdict is not Verdict.FAIL


@pytest.mark.parametrize("logit", [30.0, 300.0, 1e4])
def test_far_logits_give_the_softmax_hessian_that_float64_can_hold(logit: float) -> None:
    problem = Problem(
        chain(
            (Layer("dense1", np.array([[0.3, -0.2, 0.1]]), np.array([logit, 0.0, -logit]), LINEAR),)
        ),
        np.array([[0.8], [-0.4]]),
        np.array([2, 0]),
    )
    # 1 − p needs as many digits as the logits are apart, and more.
    assert_right(problem, 1e-12, digits=300)
    assert verified(problem).verdict is not Verdict.FAIL
    assert verified(in_float32(problem)).verdict is not Verdict.FAIL


def test_equal_logits_give_the_uniform_softmax() -> None:
    # p = 1/c: S = I/c − 11ᵀ/c², exactly the same for every example.
    x, c = np.array([[1.0, -2.0], [0.5, 3.0]]), 4
    problem = Problem(
        chain((Layer("dense1", np.zeros((2, c)), None, LINEAR),)), x, np.array([0, 3])
    )
    S = np.eye(c) / c - np.full((c, c), 1 / c**2)
    right = np.einsum("ni,nj,hl->ihjl", x, x, S).reshape(2 * c, 2 * c) / 2
    np.testing.assert_allclose(ChainRule(problem).hessian("dense1/kernel").rows(0, 8), right)
    assert verified(problem).passed


def test_one_class_has_no_second_derivative() -> None:
    # softmax of one logit is 1: the loss is 0 whatever the parameters are.
    problem = make_problem((3, 2, 1), "tanh")
    for name in ("network", "input[0]"):
        block = ChainRule(problem).hessian(name)
        assert not block.rows(0, block.shape[0]).any()
    found = verified(problem, block="network")
    assert found.passed
    assert found.results[0].check.compared == layout_of(problem, "network").size ** 2
    assert found.results[0].check.max_abs_entry == 0


@pytest.mark.parametrize("activation", [name for name in SIGMA if name != "relu"])
def test_one_unit_and_one_example(activation: str) -> None:
    problem = scalar_network((0.8, -0.6), activation, inputs=(1.1,), loss="binary_crossentropy")
    assert_right(problem, 1e-12)
    assert every_entry_agrees(problem)


def test_zero_inputs_leave_the_biases_alone() -> None:
    problem = scalar_network((0.8, -0.6), "tanh", inputs=(0.0, 0.0))
    assert_right(problem, 1e-12)
    kernel = ChainRule(problem).hessian("dense1/kernel").rows(0, 1)
    assert kernel[0, 0] == 0
    bias = ChainRule(problem).hessian("dense1/bias").rows(0, 1)
    assert bias[0, 0] != 0
    for block in ("kernel", "bias", "layer", "input", "network"):
        assert verified(problem, block=block).passed


@pytest.mark.parametrize("activation", ["tanh", "sin", "softplus", "relu"])
def test_twenty_layers(activation: str) -> None:
    weights = tuple(0.9 + 0.02 * index for index in range(20))
    problem = scalar_network(weights, activation, inputs=(0.4,))
    H = ChainRule(problem).hessian("network")
    rows = H.rows(0, 40)
    for i, j in [(0, 0), (0, 1), (0, 38), (1, 20), (17, 30), (39, 39)]:
        assert rows[i, j] == pytest.approx(expected(problem, i, j), rel=1e-11)
    v = np.linspace(-1, 1, 40)
    assert H.quadratic_form(v) == pytest.approx(v @ rows @ v, rel=1e-11)
    assert Autodiff(problem).hessian("network").quadratic_form(v) == pytest.approx(
        v @ rows @ v, rel=1e-10
    )
    assert verified(problem, method="form").passed


# σ′ at the corner, as TensorFlow has it: that of the side that 0 is counted to.
AT_CORNER = {"relu": 0.0, "leaky_relu": 0.2, "elu": 1.0, "selu": 1.0507009873554805}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", AT_CORNER)
def test_at_an_exact_kink_the_answer_is_tensorflows_and_finite_differences_say_nothing(
    activation: str, dtype: str
) -> None:
    # z = 1 · x − x = 0:  H = 2 (w₂ σ′ x)² + 2 (f − t) w₂ σ″ x²,  with σ″ = 0 at the corner.
    x, w2, t = 1.5, 0.5, 0.25
    problem = Problem(
        chain(
            (
                Layer(
                    "dense1",
                    np.array([[1.0]], dtype),
                    np.array([-x], dtype),
                    Activation(activation),
                ),
                Layer("dense2", np.array([[w2]], dtype), None, LINEAR),
            )
        ),
        np.array([[x]], dtype),
        np.array([[t]], dtype),
        Loss("mean_squared_error"),
    )
    rtol = 1e-14 if dtype == "float64" else 1e-6
    right = 2 * (w2 * AT_CORNER[activation] * x) ** 2
    for engine in (ChainRule(problem), Autodiff(problem)):
        assert engine.hessian("dense1/kernel").rows(0, 1)[0, 0] == pytest.approx(right, rel=rtol)
    assert verified(problem).passed
    with_finite = verify(
        [problem],
        CheckOptions(layers=("dense1",)),
        witnesses=("chain_rule", "autodiff", "finite"),
    )
    (row,) = with_finite.results
    assert not row.passed
    assert row.verdict is Verdict.UNDECIDED
    assert row.finite_pair is not None
    assert row.finite_pair.check.compared == 0


# What is not a number, and what was not compared.


class Given(HessianBlock):
    """A block that is a given matrix."""

    def __init__(self, matrix: Array) -> None:
        problem = make_problem((2, 2), "linear")
        super().__init__("dense1/kernel", layout_of(problem, "dense1/kernel"), matrix.dtype)
        self._matrix = matrix

    def _matmat(self, V: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return self._matrix @ V

    def rows(self, start: int, stop: int) -> Array:
        return self._matrix[start:stop]


class GivenWithError(Given):
    """A given matrix as finite differences give it, with error bars of a given size."""

    def __init__(self, matrix: Array, error: float) -> None:
        super().__init__(matrix)
        self._error = error

    def rows_with_error(self, start: int, stop: int) -> tuple[Array, Array]:
        rows = self.rows(start, stop)
        return rows, np.full_like(rows, self._error)

    def product_with_error(self, V: Array) -> tuple[Array, Array]:
        product = self._matmat(V)
        return product, np.full_like(product, self._error)


def _by_entries(one: Array, other: Array) -> Check:
    floor = np.zeros((2, 2))
    (check,) = check_entries(Given(one), [Given(other)], floor, 1e-10, no_progress)
    return check


def test_a_failure_names_an_entry_that_rounding_does_not_explain() -> None:
    """The largest residual, 5, is within its floor of 10; of the entries beyond theirs 2 is."""
    layout = Given(np.eye(4)).layout
    inside, beyond, also = (0, 0), (2, 3), (3, 2)
    assert [layout.groups_of(i, i + 1)[0] for i in (*inside, *beyond)] == [0, 0, 0, 1]
    other = np.eye(4)
    other[inside] += 5
    other[beyond], other[also] = 1.0, 2.0
    floor = np.array([[10.0, 0.5], [0.25, 0.5]])
    (check,) = check_entries(Given(np.eye(4)), [Given(other)], floor, 1e-10, no_progress)
    assert not check.passed
    assert check.worst == (layout.name_of(3), layout.name_of(2))
    assert (check.max_abs_residual, check.floor) == (2.0, 0.25)


def test_a_failure_against_finite_differences_names_the_entry_that_is_beyond_by_most() -> None:
    """The residual 5 is beyond its floor of 4.9 by 0.1, the residual 2 by all of it."""
    layout = Given(np.eye(4)).layout
    other = np.eye(4)
    other[0, 0] += 5
    other[3, 2] = 2.0
    finite: Any = GivenWithError(other, 1e-12)
    floor = np.array([[4.9, 0.0], [0.0, 0.0]])
    check = check_finite_entries(Given(np.eye(4)), finite, floor, 1e-10, no_progress)
    assert check.failed
    assert check.worst == (layout.name_of(3), layout.name_of(2))
    assert (check.max_abs_residual, check.floor) == (2.0, 0.0)


def test_tolerances_beyond_the_range_overflow_in_silence() -> None:
    """A bar or a floor of 1e308 and a tenth of an entry of 1e308 (seed 14990): all is allowed."""
    one, other = np.eye(4), 2 * np.eye(4)
    for matrix in (one, other):
        matrix[0, 0] = 1.5e308
    wide, nothing = np.full((2, 2), 1.7e308), np.zeros((2, 2))
    (check,) = check_entries(Given(one), [Given(other)], wide, 0.5, no_progress)
    assert check.passed
    assert check.limited_by_rounding is False
    finite: Any = GivenWithError(other, 1.7e308)
    check = check_finite_entries(Given(one), finite, nothing, 0.5, no_progress)
    assert check.verdict is Verdict.UNDECIDED
    check = check_finite_form("dense1", 1.5e308, (-1e308, 1.7e308), 1e308, float, 0.5)
    assert check.verdict is Verdict.UNDECIDED
    small: Any = GivenWithError(np.eye(4), 0.0)
    assert check_finite_products(Given(np.eye(4)), small, wide, 0.5, no_progress).passed


def _by_probes(one: Array, other: Array) -> Check:
    (check,) = check_probes(Given(one), [Given(other)], lambda _: 0.0, 1e-10, 8, no_progress)
    return check


def _by_form(one: Array, other: Array) -> Check:
    v = np.ones(4)
    forms = [Given(matrix).quadratic_form(v) for matrix in (one, other)]
    return check_form("dense1/kernel", forms[0] - forms[1], abs(forms[0]), float, 1e-10)


def _by_finite_entries(one: Array, other: Array) -> Check:
    finite: Any = GivenWithError(other, 1e-12)
    return check_finite_entries(Given(one), finite, np.zeros((2, 2)), 1e-10, no_progress)


def _by_finite_products(one: Array, other: Array) -> Check:
    finite: Any = GivenWithError(other, 1e-12)
    return check_finite_products(Given(one), finite, np.zeros((2, 2)), 1e-10, no_progress)


def _by_finite_form(one: Array, other: Array) -> Check:
    v = np.ones(4)
    forms = [Given(matrix).quadratic_form(v) for matrix in (one, other)]
    found = forms[1], 1e-12
    return check_finite_form("dense1/kernel", forms[0], found, abs(forms[0]), float, 1e-10)


CHECKS: dict[str, Callable[[Array, Array], Check]] = {
    "entries": _by_entries,
    "probes": _by_probes,
    "form": _by_form,
    "finite entries": _by_finite_entries,
    "finite products": _by_finite_products,
    "finite form": _by_finite_form,
}
RIGHT = np.array(
    [[2.0, 1.0, 0.5, 0.0], [1.0, 3.0, 0.0, 0.1], [0.5, 0.0, 1.0, 0.0], [0.0, 0.1, 0.0, 4.0]]
)


@pytest.mark.parametrize("check", CHECKS)
def test_a_right_number_passes_every_check(check: str) -> None:
    assert CHECKS[check](RIGHT, RIGHT).passed


@pytest.mark.parametrize("where", ["reference", "candidate", "both"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("check", CHECKS)
def test_what_is_not_a_number_never_passes(check: str, bad: float, where: str) -> None:
    wrong = RIGHT.copy()
    wrong[1, 2] = wrong[2, 1] = bad
    pair = {
        "reference": (wrong, RIGHT),
        "candidate": (RIGHT, wrong),
        "both": (wrong, wrong),
    }[where]
    try:
        found = CHECKS[check](*pair)
    except NumericalError as error:
        assert "not finite" in str(error)
        assert "\n" not in str(error)
        return
    assert not found.passed


@pytest.mark.parametrize("check", ["form", "entries", "probes"])
def test_numbers_whose_squares_leave_the_range_are_compared_all_the_same(check: str) -> None:
    # 1e200² overflows and 1e-200² vanishes: neither may make a PASS of a difference of a tenth.
    for size in (1e-200, 1e-300, 1e200):
        right = size * RIGHT
        assert CHECKS[check](right, right).passed
        found = CHECKS[check](right, 1.1 * right)
        assert not found.passed
        # The probes' numbers are bounds, a few times apart at 8 of them.
        assert 0.03 < found.relative_residual < 1


def test_a_pass_counts_what_was_compared() -> None:
    problem = make_problem((3, 4, 2), "tanh")
    for row in verified(problem, method="entries").results:
        assert row.check.compared == row.size**2
    for row in verified(problem, method="probes", probes=7).results:
        assert row.check.compared == 7
    for row in verified(problem, method="form").results:
        assert row.check.compared == 1
    (row,) = verified(problem, block="input").results
    assert row.check.compared == problem.examples * row.size**2


@pytest.mark.parametrize("check", ["finite entries", "finite products", "finite form"])
def test_where_finite_differences_tell_nothing_there_is_no_pass(check: str) -> None:
    v = np.ones(4)
    finite: Any = GivenWithError(RIGHT, math.inf)
    form = float(v @ RIGHT @ v)
    found = {
        "finite entries": lambda: check_finite_entries(
            Given(RIGHT), finite, np.zeros((2, 2)), 1e-10, no_progress
        ),
        "finite products": lambda: check_finite_products(
            Given(RIGHT), finite, np.zeros((2, 2)), 1e-10, no_progress
        ),
        "finite form": lambda: check_finite_form("H", form, (form, math.inf), form, float, 1e-10),
    }[check]()
    assert found.compared == 0
    assert not found.passed
    assert found.verdict is Verdict.UNDECIDED
