"""What TensorFlow's formulas subtract: the sizes that their rounding errors are relative to.

``subtracted_terms`` gives them for σ, σ′ and σ″ of an activation, ``loss_errors`` the errors of a
loss's gradient and Hessian that follow from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from scipy.special import expit, softmax

from hesscli.nodes.activations import Derivatives, derivatives
from hesscli.problem.graph import Activation, Array
from hesscli.problem.network import Targets

# TensorFlow's and NumPy's elementary functions are right to a few u of the terms below
# (tests/test_rounding_terms.py holds them to it).
ELEMENTARY = 4.0
# An error of an exponent after which nothing is known of what it is the exponent of.
_ANY = 700.0

Terms = Callable[[Array, Derivatives], tuple[Array, Array, Array]]


def _own_size(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # Nothing is subtracted: each value is right up to u of itself.
    return np.abs(sigma.value(z)), np.abs(sigma.first(z)), np.abs(sigma.second(z))


def _sigmoid_terms(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # σ′ = y (1 − y),   σ″ = σ′ (1 − 2y)
    y = sigma.value(z)
    return y, y * (1 + y), y * (1 + y) * (1 + 2 * y)


def _tanh_terms(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # σ′ = 1 − y²,   σ″ = −2y (1 − y²)
    y = np.abs(sigma.value(z))
    return y, 1 + y * y, 2 * y * (1 + y * y)


def _softplus_terms(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # σ′ = s,   σ″ = s (1 − s), 1 − s subtracted
    s = sigma.first(z)
    return np.abs(sigma.value(z)), s, s * (1 + s)


def _softsign_terms(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # With q = 1/(1 + |z|):   σ′ = q − |z| q²,   σ″ = ∓(q² + q² − 2|z| q³)
    q = 1 / (1 + np.abs(z))
    return np.abs(sigma.value(z)), 2 * q, 4 * q * q * (z != 0)


def _silu_terms(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # With s = s(z):   σ′ = s (1 + z (1 − s)),   σ″ = s (1 − s) (2 + z (1 − 2s)), 1 − s subtracted
    s, size = expit(z), np.abs(z)
    return np.abs(sigma.value(z)), s * (1 + size), s * (2 + 3 * size)


def _gelu_terms(z: Array, _: Derivatives) -> tuple[Array, Array, Array]:
    # Φ = (1 + erf)/2 has an absolute error of u; φ one of u (1 + z²) φ:
    # σ = zΦ,   σ′ = Φ + zφ,   σ″ = 2φ − z²φ
    size = np.abs(z)
    # Where φ is 0, z² counts no more, and may overflow.
    near = np.minimum(size, 100)
    square, phi = near * near, 0.4 * np.exp(-near * near / 2)
    return size, 1 + near * (1 + square) * phi, (2 + square) * (1 + square) * phi


def _gelu_tanh_terms(z: Array, _: Derivatives) -> tuple[Array, Array, Array]:
    # t = tanh(q), q = √(2/π) (z + 0.044715 z³); 1 + t and 1 − t² have absolute errors of u, and
    # t″ = −2t (1 − t²):   σ = z (1 + t)/2,   σ′ = (1 + t)/2 + z (1 − t²) q′/2,
    # σ″ = (1 − t²) (q′ + z q″/2) − z t (1 − t²) q′²
    size = np.abs(z)
    # Beyond |z| = 8 tanh is ±1 to the last digit, and what it multiplies counts no more.
    near = np.minimum(size, 8)
    q1 = 0.8 * (1 + 0.135 * near * near)
    q2 = 0.22 * near
    return size, 1 + near * q1, 2 * (q1 + near * q2 + near * q1 * q1)


def _mish_terms(z: Array, _: Derivatives) -> tuple[Array, Array, Array]:
    # t = tanh(softplus(z)), s = s(z):   σ′ = t + z s (1 − t²),
    # σ″ = s (1 − t²) (2 + z (1 − s − 2ts)), 1 − t² subtracted
    size, s = np.abs(z), expit(z)
    t = np.minimum(1, 2 * s)
    return size * t, t + 2 * size * s, s * (4 + 8 * size)


_TERMS: Mapping[str, Terms] = MappingProxyType(
    {
        "gelu": _gelu_terms,
        "gelu_tanh": _gelu_tanh_terms,
        "silu": _silu_terms,
        "mish": _mish_terms,
        "sigmoid": _sigmoid_terms,
        "tanh": _tanh_terms,
        "softplus": _softplus_terms,
        "softsign": _softsign_terms,
    }
)


def subtracted_terms(activation: Activation, z: Array) -> tuple[Array, Array, Array]:
    """The size of the largest terms in TensorFlow's formulas for σ, σ′ and σ″, each like ``z``."""
    terms = _TERMS.get(activation.name, _own_size)
    return terms(z, derivatives(activation))


def loss_errors(loss: str, f: Array, e_f: Array, targets: Targets, u: float) -> tuple[Array, Array]:
    """The errors of ∂ℓ/∂f (N, c) and ∂²ℓ/∂f² (N, c, c), from those of the outputs ``f``."""
    return _LOSS_ERRORS[loss](f, e_f, targets, u)


def loss_product_error(loss: str, f: Array, e_f: Array, v: Array, e_v: Array, u: float) -> Array:
    """The error of ∂²ℓ/∂f² v, (N, c), from those of the outputs ``f`` and of ``v`` (N, c)."""
    return _LOSS_PRODUCT_ERRORS[loss](f, e_f, v, e_v, u)


