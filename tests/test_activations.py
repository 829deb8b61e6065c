"""Activations: σ, σ′, σ″ are right to the last digits, and mean what Keras and TensorFlow mean.

Expected values come from mpmath at high precision (the definition of each σ, differentiated by
mpmath), from TensorFlow's own functions under nested tapes, and from Keras's own functions.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from mpmath import mp

from hesscli.nodes.activations import Elementwise, derivatives
from hesscli.problem.graph import Activation, Array
from hesscli.problem.names import ACTIVATION_ALIASES, ACTIVATIONS
from hesscli.problem.registry import parameter_defaults
from hesscli.system.errors import InputError
from hesscli.system.tensorflow import load_tensorflow
from hesscli.witnesses.autodiff.functions import activation_functions

tf = load_tensorflow()
keras = pytest.importorskip("keras")

TYPES = (np.float64, np.float32)
Type = type[np.float64] | type[np.float32]
Number = Any  # mpmath's, which has no types


def functions_of(activation: Activation) -> tuple[Elementwise, Elementwise, Elementwise]:
    sigma = derivatives(activation)
    return sigma.value, sigma.first, sigma.second


def logistic(z: Number) -> Number:
    return 1 / (1 + mp.exp(-z))


DEFINITIONS: Mapping[str, Callable[[Number], Number]] = {
    "linear": lambda z: z,
    "relu": lambda z: max(z, mp.zero),
    "leaky_relu": lambda z: z if z > 0 else mp.mpf(0.2) * z,
    "elu": lambda z: z if z > 0 else mp.expm1(z),
    # Klambauer et al. 2017, equation 2 and appendix A1: the two constants.
    "selu": lambda z: (
        mp.mpf("1.0507009873554804934193349852946")
        * (z if z > 0 else mp.mpf("1.6732632423543772848170429916717") * mp.expm1(z))
    ),
    "gelu": lambda z: z * mp.ncdf(z),
    "gelu_tanh": lambda z: (
        z / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (z + mp.mpf("0.044715") * z**3)))
    ),
    "silu": lambda z: z * logistic(z),
    "mish": lambda z: z * mp.tanh(mp.log1p(mp.exp(z))),
    "sigmoid": logistic,
    "tanh": mp.tanh,
    "softplus": lambda z: mp.log1p(mp.exp(z)),
    "softsign": lambda z: z / (1 + abs(z)),
    "exponential": mp.exp,
    "square": lambda z: z * z,
    "sin": mp.sin,
    "relu6": lambda z: min(max(z, mp.zero), mp.mpf(6)),
    "hard_sigmoid": lambda z: min(max(z / 6 + mp.mpf(1) / 2, mp.zero), mp.one),
}


def differentiated(name: str, z: Number) -> list[Number]:
    """σ, σ′, σ″, σ‴ at z, by mpmath's numerical differentiation of the definition."""
    if name == "gelu":
        # mpmath's Φ is slow at the digits that differentiating it takes; its density is not.
        # (zΦ)^(k) = zΦ^(k) + kΦ^(k−1)
        phi = [mp.ncdf(z), *mp.diffs(mp.npdf, z, 2)]
        return [z * phi[0], *(z * phi[k] + k * phi[k - 1] for k in (1, 2, 3))]
    return list(mp.diffs(DEFINITIONS[name], z, 3))


