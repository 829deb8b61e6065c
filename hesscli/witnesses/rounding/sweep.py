"""How rounding errors travel through the sweep; the derivation stands in rounding.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from hesscli.nodes.activations import Elementwise, derivatives
from hesscli.problem.graph import Activation, Array, Layer
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.chain_rule.roperator import GAUSS_NEWTON, Node
from hesscli.witnesses.rounding.terms import ELEMENTARY, loss_errors, subtracted_terms

# The errors are typical sizes; the largest of many, with the correlations that step 2
# leaves out, stays below this many times them (in 3,000 random networks below 0.7 times).
SAFETY = 4.0
# Sums of squares below this, of numbers scaled to one, may have lost all of their terms.
_LOST = 1e-280
# A reach from which on its two ends do not tell the function's spread; the parts of it where one
# looks for that of a function that returns, such as sin, and the places near zero where the
# others' derivatives have their extremes.
_WIDE = 0.1
_PARTS = (-0.8, -0.6, -0.4, -0.2, 0.2, 0.4, 0.6, 0.8)
_BENDS = (-3.0, -1.5, -0.7, 0.0, 0.7, 1.5, 3.0)


@dataclass(frozen=True)
class SweptNode:
    """The values at one dense layer that errors are made from and travel through, in float64.

    ``slope`` and ``second`` (N, units) are σ′ and σ″ at z.
    """

    a: Array
    z: Array
    W: Array
    b: Array | None
    slope: Array
    second: Array
    g_a: Array
    g_z: Array


@dataclass(frozen=True)
class SweptErrors:
    """Typical errors at one dense layer, shaped like the quantities they belong to.

    ``a`` (N, inputs) is the error of the layer's input, ``first`` and ``second`` (N, units)
    those of σ′ and σ″, ``g_a`` and ``g`` (N, units) those of the gradients at the activation's
    output and at the pre-activation.
    """

    a: Array
    first: Array
    second: Array
    g_a: Array
    g: Array


@dataclass(frozen=True)
class UncertainCross:
    """What connects two layers (hesscli.witnesses.chain_rule.blocks.CrossTerm), with its errors.

    Of ``B`` only the size is known.
    """

    M: Array
    B: Array
    e_M: Array
    e_B: Array


class ErrorSweep:
    """How rounding errors travel through one problem's forward pass and sweep.

    ``nodes`` are the chain rule's quantities at each dense layer in float64 and ``errors`` their
    typical errors; ``f`` is the network's output, ``scale`` the factor of the loss's reduction,
    ``u`` the unit roundoff of the problem's dtype and ``tiny`` its smallest normal number. The
    errors of S, which is units × units for every example, are computed when they are asked for.
    """

    def __init__(self, engine: ChainRule) -> None:
        self.problem = engine.problem
        self._engine = engine
        self.u = float(np.finfo(engine.problem.dtype).eps) / 2
        # Below the smallest normal number TensorFlow's values become zero.
        self.tiny = float(np.finfo(engine.problem.dtype).tiny)
        self.scale = engine.problem.scale
        # Errors of S from the last layer down, as far as they were asked for.
        self._second: list[Array] = []
        with np.errstate(over="ignore", invalid="ignore"):
            self.nodes = tuple(
                _in_float64(node, layer)
                for node, layer in zip(engine.nodes, engine.problem.layers, strict=True)
            )
            last = engine.problem.layers[-1].activation
            self.f = derivatives(last).value(self.nodes[-1].z)
            self.errors = self._sweep()

    def second(self, index: int) -> tuple[Array, Array]:
        """The size of S (N, units, units) at the pre-activation of a layer, and its error."""
        layers = len(self.nodes)
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(layers - 1 - len(self._second), index - 1, -1):
                self._second.append(self._second_error(k))
        return _largest_size(self._terms(index)), self._second[layers - 1 - index]

    def _terms(self, index: int) -> Iterator[Array]:
        """S of H at the pre-activation of a layer; where a slope is in doubt, that of G as well.

        There C may cancel most of G in H, and G's own error be the larger one.
        """
        yield self._engine.second(index).astype(np.float64, copy=False)
        if self._in_doubt:
            *_, (_, S) = self._engine.sweep(slice(None), GAUSS_NEWTON, down_to=index)
            yield S.astype(np.float64, copy=False)

    @cached_property
    def _in_doubt(self) -> bool:
        """Whether a σ′ is wrong by more than rounding itself: a kink, or a sum that cancels."""
        return any(
            (error.first > math.sqrt(self.u) * np.abs(node.slope)).any()
            for node, error in zip(self.nodes, self.errors, strict=True)
        )

    def at_output(self) -> tuple[Array, Array]:
        """The errors of g (N, c) and S (N, c, c) at the network's output."""
        e_g, E = loss_errors(self.problem.loss.name, self.f, self.e_f, self.problem.targets, self.u)
        return self.scale * e_g, self.scale * E

    def _second_error(self, index: int) -> Array:
        """E ← (|σ′| + e_1)(|S_a| + E)(|σ′| + e_1)ᵀ − |σ′| |S_a| |σ′|ᵀ + the error of O."""
        node, error = self.nodes[index], self.errors[index]
        if index == len(self.nodes) - 1:
            at_output = self._engine.second_at_activation(index, slice(None))
            S_a, (_, E) = np.abs(at_output.astype(np.float64)), self.at_output()
        else:
            W = self.nodes[index + 1].W
            S_a = _largest_size(W @ S @ W.T for S in self._terms(index + 1))
            E = self.through_dense(index + 1, slice(None))
        slope = np.abs(node.slope)
        wide = slope + error.first
        E = wide[:, :, None] * (S_a + E) * wide[:, None, :] - (
            slope[:, :, None] * S_a * slope[:, None, :]
        )
        diagonal = np.arange(node.z.shape[1])
        E[:, diagonal, diagonal] += (
            error.second * np.abs(node.g_a) + (np.abs(node.second) + error.second) * error.g_a
        )
        E += self.tiny
        return np.asarray(E)

    def cross_terms(self) -> dict[tuple[int, int], UncertainCross]:
        """M = ∂a_{l-1}/∂z_k and B = S_l W_lᵀ M with their errors, for every k < l."""
        cross: dict[tuple[int, int], UncertainCross] = {}
        for k in range(len(self.nodes)):
            identity = np.eye(self.nodes[k].z.shape[1])
            M = self.nodes[k].slope[:, :, None] * identity
            e_M = self.errors[k].first[:, :, None] * identity
            for upper in range(k + 1, len(self.nodes)):
                node, error = self.nodes[upper], self.errors[upper]
                through = node.W.T @ M
                e_through = np.swapaxes(
                    self.product_error(np.swapaxes(M, 1, 2), np.swapaxes(e_M, 1, 2), node.W), 1, 2
                )
                S, e_S = self.second(upper)
                B = _largest_size(term @ through for term in self._terms(upper))
                e_B = self.both_errors(S, e_S, through, e_through)
                cross[k, upper] = UncertainCross(M, B, e_M, e_B)
                e_1 = error.first[:, :, None]
                slope = node.slope[:, :, None]
                M = slope * through
                e_M = e_1 * np.abs(through) + (np.abs(slope) + e_1) * e_through
        return cross

    def _sweep(self) -> tuple[SweptErrors, ...]:
        """The errors of the forward pass and of the gradients at each dense layer."""
        inputs, first, second, self.e_f = self._forward()
        e_g, _ = self.at_output()
        errors: list[SweptErrors] = []
        for index in reversed(range(len(self.nodes))):
            node, e_1, e_2 = self.nodes[index], first[index], second[index]
            e_ga = e_g
            e_g = e_1 * np.abs(node.g_a) + (np.abs(node.slope) + e_1) * e_ga + self.tiny
            errors.append(SweptErrors(a=inputs[index], first=e_1, second=e_2, g_a=e_ga, g=e_g))
            if index > 0:
                e_g = self.product_error(node.g_z, e_g, node.W.T)
        return tuple(reversed(errors))

    def _forward(self) -> tuple[list[Array], list[Array], list[Array], Array]:
        """The errors of every layer's input, of its σ′ and σ″, and of the network's output."""
        inputs: list[Array] = []
        first: list[Array] = []
        second: list[Array] = []
        e_a = self.flushed(self.nodes[0].a)
        for node, layer in zip(self.nodes, self.problem.layers, strict=True):
            inputs.append(e_a)
            e_z = self.product_error(node.a, e_a, node.W)
            if node.b is not None:
                e_z = e_z + self.u * np.abs(node.b)
            e_a, e_1, e_2 = self._activation_errors(layer.activation, node.z, e_z)
            first.append(e_1)
            second.append(e_2)
        return inputs, first, second, e_a

    def _activation_errors(self, of: Activation, z: Array, e_z: Array) -> tuple[Array, ...]:
        """e_k = |σ^(k)(z ± e_z) − σ^(k)(z)| + u · terms of σ^(k), for k = 0, 1, 2."""
        sigma = derivatives(of)
        # Below the smallest normal number the digits end at once, and z² may multiply what is
        # left of them.
        underflow = self.tiny * (1 + z * z)

        def error(function: Elementwise, terms: Array) -> Array:
            # Also at the whole reach of the floor: a kink there counts with its whole jump.
            spread = np.maximum(
                _spread(function, z, e_z), _spread(function, z, SAFETY * e_z) / SAFETY
            )
            return np.asarray(spread + ELEMENTARY * self.u * terms + underflow)

        functions = (sigma.value, sigma.first, sigma.second)
        return tuple(
            error(function, terms)
            for function, terms in zip(functions, subtracted_terms(of, z), strict=True)
        )

    def through_dense(self, index: int, chosen: slice) -> Array:
        """The error of W S Wᵀ, (…, inputs, inputs), of the chosen examples, as two products."""
        W, (S, E) = self.nodes[index].W, self.second(index)
        half = _largest_size(term[chosen] @ W.T for term in self._terms(index))
        e_half = self.product_error(S[chosen], E[chosen], W.T)
        error = self.product_error(np.swapaxes(half, 1, 2), np.swapaxes(e_half, 1, 2), W.T)
        return np.swapaxes(error, 1, 2)

    def product_error(self, x: Array, e: Array, W: Array) -> Array:
        """The error of x W, when x (…, n) has errors e: its square is e² W² + n u² x² W²."""
        return self.both_errors(x, e, W, self.flushed(W))

    def flushed(self, given: Array) -> Array:
        """The error of numbers that are given: none, but where they become zero in TensorFlow."""
        sizes = np.abs(given)
        return np.where(sizes < self.tiny, sizes, 0.0)

    def both_errors(self, x: Array, e_x: Array, y: Array, e_y: Array) -> Array:
        """The error of x y, (…, n) times (…, n, m): e_x² y² + (x² + e_x²) e_y² + n u² x² y²."""
        n = x.shape[-1]
        # Scaled to one, so that squares neither overflow nor vanish.
        x_scale, y_scale = _largest(x, e_x), _largest(y, e_y)
        X, E_x, Y, E_y = x / x_scale, e_x / x_scale, y / y_scale, e_y / y_scale
        squares = (np.square(E_x) + n * np.square(self.u * X)) @ np.square(Y)
        if E_y.any():
            squares = squares + (np.square(X) + np.square(E_x)) @ np.square(E_y)
        error = np.sqrt(squares) * x_scale * y_scale
        vanished = squares < _LOST
        if vanished.any():
            # Beside what is 1e140 times as large: the sizes, whose sum is a bound.
            x, y = np.abs(x), np.abs(y)
            sizes = (e_x + math.sqrt(n) * self.u * x) @ y + (x + e_x) @ e_y
            error = np.where(vanished, sizes, error)
        return np.asarray(error + n * self.tiny)


