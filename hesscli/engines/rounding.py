"""How far apart two correct witnesses may be: the floor below which a residual is rounding.

A tolerance relative to the largest entry is not enough. Where a unit is saturated, an entry is
the product of a σ′ such as 1 − tanh² that has been *subtracted*: it is wrong by the rounding of
what it was subtracted from, however small it is itself. So the floor follows the rounding of
every step through the same sweep, to first order in the unit roundoff u:

1.  Each elementary result is wrong by about u times the largest term that it was summed from.
    For σ, σ′ and σ″ those are the terms of TensorFlow's formulas (``_TERMS`` below: for tanh,
    1 + y² for σ′ and 2|y| (1 + y²) for σ″); for a sum of n products √n times their root sum of
    squares; for the loss's p (δ − p) the size of p.
2.  These errors travel as the quantities do. Independent ones add as squares through a matrix
    product (Higham and Mary 2019, SIAM J. Sci. Comput. 41:A2815), and by size elsewhere:

        z = aW + b       e_z² = e_a² W² + n u² a² W² + u² b²
        σ^(k)(z)         e_k  = |σ^(k)(z ± e_z) − σ^(k)(z)| + u · terms of σ^(k)
        g_z = σ′ g_a     e_gz = e_1 |g_a| + |σ′| e_ga + e_1 e_ga
        S_z              E_z  = (|σ′| + e_1)(|S_a| + E_a)(|σ′| + e_1)ᵀ − |σ′| |S_a| |σ′|ᵀ
                                + diag(e_2 |g_a| + |σ″| e_ga + e_2 e_ga)
        g_x = g_z Wᵀ     e_x² = e_gz² (W²)ᵀ + n u² g_z² (W²)ᵀ
        S_x = W S_z Wᵀ   the same, twice

    (squares, sizes and σ^(k) elementwise).
3.  The floor of an entry of the kernel block is SAFETY · Σ_n of the errors of a_n a_nᵀ ⊗ S_n at
    the largest input, for each pair (h, l) of units; of a quadratic form, SAFETY · Σ_n of the
    errors of u_nᵀ S_n u_n.

A residual passes when it is at most rtol · (the largest entry) + floor. In a network that is not
saturated the floor is some hundred u of the largest entry and decides nothing; in a saturated one
it is what the two witnesses cannot know. A wrong formula there is off by the terms themselves,
not by u times them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import expit, softmax

from hesscli.engines.chainrule import ChainRule, Node
from hesscli.problem.activations import Derivatives, Elementwise, derivatives
from hesscli.problem.errors import NumericalError
from hesscli.problem.network import Activation, Array, Layer

# The errors above are typical sizes; the largest of many, with the correlations that step 2
# leaves out, stays below this many times them (tests/test_rounding.py measures how far below).
SAFETY = 4.0

Terms = Callable[[Array, Derivatives], tuple[Array, Array, Array]]


def _own_size(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # Nothing is subtracted: each value is right up to u of itself.
    return np.abs(sigma.value(z)), np.abs(sigma.first(z)), np.abs(sigma.second(z))


def _sigmoid_terms(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # σ′ = y (1 − y),   σ″ = σ′ (1 − 2y)
    y = sigma.value(z)
    return y, y * (1 + y), y * (1 + y) * (1 + 2 * y)


def _tanh_terms(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # σ′ = 1 − y²,   σ″ = −2y (1 − y²)
    y = np.abs(sigma.value(z))
    return y, 1 + y * y, 2 * y * (1 + y * y)


def _softplus_terms(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # σ′ = s,   σ″ = s (1 − s), 1 − s subtracted
    s = sigma.first(z)
    return np.abs(sigma.value(z)), s, s * (1 + s)


def _softsign_terms(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # With q = 1/(1 + |z|):   σ′ = q − |z| q²,   σ″ = ∓(q² + q² − 2|z| q³)
    q = 1 / (1 + np.abs(z))
    return np.abs(sigma.value(z)), 2 * q, 4 * q * q * (z != 0)


def _silu_terms(z: Array, sigma: Derivatives) -> tuple[Array, Array, Array]:
    # With s = s(z):   σ′ = s (1 + z (1 − s)),   σ″ = s (1 − s) (2 + z (1 − 2s)), 1 − s subtracted
    s, size = expit(z), np.abs(z)
    return np.abs(sigma.value(z)), s * (1 + size), s * (2 + 3 * size)


def _gelu_terms(z: Array, _: Derivatives) -> tuple[Array, Array, Array]:
    # Φ = (1 + erf)/2 has an absolute error of u; φ one of u (1 + z²) φ:
    # σ = zΦ,   σ′ = Φ + zφ,   σ″ = 2φ − z²φ
    size, phi = np.abs(z), 0.4 * np.exp(-z * z / 2)
    return size, 1 + size * (1 + z * z) * phi, (2 + z * z) * (1 + z * z) * phi


def _gelu_tanh_terms(z: Array, _: Derivatives) -> tuple[Array, Array, Array]:
    # t = tanh(q), q = √(2/π) (z + 0.044715 z³); 1 + t and 1 − t² have absolute errors of u, and
    # t″ = −2t (1 − t²):   σ = z (1 + t)/2,   σ′ = (1 + t)/2 + z (1 − t²) q′/2,
    # σ″ = (1 − t²) (q′ + z q″/2) − z t (1 − t²) q′²
    size = np.abs(z)
    # Beyond |z| = 8 tanh is ±1 to the last digit, and what it multiplies counts no more.
    near = np.minimum(size, 8)
    q1 = 0.8 * (1 + 0.135 * near * near)
    q2 = 0.22 * near
    return size, 1 + near * q1, 2 * (q1 + near * q2 + near * q1 * q1)


def _mish_terms(z: Array, _: Derivatives) -> tuple[Array, Array, Array]:
    # t = tanh(softplus(z)), s = s(z):   σ′ = t + z s (1 − t²),
    # σ″ = s (1 − t²) (2 + z (1 − s − 2ts)), 1 − t² subtracted
    size, s = np.abs(z), expit(z)
    t = np.minimum(1, 2 * s)
    return size * t, t + 2 * size * s, s * (4 + 8 * size)


_TERMS: Mapping[str, Terms] = MappingProxyType(
    {
        "gelu": _gelu_terms,
        "gelu_tanh": _gelu_tanh_terms,
        "silu": _silu_terms,
        "mish": _mish_terms,
        "sigmoid": _sigmoid_terms,
        "tanh": _tanh_terms,
        "softplus": _softplus_terms,
        "softsign": _softsign_terms,
    }
)


def subtracted_terms(activation: Activation, z: Array) -> tuple[Array, Array, Array]:
    """The size of the largest terms in TensorFlow's formulas for σ, σ′ and σ″, each like ``z``."""
    terms = _TERMS.get(activation.name, _own_size)
    return terms(z, derivatives(activation))


