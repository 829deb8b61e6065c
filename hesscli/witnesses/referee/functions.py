"""Activations and losses in mpmath, as values alone: no derivative stands here.

``Pieces`` collects on which of its smooth pieces each number is, so that a caller that differences
values knows whether all of them are on the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpmath import mp

from hesscli.problem.graph import Penalty
from hesscli.problem.names import FOCAL, OUTPUT
from hesscli.problem.network import Loss
from hesscli.problem.registry import LOSS, mpmath_function

# Of type mpmath.mpf, which ships no types.
Number = Any
Pieces = list[Any]
ActivationFunction = Callable[..., Number]
# Of the outputs (c,) of one example and its targets: a label, or c numbers.
LossFunction = Callable[[Sequence[Number], Any, Pieces], Number]

# Keras's ``keras.config.epsilon()``.
_EPSILON = 1e-7
# Where activations are not smooth.
CORNERS: Mapping[str, tuple[float, ...]] = {
    **dict.fromkeys(("relu", "leaky_relu", "elu", "selu", "softsign"), (0.0,)),
    "relu6": (0.0, 6.0),
    "hard_sigmoid": (-3.0, 3.0),
}


def _softplus(z: Number) -> Number:
    # log(1 + exp z), whose exp is never more than 1.
    return max(z, 0) + mp.log1p(mp.exp(-abs(z)))


def _elu(z: Number, alpha: float = 1.0) -> Number:
    return z if z > 0 else mp.mpf(alpha) * mp.expm1(z)


def _gelu_tanh(z: Number) -> Number:
    # Hendrycks and Gimpel, arXiv:1606.08415.
    return z / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (z + mp.mpf(0.044715) * z**3)))


ACTIVATIONS: Mapping[str, ActivationFunction] = {
    "linear": lambda z: z,
    "relu": lambda z: z if z > 0 else mp.mpf(0),
    "leaky_relu": lambda z, negative_slope=0.2: z if z > 0 else mp.mpf(negative_slope) * z,
    "elu": _elu,
    # Klambauer et al., arXiv:1706.02515.
    "selu": lambda z: mp.mpf(1.0507009873554805) * _elu(z, 1.6732632423543772),
    "gelu": lambda z: z / 2 * mp.erfc(-z / mp.sqrt(2)),
    "gelu_tanh": _gelu_tanh,
    "silu": lambda z: z / (1 + mp.exp(-z)),
    "mish": lambda z: z * mp.tanh(_softplus(z)),
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "tanh": mp.tanh,
    "softplus": _softplus,
    "softsign": lambda z: z / (1 + abs(z)),
    "exponential": mp.exp,
    "square": lambda z: z * z,
    "sin": mp.sin,
    "relu6": lambda z: min(max(z, mp.mpf(0)), mp.mpf(6)),
    "hard_sigmoid": lambda z: min(max(z / 6 + mp.mpf(1) / 2, mp.mpf(0)), mp.mpf(1)),
}


def _log_sum_exp(f: Sequence[Number]) -> Number:
    largest = max(f)
    return largest + mp.log(mp.fsum(mp.exp(each - largest) for each in f))


def _mean(numbers: Sequence[Number]) -> Number:
    return mp.fsum(numbers) / len(numbers)


def _each(of: Callable[[Number, Number, Pieces], Number]) -> LossFunction:
    return lambda f, t, pieces: _mean([of(*pair, pieces) for pair in zip(f, t, strict=True)])


def loss_function(loss: Loss) -> LossFunction | None:
    """ℓ of one example by Keras's name; None for one that the referee does not know."""

    def crossentropy(f: Sequence[Number], t: Sequence[Number], _: Pieces) -> Number:
        total = _log_sum_exp(f)
        return mp.fsum(share * (total - each) for each, share in zip(f, t, strict=True))

    def absolute(f: Number, t: Number, pieces: Pieces) -> Number:
        pieces.append(mp.sign(f - t))
        return abs(f - t)

    def huber(f: Number, t: Number, pieces: Pieces) -> Number:
        size, delta = abs(f - t), mp.mpf(loss.delta)
        pieces.append(mp.sign(size - delta))
        return size * size / 2 if size <= delta else delta * size - delta * delta / 2

    def kl_divergence(f: Sequence[Number], t: Sequence[Number], pieces: Pieces) -> Number:
        least = mp.mpf(_EPSILON)
        for each in f:
            pieces.append((mp.sign(each - least), mp.sign(each - 1)))
        q, p = ([min(max(each, least), mp.mpf(1)) for each in of] for of in (f, t))
        return mp.fsum(b * mp.log(b / a) for a, b in zip(q, p, strict=True))

    def poisson(f: Number, t: Number, _: Pieces) -> Number:
        inside = f + mp.mpf(_EPSILON)
        return f - t * mp.log(inside) if inside > 0 else mp.nan

    def focal(f: Sequence[Number], t: Sequence[Number], pieces: Pieces) -> Number:
        total, least = _log_sum_exp(f), mp.mpf(_EPSILON)
        each = []
        for number, share in zip(f, t, strict=True):
            p = mp.exp(number - total)
            pieces.append((mp.sign(p - least), mp.sign(p - 1 + least)))
            q = min(max(p, least), 1 - least)
            each.append(-share * mp.mpf(loss.alpha) * (1 - q) ** mp.mpf(loss.gamma) * mp.log(q))
        return mp.fsum(each)

    losses: Mapping[str, LossFunction] = {
        "sparse_categorical_crossentropy": lambda f, label, _: _log_sum_exp(f) - f[label],
        "categorical_crossentropy": crossentropy,
        FOCAL: focal,
        "binary_crossentropy": _each(lambda f, t, _: _softplus(f) - f * t),
        "mean_squared_error": _each(lambda f, t, _: (f - t) ** 2),
        "mean_absolute_error": _each(absolute),
        "huber": _each(huber),
        "log_cosh": _each(lambda f, t, _: mp.log(mp.cosh(f - t))),
        "kl_divergence": kl_divergence,
        "poisson": _each(poisson),
        "sum_of_squares": lambda f, _, __: mp.fsum(each * each for each in f),
        "sum": lambda f, _, __: mp.fsum(f),
        OUTPUT: lambda f, _, __: f[loss.index],
    }
    own = mpmath_function(loss.name, LOSS)
    if own is not None:
        return lambda f, t, _: own(f, t)
    return losses.get(loss.name)


def penalty(theta: Number, of: Penalty, pieces: Pieces) -> Number:
    """The term of Keras's L1L2 regularizer for one number."""
    if of.l1:
        pieces.append(mp.sign(theta))
    return mp.mpf(of.l1) * abs(theta) + mp.mpf(of.l2) * theta * theta
