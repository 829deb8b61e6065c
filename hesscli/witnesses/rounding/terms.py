"""What TensorFlow's formulas subtract: the sizes that their rounding errors are relative to.

``subtracted_terms`` gives them for σ, σ′ and σ″ of an activation, ``loss_terms`` for a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from scipy.special import expit, softmax

from hesscli.nodes.activations import Derivatives, derivatives
from hesscli.nodes.losses import EPSILON
from hesscli.problem.graph import Activation, Array
from hesscli.problem.names import FOCAL, OUTPUT
from hesscli.problem.network import Loss, Targets

# TensorFlow's and NumPy's elementary functions are right to a few u of the terms below
# (tests/test_rounding_terms.py holds them to it).
ELEMENTARY = 4.0

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


@dataclass(frozen=True)
class LossTerms:
    """The largest terms in TensorFlow's formulas for a loss, as functions of f (n, c).

    ``gradient`` of f and the targets is (n, c); ``product`` those of ∂²ℓ/∂f² v, of f and v
    (n, k, c). ``exponent`` (n, c) is the size of the exponents whose relative errors p has.
    """

    gradient: Callable[[Array, Targets], Array]
    product: Callable[[Array, Array], Array]
    exponent: Callable[[Array], Array] = np.zeros_like


def _probability_terms(f: Array, t: Targets) -> Array:
    # g = p − t
    p = np.asarray(softmax(f, axis=-1))
    return np.asarray(p + (np.eye(p.shape[1])[t] if t.ndim == 1 else t))


def _probability_product_terms(f: Array, v: Array) -> Array:
    # p ⊙ (v − p·v)
    p, size = np.asarray(softmax(f, axis=-1))[:, None], np.abs(v)
    return np.asarray(p * (size + (p * size).sum(axis=-1, keepdims=True)))


def _below_largest(f: Array) -> Array:
    return np.asarray(np.abs(f - f.max(axis=-1, keepdims=True)))


def _logistic_product_terms(f: Array, v: Array) -> Array:
    # S = diag(s (1 − s))/c
    return np.asarray((expit(f) * expit(-f))[:, None] * np.abs(v) / f.shape[-1])


def _share_terms(f: Array, t: Targets) -> Array:
    # g = −t/f
    return np.asarray(np.abs(t / np.maximum(np.abs(f), EPSILON)))


def _share_product_terms(f: Array, v: Array) -> Array:
    # S = diag(t/f²), t ≤ 1
    return np.asarray(np.abs(v) / np.square(np.maximum(np.abs(f), EPSILON))[:, None])


_CROSSENTROPY = LossTerms(_probability_terms, _probability_product_terms, _below_largest)
_LOSS_TERMS: Mapping[str, LossTerms] = MappingProxyType(
    {
        "sparse_categorical_crossentropy": _CROSSENTROPY,
        "categorical_crossentropy": _CROSSENTROPY,
        # g = (s − t)/c
        "binary_crossentropy": LossTerms(
            lambda f, t: np.asarray((expit(f) + t) / f.shape[-1]), _logistic_product_terms
        ),
        # g = 2 (f − t)/c,   S = 2 I/c
        "mean_squared_error": LossTerms(
            lambda f, t: 2 * (np.abs(f) + np.abs(t)) / f.shape[-1],
            lambda f, v: 2 * np.abs(v) / f.shape[-1],
        ),
        # g = sign(f − t)/c,   S = 0
        "mean_absolute_error": LossTerms(
            lambda f, _: np.full_like(f, 1 / f.shape[-1]), lambda _, v: np.zeros_like(v)
        ),
        # |g| ≤ |f − t|/c,   |S| ≤ I/c
        "huber": LossTerms(
            lambda f, t: (np.abs(f) + np.abs(t)) / f.shape[-1],
            lambda f, v: np.abs(v) / f.shape[-1],
        ),
        # g = tanh(f − t)/c,   S = (1 − tanh²)/c, subtracted
        "log_cosh": LossTerms(
            lambda f, t: (np.abs(f) + np.abs(t) + 1) / f.shape[-1],
            lambda f, v: 2 * np.abs(v) / f.shape[-1],
        ),
        "kl_divergence": LossTerms(_share_terms, _share_product_terms),
        "poisson": LossTerms(
            lambda f, t: (1 + _share_terms(f, t)) / f.shape[-1],
            lambda f, v: _share_product_terms(f, v) / f.shape[-1],
        ),
        # g = 2 f,   S = 2 I
        "sum_of_squares": LossTerms(lambda f, _: 2 * np.abs(f), lambda _, v: 2 * np.abs(v)),
        # g = 1,   S = 0
        "sum": LossTerms(lambda f, _: np.ones_like(f), lambda _, v: np.zeros_like(v)),
        # g = e_K, none of it rounded,   S = 0
        OUTPUT: LossTerms(lambda f, _: np.zeros_like(f), lambda _, v: np.zeros_like(v)),
    }
)


# Of a plugin's loss only the result is known: it may be a difference of numbers of size one, as
# probabilities are.
_UNKNOWN = LossTerms(lambda f, _: np.ones_like(f), lambda _, v: np.abs(v), _below_largest)


def loss_terms(loss: Loss) -> LossTerms:
    """The terms of a loss."""
    if loss.name == FOCAL:
        # p ⊙ (u − p·u) and its product, of numbers that are no larger than this.
        size = loss.alpha * (1 + loss.gamma) ** 2
        return replace(
            _UNKNOWN,
            gradient=lambda f, _: np.full_like(f, size),
            product=lambda _, v: size * np.abs(v),
        )
    return _LOSS_TERMS.get(loss.name, _UNKNOWN)
