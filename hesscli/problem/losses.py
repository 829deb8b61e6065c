"""Losses with their first two derivatives with respect to the network output.

Each is a record of three functions of the network's output f (N, c) and the targets: ℓ per
example, ∂ℓ/∂f and ∂²ℓ/∂f². The factor of the reduction is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import logsumexp, softmax

from hesscli.problem.errors import InputError
from hesscli.problem.network import Array, Labels, Loss


@dataclass(frozen=True)
class LossDerivatives:
    """ℓ (N,), ∂ℓ/∂f (N, c) and ∂²ℓ/∂f² (N, c, c) of one loss, as functions of f and targets."""

    value: Callable[[Array, Labels], Array]
    gradient: Callable[[Array, Labels], Array]
    hessian: Callable[[Array, Labels], Array]


def _sparse_categorical_crossentropy() -> LossDerivatives:
    # On logits f with label y:  ℓ = log Σ exp f − f_y,   ∂ℓ = p − e_y,   ∂²ℓ = diag(p) − p pᵀ,
    # p = softmax(f).
    def value(f: Array, targets: Labels) -> Array:
        return np.asarray(logsumexp(f, axis=-1) - f[np.arange(len(f)), targets])

    def gradient(f: Array, targets: Labels) -> Array:
        g = np.asarray(softmax(f, axis=-1))
        # p_y − 1 through the other classes: it has no digits where p_y is nearly 1.
        rows = np.arange(len(f))
        g[rows, targets] = 0
        g[rows, targets] = -g.sum(axis=-1)
        return g

    def hessian(f: Array, _: Labels) -> Array:
        p = softmax(f, axis=-1)
        h = -p[:, :, None] * p[:, None, :]
        # p_h (1 − p_h) through the other classes, for the same reason.
        diagonal = np.arange(p.shape[-1])
        h[:, diagonal, diagonal] = 0
        h[:, diagonal, diagonal] = -h.sum(axis=-1)
        return np.asarray(h)

    return LossDerivatives(value, gradient, hessian)


_LOSSES: Mapping[str, LossDerivatives] = MappingProxyType(
    {"sparse_categorical_crossentropy": _sparse_categorical_crossentropy()}
)

NAMES: tuple[str, ...] = tuple(_LOSSES)
REDUCTIONS: tuple[str, ...] = ("mean", "sum")


def loss_derivatives(loss: Loss) -> LossDerivatives:
    """ℓ, ∂ℓ/∂f, ∂²ℓ/∂f² of ``loss``; raises InputError for a name that is not in NAMES."""
    try:
        return _LOSSES[loss.name]
    except KeyError:
        raise InputError(f"unknown loss {loss.name!r}; choose {', '.join(NAMES)}") from None
