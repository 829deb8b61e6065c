"""Nodes that are linear in what they read: push is the map, pull its transpose, bend is 0."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted, added, over
from hesscli.nodes.windows import Windows
from hesscli.problem.graph import Array
from hesscli.system import xp

Shape = tuple[int, ...]
# (before, after) of each spatial axis.
Margins = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Shapes:
    """The shapes of what a node reads, for one example; nothing else is needed again."""

    shapes: tuple[Shape, ...]

    def part(self, chosen: slice) -> Shapes:
        return self


class Linear(Calculus):
    """y = A x, for arrays (m, …) each on its own."""

    bends_in_x = False

    @abstractmethod
    def map(self, x: Array) -> Array:
        """A x, (m, *in) → (m, *out)."""

    @abstractmethod
    def transposed(self, g: Array, shape: Shape) -> Array:
        """Aᵀ g, (m, *out) → (m, *in), ``shape`` being that of x for one example."""

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, Shapes]:
        return self.map(x[0]), Shapes((x[0].shape[1:],))

    def push(self, at: Shapes, Rx: Moves, V: Tensors) -> Array:
        (moved,) = Rx
        assert moved is not None  # nothing else can move
        return over(self.map, moved)

    def pull(self, at: Shapes, g: Array, wanted: Wanted) -> Pulled:
        return Pulled([over(lambda g: self.transposed(g, at.shapes[0]), g)], {})


class Reshape(Linear):
    """The same numbers in another shape: Flatten and Reshape."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def map(self, x: Array) -> Array:
        return xp.reshape(x, (x.shape[0], *self.shape))

    def transposed(self, g: Array, shape: Shape) -> Array:
        return xp.reshape(g, (g.shape[0], *shape))


class Permute(Linear):
    """Axes in another order, counted from 1: y's axis i is x's axis dims[i]."""

    def __init__(self, dims: Shape) -> None:
        self.axes = (0, *dims)

    def map(self, x: Array) -> Array:
        return xp.permute_dims(x, self.axes)

    def transposed(self, g: Array, shape: Shape) -> Array:
        return xp.permute_dims(g, [self.axes.index(axis) for axis in range(g.ndim)])


class ZeroPadding(Linear):
    """Zeros around the spatial axes."""

    def __init__(self, padding: Margins) -> None:
        self.padding = padding

    def map(self, x: Array) -> Array:
        return xp.pad(x, ((0, 0), *self.padding, (0, 0)))

    def transposed(self, g: Array, shape: Shape) -> Array:
        return g[_inside(self.padding, shape)]


class Cropping(Linear):
    """The spatial axes without their margins: the transpose of ZeroPadding."""

    def __init__(self, cropping: Margins) -> None:
        self.cropping = cropping

    def map(self, x: Array) -> Array:
        kept = [n - sum(margins) for n, margins in zip(x.shape[1:], self.cropping, strict=False)]
        return x[_inside(self.cropping, tuple(kept))]

    def transposed(self, g: Array, shape: Shape) -> Array:
        return xp.pad(g, ((0, 0), *self.cropping, (0, 0)))


def _inside(margins: Margins, shape: Shape) -> tuple[slice, ...]:
    """Where an array of this shape lies within one that has these margins besides."""
    of_axes = (slice(before, before + n) for (before, _), n in zip(margins, shape, strict=False))
    return slice(None), *of_axes, slice(None)


class UpSampling(Linear):
    """Each number ``size`` times along each spatial axis (interpolation ``nearest``)."""

    def __init__(self, size: Shape) -> None:
        self.size = size

    def map(self, x: Array) -> Array:
        for axis, times in enumerate(self.size, start=1):
            x = xp.repeat(x, times, axis=axis)
        return x

    def transposed(self, g: Array, shape: Shape) -> Array:
        split = [n for pair in zip(shape, self.size, strict=False) for n in pair]
        axes = tuple(2 + 2 * axis for axis in range(len(self.size)))
        return xp.sum(xp.reshape(g, (g.shape[0], *split, shape[-1])), axis=axes)


class AveragePooling(Linear):
    """The mean of each window; of one at the border only what lies inside counts."""

    def __init__(self, pool_size: Shape, strides: Shape, padding: str) -> None:
        self.of = pool_size, strides, padding

    def map(self, x: Array) -> Array:
        return self._windows(x.shape[1:]).mean(x)

    def transposed(self, g: Array, shape: Shape) -> Array:
        windows = self._windows(shape)
        return windows.fold(repeat(g / windows.counts_like(g), windows.taps))

    def fan(self, x: Sequence[Array], theta: Tensors) -> int:
        return math.prod(self.of[0])

    def _windows(self, shape: Shape) -> Windows:
        return Windows.over(shape[:-1], *self.of)


class GlobalAveragePooling(Linear):
    """The mean over the spatial axes."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def map(self, x: Array) -> Array:
        mean = xp.mean(x, axis=tuple(range(1, x.ndim - 1)))
        return xp.reshape(mean, (x.shape[0], *self.shape))

    def transposed(self, g: Array, shape: Shape) -> Array:
        each = xp.reshape(g, (g.shape[0], *[1] * (len(shape) - 1), shape[-1]))
        return xp.broadcast_to(each / math.prod(shape[:-1]), (g.shape[0], *shape))

    def fan(self, x: Sequence[Array], theta: Tensors) -> int:
        return math.prod(x[0].shape[1:-1])


class WeightedSum(Calculus):
    """y = Σ w_i x_i for values of one shape: Add, Subtract and Average."""

    bends_in_x = False

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = weights

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, Shapes]:
        return self._sum(x), Shapes(())

    def push(self, at: Shapes, Rx: Moves, V: Tensors) -> Array:
        return self._sum(Rx)

    def pull(self, at: Shapes, g: Array, wanted: Wanted) -> Pulled:
        each = zip(wanted.inputs, self.weights, strict=True)
        return Pulled([_times(w, g) if asked else None for asked, w in each], {})

    def _sum(self, x: Moves) -> Array:
        each = zip(x, self.weights, strict=True)
        return added(_times(w, part) for part, w in each if part is not None)


def _times(weight: float, x: Array) -> Array:
    return x if weight == 1 else x * weight


class Concatenate(Calculus):
    """Values one after the other along an axis of one example, counted from 0."""

    bends_in_x = False

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, Shapes]:
        y = xp.concat(x, axis=1 + self.axis)
        return y, Shapes(tuple(value.shape[1:] for value in x))

    def push(self, at: Shapes, Rx: Moves, V: Tensors) -> Array:
        like = next(part for part in Rx if part is not None)
        parts = [
            xp.zeros((*like.shape[:2], *shape), like=like) if part is None else part
            for part, shape in zip(Rx, at.shapes, strict=True)
        ]
        return xp.concat(parts, axis=2 + self.axis)

    def pull(self, at: Shapes, g: Array, wanted: Wanted) -> Pulled:
        inputs: list[Array | None] = []
        before, low = (slice(None),) * (2 + self.axis), 0
        for shape, asked in zip(at.shapes, wanted.inputs, strict=True):
            high = low + shape[self.axis]
            places: Any = (*before, slice(low, high), ...)
            inputs.append(g[places] if asked else None)
            low = high
        return Pulled(inputs, {})
