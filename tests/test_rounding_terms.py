"""The terms that the rounding floor counts with: TensorFlow's rounding stays below them.

Both ways: nested tapes over autodiff's own functions differ from the chain rule's σ, σ′, σ″ by a
few u of the terms, at any argument; and the terms are no larger than TensorFlow's rounding is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hesscli.nodes.activations import derivatives
from hesscli.problem.graph import Activation, Array
from hesscli.problem.names import ACTIVATIONS
from hesscli.system.tensorflow import load_tensorflow
from hesscli.witnesses.autodiff.functions import activation_functions
from hesscli.witnesses.rounding.terms import ELEMENTARY, subtracted_terms

tf = load_tensorflow()

TYPES = (np.float64, np.float32)
Type = type[np.float64] | type[np.float32]
Three = tuple[Array, Array, Array]
SUBTRACTING_NOTHING = (
    "linear",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "exponential",
    "square",
    "sin",
    "relu6",
    "hard_sigmoid",
)
SUBTRACTING = tuple(name for name in ACTIVATIONS if name not in SUBTRACTING_NOTHING)


def grid(name: str, dtype: Type) -> Array:
    """Saturated, ordinary and tiny arguments of both signs, and both zeros."""
    far, near = np.linspace(-100, 100, 8001), np.linspace(-3, 3, 8001)
    sizes = 10 ** np.random.default_rng(0).uniform(-12, 2, 4000)
    z: Array = np.concatenate([far, near, sizes, -sizes, [0.0, -0.0]]).astype(dtype)
    # Beyond this float32 has no exponential.
    return z[np.abs(z) <= 80] if name == "exponential" else z


def differences(name: str, dtype: Type) -> Three:
    """|TensorFlow's σ^(k) − ours| on the grid, for k = 0, 1, 2."""
    z, function = grid(name, dtype), activation_functions(tf)[name]
    x = tf.constant(z)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = function(x)
        slope = inner.gradient(y, x)
    bend = outer.gradient(slope, x, unconnected_gradients="zero")
    sigma = derivatives(Activation(name))

    def apart(theirs: Any, ours: Array) -> Array:
        return np.asarray(np.abs(theirs.numpy().astype(np.float64) - ours.astype(np.float64)))

    return (
        apart(y, sigma.value(z)),
        apart(slope, sigma.first(z)),
        apart(bend, sigma.second(z)),
    )


def allowed(name: str, dtype: Type, factor: float) -> Three:
    """The bound factor · u · terms + tiny (1 + z²) + u |z σ^(k+1)(z)| on the grid.

    The second is for what underflow cuts off, the third what rounding z itself does; σ‴ is from
    a finite difference of σ″.
    """
    z, sigma, h = grid(name, dtype).astype(np.float64), derivatives(Activation(name)), 1e-4
    z_third = (sigma.second(z * (1 + h)) - sigma.second(z)) / h
    u, tiny = np.finfo(dtype).eps / 2, np.finfo(dtype).tiny
    terms = subtracted_terms(Activation(name), z)

    def bound(k: int, z_next: Array) -> Array:
        return np.asarray(factor * u * terms[k] + tiny * (1 + z * z) + u * np.abs(z_next))

    return bound(0, z * sigma.first(z)), bound(1, z * sigma.second(z)), bound(2, z_third)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_tensorflow_rounds_by_less_than_the_terms(name: str, dtype: Type) -> None:
    # Twice: TensorFlow's rounding and ours.
    bounds = allowed(name, dtype, factor=2 * ELEMENTARY)
    for difference, bound in zip(differences(name, dtype), bounds, strict=True):
        beyond = ~(difference <= bound)
        assert not beyond.any(), grid(name, dtype)[beyond]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", SUBTRACTING)
def test_somewhere_tensorflow_rounds_by_the_terms(name: str, dtype: Type) -> None:
    """Terms that are too large would hide a wrong formula: each is reached within a factor 4."""
    bounds = allowed(name, dtype, factor=1)
    for k in (1, 2):
        assert (differences(name, dtype)[k] >= bounds[k] / 4).any(), k


@pytest.mark.parametrize("name", SUBTRACTING)
def test_terms_are_a_few_units_where_nothing_is_saturated(name: str) -> None:
    """Every σ′ and σ″ here is of order one, and so must be what it is summed from."""
    z = np.linspace(-3, 3, 1001)
    for terms in subtracted_terms(Activation(name), z):
        assert terms.max() <= 32


@pytest.mark.parametrize("name", SUBTRACTING)
def test_terms_grow_no_faster_than_the_argument_where_all_is_saturated(name: str) -> None:
    """Else one large z would let any entry of its example pass."""
    sizes = np.linspace(10, 100, 901)
    z = np.concatenate([sizes, -sizes])
    for terms in subtracted_terms(Activation(name), z):
        assert (terms <= 100 * (1 + np.abs(z))).all()


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "silu", "mish"])
def test_terms_vanish_with_the_function_where_it_decays_by_itself(name: str) -> None:
    """To the left these are eᶻ times a polynomial, in TensorFlow too: nothing is subtracted."""
    z = np.linspace(-100, -3, 1001)
    sigma = derivatives(Activation(name))
    own = (sigma.value(z), sigma.first(z), sigma.second(z))
    for terms, values in zip(subtracted_terms(Activation(name), z), own, strict=True):
        assert (terms <= 10 * (1 + np.abs(z)) * np.abs(values)).all()


@pytest.mark.parametrize("name", SUBTRACTING_NOTHING)
def test_terms_are_the_values_where_nothing_is_subtracted(name: str) -> None:
    z, sigma = grid(name, np.float64), derivatives(Activation(name))
    own = (sigma.value(z), sigma.first(z), sigma.second(z))
    for terms, values in zip(subtracted_terms(Activation(name), z), own, strict=True):
        np.testing.assert_array_equal(terms, np.abs(values))
