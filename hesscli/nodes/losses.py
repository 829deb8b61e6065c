"""Losses with their first two derivatives with respect to the network output.

Each is a record of functions of the network's output f (N, c) and the targets: ℓ per example,
∂ℓ/∂f, ∂²ℓ/∂f² and products with it. The factor of the reduction is the caller's. Names and
definitions are Keras's, from logits where Keras has ``from_logits``; ``sum_of_squares`` and
``sum`` look at no targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import expit, logsumexp, softmax

from hesscli.problem.graph import Array
from hesscli.problem.names import LOSSES
from hesscli.problem.network import Loss, Targets
from hesscli.system.errors import InputError

# (chosen examples, v (n, k, c)) → ∂²ℓ/∂f² of each example times its k vectors, (n, k, c).
HessianProduct = Callable[[slice, Array], Array]


@dataclass(frozen=True)
class LossDerivatives:
    """ℓ (N,), ∂ℓ/∂f (N, c) and ∂²ℓ/∂f² (N, c, c) of one loss, as functions of f and targets.

    ``hessian_product`` gives products with ∂²ℓ/∂f² that never form c × c.
    """

    value: Callable[[Array, Targets], Array]
    gradient: Callable[[Array, Targets], Array]
    hessian: Callable[[Array, Targets], Array]
    hessian_product: Callable[[Array, Targets], HessianProduct]


def _softmax_hessian(f: Array) -> Array:
    # diag(p) − p pᵀ,  p = softmax(f)
    p = softmax(f, axis=-1)
    h = -p[:, :, None] * p[:, None, :]
    # p_h (1 − p_h) through the other classes: it has no digits where p_h is nearly 1.
    diagonal = np.arange(p.shape[-1])
    h[:, diagonal, diagonal] = 0
    h[:, diagonal, diagonal] = -h.sum(axis=-1)
    return np.asarray(h)


def _softmax_hessian_product(f: Array) -> HessianProduct:
    p = np.asarray(softmax(f, axis=-1))
    likeliest = p.argmax(axis=-1)

    def product(chosen: slice, v: Array) -> Array:
        # H does not see a constant added to v. With v = 0 at the likeliest class nothing is
        # subtracted from 1, so that the digits stay where p is nearly 1.
        at = likeliest[chosen]
        w = v - v[np.arange(len(v)), :, at][:, :, None]
        chosen_p = p[chosen][:, None]
        pw = chosen_p * w
        pw -= chosen_p * pw.sum(axis=-1, keepdims=True)
        return pw

    return product


def _diagonal_product(diagonal: Array) -> HessianProduct:
    return lambda chosen, v: np.asarray(diagonal[chosen][:, None] * v)


def _sparse_categorical_crossentropy() -> LossDerivatives:
    # On logits f with label y:  ℓ = log Σ exp f − f_y,   ∂ℓ = p − e_y,   ∂²ℓ = diag(p) − p pᵀ.
    def value(f: Array, targets: Targets) -> Array:
        return np.asarray(logsumexp(f, axis=-1) - f[np.arange(len(f)), targets])

    def gradient(f: Array, targets: Targets) -> Array:
        g = np.asarray(softmax(f, axis=-1))
        # p_y − 1 through the other classes, for the same reason.
        rows = np.arange(len(f))
        g[rows, targets] = 0
        g[rows, targets] = -g.sum(axis=-1)
        return g

    return LossDerivatives(
        value,
        gradient,
        hessian=lambda f, _: _softmax_hessian(f),
        hessian_product=lambda f, _: _softmax_hessian_product(f),
    )


def _categorical_crossentropy() -> LossDerivatives:
    # On logits f with class probabilities t:  ℓ = log Σ exp f − tᵀf,   ∂ℓ = p − t.
    def gradient(f: Array, targets: Targets) -> Array:
        # p_h − t_h = p_h Σ_{i≠h} t_i − t_h Σ_{i≠h} p_i, because both sum to one.
        p = np.asarray(softmax(f, axis=-1))
        others = 1 - np.eye(p.shape[-1], dtype=p.dtype)
        return np.asarray(p * (targets @ others) - targets * (p @ others))

    return LossDerivatives(
        value=lambda f, t: np.asarray(logsumexp(f, axis=-1) - (t * f).sum(axis=-1)),
        gradient=gradient,
        hessian=lambda f, _: _softmax_hessian(f),
        hessian_product=lambda f, _: _softmax_hessian_product(f),
    )


def _diagonal(values: Array) -> Array:
    return np.asarray(values[:, :, None] * np.eye(values.shape[-1], dtype=values.dtype))


def _binary_crossentropy() -> LossDerivatives:
    # On c logits f with probabilities t:  ℓ = 1/c Σ_h (max(f, 0) − f t + log(1 + exp(−|f|))),
    # ∂ℓ = (s(f) − t)/c,   ∂²ℓ = diag(s (1 − s))/c.
    def value(f: Array, t: Targets) -> Array:
        each = np.maximum(f, 0) - f * t + np.log1p(np.exp(-np.abs(f)))
        return np.asarray(each.mean(axis=-1))

    def gradient(f: Array, t: Targets) -> Array:
        # s − t = s (1 − t) − t (1 − s): it has no digits where s is nearly t = 1.
        return np.asarray((expit(f) * (1 - t) - t * expit(-f)) / f.shape[-1])

    def slope(f: Array) -> Array:
        return np.asarray(expit(f) * expit(-f) / f.shape[-1])

    return LossDerivatives(
        value,
        gradient,
        hessian=lambda f, _: _diagonal(slope(f)),
        hessian_product=lambda f, _: _diagonal_product(slope(f)),
    )


def _mean_squared_error() -> LossDerivatives:
    # ℓ = 1/c Σ (f − t)²,   ∂ℓ = 2 (f − t)/c,   ∂²ℓ = 2 I/c.
    return LossDerivatives(
        value=lambda f, t: np.asarray(np.square(f - t).mean(axis=-1)),
        gradient=lambda f, t: np.asarray(2 * (f - t) / f.shape[-1]),
        hessian=lambda f, _: _diagonal(np.full_like(f, 2 / f.shape[-1])),
        hessian_product=lambda f, _: _diagonal_product(np.full_like(f, 2 / f.shape[-1])),
    )


def _sum_of_squares() -> LossDerivatives:
    # ℓ = Σ f²,   ∂ℓ = 2 f,   ∂²ℓ = 2 I.
    return LossDerivatives(
        value=lambda f, _: np.asarray(np.square(f).sum(axis=-1)),
        gradient=lambda f, _: 2 * f,
        hessian=lambda f, _: _diagonal(np.full_like(f, 2)),
        hessian_product=lambda f, _: _diagonal_product(np.full_like(f, 2)),
    )


def _sum() -> LossDerivatives:
    # ℓ = Σ f,   ∂ℓ = 1,   ∂²ℓ = 0.
    return LossDerivatives(
        value=lambda f, _: np.asarray(f.sum(axis=-1)),
        gradient=lambda f, _: np.ones_like(f),
        hessian=lambda f, _: _diagonal(np.zeros_like(f)),
        hessian_product=lambda f, _: _diagonal_product(np.zeros_like(f)),
    )


_LOSSES: Mapping[str, LossDerivatives] = MappingProxyType(
    {
        "sparse_categorical_crossentropy": _sparse_categorical_crossentropy(),
        "categorical_crossentropy": _categorical_crossentropy(),
        "binary_crossentropy": _binary_crossentropy(),
        "mean_squared_error": _mean_squared_error(),
        "sum_of_squares": _sum_of_squares(),
        "sum": _sum(),
    }
)


def loss_derivatives(loss: Loss) -> LossDerivatives:
    """ℓ, ∂ℓ/∂f, ∂²ℓ/∂f² of ``loss``; raises InputError for a name that is not in LOSSES."""
    try:
        return _LOSSES[loss.name]
    except KeyError:
        raise InputError(f"unknown loss {loss.name!r}; choose {', '.join(LOSSES)}") from None
