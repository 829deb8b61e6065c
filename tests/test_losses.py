"""Losses: value, gradient and Hessian are those of mpmath, also where the softmax is saturated.

Expected values are ℓ = log Σ exp f − f_y, p − e_y and diag(p) − p pᵀ at 60 digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mpmath import mp
from networks import make_problem

from hesscli import problem_from_config, verify
from hesscli.nodes.losses import LossDerivatives, loss_derivatives
from hesscli.problem.graph import Array
from hesscli.problem.names import FOCAL, LOSSES, WITNESSES
from hesscli.problem.network import Loss, Targets
from hesscli.system.errors import InputError

TYPES = (np.float64, np.float32)
Type = type[np.float64] | type[np.float32]


def crossentropy() -> LossDerivatives:
    return loss_derivatives(Loss())


MODERATE = np.random.default_rng(0).normal(0, 3, (8, 5))
LOGITS: dict[str, list[list[float]]] = {
    "moderate": MODERATE.tolist(),
    "huge": [[1e4, -1e4, 0], [-1e4, -1e4, 1e4], [1e4, 1e4, -1e4], [1e4, 9998, 9999]],
    "equal": [[0, 0, 0, 0], [1e4, 1e4, 1e4, 1e4], [-7, -7, -7, -7]],
    "nearly certain": [[50, 0, 0], [0, 30, -30], [-3, -1, 17]],
    "one class": [[3], [0], [-1e4]],
}


def inputs(case: str, dtype: Type) -> tuple[Array, Targets]:
    f: Array = np.array(LOGITS[case], dtype=dtype)
    return f, np.arange(len(f)) % f.shape[1]


def exact(f: Array, targets: Targets) -> tuple[Array, Array, Array, Array]:
    """ℓ, ∂ℓ/∂f, ∂²ℓ/∂f² and p by 60 digits, rounded to float64 at the end."""
    classes = range(f.shape[1])
    values, gradients, probabilities = np.empty(len(f)), np.empty(f.shape), np.empty(f.shape)
    hessians = np.empty((*f.shape, len(classes)))
    with mp.workdps(60):
        for n, y in enumerate(targets.tolist()):
            terms = [mp.exp(mp.mpf(x)) for x in f[n].tolist()]
            total = mp.fsum(terms)
            p = [term / total for term in terms]
            values[n] = mp.log(total) - float(f[n, y])
            for h in classes:
                probabilities[n, h] = p[h]
                # 60 digits leave more than float64's of 1 − p, which is above 1e-22 or 1e-4342.
                gradients[n, h] = p[h] - (h == y)
                for j in classes:
                    hessians[n, h, j] = p[h] * ((h == j) - p[j])
    return values, gradients, hessians, probabilities


def softmax_rounding(f: Array) -> Array:
    """The relative error of each p_h, from rounding f_h − max f before the exponential."""
    spread = np.abs(f - f.max(axis=1, keepdims=True)).astype(np.float64)
    return np.asarray(np.finfo(f.dtype).eps * (4 + spread))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", LOGITS)
def test_value_is_right_to_the_rounding_of_the_logits(case: str, dtype: Type) -> None:
    f, targets = inputs(case, dtype)
    value = crossentropy().value(f, targets)
    assert value.dtype == dtype
    assert value.shape == targets.shape
    allowed = 4 * np.finfo(dtype).eps * (1 + np.abs(f).max(axis=1).astype(np.float64))
    assert (np.abs(value - exact(f, targets)[0]) <= allowed).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", LOGITS)
def test_gradient_is_right_and_sums_to_zero(case: str, dtype: Type) -> None:
    f, targets = inputs(case, dtype)
    gradient = crossentropy().gradient(f, targets)
    assert gradient.dtype == dtype
    assert gradient.shape == f.shape
    _, expected, _, p = exact(f, targets)
    limits = np.finfo(dtype)
    # Relative to each entry, so also to p_y − 1 where p_y is nearly 1.
    others = p.copy()
    others[np.arange(len(f)), targets] = 0
    others[np.arange(len(f)), targets] = others.sum(axis=1)
    allowed = softmax_rounding(f) * others + limits.tiny
    assert (np.abs(gradient - expected) <= allowed).all()
    assert (np.abs(gradient.sum(axis=1)) <= 2 * f.shape[1] * limits.eps).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", LOGITS)
def test_hessian_keeps_the_digits_of_every_entry(case: str, dtype: Type) -> None:
    """Relative to each entry, so also of p_h (1 − p_h) where p_h is nearly 1."""
    f, targets = inputs(case, dtype)
    hessian = crossentropy().hessian(f, targets)
    assert hessian.dtype == dtype
    assert hessian.shape == (*f.shape, f.shape[1])
    expected = exact(f, targets)[2]
    # Each entry is of two probabilities, a diagonal one of all.
    relative = 2 * softmax_rounding(f).max(axis=1)[:, None, None]
    assert (np.abs(hessian - expected) <= relative * np.abs(expected) + np.finfo(dtype).tiny).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", LOGITS)
def test_hessian_is_symmetric_and_its_rows_sum_to_zero(case: str, dtype: Type) -> None:
    f, targets = inputs(case, dtype)
    hessian = crossentropy().hessian(f, targets)
    np.testing.assert_array_equal(hessian, hessian.transpose(0, 2, 1))
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    # To the rounding of the row's own sum, however small that is.
    allowed = f.shape[1] * np.finfo(dtype).eps * np.abs(diagonal)
    assert (np.abs(hessian.sum(axis=2)) <= allowed).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_a_nearly_certain_class_keeps_its_curvature(dtype: Type) -> None:
    """For logits (50, 0, 0): p_0 (1 − p_0) = 2e⁻⁵⁰ / (1 + 2e⁻⁵⁰)², where 1 − p_0 rounds to 0."""
    f: Array = np.array([[50.0, 0.0, 0.0]], dtype=dtype)
    hessian = crossentropy().hessian(f, np.array([0]))
    others = 2 * float(mp.exp(-50))
    rtol = 60 * float(np.finfo(dtype).eps)
    assert hessian[0, 0, 0] == pytest.approx(others / (1 + others) ** 2, rel=rtol)
    assert hessian[0, 0, 1] == pytest.approx(-others / 2 / (1 + others) ** 2, rel=rtol)


def test_the_target_does_not_change_the_hessian() -> None:
    first, second = (crossentropy().hessian(MODERATE, np.full(8, y)) for y in (0, 3))
    np.testing.assert_array_equal(first, second)


def test_the_logits_are_left_as_they_were() -> None:
    f, targets = inputs("moderate", np.float64)
    f.setflags(write=False)
    for function in (crossentropy().value, crossentropy().gradient, crossentropy().hessian):
        function(f, targets)
    np.testing.assert_array_equal(f, MODERATE)


def test_an_unknown_name_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match=f"'hinge'; choose {', '.join(LOSSES)}$"):
        loss_derivatives(Loss(name="hinge"))


def _each(name: str) -> Callable[[Any, Any], Any]:
    """A loss of one output f and one target t, in mpmath; δ of Huber's is 1/2."""
    half, eps = mp.mpf("0.5"), mp.mpf(1e-7)

    def huber(f: Any, t: Any) -> Any:
        size = abs(f - t)
        return size**2 / 2 if size <= half else half * size - half**2 / 2

    return {
        "mean_squared_error": lambda f, t: (f - t) ** 2,
        "mean_absolute_error": lambda f, t: abs(f - t),
        "huber": huber,
        "log_cosh": lambda f, t: mp.log(mp.cosh(f - t)),
        "kl_divergence": lambda f, t: t * mp.log(t / f),
        "poisson": lambda f, t: f - t * mp.log(f + eps),
    }[name]


