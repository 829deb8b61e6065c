"""The greatest of several numbers. What is not the greatest has no slope; bend is 0.

Of several equal ones TensorFlow takes the first in a window of a max pooling and of two values,
and the mean of their slopes in ``reduce_max``, which Keras's GlobalMaxPooling is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted, added, over
from hesscli.nodes.windows import Windows
from hesscli.problem.graph import Array
from hesscli.system import xp

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FirstAt:
    """Which tap of each window is the greatest, (n, *out), and how the windows lie."""

    tap: NDArray[np.intp]
    windows: Windows

    def part(self, chosen: slice) -> FirstAt:
        return FirstAt(self.tap[chosen, ...], self.windows)


class MaxPooling(Calculus):
    """The greatest number of each window; outside there are none."""

    bends_in_x = False

    def __init__(self, pool_size: Shape, strides: Shape, padding: str) -> None:
        self.of = pool_size, strides, padding

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, FirstAt]:
        windows = Windows.over(x[0].shape[1:-1], *self.of)
        padded = windows.pad(x[0], -math.inf)
        first, *others = windows.places
        y = xp.copy(padded[first])
        tap = xp.asarray(np.zeros(y.shape, dtype=np.intp), like=y)
        for index, places in enumerate(others, start=1):
            tap[padded[places] > y] = index
            y = xp.maximum(y, padded[places])
        return y, FirstAt(tap, windows)

    def push(self, at: FirstAt, Rx: Moves, V: Tensors) -> Array:
        (moved,) = Rx
        assert moved is not None  # nothing else can move
        padded = xp.swapaxes(over(at.windows.pad, moved), 0, 1)
        y = xp.zeros((padded.shape[0], *at.tap.shape), like=moved)
        for index, places in enumerate(at.windows.places):
            y = xp.copy_where(padded[_of_directions(places)], at.tap == index, to=y)
        return xp.swapaxes(y, 0, 1)

    def pull(self, at: FirstAt, g: Array, wanted: Wanted) -> Pulled:
        windows = at.windows
        n, k = g.shape[:2]
        padded = xp.zeros((n, k, *windows.padded, g.shape[-1]), like=g)
        for index, places in enumerate(windows.places):
            own = (at.tap == index)[:, None, ...]
            padded[_of_directions(places)] += xp.where(own, g, 0.0)
        return Pulled([padded[_of_directions(windows.inside)]], {})

    def margins(self, at: FirstAt, x: Sequence[Array]) -> Array:
        (value,) = x
        seen = at.windows.unfold(value, -math.inf)
        tap = _again(at.tap, value)[..., None, :]
        greatest = xp.take_along_axis(seen, tap, axis=-2)
        others = xp.arange(at.windows.taps, like=value)[:, None] != tap
        return xp.where(others, greatest - seen, 1.0)


def _again(x: NDArray[Any], like: Array) -> Array:
    """X (n, …) one after the other as often as makes as many as in ``like``."""
    return xp.concat([x] * (like.shape[0] // x.shape[0]))


def _of_directions(places: tuple[slice, ...]) -> tuple[slice, ...]:
    """Places in (m, *padded, c) as places in (n, k, *padded, c)."""
    return slice(None), *places


@dataclass(frozen=True)
class WeightsAt:
    """What the slope of each number read is: for each value read an array (n, *in)."""

    weights: tuple[Array, ...]

    def part(self, chosen: slice) -> WeightsAt:
        return WeightsAt(tuple(weight[chosen, ...] for weight in self.weights))


class GlobalMaxPooling(Calculus):
    """The greatest number of each channel."""

    bends_in_x = False

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, WeightsAt]:
        axes = tuple(range(1, x[0].ndim - 1))
        y = xp.max(x[0], axis=axes, keepdims=True)
        equal = xp.astype(x[0] == y, x[0].dtype)
        weight = equal / xp.sum(equal, axis=axes, keepdims=True)
        return xp.reshape(y, (y.shape[0], *self.shape)), WeightsAt((weight,))

    def push(self, at: WeightsAt, Rx: Moves, V: Tensors) -> Array:
        (moved,), (weight,) = Rx, at.weights
        assert moved is not None  # nothing else can move
        places = tuple(range(2, moved.ndim - 1))
        y = xp.sum(weight[:, None, ...] * moved, axis=places)
        return xp.reshape(y, (*moved.shape[:2], *self.shape))

    def pull(self, at: WeightsAt, g: Array, wanted: Wanted) -> Pulled:
        (weight,) = at.weights
        each = xp.reshape(g, (*g.shape[:2], *[1] * (weight.ndim - 2), g.shape[-1]))
        return Pulled([weight[:, None, ...] * each], {})

    def margins(self, at: WeightsAt, x: Sequence[Array]) -> Array:
        (value,), (weight,) = x, at.weights
        is_greatest = _again(weight, value) > 0
        places = tuple(range(1, value.ndim - 1))
        lowest = xp.min(xp.where(is_greatest, value, math.inf), axis=places, keepdims=True)
        # Equal ones are apart by 0, but for the one that there is at least.
        alone = xp.count_nonzero(is_greatest, axis=places, keepdims=True) == 1
        gap = lowest - xp.where(is_greatest, lowest, value)
        return xp.where(is_greatest & alone, 1.0, gap)


class Maximum(Calculus):
    """The greater of two values of one shape, number by number."""

    bends_in_x = False

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, WeightsAt]:
        first, second = x
        chosen = first >= second
        weights = tuple(xp.astype(of, first.dtype) for of in (chosen, ~chosen))
        return xp.maximum(first, second), WeightsAt(weights)

    def push(self, at: WeightsAt, Rx: Moves, V: Tensors) -> Array:
        each = zip(at.weights, Rx, strict=True)
        return added(weight[:, None, ...] * moved for weight, moved in each if moved is not None)

    def pull(self, at: WeightsAt, g: Array, wanted: Wanted) -> Pulled:
        each = zip(at.weights, wanted.inputs, strict=True)
        return Pulled([weight[:, None, ...] * g if asked else None for weight, asked in each], {})

    def margins(self, at: WeightsAt, x: Sequence[Array]) -> Array:
        gap: Array = x[0] - x[1]
        return gap