# TensorFlow's and NumPy's elementary functions are right to a few u of the terms above
# (tests/test_rounding.py holds them to it).
_ELEMENTARY = 4.0


@dataclass(frozen=True)
class _Node:
    """The values at one dense layer that errors are made from and travel through, in float64."""

    a: Array
    z: Array
    W: Array
    b: Array
    g_a: Array
    g_z: Array
    S_a: Array
    S_z: Array


@dataclass(frozen=True)
class _Errors:
    """Typical errors at one dense layer, shaped like the quantities they belong to.

    ``a`` (N, inputs) is the error of the layer's input, ``S`` (N, units, units) that of the
    Hessian at its pre-activation.
    """

    a: Array
    S: Array


class RoundingFloor:
    """The floors of every kernel block of one problem, from the chain rule's own quantities.

    Raises NumericalError where the errors themselves leave the range of float64.
    """

    def __init__(self, engine: ChainRule) -> None:
        self._problem = engine.problem
        self._u = float(np.finfo(engine.problem.dtype).eps) / 2
        # Below the smallest normal number TensorFlow's values become zero.
        self._tiny = float(np.finfo(engine.problem.dtype).tiny)
        self._nodes = tuple(
            _in_float64(node, layer)
            for node, layer in zip(engine.nodes, engine.problem.layers, strict=True)
        )
        with np.errstate(over="ignore", invalid="ignore"):
            self._errors = self._sweep()

    def entries(self, layer: str) -> Array:
        """The floor of the kernel block's entries for each pair of units, (units, units)."""
        index = self._problem.layer_index(layer)
        node, error = self._nodes[index], self._errors[index]
        a = np.abs(node.a).max(axis=1)[:, None, None]
        e = error.a.max(axis=1)[:, None, None]
        S = np.abs(node.S_z)
        with np.errstate(over="ignore", invalid="ignore"):
            of_examples = a * a * error.S + (2 * a + e) * e * (S + error.S)
            of_sum = self._u * np.sqrt(len(a) * np.square(a * a * S).sum(axis=0))
            floor = SAFETY * (of_examples.sum(axis=0) + of_sum + len(a) * self._tiny)
        return _finite(floor, layer)

    def quadratic_form(self, layer: str, v: Array) -> float:
        """The floor of vᵀ H v for v of the kernel's shape."""
        index = self._problem.layer_index(layer)
        node, error = self._nodes[index], self._errors[index]
        v = v.astype(np.float64)
        U, e_U = node.a @ v, self._product_error(node.a, error.a, v)
        S, size = node.S_z, np.abs(node.a @ v)
        with np.errstate(over="ignore", invalid="ignore"):
            e_S = error.S + np.sqrt(S.shape[1]) * self._u * np.abs(S)
            of_S = np.einsum("nh,nhl,nl->", size, e_S, size)
            of_U = 2 * (np.abs(np.einsum("nhl,nl->nh", S, U)) * e_U).sum()
            of_both = np.einsum("nh,nhl,nl->", e_U, np.abs(S) + e_S, e_U)
            floor = SAFETY * (of_S + of_U + of_both + len(U) * self._tiny)
        return float(_finite(floor, layer))

    def _sweep(self) -> tuple[_Errors, ...]:
        inputs, first, second, e_f = self._forward()
        last = self._problem.layers[-1]
        f = derivatives(last.activation).value(self._nodes[-1].z)
        e_g, E = self._loss_errors(f, e_f)
        errors: list[_Errors] = []
        for index in reversed(range(len(self._nodes))):
            node, e_1, e_2 = self._nodes[index], first[index], second[index]
            sigma = derivatives(self._problem.layers[index].activation)
            slope, bend = np.abs(sigma.first(node.z)), np.abs(sigma.second(node.z))
            g_a, S_a = np.abs(node.g_a), np.abs(node.S_a)
            wide = slope + e_1
            E = wide[:, :, None] * (S_a + E) * wide[:, None, :] - (
                slope[:, :, None] * S_a * slope[:, None, :]
            )
            diagonal = np.arange(node.z.shape[1])
            E[:, diagonal, diagonal] += e_2 * g_a + (bend + e_2) * e_g
            E += self._tiny
            e_g = e_1 * g_a + wide * e_g + self._tiny
            errors.append(_Errors(a=inputs[index], S=E))
            if index > 0:
                e_g = self._product_error(node.g_z, e_g, node.W.T)
                E = self._through_dense(node, E)
        return tuple(reversed(errors))

    def _forward(self) -> tuple[list[Array], list[Array], list[Array], Array]:
        """The errors of every layer's input, of its σ′ and σ″, and of the network's output."""
        inputs, first, second = [], [], []
        e_a = np.zeros_like(self._nodes[0].a)
        for node, layer in zip(self._nodes, self._problem.layers, strict=True):
            inputs.append(e_a)
            e_z = self._product_error(node.a, e_a, node.W) + self._u * np.abs(node.b)
            e_a, e_1, e_2 = self._activation_errors(layer.activation, node.z, e_z)
            first.append(e_1)
            second.append(e_2)
        return inputs, first, second, e_a

    def _activation_errors(self, of: Activation, z: Array, e_z: Array) -> tuple[Array, ...]:
        """e_k = |σ^(k)(z ± e_z) − σ^(k)(z)| + u · terms of σ^(k), for k = 0, 1, 2."""
        sigma = derivatives(of)
        # At the whole reach of the floor, so that a kink within it counts with its whole jump.
        reach = SAFETY * e_z
        # Below the smallest normal number the digits end at once, and z² may multiply what is
        # left of them.
        underflow = self._tiny * (1 + z * z)

        def error(function: Elementwise, terms: Array) -> Array:
            value = function(z)
            up, down = np.abs(function(z + reach) - value), np.abs(function(z - reach) - value)
            spread = np.asarray(np.maximum(up, down)) / SAFETY
            return spread + _ELEMENTARY * self._u * terms + underflow

        functions = (sigma.value, sigma.first, sigma.second)
        return tuple(
            error(function, terms)
            for function, terms in zip(functions, subtracted_terms(of, z), strict=True)
        )

    def _loss_errors(self, f: Array, e_f: Array) -> tuple[Array, Array]:
        """The errors of g = c (p − y) and S = c (diag(p) − p pᵀ), from those of the logits."""
        p = softmax(f, axis=-1)
        y = np.zeros_like(p)
        y[np.arange(len(f)), self._problem.targets] = 1
        c = self._problem.loss.scale(len(f))
        of_exponent = _ELEMENTARY + np.abs(f - f.max(axis=-1, keepdims=True))
        of_sum = np.sqrt(np.square(p * e_f).sum(axis=-1, keepdims=True))
        e_p = p * (e_f + of_sum + self._u * of_exponent)
        e_g = c * (e_p + self._u * (p + y))
        E = c * (e_p[:, :, None] * p[:, None, :] + p[:, :, None] * e_p[:, None, :])
        diagonal = np.arange(p.shape[1])
        E[:, diagonal, diagonal] += c * (e_p + _ELEMENTARY * self._u * p)
        return e_g, E

    def _through_dense(self, node: _Node, E: Array) -> Array:
        """The error of W S Wᵀ, (N, inputs, inputs), as two products."""
        half = node.S_z @ node.W.T
        e_half = self._product_error(node.S_z, E, node.W.T)
        error = self._product_error(half.transpose(0, 2, 1), e_half.transpose(0, 2, 1), node.W.T)
        return np.swapaxes(error, 1, 2)

    def _product_error(self, x: Array, e: Array, W: Array) -> Array:
        """The error of x W, when x (…, n) has errors e: its square is e² W² + n u² x² W²."""
        n = x.shape[-1]
        terms = np.hypot(e, np.sqrt(n) * self._u * x)
        # Scaled to one, so that squares neither overflow nor vanish.
        scale, W_scale = _largest(terms), _largest(W)
        squares = np.square(terms / scale) @ np.square(W / W_scale)
        return np.asarray(np.sqrt(squares) * scale * W_scale + n * self._tiny)


def _largest(values: Array) -> float:
    return float(np.abs(values).max()) or 1.0


def _in_float64(node: Node, layer: Layer) -> _Node:
    W, z = layer.kernel, node.z
    b = np.zeros(layer.units) if layer.bias is None else layer.bias
    values = (node.a, z, W, b, node.g_a, node.g_z, node.S_a, node.G + node.C)
    return _Node(*(value.astype(np.float64) for value in values))


def _finite(floor: Array, layer: str) -> Array:
    if not np.isfinite(floor).all():
        raise NumericalError(
            f"{layer}: the rounding error of its Hessian leaves the range of float64; "
            "use smaller weights"
        )
    return floor