@pytest.mark.parametrize(
    "name",
    ["mean_squared_error", "mean_absolute_error", "huber", "log_cosh", "kl_divergence", "poisson"],
)
def test_losses_of_numbers_are_those_of_mpmath(name: str) -> None:
    """Value, first and second derivative of each output on its own, by differences of 60 digits."""
    loss = loss_derivatives(Loss(name, delta=0.5 if name == "huber" else 1.0))
    generator = np.random.default_rng(0)
    f, t = generator.uniform(0.05, 0.95, (2, 40, 3))
    share = 1 if name == "kl_divergence" else f.shape[1]
    of = _each(name)
    with mp.workdps(60):
        at = [
            [
                [mp.diff(lambda z, y=y: of(z, mp.mpf(y)), mp.mpf(x), order) for order in range(3)]
                for x, y in zip(*row, strict=True)
            ]
            for row in zip(f.tolist(), t.tolist(), strict=True)
        ]
        expected = np.array(at, dtype=np.float64) / share
    np.testing.assert_allclose(loss.value(f, t), expected[..., 0].sum(axis=1), rtol=1e-13)
    np.testing.assert_allclose(loss.gradient(f, t), expected[..., 1], rtol=1e-12, atol=1e-15)
    diagonal = loss.hessian(f, t)[:, np.arange(3), np.arange(3)]
    np.testing.assert_allclose(diagonal, expected[..., 2], rtol=1e-12, atol=1e-15)
    assert np.count_nonzero(loss.hessian(f, t)) == np.count_nonzero(diagonal)
    v = generator.standard_normal((40, 2, 3))
    product = loss.hessian_product(f, t)(slice(None), v)
    np.testing.assert_allclose(product, diagonal[:, None] * v, rtol=1e-14)


