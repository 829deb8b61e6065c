"""The loss and its gradient at moved parameters, in float64: all that finite differences see.

First derivatives only: σ and σ′, the loss and its gradient. A point is θ + hv, and h may differ
for each of k directions v, which are taken at once. W + hV is never formed: a (W + hV) is
a W + h (a V), so that the digits of hV are not lost beside W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hesscli.nodes.activations import Elementwise, derivatives
from hesscli.nodes.losses import loss_derivatives
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem, Targets
from hesscli.system.errors import NumericalError
from hesscli.witnesses.layout import Layout, input_example, layer_of, layout_of

# Activations with a jump in σ′ or σ″, at z = 0. Nothing smooth can be said across it.
CORNERED = frozenset({"relu", "leaky_relu", "elu", "selu", "softsign"})
# Roundings in one evaluation of σ, σ′, or a loss, in units of the roundoff.
_ELEMENTARY = 4.0
_U = float(np.finfo(np.float64).eps) / 2
# Ten times what the longest step of finite.py moves anything by.
_FAR = 0.1


@dataclass(frozen=True)
class _Layer:
    name: str
    W: Array
    b: Array | None
    value: Elementwise
    slope: Elementwise
    cornered: bool


@dataclass(frozen=True)
class Directions:
    """k directions in the parameters of a block, for each layer from the lowest moved one on.

    ``kernels`` are (k, inputs, units) and ``biases`` (k, 1, units), None where a tensor stays;
    ``inputs`` is (k, 1, d), or None.
    """

    kernels: tuple[Array | None, ...]
    biases: tuple[Array | None, ...]
    inputs: Array | None


@dataclass(frozen=True)
class Point:
    """What is found at θ + hv: the loss (k,), its gradient (k, P), and what went too far.

    ``crossed`` (k,) says along which directions a corner was crossed, or a pre-activation or an
    output moved by more than a step may: as where ``reach``, which is of first order, saw nothing.
    """

    loss: Array
    gradient: Array
    crossed: NDArray[np.bool_]


class MovedLoss:
    """The loss as a function of the parameters of one block; KeyError for a name that is none.

    Raises NumericalError where the loss or its gradient leaves the range of float64.
    """

    def __init__(self, problem: Problem, parameter: str) -> None:
        self.layout: Layout = layout_of(problem, parameter)
        self._example = input_example(parameter)
        self._tensors = [t.name for segment in self.layout.segments for t in segment.tensors]
        lowest = 0
        if self._example is None:
            lowest = problem.layer_index(layer_of(self._tensors[0]))
        layers = [
            _Layer(
                name=layer.name,
                W=layer.kernel.astype(np.float64),
                b=None if layer.bias is None else layer.bias.astype(np.float64),
                value=sigma.value,
                slope=sigma.first,
                cornered=layer.activation.name in CORNERED,
            )
            for layer in problem.layers
            for sigma in (derivatives(layer.activation),)
        ]
        chosen = slice(None) if self._example is None else slice(self._example, self._example + 1)
        self._targets: Targets = problem.targets[chosen]
        if self._targets.dtype.kind == "f":
            self._targets = self._targets.astype(np.float64)
        loss = loss_derivatives(problem.loss)
        self._loss: Callable[[Array, Targets], Array] = loss.value
        self._loss_gradient: Callable[[Array, Targets], Array] = loss.gradient
        self._c = problem.scale
        a: Array = problem.inputs[chosen].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            for layer in layers[:lowest]:
                a = layer.value(_with_bias(a @ layer.W, layer.b))
            self._a = a
            self._layers = layers[lowest:]
            self._inputs, self._z, self._f = self._at_rest()
        if not np.isfinite(self._f).all():
            raise NumericalError(
                f"{parameter}: the network's output leaves the range of float64; "
                "use smaller weights"
            )

    @property
    def bytes_each(self) -> int:
        """What one direction takes: its gradient and its activations."""
        widest = max(layer.W.shape[1] for layer in self._layers)
        return 8 * max(self.layout.size, len(self._a) * int(widest))

    def directions(self, V: Array) -> Directions:
        """The columns of V (P, k) as directions."""
        parts: dict[str, Array] = {}
        low = 0
        columns = np.ascontiguousarray(V.T, dtype=np.float64)
        for segment in self.layout.segments:
            for tensor in segment.tensors:
                size = tensor.rows * segment.units
                part = columns[:, low : low + size]
                parts[tensor.name] = part.reshape(-1, tensor.rows, segment.units)
                low += size
        return Directions(
            kernels=tuple(parts.get(f"{layer.name}/kernel") for layer in self._layers),
            biases=tuple(parts.get(f"{layer.name}/bias") for layer in self._layers),
            inputs=None if self._example is None else parts[self._tensors[0]],
        )

    def reach(self, directions: Directions) -> tuple[Array, Array]:
        """How far one may go along each direction, (k,) and (k,), in units of its length.

        First to where a pre-activation, an output or a kernel above the lowest moved layer has
        moved by 1 (a kernel by its own size); second to where a pre-activation meets a corner:
        infinite where it meets none, zero where it stands on one.
        """
        # dz = da W + a V + v,  da = σ′ dz
        da = directions.inputs
        natural: list[Array] = []
        corner: list[Array] = []
        for index, layer in enumerate(self._layers):
            V, v = directions.kernels[index], directions.biases[index]
            parts = [] if da is None else [da @ layer.W]
            parts += [] if V is None else [self._inputs[index] @ V]
            parts += [] if v is None else [np.broadcast_to(v, (len(v), len(self._a), v.shape[2]))]
            dz = np.asarray(sum(parts[1:], start=parts[0]))
            da = layer.slope(self._z[index]) * dz
            natural.append(1 / np.abs(dz).max(axis=(1, 2)))
            largest = np.abs(layer.W).max()
            if V is not None and index > 0 and largest > 0:
                natural.append(largest / np.abs(V).max(axis=(1, 2)))
            if layer.cornered:
                distance = np.abs(self._z[index]) / np.abs(dz)
                corner.append(np.where(dz == 0, np.inf, distance).min(axis=(1, 2)))
        assert da is not None
        natural.append(1 / np.abs(da).max(axis=(1, 2)))
        nearest = np.min(natural, axis=0)
        return nearest, np.min([np.full_like(nearest, np.inf), *corner], axis=0)

    def at(self, directions: Directions, h: Array) -> Point:
        """The loss and its gradient at θ + h v, for a step h (k,) along each direction."""
        step = h[:, None, None]
        count = len(h)
        a: Array = (
            self._a[None] if directions.inputs is None else self._a + step * directions.inputs
        )
        inputs: list[Array] = []
        slopes: list[Array] = []
        crossed = np.zeros(count, dtype=bool)
        for index, layer in enumerate(self._layers):
            inputs.append(a)
            z: Array = a @ layer.W
            V, v = directions.kernels[index], directions.biases[index]
            if V is not None:
                z = z + step * (a @ V)
            if v is not None:
                z = z + step * v
            z = _with_bias(z, layer.b)
            if layer.cornered:
                crossed |= (np.sign(z) != np.sign(self._z[index])).any(axis=(1, 2))
            crossed |= _is_far(z, self._z[index])
            a = layer.value(z)
            slopes.append(layer.slope(z))
        crossed |= _is_far(a, self._f)
        f = a.reshape(-1, a.shape[2])
        targets = np.concatenate([self._targets] * count)
        loss = self._c * self._loss(f, targets).reshape(count, -1).sum(axis=1)
        g = self._c * self._loss_gradient(f, targets).reshape(a.shape)
        parts: dict[str, Array] = {}
        for index, layer in reversed(list(enumerate(self._layers))):
            g = g * slopes[index]
            V = directions.kernels[index]
            if V is not None:
                parts[f"{layer.name}/kernel"] = inputs[index].swapaxes(1, 2) @ g
            if directions.biases[index] is not None:
                parts[f"{layer.name}/bias"] = g.sum(axis=1)
            if index > 0 or directions.inputs is not None:
                g = g @ layer.W.T if V is None else g @ layer.W.T + step * (g @ V.swapaxes(1, 2))
        if directions.inputs is not None:
            parts[self._tensors[0]] = g
        flat = [parts[name].reshape(count, -1) for name in self._tensors]
        return Point(loss, flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1), crossed)

    def loss_at_rest(self) -> float:
        """The loss at θ."""
        return self._c * float(self._loss(self._f, self._targets).sum())

    def rounding(self, reach: float) -> tuple[float, Array]:
        """How much rounding leaves uncertain of the loss, and of its gradient (P,).

        At any point where no pre-activation and no output has moved by more than ``reach``, nor
        half the way to a corner. Each result is wrong by about the roundoff times what it was
        summed from, by its arguments' errors, and σ and σ′ by what they change within the error
        of z.
        """
        # e_z = e_a |W| + u |a| |W| + u |b|,   e_k = |σ^(k)(z ± e_z) − σ^(k)(z)| + u |σ^(k)|,
        # each the largest within reach: where z is 1e-20, what is rounded is what z has moved.
        e_a: Array = np.zeros_like(self._a)
        if self._example is not None:
            e_a = _U * (np.abs(self._a) + reach)
        e_inputs: list[Array] = []
        e_slopes: list[Array] = []
        slopes: list[Array] = []
        sizes: list[Array] = [np.abs(self._a)]
        for index, layer in enumerate(self._layers):
            e_inputs.append(e_a)
            z, W = self._z[index], np.abs(layer.W)
            e_z = (e_a + _U * sizes[index]) @ W + _U * np.abs(z)
            if layer.b is not None:
                e_z = e_z + _U * np.abs(layer.b)
            far: Array = np.full_like(z, reach)
            if layer.cornered:
                far = np.minimum(far, np.abs(z) / 2)
            # A sum such as Φ + zφ has the roundoff of its terms where it vanishes itself.
            e_z = e_z + _U * (far if layer.cornered else 1)
            points = (z, z + far, z - far)
            e_a, e_slope = (
                np.max([_spread(function, point, e_z) for point in points], axis=0)
                for function in (layer.value, layer.slope)
            )
            e_slopes.append(e_slope)
            sizes.append(np.max([np.abs(layer.value(point)) for point in points], axis=0))
            slopes.append(np.max([np.abs(layer.slope(point)) for point in points], axis=0))
        f = self._f
        # Softmax and logistic functions see differences of outputs, of the largest's roundoff.
        e_f = e_a + _U * (1 + np.abs(f).max(axis=1, keepdims=True))
        g = self._loss_gradient(f, self._targets)
        size: Array = np.abs(g)
        e_g: Array = _ELEMENTARY * _U * np.abs(g)
        for unit in range(f.shape[1]):
            changes = []
            for step in (e_f[:, unit], reach):
                moved = f.copy()
                moved[:, unit] += step
                changes.append(np.abs(self._loss_gradient(moved, self._targets) - g))
            e_g, size = e_g + changes[0], size + changes[1]
        losses = np.abs(self._loss(f, self._targets)) + reach * size.sum(axis=1)
        e_losses: Array = (size * e_f).sum(axis=1)
        e_losses += _ELEMENTARY * _U * (losses + np.abs(f).max(axis=1) + reach)
        g, e_g = self._c * size, self._c * e_g
        parts: dict[str, Array] = {}
        for index, layer in reversed(list(enumerate(self._layers))):
            slope, a = slopes[index], sizes[index]
            e_g = e_slopes[index] * g + (slope + e_slopes[index]) * e_g + _U * slope * g
            g = slope * g
            wrong = e_g + _U * g
            parts[f"{layer.name}/kernel"] = a.T @ wrong + e_inputs[index].T @ (g + e_g)
            parts[f"{layer.name}/bias"] = wrong.sum(axis=0)
            e_g, g = wrong @ np.abs(layer.W).T, g @ np.abs(layer.W).T
        if self._example is not None:
            parts[self._tensors[0]] = e_g
        flat = np.concatenate([parts[name].reshape(-1) for name in self._tensors])
        return self._c * float(e_losses.sum()), flat

    def _at_rest(self) -> tuple[list[Array], list[Array], Array]:
        a = self._a
        inputs: list[Array] = []
        pre_activations: list[Array] = []
        for layer in self._layers:
            inputs.append(a)
            pre_activations.append(_with_bias(a @ layer.W, layer.b))
            a = layer.value(pre_activations[-1])
        return inputs, pre_activations, a


def _is_far(moved: Array, at_rest: Array) -> NDArray[np.bool_]:
    """Along which directions (k,) the numbers (k, N, units) have moved farther than steps do."""
    return np.asarray((np.abs(moved - at_rest) > _FAR).any(axis=(1, 2)))


def _with_bias(z: Array, b: Array | None) -> Array:
    return z if b is None else z + b


def _spread(function: Elementwise, z: Array, within: Array) -> Array:
    value = function(z)
    up, down = np.abs(function(z + within) - value), np.abs(function(z - within) - value)
    return np.asarray(np.maximum(up, down) + _ELEMENTARY * _U * np.abs(value))