def _crossentropy_product_error(f: Array, e_f: Array, v: Array, e_v: Array, u: float) -> Array:
    # p ⊙ (v − p·v)
    p = softmax(f, axis=-1)
    e_p = _probability_errors(f, p, e_f, u)
    size, wide = np.abs(v), p + e_p
    terms = size + (p * size).sum(axis=-1, keepdims=True)
    of_v = wide * (e_v + (wide * e_v).sum(axis=-1, keepdims=True))
    of_p = e_p * terms + wide * (e_p * size).sum(axis=-1, keepdims=True)
    return np.asarray(of_v + of_p + ELEMENTARY * u * p * terms)


def _binary_product_error(f: Array, e_f: Array, v: Array, e_v: Array, u: float) -> Array:
    slope, e_slope = _logistic_slope(f, e_f, u)
    return np.asarray((e_slope * (np.abs(v) + e_v) + slope * e_v) / f.shape[1])


def _logistic_slope(f: Array, e_f: Array, u: float) -> tuple[Array, Array]:
    """S (1 − s) of s = s(f), which is at most 1/4, and its error."""
    slope = expit(f) * expit(-f)
    return slope, _grown(slope, e_f, 0.25) + ELEMENTARY * u * slope


def _squared_product_error(f: Array, _: Array, v: Array, e_v: Array, u: float) -> Array:
    return np.asarray(2 / f.shape[1] * (e_v + ELEMENTARY * u * np.abs(v)))


def _sum_of_squares_product_error(_: Array, _e: Array, v: Array, e_v: Array, u: float) -> Array:
    return np.asarray(2 * (e_v + ELEMENTARY * u * np.abs(v)))


def _sum_product_error(_: Array, _e: Array, v: Array, _v: Array, _u: float) -> Array:
    return np.zeros_like(v)


def _probability_errors(f: Array, p: Array, e_f: Array, u: float) -> Array:
    """The error of p = softmax(f)."""
    of_exponent = ELEMENTARY + np.abs(f - f.max(axis=-1, keepdims=True))
    of_sum = np.sqrt(np.square(_grown(p, e_f, 1.0)).sum(axis=-1, keepdims=True))
    # Where that is no small part of the sum, its terms no longer have the weights p.
    of_sum = np.where(of_sum > 0.1, e_f.max(axis=-1, keepdims=True), of_sum)
    return _grown(p, e_f + of_sum + u * of_exponent, 1.0)


def _grown(value: Array, error: Array, most: float) -> Array:
    """What an error of its exponent, e, adds to a value below ``most``: value (exp(e) − 1)."""
    grown = value * np.expm1(np.minimum(error, _ANY))
    return np.asarray(np.where(error < _ANY, np.minimum(grown, most), most))


def _crossentropy_errors(f: Array, e_f: Array, t: Targets, u: float) -> tuple[Array, Array]:
    # g = p − t,   S = diag(p) − p pᵀ
    p = softmax(f, axis=-1)
    if t.ndim == 1:
        t = np.eye(p.shape[1])[t]
    e_p = _probability_errors(f, p, e_f, u)
    E = e_p[:, :, None] * p[:, None, :] + (p + e_p)[:, :, None] * e_p[:, None, :]
    diagonal = np.arange(p.shape[1])
    E[:, diagonal, diagonal] += e_p + ELEMENTARY * u * p
    return e_p + u * (p + t), E


def _binary_errors(f: Array, e_f: Array, t: Targets, u: float) -> tuple[Array, Array]:
    # g = (s − t)/c,   S = diag(s (1 − s))/c, whose own derivative is at most itself
    s, (slope, e_slope) = expit(f), _logistic_slope(f, e_f, u)
    e_s = _grown(slope, e_f, 1.0) + ELEMENTARY * u * s
    return (e_s + u * (1 + t)) / f.shape[1], _diagonal(e_slope / f.shape[1])


def _squared_error_errors(f: Array, e_f: Array, t: Targets, u: float) -> tuple[Array, Array]:
    # g = 2 (f − t)/c,   S = 2 I/c
    scale = 2 / f.shape[1]
    e_g = scale * (e_f + ELEMENTARY * u * (np.abs(f) + np.abs(t)))
    return e_g, _diagonal(np.full_like(f, ELEMENTARY * u * scale))


def _sum_of_squares_errors(f: Array, e_f: Array, _: Targets, u: float) -> tuple[Array, Array]:
    # g = 2 f,   S = 2 I
    e_g = 2 * (e_f + ELEMENTARY * u * np.abs(f))
    return e_g, _diagonal(np.full_like(f, 2 * ELEMENTARY * u))


def _sum_errors(f: Array, _e: Array, _t: Targets, u: float) -> tuple[Array, Array]:
    # g = 1,   S = 0; only the factor c of the reduction is rounded
    return np.full_like(f, u), _diagonal(np.zeros_like(f))


def _diagonal(values: Array) -> Array:
    return np.asarray(values[:, :, None] * np.eye(values.shape[-1]))


_LOSS_ERRORS: Mapping[str, Callable[[Array, Array, Targets, float], tuple[Array, Array]]] = (
    MappingProxyType(
        {
            "sparse_categorical_crossentropy": _crossentropy_errors,
            "categorical_crossentropy": _crossentropy_errors,
            "binary_crossentropy": _binary_errors,
            "mean_squared_error": _squared_error_errors,
            "sum_of_squares": _sum_of_squares_errors,
            "sum": _sum_errors,
        }
    )
)
_LOSS_PRODUCT_ERRORS: Mapping[str, Callable[[Array, Array, Array, Array, float], Array]] = (
    MappingProxyType(
        {
            "sparse_categorical_crossentropy": _crossentropy_product_error,
            "categorical_crossentropy": _crossentropy_product_error,
            "binary_crossentropy": _binary_product_error,
            "mean_squared_error": _squared_product_error,
            "sum_of_squares": _sum_of_squares_product_error,
            "sum": _sum_product_error,
        }
    )
)
