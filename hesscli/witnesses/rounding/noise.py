"""Nodes and losses whose results are perturbed by as much as rounding may change them.

The passes of hesscli.nodes.passes over such nodes are stochastic arithmetic (Vignes, "A stochastic
arithmetic for reliable scientific computation", Mathematics and Computers in Simulation 35, 1993):

    sums of n products    the operands that are not the node's own are perturbed by √n u relative
    σ, σ′, σ″, the loss   u times the terms that TensorFlow's formula subtracts (terms.py)
    everything            the smallest normal number, below which the digits end

A relative perturbation leaves an exact 0 exact, so a kink that is hit exactly excuses nothing.

A function on trial does not vouch for itself: a σ″ that is noise would differ by all of it from one
run to the next. So σ, σ′ and σ″ are taken on a grid of z and are straight in between, in the
perturbed runs and in the one that they are compared with (``steady_calculus``). Two z that rounding
keeps apart lie between the same points, and what is left of the noise is its slope over a step of
the grid; a kink at 0 lies on the grid, which is as fine there as numbers are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from hesscli.nodes.activations import Derivatives
from hesscli.nodes.calculus import Dispatch, calculus_of
from hesscli.nodes.dense import Dense, DenseAt
from hesscli.nodes.elementwise import Elementwise, ElementwiseAt, Sloped
from hesscli.nodes.losses import HessianProduct, LossDerivatives
from hesscli.nodes.node import Calculus, Moves, Pulled, Tensors, Wanted
from hesscli.nodes.softmax import Softmax, SoftmaxAt
from hesscli.problem.graph import Activation, Array, Node, read_only
from hesscli.problem.network import Targets
from hesscli.system import xp
from hesscli.witnesses.rounding.terms import LossTerms, subtracted_terms

# Perturbations are larger than rounding by this factor, so that a kink which lies beyond one
# rounding of z, but not beyond a few, counts with its whole jump.
AMPLITUDE = 2.0
# Where a pre-activation is rounding and nothing else, and that is more than this, it may be any
# number in between: the derivatives of activations have their extremes nearer to zero.
_WIDE, _NEAR = 1.0, 2.0
_POOL = 2**17
# Roundings of a result, in units of the roundoff.
_ELEMENTARY = 2.0
# The grid: numbers of so many binary digits, and no farther apart than two to this; no activation
# has its turns nearer to each other.
_GRID_DIGITS, _WIDEST_STEP = 12, -10


@dataclass(frozen=True)
class Noise:
    """Random numbers of about the size of rounding errors.

    ``u`` is the unit roundoff of the type whose rounding is meant, ``tiny`` its smallest normal
    number. Of sums that are rounding and nothing else ``near`` noise leaves something near zero.
    """

    generator: np.random.Generator
    u: float
    tiny: float
    near: bool = False

    def of_size(self, sizes: Array, count: float = 1.0) -> Array:
        """√count · u · sizes, times AMPLITUDE and a random number each."""
        noise = self._random(sizes.shape) * (AMPLITUDE * math.sqrt(count) * self.u)
        product: Array = xp.asarray(noise, like=sizes) * sizes
        return product

    def operand(self, values: Array, count: float) -> Array:
        """``values`` as they are worth in a sum of ``count`` products."""
        operand: Array = self.vanishing(values) + self.of_size(values, count)
        return operand

    def vanishing(self, values: Array) -> Array:
        """``values``, of which TensorFlow takes those below the smallest normal number for zero."""
        below = (xp.abs(values) < self.tiny) & (values != 0)
        if not xp.any(below):
            return values
        factor = xp.asarray(1 + self._random(values.shape), like=values)
        return xp.where(below, values * factor, values)

    def nothing_else(self, noisy: Array, exact: Array) -> Array:
        """``noisy``, and in its place a number near zero where the noise is all there is."""
        if not self.near:
            return noisy
        doubtful = np.abs(noisy - exact) > np.maximum(np.abs(exact) / 2, _WIDE)
        if not doubtful.any():
            return noisy
        return np.where(doubtful, _NEAR * self._random(noisy.shape), noisy)

    def underflow(self, count: float = 1.0) -> float:
        """What may be lost of sums of ``count`` terms of which each is below the smallest."""
        return AMPLITUDE * count * self.tiny * float(self._random(()))

    def _random(self, shape: tuple[int, ...]) -> Array:
        """Of either sign and of size ½ to 1: never nearly nothing, and sums do not vanish."""
        # Drawing takes longer than computing with what is drawn: another stretch each time.
        size, start = math.prod(shape), int(self.generator.integers(_POOL))
        pool = _pool()
        stretch = pool[start : start + size]
        return stretch.reshape(shape) if size <= _POOL else np.resize(stretch, shape)


@cache
def _pool() -> Array:
    """Random numbers, twice, so that a stretch may begin anywhere."""
    numbers = np.random.default_rng(0).random(_POOL) - 0.5
    numbers += np.copysign(0.5, numbers)
    return read_only(np.tile(numbers, 2))


def steady(sigma: Derivatives) -> Derivatives:
    """σ, σ′ and σ″ on the grid, straight in between."""
    functions = (sigma.value, sigma.first, sigma.second)
    return Derivatives(*(partial(_interpolated, function) for function in functions))


def _interpolated(function: Callable[[Array], Array], z: Array) -> Array:
    _, exponent = np.frexp(z)
    step = np.minimum(exponent - _GRID_DIGITS, _WIDEST_STEP)
    scaled = np.ldexp(z, -step)
    low = np.floor(scaled)
    # A number that is not finite is not on a grid.
    between = np.where(np.isfinite(scaled), scaled - low, 0)
    below, above = function(np.ldexp(low, step)), function(np.ldexp(low + 1, step))
    return np.where(between == 0, below, below + between * (above - below))


def steady_calculus(node: Node) -> Calculus:
    """The calculus of a node, with the functions of an activation on the grid."""
    base = calculus_of(node)
    return Elementwise(steady(base.sigma)) if isinstance(base, Elementwise) else base


def noisy_calculus(noise: Noise) -> Dispatch:
    """The calculus of each node, perturbed by ``noise``."""

    @cache
    def dispatch(node: Node) -> Calculus:
        base = calculus_of(node)
        return _NOISY.get(type(base), NoisyNode)(base, node, noise)

    return dispatch


class NoisyDense(Dense):
    """z = x W + b with perturbed operands."""

    def __init__(self, _: Calculus, node: Node, noise: Noise) -> None:
        self.noise = noise

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, DenseAt]:
        inputs = theta["kernel"].shape[0]
        noisy = {"kernel": self.noise.operand(theta["kernel"], inputs)}
        if "bias" in theta:
            noisy["bias"] = self.noise.operand(theta["bias"], 1)
        z, at = super().forward(x, noisy)
        if self.noise.near:
            z = self.noise.nothing_else(z, super().forward(x, theta)[0])
        # A sum that is exactly zero stays at the kink that it may hit.
        z = z + self.noise.underflow(inputs) * (z != 0)
        return z, replace(at, W=self.noise.vanishing(theta["kernel"]))

    def push(self, at: DenseAt, Rx: Moves, V: Tensors) -> Array:
        inputs = at.W.shape[0]
        Rz = super().push(
            at,
            [None if moved is None else self.noise.operand(moved, inputs) for moved in Rx],
            {role: self.noise.operand(part, inputs) for role, part in V.items()},
        )
        return Rz + self.noise.underflow(inputs)

    def pull(self, at: DenseAt, g: Array, wanted: Wanted) -> Pulled:
        # The two products sum over units and over examples.
        below = super().pull(at, self.noise.operand(g, at.W.shape[1]), Wanted(wanted.inputs))
        parameters = Wanted((False,), wanted.tensors)
        tensors = super().pull(at, self.noise.operand(g, len(g)), parameters).tensors
        return Pulled(
            [
                None if part is None else part + self.noise.underflow(at.W.shape[1])
                for part in below.inputs
            ],
            {role: part + self.noise.underflow(len(g)) for role, part in tensors.items()},
        )

    def bend(self, at: DenseAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        units, examples = at.W.shape[1], len(at.x.a)
        Rx = [None if moved is None else self.noise.operand(moved, examples) for moved in Rx]
        super().bend(
            at, Rx, {role: self.noise.operand(part, units) for role, part in V.items()}, into
        )

    def second(self, at: DenseAt, S: Array, position: int, inputs: int, *, bent: bool) -> Array:
        units = at.W.shape[1]
        noisy = replace(at, W=self.noise.operand(at.W, units))
        operand = self.noise.operand(S, units)
        whole = super().second(noisy, operand, position, inputs, bent=bent)
        # The sums are rounded to the size of their terms, also if S times the columns of W
        # vanishes: noise in W, which multiplies S on both sides, would then be nothing.
        sizes = replace(at, W=np.abs(at.W))
        terms = super().second(sizes, np.abs(S), position, inputs, bent=bent)
        return whole + self.noise.of_size(terms, units) + self.noise.underflow(units)


class NoisyElementwise(Elementwise):
    """y = σ(z), each of σ, σ′ and σ″ perturbed by u times what TensorFlow subtracts for it."""

    def __init__(self, base: Calculus, node: Node, noise: Noise) -> None:
        assert isinstance(base, Elementwise)  # and such a node has an activation
        assert node.activation is not None
        super().__init__(steady(base.sigma))
        self.activation: Activation = node.activation
        self.noise = noise

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, ElementwiseAt]:
        (z,) = x
        y, _ = super().forward(x, theta)
        noisy = Derivatives(
            self.sigma.value,
            lambda z: self.sigma.first(z) + self._error(z, 1),
            lambda z: self.sigma.second(z) + self._error(z, 2),
        )
        return y + self._error(z, 0) * (y != 0), ElementwiseAt(noisy, z)

    def _error(self, z: Array, order: int) -> Array:
        terms = subtracted_terms(self.activation, z)[order]
        # Below the smallest normal number the digits end at once, and z² may multiply what is
        # left of them.
        return self.noise.of_size(terms) + self.noise.underflow() * (1 + z * z)

    def push(self, at: ElementwiseAt | Sloped, Rx: Moves, V: Tensors) -> Array:
        y = super().push(at, Rx, V)
        return y + self.noise.underflow()

    def pull(self, at: ElementwiseAt | Sloped, g: Array, wanted: Wanted) -> Pulled:
        (below,) = super().pull(at, g, wanted).inputs
        assert below is not None  # it is all that there is
        return Pulled([below + self.noise.underflow()], {})

    def curved(self, at: ElementwiseAt, g: Array) -> Sloped:
        curved = super().curved(at, g)
        assert curved.bent is not None  # that is what ``curved`` is for
        return replace(curved, bent=curved.bent + self.noise.underflow())


class NoisySoftmax(Softmax):
    """p = softmax(x), with the errors of its exponents and of p ⊙ (v − p·v)."""

    def __init__(self, _: Calculus, node: Node, noise: Noise) -> None:
        super().__init__(**node.attributes)
        self.noise = noise

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, SoftmaxAt]:
        exponents = x[0] - x[0].max(axis=self.axis, keepdims=True)
        return super().forward([x[0] + self.noise.of_size(1 + np.abs(exponents))], theta)

    def push(self, at: SoftmaxAt, Rx: Moves, V: Tensors) -> Array:
        return self._noisy(at, super().push(at, Rx, V), Rx[0])

    def pull(self, at: SoftmaxAt, g: Array, wanted: Wanted) -> Pulled:
        return Pulled([self._noisy(at, super().pull(at, g, wanted).inputs[0], g)], {})

    def bend(self, at: SoftmaxAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        assert at.g is not None  # ``curved`` came first
        (moved,), (below,) = Rx, into.inputs
        if moved is None or below is None:
            return
        super().bend(at, Rx, V, into)
        p, size, g = at.p[:, None], np.abs(moved), np.abs(at.g)[:, None]
        Rp = p * (size + (p * size).sum(axis=self.axis, keepdims=True))
        terms = Rp * (g + (p * g).sum(axis=self.axis, keepdims=True))
        terms += p * (Rp * g).sum(axis=self.axis, keepdims=True)
        below += self.noise.of_size(terms)

    def _noisy(self, at: SoftmaxAt, product: Array | None, v: Array | None) -> Array:
        assert product is not None and v is not None  # it is all that there is
        p, size = at.p[:, None], np.abs(v)
        terms = p * (size + (p * size).sum(axis=self.axis, keepdims=True))
        return product + self.noise.of_size(terms) + self.noise.underflow()


@dataclass(frozen=True)
class _NoisyAt:
    """What a node keeps, and of how many terms its sums are: at y, at x and at θ."""

    at: Any
    fan: int
    below: int
    tensors: int

    def part(self, chosen: slice) -> _NoisyAt:
        return replace(self, at=self.at.part(chosen))


class NoisyNode(Calculus):
    """Any node: operands perturbed as terms of its sums are, results by a few roundings.

    Its constants are perturbed once, like an operand.
    """

    def __init__(self, base: Calculus, node: Node, noise: Noise) -> None:
        self.noise = noise
        self.base = base
        if node.constants:
            constants = {role: noise.operand(of, 1) for role, of in node.constants.items()}
            self.base = calculus_of(replace(node, constants=constants))

    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, _NoisyAt]:
        fan = self.base.fan(x, theta)
        y, at = self.base.forward(
            [self.noise.operand(value, fan) for value in x],
            {role: self.noise.operand(tensor, fan) for role, tensor in theta.items()},
        )
        # Each product is a term of one sum at y, of one at x and of one at θ.
        products = y.size * fan
        below = products // max(1, min(value.size for value in x))
        tensors = products // max(1, min((of.size for of in theta.values()), default=products))
        return self._rounded(y), _NoisyAt(at, fan, max(1, below), max(1, tensors))

    def push(self, at: _NoisyAt, Rx: Moves, V: Tensors) -> Array:
        return self._rounded(self.base.push(at.at, *self._moved(at.fan, Rx, V)))

    def pull(self, at: _NoisyAt, g: Array, wanted: Wanted) -> Pulled:
        terms = max(at.below, at.tensors) if wanted.tensors else at.below
        pulled = self.base.pull(at.at, self.noise.operand(g, terms), wanted)
        return Pulled(
            [None if part is None else self._rounded(part) for part in pulled.inputs],
            {role: self._rounded(part) for role, part in pulled.tensors.items()},
        )

    def curved(self, at: _NoisyAt, g: Array) -> _NoisyAt:
        return replace(at, at=self.base.curved(at.at, self.noise.operand(g, at.below)))

    def bend(self, at: _NoisyAt, Rx: Moves, V: Tensors, into: Pulled) -> None:
        terms = max(at.below, at.tensors) if into.tensors else at.below
        self.base.bend(at.at, *self._moved(terms, Rx, V), into)

    def _moved(self, terms: int, Rx: Moves, V: Tensors) -> tuple[Moves, Tensors]:
        operand = self.noise.operand
        return (
            [None if moved is None else operand(moved, terms) for moved in Rx],
            {role: operand(part, terms) for role, part in V.items()},
        )

    def _rounded(self, y: Array) -> Array:
        rounded = y + self.noise.of_size(_ELEMENTARY * np.abs(y))
        # What is exactly zero stays at the kink that it may hit.
        return np.asarray(rounded + self.noise.underflow() * (y != 0))


_NOISY: dict[type[Calculus], Callable[[Calculus, Node, Noise], Calculus]] = {
    Dense: NoisyDense,
    Elementwise: NoisyElementwise,
    Softmax: NoisySoftmax,
}


def noisy_loss(loss: LossDerivatives, terms: LossTerms, noise: Noise) -> LossDerivatives:
    """The gradient and the Hessian of a loss, perturbed by ``noise``."""

    def exponents(f: Array) -> Array:
        return f + noise.of_size(terms.exponent(f))

    def gradient(f: Array, targets: Targets) -> Array:
        g = loss.gradient(exponents(f), targets)
        return g + noise.of_size(terms.gradient(f, targets)) + noise.underflow()

    def hessian_product(f: Array, targets: Targets) -> HessianProduct:
        moved = exponents(f)
        product = loss.hessian_product(moved, targets)

        def noisy(chosen: slice, v: Array) -> Array:
            exact = product(chosen, v)
            sizes = noise.of_size(terms.product(moved[chosen], v))
            return exact + sizes + noise.underflow()

        return noisy

    def hessian(f: Array, targets: Targets) -> Array:
        units = np.broadcast_to(np.eye(f.shape[1]), (*f.shape, f.shape[1]))
        return hessian_product(f, targets)(slice(None), units)

    return LossDerivatives(loss.value, gradient, hessian, hessian_product)