def points(dtype: Type) -> Array:
    generator = np.random.default_rng(0)
    far, near = generator.uniform(-30, 30, 16), generator.uniform(-3, 3, 16)
    # Where eᶻ − 1 and its like lose digits.
    tiny = 10 ** generator.uniform(-12, -1, 4)
    return np.concatenate([far, near, tiny, -tiny]).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_derivative_has_the_digits_that_its_argument_allows(name: str, dtype: Type) -> None:
    """The error is at most 8 eps of the value, or of what rounding z itself does to it.

    That is |z σ^(k+1)(z)| eps: near a root of σ″ no formula in z can be better. Below the
    smallest normal number digits end, so one such number is always allowed (or mpmath's last).
    """
    z, eps, tiny = points(dtype), float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
    computed = [function(z) for function in functions_of(Activation(name))]
    assert [values.dtype for values in computed] == [z.dtype] * 3
    for n, at in enumerate(z.tolist()):
        # Far out, σ″ down to 1e-292 is a difference of numbers near 1.
        with mp.workdps(340 if dtype is np.float64 and abs(at) > 3 else 80):
            exact = differentiated(name, mp.mpf(at))
            for k, values in enumerate(computed):
                scale = max(abs(exact[k]), abs(at * exact[k + 1]))
                error = abs(mp.mpf(float(values[n])) - exact[k])
                assert error <= 8 * eps * scale + max(tiny, mp.mpf(10) ** -mp.dps), (k, at)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_argument_up_to_1e4_warns_or_gives_nan(name: str, dtype: Type) -> None:
    sizes = np.concatenate([[0.0], np.logspace(-45, 4, 400), np.linspace(1, 1e4, 400)])
    z: Array = np.concatenate([sizes, -sizes]).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for function in functions_of(Activation(name)):
            values = function(z)
            assert not np.isnan(values).any()
            assert np.isfinite(values).all() or name == "exponential"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "name", [name for name in ACTIVATIONS if name not in ("exponential", "square")]
)
def test_arguments_at_the_end_of_the_range_have_their_limits(name: str, dtype: Type) -> None:
    """Far out each is constant, a line, or sin; z³ and z² inside of them must not overflow."""
    far = np.logspace(6, np.log10(np.finfo(dtype).max) - 0.5, 200)
    z: Array = np.concatenate([far, -far]).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, slope, bend = (function(z) for function in functions_of(Activation(name)))
    if name == "sin":
        assert (np.abs([value, slope, bend]) <= 1).all()
        return
    right, left = slope[:200], slope[200:]
    np.testing.assert_allclose(right, right[-1], atol=1e-9)
    np.testing.assert_allclose(left, left[-1], atol=1e-9)
    np.testing.assert_allclose(value / np.abs(z), np.sign(z) * slope, atol=2e-5)
    np.testing.assert_allclose(bend, 0, atol=1e-14)


def nested(function: Callable[[Any], Any], z: Array) -> tuple[Array, Array, Array]:
    """σ, σ′, σ″ of a TensorFlow function by nested tapes."""
    x = tf.constant(z)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = function(x)
        slope = inner.gradient(y, x)
    bend = outer.gradient(slope, x, unconnected_gradients="zero")
    return y.numpy(), slope.numpy(), bend.numpy()


ELU_HALF = Activation("elu", (("alpha", 0.5),))
LEAKY = Activation("leaky_relu", (("negative_slope", 0.25),))
# For each: TensorFlow's (or Keras's) own function and how many of σ, σ′, σ″ it can give.
KINKS: Mapping[Activation, tuple[Callable[[Any], Any], int]] = {
    Activation("relu"): (tf.nn.relu, 3),
    LEAKY: (partial(tf.nn.leaky_relu, alpha=0.25), 3),
    Activation("elu"): (tf.nn.elu, 3),
    ELU_HALF: (partial(keras.activations.elu, alpha=0.5), 3),
    Activation("selu"): (tf.nn.selu, 3),
    Activation("softsign"): (tf.nn.softsign, 2),  # TensorFlow has no σ″ for its own
    Activation("relu6"): (tf.nn.relu6, 3),
    Activation("hard_sigmoid"): (keras.activations.hard_sigmoid, 3),
}
# Where there are others than 0.
KINKED_AT = {"relu6": (0.0, 6.0), "hard_sigmoid": (-3.0, 3.0)}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("activation", KINKS, ids=str)
def test_at_the_kink_both_witnesses_follow_tensorflow(activation: Activation, dtype: Type) -> None:
    native, orders = KINKS[activation]
    z: Array = np.array(KINKED_AT.get(activation.name, (0.0, -0.0)), dtype=dtype)
    own = partial(activation_functions(tf)[activation.name], **dict(activation.parameters))
    autodiff = nested(own, z)
    ours = tuple(function(z) for function in functions_of(activation))
    if orders == 3:
        expected = nested(native, z)
    else:
        x = tf.constant(z)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = native(x)
        expected = (y.numpy(), tape.gradient(y, x).numpy(), np.zeros_like(z))
    # Only selu's slope is no small binary fraction.
    np.testing.assert_allclose(ours, expected, rtol=2 * np.finfo(dtype).eps, atol=0)
    np.testing.assert_allclose(autodiff, expected, rtol=2 * np.finfo(dtype).eps, atol=0)


