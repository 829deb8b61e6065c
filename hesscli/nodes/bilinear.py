"""Nodes that are bilinear in what they read and a kernel, y = D E(U x, W) + b.

E is a sum of products, which an equation of ``einsum`` says; U and D are linear and depend on no
parameter (for a convolution U unfolds patches, for a transposed one D folds them).

push    D E(U Rx, W) + D E(U x, V_W) + V_b
pull    Uᵀ E(Dᵀg, W);   at W: E(U x, Dᵀg),   at b: Σ g
bend    Uᵀ E(Dᵀg, V_W);   at W: E(U Rx, Dᵀg)

where E of two of x, W and y is the third: the same products, summed over other axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted, added, over
from hesscli.nodes.windows import Windows
from hesscli.problem.graph import Array
from hesscli.system import xp

Shape = tuple[int, ...]


@dataclass(frozen=True)
class BilinearAt:
    """U x (n, …), W as E takes it, shapes for one example, and Dᵀg once it is known."""

    a: Array
    W: Array
    x_shape: Shape
    y_shape: Shape
    kernel: Shape
    bias: Shape
    g: Array | None = None

    def part(self, chosen: slice) -> BilinearAt:
        return replace(
            self, a=self.a[chosen, ...], g=None if self.g is None else self.g[chosen, ...]
        )


class Bilinear(Calculus):
    """``x``, ``W`` and ``y`` are the letters of E's axes; n and k are examples and directions."""

    bends_in_x = False

    def __init__(self, x: str, W: str, y: str) -> None:
        self.x, self.W, self.y = x, W, y

    def matrix(self, kernel: Shape) -> Shape:
        """The shape in which E takes a kernel."""
        return kernel

    def unfold(self, x: Array) -> Array:
        """U x, (m, *in) → (m, …)."""
        return x

    def fold(self, a: Array, shape: Shape) -> Array:
        """Uᵀ a, (m, …) → (m, *in), ``shape`` being that of x for one example."""
        return a

    def down(self, z: Array, shape: Shape) -> Array:
        """D z, (m, …) → (m, *out), ``shape`` being that of x for one example."""
        return z

    def up(self, g: Array, shape: Shape) -> Array:
        """Dᵀ g, (m, *out) → (m, …), ``shape`` being that of x for one example."""
        return g

    def below(self, z: Array, W: Array, shape: Shape) -> Array:
        """Uᵀ E(z, W), (n, k, …) → (n, k, *in), ``shape`` being that of x for one example."""
        a = xp.einsum(f"nk{self.y},{self.W}->nk{self.x}", z, W)
        return over(lambda a: self.fold(a, shape), a)

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, BilinearAt]:
        shape, kernel, bias = x[0].shape[1:], theta["kernel"], theta.get("bias")
        a, W = self.unfold(x[0]), xp.reshape(kernel, self.matrix(kernel.shape))
        y = self.down(xp.einsum(f"n{self.x},{self.W}->n{self.y}", a, W), shape)
        if bias is not None:
            y = y + bias
        at = (a, W, shape, y.shape[1:], kernel.shape, () if bias is None else bias.shape)
        return y, BilinearAt(*at)

    def push(self, at: BilinearAt, Rx: Moves, V: Tensors) -> Array:
        (moved,), parts = Rx, []
        if moved is not None:
            a = over(self.unfold, moved)
            parts.append(xp.einsum(f"nk{self.x},{self.W}->nk{self.y}", a, at.W))
        if "kernel" in V:
            W = xp.reshape(V["kernel"], (-1, *at.W.shape))
            parts.append(xp.einsum(f"n{self.x},k{self.W}->nk{self.y}", at.a, W))
        parts = [over(lambda z: self.down(z, at.x_shape), part) for part in parts]
        if "bias" in V:
            b = aligned(V["bias"], at.bias, len(at.y_shape))
            parts.append(xp.broadcast_to(b, (at.a.shape[0], b.shape[1], *at.y_shape)))
        return added(parts)

    def pull(self, at: BilinearAt, g: Array, wanted: Wanted) -> Pulled:
        below, tensors = None, {}
        z = over(lambda g: self.up(g, at.x_shape), g)
        if wanted.inputs[0]:
            below = self.below(z, at.W, at.x_shape)
        if "kernel" in wanted.tensors:
            W = xp.einsum(f"nk{self.y},n{self.x}->k{self.W}", z, at.a)
            tensors["kernel"] = xp.reshape(W, (-1, *at.kernel))
        if "bias" in wanted.tensors:
            tensors["bias"] = summed(g, at.bias)
        return Pulled([below], tensors)

    def curved(self, at: BilinearAt, g: Array) -> BilinearAt:
        return replace(at, g=self.up(g, at.x_shape))

    def bend(self, at: BilinearAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        (moved,), (below,) = Rx, into.inputs
        assert at.g is not None  # ``curved`` came first
        if below is not None and "kernel" in V:
            W = xp.reshape(V["kernel"], (-1, *at.W.shape))
            for k in range(W.shape[0]):
                bent = self.below(at.g[:, None, ...], W[k, ...], at.x_shape)
                below[:, k : k + 1, ...] += bent
        if moved is not None and "kernel" in into.tensors:
            a = over(self.unfold, moved)
            W = xp.einsum(f"nk{self.x},n{self.y}->k{self.W}", a, at.g)
            into.tensors["kernel"] += xp.reshape(W, (-1, *at.kernel))

    def fan(self, x: Sequence[Array], theta: Tensors) -> int:
        W = self.matrix(theta["kernel"].shape)
        return math.prod(n for letter, n in zip(self.W, W, strict=True) if letter not in self.y)


class EinsumDense(Bilinear):
    """y = xp.einsum(x, W) + b; the equation has no n and no k."""

    def __init__(self, equation: str) -> None:
        operands, y = equation.split("->")
        x, W = operands.split(",")
        super().__init__(x, W, y)


class Conv(Bilinear):
    """A convolution over one or two spatial axes; each group of channels on its own."""

    def __init__(
        self, kernel_size: Shape, strides: Shape, padding: str, dilation_rate: Shape, groups: int
    ) -> None:
        places, of_group = "hw"[: len(kernel_size)], "" if groups == 1 else "g"
        super().__init__(f"{places}t{of_group}c", f"tc{of_group}f", f"{places}{of_group}f")
        self.of = kernel_size, strides, padding, dilation_rate
        self.groups = groups

    def matrix(self, kernel: Shape) -> Shape:
        *size, c, f = kernel
        of_group = () if self.groups == 1 else (self.groups,)
        return (math.prod(size), c, *of_group, f // self.groups)

    def unfold(self, x: Array) -> Array:
        a = self._windows(x.shape[1:]).unfold(x)
        return a if self.groups == 1 else xp.reshape(a, (*a.shape[:-1], self.groups, -1))

    def fold(self, a: Array, shape: Shape) -> Array:
        windows = self._windows(shape)
        a = xp.reshape(a, (a.shape[0], *windows.out, windows.taps, shape[-1]))
        return windows.fold(a[..., tap, :] for tap in range(windows.taps))

    def below(self, z: Array, W: Array, shape: Shape) -> Array:
        if self.W != "tcf":
            return super().below(z, W, shape)
        # Axis by axis: what is added along the first one is contiguous over all of the second.
        along, *across = self._windows(shape).by_axis
        flat, to = xp.reshape(z, (-1, z.shape[-1])), (math.prod(z.shape[:2]), *along.out, -1)
        taps = xp.reshape(W, (along.taps, -1, W.shape[-1]))
        x = along.fold(xp.reshape(flat @ taps[i, :, :].T, to) for i in range(along.taps))
        for windows in across:
            by_tap = xp.reshape(x, (-1, *windows.out, windows.taps, shape[-1]))
            x = windows.fold(by_tap[..., tap, :] for tap in range(windows.taps))
        return xp.reshape(x, (*z.shape[:2], *shape))

    def down(self, z: Array, shape: Shape) -> Array:
        return z if self.groups == 1 else xp.reshape(z, (*z.shape[:-2], -1))

    def up(self, g: Array, shape: Shape) -> Array:
        return g if self.groups == 1 else xp.reshape(g, (*g.shape[:-1], self.groups, -1))

    def _windows(self, shape: Shape) -> Windows:
        size, strides, padding, dilation = self.of
        return Windows.over(shape[:-1], size, strides, padding, dilation)


class DepthwiseConv(Conv):
    """A convolution of each channel on its own, to ``depth_multiplier`` channels each."""

    def __init__(
        self, kernel_size: Shape, strides: Shape, padding: str, dilation_rate: Shape
    ) -> None:
        super().__init__(kernel_size, strides, padding, dilation_rate, 1)
        places = "hw"[: len(kernel_size)]
        self.x, self.W, self.y = f"{places}tg", "tgf", f"{places}gf"

    def matrix(self, kernel: Shape) -> Shape:
        *size, c, multiplier = kernel
        return (math.prod(size), c, multiplier)

    def down(self, z: Array, shape: Shape) -> Array:
        return xp.reshape(z, (*z.shape[:-2], -1))

    def up(self, g: Array, shape: Shape) -> Array:
        return xp.reshape(g, (*g.shape[:-1], shape[-1], -1))


class ConvTranspose(Bilinear):
    """The transpose of a convolution with these windows: each number is spread over its window."""

    def __init__(self, kernel_size: Shape, strides: Shape, padding: str, spatial: Shape) -> None:
        places = "hw"[: len(kernel_size)]
        super().__init__(f"{places}c", "tfc", f"{places}tf")
        self.windows = Windows.over(spatial, kernel_size, strides, padding)

    def matrix(self, kernel: Shape) -> Shape:
        *size, f, c = kernel
        return (math.prod(size), f, c)

    def down(self, z: Array, shape: Shape) -> Array:
        return self.windows.fold(z[..., tap, :] for tap in range(self.windows.taps))

    def up(self, g: Array, shape: Shape) -> Array:
        return self.windows.unfold(g)


def aligned(V: Array, shape: Shape, axes: int) -> Array:
    """Directions (k, *shape) with axes of one before those of ``shape``, ``axes`` in all."""
    return xp.reshape(V, (1, V.shape[0], *[1] * (axes - len(shape)), *shape))


def summed(g: Array, shape: Shape) -> Array:
    """G (n, k, *out) summed over the examples and over all axes that ``shape`` does not have.

    (k, *shape): the transpose of adding what has this shape to each value.
    """
    wide = (*[1] * (g.ndim - 2 - len(shape)), *shape)
    alone = [2 + axis for axis, n in enumerate(wide) if n == 1]
    return xp.reshape(xp.sum(g, axis=(0, *alone)), (g.shape[1], *shape))
