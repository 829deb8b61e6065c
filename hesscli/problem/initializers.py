"""Initializers by Keras's names and definitions, drawn with NumPy's generators.

The distributions are Keras's; the stream of random numbers is NumPy's, so that a seed gives the
same weights on every machine, and without TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from hesscli.system.errors import InputError

Draws = NDArray[np.float64]
Draw = Callable[..., Draws]


@dataclass(frozen=True)
class Initializer:
    """An initializer by its Keras name, with the parameters that differ from the defaults."""

    name: str
    parameters: tuple[tuple[str, float], ...] = ()

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Draws:
        """Values of ``shape`` in float64.

        Fan-in and fan-out are Keras's: the last two axes, times the places of a convolution.
        """
        family = _FAMILIES[self.name]
        return family.draw(shape, generator, **{**family.defaults, **dict(self.parameters)})


# Keras truncates normal distributions at two standard deviations; the survivors have this one.
_TRUNCATED_STDDEV = 0.87962566103423978


def _constant(shape: tuple[int, ...], _: np.random.Generator, *, value: float) -> Draws:
    return np.full(shape, value, dtype=np.float64)


def _random_normal(
    shape: tuple[int, ...], generator: np.random.Generator, *, mean: float, stddev: float
) -> Draws:
    return mean + stddev * generator.standard_normal(shape)


def _random_uniform(
    shape: tuple[int, ...], generator: np.random.Generator, *, minval: float, maxval: float
) -> Draws:
    return generator.uniform(minval, maxval, shape)


def _truncated_normal(
    shape: tuple[int, ...], generator: np.random.Generator, *, mean: float, stddev: float
) -> Draws:
    # By inversion: uniform between Φ(−2) and Φ(2), then Φ⁻¹.
    low, high = ndtr(-2.0), ndtr(2.0)
    return np.asarray(mean + stddev * ndtri(generator.uniform(low, high, shape)))


def _fan_in(shape: tuple[int, ...]) -> float:
    return math.prod(shape[:-1]) if len(shape) > 1 else shape[0]


def _fan_average(shape: tuple[int, ...]) -> float:
    return (_fan_in(shape) + shape[-1] * math.prod(shape[:-2])) / 2


def _scaled_normal(
    shape: tuple[int, ...],
    generator: np.random.Generator,
    *,
    scale: float,
    fan: Callable[[tuple[int, ...]], float],
) -> Draws:
    stddev = math.sqrt(scale / fan(shape)) / _TRUNCATED_STDDEV
    return _truncated_normal(shape, generator, mean=0.0, stddev=stddev)


def _scaled_uniform(
    shape: tuple[int, ...],
    generator: np.random.Generator,
    *,
    scale: float,
    fan: Callable[[tuple[int, ...]], float],
) -> Draws:
    limit = math.sqrt(3 * scale / fan(shape))
    return generator.uniform(-limit, limit, shape)


def _orthogonal(shape: tuple[int, ...], generator: np.random.Generator, *, gain: float) -> Draws:
    # QR of a normal matrix; the signs of R's diagonal make Q uniform (Saxe et al. 2014,
    # arXiv:1312.6120).
    rows, columns = math.prod(shape[:-1]), shape[-1]
    tall = generator.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return gain * (q.T if rows < columns else q).reshape(shape)


@dataclass(frozen=True)
class _Family:
    """How an initializer draws, and its parameters with their Keras defaults."""

    draw: Draw
    defaults: Mapping[str, float]


_FAMILIES: Mapping[str, _Family] = MappingProxyType(
    {
        "zeros": _Family(partial(_constant, value=0.0), {}),
        "ones": _Family(partial(_constant, value=1.0), {}),
        "random_normal": _Family(_random_normal, {"mean": 0.0, "stddev": 0.05}),
        "random_uniform": _Family(_random_uniform, {"minval": -0.05, "maxval": 0.05}),
        "truncated_normal": _Family(_truncated_normal, {"mean": 0.0, "stddev": 0.05}),
        "glorot_normal": _Family(partial(_scaled_normal, scale=1.0, fan=_fan_average), {}),
        "glorot_uniform": _Family(partial(_scaled_uniform, scale=1.0, fan=_fan_average), {}),
        "he_normal": _Family(partial(_scaled_normal, scale=2.0, fan=_fan_in), {}),
        "he_uniform": _Family(partial(_scaled_uniform, scale=2.0, fan=_fan_in), {}),
        "lecun_normal": _Family(partial(_scaled_normal, scale=1.0, fan=_fan_in), {}),
        "lecun_uniform": _Family(partial(_scaled_uniform, scale=1.0, fan=_fan_in), {}),
        "orthogonal": _Family(_orthogonal, {"gain": 1.0}),
    }
)

NAMES: tuple[str, ...] = tuple(_FAMILIES)
# Keras defines these for tensors of rank two and more only, so not for a bias.
MATRIX_ONLY: tuple[str, ...] = ("orthogonal",)
# Those whose draws can be made larger and smaller.
SCALABLE: tuple[str, ...] = tuple(name for name in NAMES if name not in ("zeros", "ones"))


def parameter_defaults(name: str) -> Mapping[str, float]:
    """The parameters of the initializer called ``name`` with Keras's default values."""
    return _FAMILIES[name].defaults


def scaled(initializer: Initializer, shape: tuple[int, ...], factor: float) -> Initializer:
    """The initializer whose draws of ``shape`` are ``factor`` times those of ``initializer``.

    The same random numbers give the same draws, up to rounding. Glorot's, He's and LeCun's have
    no parameter for a scale in Keras; they become the uniform or truncated normal distribution
    that they are for this shape. Raises InputError for one that has no scale (zeros and ones).
    """
    plain = _plain_distribution(initializer, shape)
    values = {**_FAMILIES[plain.name].defaults, **dict(plain.parameters)}
    if not values:
        known = ", ".join(SCALABLE)
        raise InputError(f"{initializer.name!r} has no scale; choose one of {known}")
    multiplied = tuple((key, factor * value) for key, value in values.items() if value != 0)
    return Initializer(plain.name, multiplied)


def _plain_distribution(initializer: Initializer, shape: tuple[int, ...]) -> Initializer:
    """``initializer`` by the parameters of the distribution that it has for ``shape``."""
    draw = _FAMILIES[initializer.name].draw
    if not isinstance(draw, partial) or "fan" not in draw.keywords:
        return initializer
    spread = math.sqrt(draw.keywords["scale"] / draw.keywords["fan"](shape))
    if draw.func is _scaled_normal:
        return Initializer("truncated_normal", (("stddev", spread / _TRUNCATED_STDDEV),))
    limit = math.sqrt(3) * spread
    return Initializer("random_uniform", (("minval", -limit), ("maxval", limit)))
