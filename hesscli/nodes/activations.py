"""Activations with their first two derivatives, for the chain rule.

One record an activation: σ, σ′ and σ″ side by side, elementwise on arrays of any shape, in the
array's own floating-point type. Names and definitions are Keras's; where Keras leaves a
derivative open (at a kink) the value is the one that TensorFlow computes. The forms chosen avoid
cancellation, so that each value is as accurate as its argument allows, and none warns for
|z| up to 1e4. Derivations are textbook; they can be checked line by line against a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hesscli.problem.graph import Activation, Array
from hesscli.problem.registry import activation_names, parameter_defaults
from hesscli.system import xp
from hesscli.system.errors import InputError

Elementwise = Callable[[Array], Array]


@dataclass(frozen=True)
class Derivatives:
    """σ, σ′ and σ″ of one activation, each an elementwise function of z."""

    value: Elementwise
    first: Elementwise
    second: Elementwise


# Klambauer et al. 2017 (arXiv:1706.02515), the two constants of selu.
_SELU_ALPHA = 1.6732632423543772
_SELU_SCALE = 1.0507009873554805

_SQRT_HALF = math.sqrt(0.5)
_INVERSE_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
# Hendrycks and Gimpel 2016 (arXiv:1606.08415): gelu ≈ z/2 · (1 + tanh(√(2/π) (z + 0.044715 z³))).
_GELU_SCALE, _GELU_CUBIC = math.sqrt(2.0 / math.pi), 0.044715


def _near(z: Array) -> Array:
    """At most ±1000, where what decays as exp(−z) is 0 already and z³ does not overflow."""
    return xp.clip(z, -1e3, 1e3)


def _decay(z: Array) -> Array:
    """exp(−|z|), which cannot overflow."""
    return xp.exp(-xp.abs(z))


def _linear() -> Derivatives:
    return Derivatives(value=lambda z: z, first=xp.ones_like, second=xp.zeros_like)


def _relu() -> Derivatives:
    return Derivatives(
        value=lambda z: xp.maximum(z, 0),
        first=lambda z: xp.astype(z > 0, z.dtype),
        second=xp.zeros_like,
    )


def _leaky_relu(negative_slope: float) -> Derivatives:
    return Derivatives(
        value=lambda z: xp.where(z > 0, z, negative_slope * z),
        first=lambda z: xp.where(z > 0, xp.ones_like(z), negative_slope),
        second=xp.zeros_like,
    )


def _elu(alpha: float) -> Derivatives:
    # z > 0: z.   z ≤ 0: α (eᶻ − 1), whose derivatives are α eᶻ; at 0 TensorFlow has σ″ = 0.
    def exponential(z: Array) -> Array:
        return alpha * xp.exp(xp.minimum(z, 0))

    return Derivatives(
        value=lambda z: xp.where(z > 0, z, alpha * xp.expm1(xp.minimum(z, 0))),
        first=lambda z: xp.where(z > 0, 1.0, exponential(z)),
        second=lambda z: xp.where(z < 0, exponential(z), 0.0),
    )


def _selu() -> Derivatives:
    # z ≥ 0: λz.   z < 0: λα (eᶻ − 1), whose derivatives are λα eᶻ.
    unit = _elu(_SELU_ALPHA)
    return Derivatives(
        value=lambda z: _SELU_SCALE * unit.value(z),
        first=lambda z: _SELU_SCALE * xp.where(z < 0, unit.first(z), 1.0),
        second=lambda z: _SELU_SCALE * unit.second(z),
    )


def _sigmoid_slope(z: Array) -> Array:
    # s(z) (1 − s(z)) = e / (1 + e)²,  e = exp(−|z|)
    e = _decay(z)
    return e / xp.square(1 + e)


def _sigmoid() -> Derivatives:
    return Derivatives(
        value=xp.expit,
        first=_sigmoid_slope,
        # s″ = s′ (1 − 2s),   1 − 2s = −tanh(z/2)
        second=lambda z: -_sigmoid_slope(z) * xp.tanh(z / 2),
    )


def _sech_squared(z: Array) -> Array:
    # 1 − tanh² = 4e / (1 + e)²,  e = exp(−2|z|)
    return 4 * _sigmoid_slope(2 * z)


def _tanh() -> Derivatives:
    return Derivatives(
        value=xp.tanh,
        first=_sech_squared,
        second=lambda z: -2 * xp.tanh(z) * _sech_squared(z),
    )


def _softplus() -> Derivatives:
    return Derivatives(
        value=lambda z: xp.maximum(z, 0) + xp.log1p(_decay(z)),
        first=xp.expit,
        second=_sigmoid_slope,
    )


def _softsign() -> Derivatives:
    # σ′ = q², σ″ = ∓2q³ with q = 1/(1 + |z|), whose powers do not overflow
    return Derivatives(
        value=lambda z: z / (1 + xp.abs(z)),
        first=lambda z: xp.square(1 / (1 + xp.abs(z))),
        second=lambda z: -2 * xp.sign(z) * (1 / (1 + xp.abs(z))) ** 3,
    )


def _silu() -> Derivatives:
    # s = s(z), r = 1 − s = s(−z):   σ′ = s (1 + z r),   σ″ = s r (2 − z tanh(z/2))
    return Derivatives(
        value=lambda z: z * xp.expit(z),
        first=lambda z: xp.expit(z) * (1 + z * xp.expit(-z)),
        second=lambda z: _sigmoid_slope(z) * (2 - z * xp.tanh(z / 2)),
    )


def _normal_density(z: Array) -> Array:
    return _INVERSE_SQRT_2PI * xp.exp(-xp.square(_near(z)) / 2)


def _normal_distribution(z: Array) -> Array:
    # Φ(z) = erfc(−z/√2) / 2 keeps its digits in the left tail, where (1 + erf)/2 has none.
    return 0.5 * xp.erfc(-z * _SQRT_HALF)


def _gelu() -> Derivatives:
    # φ = normal density, Φ = its distribution:   σ = zΦ,   σ′ = Φ + zφ,   σ″ = φ (2 − z²)
    return Derivatives(
        value=lambda z: z * _normal_distribution(z),
        first=lambda z: _normal_distribution(z) + z * _normal_density(z),
        second=lambda z: _normal_density(z) * (2 - xp.square(_near(z))),
    )


def _gelu_tanh() -> Derivatives:
    # σ = z s(p) with p = 2√(2/π) (z + 0.044715 z³), because (1 + tanh(p/2))/2 = s(p).
    # σ′ = s + z s′ p′,   σ″ = s′ (2p′ + z p″) + z s″ p′²,   s′ = s′(p), s″ = s″(p)
    logistic = _sigmoid()

    def p(z: Array) -> Array:
        z = _near(z)
        return 2 * _GELU_SCALE * (z + _GELU_CUBIC * z * z * z)

    def p1(z: Array) -> Array:
        z = _near(z)
        return 2 * _GELU_SCALE * (1 + 3 * _GELU_CUBIC * z * z)

    def p2(z: Array) -> Array:
        return 12 * _GELU_SCALE * _GELU_CUBIC * z

    def second(z: Array) -> Array:
        z = _near(z)
        bent = logistic.second(p(z)) * xp.square(p1(z))
        return logistic.first(p(z)) * (2 * p1(z) + z * p2(z)) + z * bent

    return Derivatives(
        value=lambda z: z * xp.expit(p(z)),
        first=lambda z: xp.expit(p(z)) + z * logistic.first(p(z)) * p1(z),
        second=second,
    )


def _mish() -> Derivatives:
    # σ = z t,  t = tanh(softplus(z)),  s = s(z),  t′ = s (1 − t²):
    # σ′ = t + z s (1 − t²),   σ″ = s (1 − t²) (2 + z (1 − s − 2ts)).
    # With e = exp(−|z|): t and 1 − t² are quotients of polynomials in e without cancellation.
    def t(z: Array) -> Array:
        e = _decay(z)
        denominator = xp.where(z < 0, e * e + 2 * e + 2, 1 + 2 * e + 2 * e * e)
        return xp.where(z < 0, e * (e + 2), 1 + 2 * e) / denominator

    def slope(z: Array) -> Array:
        e = _decay(z)
        denominator = xp.where(z < 0, e * e + 2 * e + 2, 1 + 2 * e + 2 * e * e)
        root = xp.where(z < 0, 1 + e, e * (1 + e)) / denominator
        return 4 * xp.expit(z) * root * root

    return Derivatives(
        value=lambda z: z * t(z),
        first=lambda z: t(z) + z * slope(z),
        second=lambda z: slope(z) * (2 + z * (xp.expit(-z) - 2 * t(z) * xp.expit(z))),
    )


def _exp(z: Array) -> Array:
    # Beyond the type's range the answer is infinity; the sweep reports where that happened.
    with np.errstate(over="ignore"):
        return xp.exp(z)


def _exponential() -> Derivatives:
    return Derivatives(value=_exp, first=_exp, second=_exp)


def _square() -> Derivatives:
    return Derivatives(
        value=xp.square, first=lambda z: 2 * z, second=lambda z: xp.full_like(z, 2.0)
    )


def _sin() -> Derivatives:
    return Derivatives(value=xp.sin, first=xp.cos, second=lambda z: -xp.sin(z))


def _relu6() -> Derivatives:
    return Derivatives(
        value=lambda z: xp.clip(z, 0, 6),
        first=lambda z: xp.astype((z > 0) & (z < 6), z.dtype),
        second=xp.zeros_like,
    )


def _hard_sigmoid() -> Derivatives:
    # relu6(z + 3)/6
    ramp = _relu6()
    return Derivatives(
        value=lambda z: ramp.value(z + 3) / 6,
        first=lambda z: ramp.first(z + 3) / 6,
        second=xp.zeros_like,
    )


_MAKERS: Mapping[str, Callable[..., Derivatives]] = MappingProxyType(
    {
        "linear": _linear,
        "relu": _relu,
        "leaky_relu": _leaky_relu,
        "elu": _elu,
        "selu": _selu,
        "gelu": _gelu,
        "gelu_tanh": _gelu_tanh,
        "silu": _silu,
        "mish": _mish,
        "sigmoid": _sigmoid,
        "tanh": _tanh,
        "softplus": _softplus,
        "softsign": _softsign,
        "exponential": _exponential,
        "square": _square,
        "sin": _sin,
        "relu6": _relu6,
        "hard_sigmoid": _hard_sigmoid,
    }
)
# Activations from plugins, which take no parameters.
_registered: dict[str, Derivatives] = {}


def register(name: str, sigma: Derivatives) -> None:
    """Adds an activation that has no parameters, under a name that is not taken."""
    _registered[name] = sigma


def forget(name: str) -> None:
    """Takes an activation that was registered out again."""
    _registered.pop(name, None)


def derivatives(activation: Activation) -> Derivatives:
    """σ, σ′, σ″ of ``activation``; raises InputError for a name that is not known."""
    name = activation.name
    if name in _registered:
        return _registered[name]
    if name not in _MAKERS:
        known = ", ".join(activation_names())
        raise InputError(f"unknown activation {name!r}; choose {known}")
    return _MAKERS[name](**{**parameter_defaults(name), **dict(activation.parameters)})