def test_beyond_its_limits_the_divergence_is_flat() -> None:
    """As TensorFlow's clip_by_value: probabilities are limited to 1e-7 … 1."""
    loss = loss_derivatives(Loss("kl_divergence"))
    f, t = np.array([[1e-9, 2.0, 0.5]]), np.array([[0.2, 0.3, 0.5]])
    assert loss.gradient(f, t).tolist() == [[0, 0, -1]]
    assert loss.hessian(f, t)[0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 2]]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_the_focal_loss_is_that_of_mpmath(gamma: float) -> None:
    """Of its definition at 60 digits, differenced: value, gradient and products, also saturated."""
    loss = loss_derivatives(Loss(FOCAL, alpha=0.4, gamma=gamma))
    generator = np.random.default_rng(0)
    f, t = generator.normal(0, 4, (6, 3)), generator.dirichlet(np.ones(3), 6)
    V = generator.standard_normal((6, 2, 3))
    products = loss.hessian_product(f, t)(slice(None), V)
    with mp.workdps(60):
        h = mp.mpf(10) ** -20

        def of(n: int, x: list[Any]) -> Any:
            total = mp.fsum(map(mp.exp, x))
            each = zip(t[n].tolist(), (mp.exp(z) / total for z in x), strict=True)
            factor = mp.mpf(0.4)
            return mp.fsum(-factor * mp.mpf(y) * (1 - p) ** gamma * mp.log(p) for y, p in each)

        def mixed(n: int, u: list[float], w: list[float]) -> float:
            x = [mp.mpf(z) for z in f[n].tolist()]
            points = [
                of(n, [z + a * h * d + b * h * e for z, d, e in zip(x, u, w, strict=True)])
                for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))
            ]
            return float((points[0] - points[1] - points[2] + points[3]) / (4 * h * h))

        units = np.eye(3).tolist()
        for n in range(6):
            x = [mp.mpf(z) for z in f[n].tolist()]
            assert loss.value(f, t)[n] == pytest.approx(float(of(n, x)), rel=1e-13)
            slopes = [
                (
                    of(n, [z + h * e for z, e in zip(x, unit, strict=True)])
                    - of(n, [z - h * e for z, e in zip(x, unit, strict=True)])
                )
                / (2 * h)
                for unit in units
            ]
            np.testing.assert_allclose(
                loss.gradient(f, t)[n], np.array(slopes, dtype=np.float64), rtol=1e-11, atol=1e-14
            )
            for k in range(2):
                expected = [mixed(n, V[n, k].tolist(), unit) for unit in units]
                np.testing.assert_allclose(products[n, k], expected, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(
        loss.hessian(f, t), loss.hessian(f, t).swapaxes(1, 2), rtol=0, atol=1e-15
    )


def test_beyond_its_limits_the_focal_loss_is_flat() -> None:
    """As Keras clips: a probability below 1e-7, or above 1 less that, has no slope."""
    loss = loss_derivatives(Loss(FOCAL))
    f, t = np.array([[20.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    for target in t[:, None]:
        assert not loss.gradient(f, target).any() and not loss.hessian(f, target).any()


def test_every_witness_has_the_focal_loss() -> None:
    generator = np.random.default_rng(2)
    problem = make_problem((3, 4, 3), "tanh")
    targets = generator.dirichlet(np.ones(3), problem.examples)
    for gamma in (0.0, 1.0, 2.0, 2.5):
        loss = Loss(FOCAL, alpha=0.5, gamma=gamma)
        focal = replace(problem, targets=targets, loss=loss)
        assert verify(focal, block="network", witnesses=WITNESSES).passed


def test_poisson_of_a_negative_output_is_refused_by_name() -> None:
    layers = [{"units": 1, "kernel": [[0.0]], "bias": [-1.0]}]
    batch = {"data.inputs": [[1.0]], "data.targets": [[2.0]]}
    settings = {"model.inputs": 1, "model.layers": layers, "loss.name": "poisson", **batch}
    problem = problem_from_config(settings=settings)
    with pytest.raises(InputError, match=r"poisson: the output -1 of example 0") as caught:
        verify(problem)
    assert "\n" not in str(caught.value)
