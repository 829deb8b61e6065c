"""Windows over spatial axes, channels last: which numbers each output of a convolution sees.

An output o along an axis of n numbers sees  o · stride + tap · dilation − before, for its taps.
``valid`` windows lie inside; there are ⌈n / stride⌉ ``same`` ones, over zeros at both ends, of
which the smaller half comes first; ``causal`` ones see nothing after themselves.

Source: TensorFlow, "Notes on padding combination operations" (tf.nn).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from hesscli.problem.graph import Array
from hesscli.problem.shapes import window_count
from hesscli.system import xp
from hesscli.system.arrays import is_numpy

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """Windows of ``size`` taps over ``spatial`` numbers, padded by ``before`` and ``after``."""

    spatial: Shape
    size: Shape
    strides: Shape
    dilation: Shape
    out: Shape
    before: Shape

    @classmethod
    @cache
    def over(
        cls, spatial: Shape, size: Shape, strides: Shape, padding: str, dilation: Shape = ()
    ) -> Windows:
        dilation = dilation or (1,) * len(size)
        out, before = [], []
        for n, k, s, d in zip(spatial, size, strides, dilation, strict=True):
            reach = (k - 1) * d + 1
            out.append(window_count(n, k, s, padding, d))
            if padding == "same":
                before.append(max((out[-1] - 1) * s + reach - n, 0) // 2)
            else:
                before.append(reach - 1 if padding == "causal" else 0)
        return cls(spatial, size, strides, dilation, tuple(out), tuple(before))

    @cached_property
    def taps(self) -> int:
        return math.prod(self.size)

    @cached_property
    def disjoint(self) -> bool:
        """Whether no number lies in two windows."""
        each = zip(self.size, self.dilation, self.strides, strict=True)
        return all((k - 1) * d < s for k, d, s in each)

    @cached_property
    def padded(self) -> Shape:
        """As many numbers along each axis as all windows together need."""
        reach = [
            (o - 1) * s + (k - 1) * d + 1
            for o, s, k, d in zip(self.out, self.strides, self.size, self.dilation, strict=True)
        ]
        inside = [n + b for n, b in zip(self.spatial, self.before, strict=True)]
        return tuple(map(max, reach, inside))

    def pad(self, x: Array, filling: float = 0.0) -> Array:
        """X (m, *spatial, c) with what lies around it, (m, *padded, c)."""
        if self.padded == self.spatial:
            return x
        margins = [
            (before, padded - before - n)
            for before, padded, n in zip(self.before, self.padded, self.spatial, strict=True)
        ]
        return xp.pad(x, [(0, 0), *margins, (0, 0)], filling)

    def unfold(self, x: Array, filling: float = 0.0) -> Array:
        """What each window sees of x (m, *spatial, c): (m, *out, taps, c)."""
        padded = self.pad(x, filling)
        if not is_numpy(x):
            return xp.stack([padded[places] for places in self.places], axis=-2)
        reach = tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True))
        axes = tuple(range(1, 1 + len(self.size)))
        seen = sliding_window_view(padded, reach, axes)
        # (m, places, c, *reach), and of these the windows' places and their taps
        chosen = (
            slice(None),
            *(slice(0, (o - 1) * s + 1, s) for o, s in zip(self.out, self.strides, strict=True)),
            slice(None),
            *(slice(None, None, d) for d in self.dilation),
        )
        by_tap = np.moveaxis(seen[chosen], len(axes) + 1, -1)
        return by_tap.reshape(len(x), *self.out, self.taps, x.shape[-1])

    def fold(self, parts: Iterable[Array]) -> Array:
        """The transpose of ``unfold``, of (m, *out, c) for each tap: (m, *spatial, c)."""
        padded: Array | None = None
        for places, part in zip(self.places, parts, strict=True):
            if padded is None:
                padded = xp.zeros((part.shape[0], *self.padded, part.shape[-1]), like=part)
            if self.disjoint:
                padded[places] = part
            else:
                padded[places] += part
        assert padded is not None  # a window has a tap
        return padded if self.padded == self.spatial else padded[self.inside]

    def mean(self, x: Array) -> Array:
        """The mean of what each window sees of x (m, *spatial, c) inside it: (m, *out, c)."""
        padded = self.pad(x)
        first, *others = self.places
        mean = xp.copy(padded[first])
        for places in others:
            mean += padded[places]
        mean /= self.counts_like(x)
        return mean

    @cached_property
    def places(self) -> tuple[tuple[slice, ...], ...]:
        """Where in a padded array each tap of all windows is."""
        return tuple(
            (
                slice(None),
                *(
                    slice(i * d, i * d + (o - 1) * s + 1, s)
                    for i, d, o, s in zip(index, self.dilation, self.out, self.strides, strict=True)
                ),
                slice(None),
            )
            for index in np.ndindex(*self.size)
        )

    @cached_property
    def by_axis(self) -> tuple[Windows, ...]:
        """The windows along each axis alone, whose product these are."""
        each = (self.spatial, self.size, self.strides, self.dilation, self.out, self.before)
        return tuple(Windows(*((n,) for n in of_axis)) for of_axis in zip(*each, strict=True))

    def counts_like(self, x: Array) -> Array:
        """How many taps of each window lie inside, (*out, 1), as numbers like x."""
        return xp.astype(xp.asarray(self._counts, like=x), x.dtype)

    @cached_property
    def _counts(self) -> Array:
        return np.asarray(self.unfold(np.ones((1, *self.spatial, 1))).sum(axis=-2)[0])

    @property
    def inside(self) -> tuple[slice, ...]:
        of_axes = (slice(b, b + n) for b, n in zip(self.before, self.spatial, strict=True))
        return slice(None), *of_axes, slice(None)