# Keras has no function of these three names; gelu_tanh is its gelu with ``approximate``.
KERAS: Mapping[Activation, Callable[[Any], Any]] = {
    **{
        Activation(name): getattr(keras.activations, name)
        for name in ACTIVATIONS
        if name not in ("gelu_tanh", "square", "sin")
    },
    Activation("gelu_tanh"): partial(keras.activations.gelu, approximate=True),
    Activation("leaky_relu", (("negative_slope", 0.01),)): partial(
        keras.activations.leaky_relu, negative_slope=0.01
    ),
    Activation("elu", (("alpha", 0.3),)): partial(keras.activations.elu, alpha=0.3),
}


@pytest.mark.parametrize("activation", KERAS, ids=str)
def test_both_witnesses_mean_keras_function_of_that_name(activation: Activation) -> None:
    """To float32's digits: Keras rounds constants to it, even for float64 arguments.

    A rounded constant is, at worst, a rounded argument: an error of |z σ′(z)| eps.
    """
    z, sigma = np.linspace(-20, 20, 401), derivatives(activation)
    own = activation_functions(tf)[activation.name](tf.constant(z), **dict(activation.parameters))
    expected = KERAS[activation](tf.constant(z)).numpy()
    assert expected.dtype == z.dtype
    eps = np.finfo(np.float32).eps
    allowed = 2 * eps * (np.abs(expected) + np.abs(z * sigma.first(z))) + 1e-14
    assert (np.abs(own.numpy() - expected) <= allowed).all()
    assert (np.abs(sigma.value(z) - expected) <= allowed).all()


def test_default_parameters_and_aliases_are_keras_own() -> None:
    for name in ("leaky_relu", "elu"):
        signature = inspect.signature(getattr(keras.activations, name)).parameters
        ours = parameter_defaults(name)
        assert ours == {key: signature[key].default for key in ours} != {}
    for alias, name in ACTIVATION_ALIASES.items():
        assert keras.activations.get(alias) is keras.activations.get(name)


@pytest.mark.parametrize("dtype", TYPES)
def test_parameters_reach_the_derivatives(dtype: Type) -> None:
    z: Array = np.array([-2.0, -0.5, 0.5, 3.0], dtype=dtype)
    below = z < 0
    cases: tuple[tuple[str, str, float, Array, Array], ...] = (
        ("leaky_relu", "negative_slope", 0.01, np.where(below, 0.01, 1), np.zeros(4)),
        ("elu", "alpha", 0.3, np.where(below, 0.3 * np.exp(z), 1), below * 0.3 * np.exp(z)),
    )
    for name, parameter, size, first, second in cases:
        sigma = derivatives(Activation(name, ((parameter, size),)))
        close = partial(np.testing.assert_allclose, rtol=4 * np.finfo(dtype).eps, atol=0)
        close(sigma.first(z), first)
        close(sigma.second(z), second)
        assert sigma.first(z).dtype == sigma.second(z).dtype == z.dtype


def test_an_unknown_name_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match=r"'relux'; choose linear, relu, .*, hard_sigmoid$"):
        derivatives(Activation("relux"))