def _largest_size(arrays: Iterable[Array]) -> Array:
    """The largest size at each place of arrays of one shape."""
    return reduce(np.maximum, map(np.abs, arrays))


def _spread(function: Elementwise, z: Array, reach: Array) -> Array:
    """The largest |function(z ± what is within reach) − function(z)| that a few places show."""
    value = function(z)
    up, down = np.abs(function(z + reach) - value), np.abs(function(z - reach) - value)
    spread = np.maximum(up, down)
    wide = reach > _WIDE
    if wide.any():
        # Between its ends such a reach may hold all that the function does.
        z, reach, value = z[wide], reach[wide], value[wide]
        inside = [z + part * reach for part in _PARTS]
        inside += [np.clip(bend, z - reach, z + reach) for bend in _BENDS]
        spread[wide] = np.max([spread[wide], *(abs(function(x) - value) for x in inside)], axis=0)
    return spread


def root_of_squares(values: Array, axis: int | None = None) -> Array:
    """√Σ values² along an axis, or of all, of which no square overflows or vanishes."""
    largest = np.abs(values).max(axis=axis, keepdims=True)
    scale = np.where(largest > 0, largest, 1.0)
    root = np.sqrt(np.square(values / scale).sum(axis=axis, keepdims=True))
    return np.asarray((root * scale).sum(axis=axis))


def _largest(values: Array, errors: Array) -> float:
    return float(max(np.abs(values).max(), errors.max())) or 1.0


def _in_float64(node: Node, layer: Layer) -> SweptNode:
    z, sigma = node.z.astype(np.float64), derivatives(layer.activation)
    return SweptNode(
        a=node.a.astype(np.float64, copy=False),
        z=z,
        W=layer.kernel.astype(np.float64, copy=False),
        b=None if layer.bias is None else layer.bias.astype(np.float64),
        slope=sigma.first(z),
        second=sigma.second(z),
        g_a=node.g_a.astype(np.float64, copy=False),
        g_z=node.g_z.astype(np.float64, copy=False),
    )
