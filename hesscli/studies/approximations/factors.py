"""The factors of every approximation of a layer: its inputs, and roots of ∂²ℓ/∂f² pulled to it.

The layer sees a_{n,t} (rows,) at T places t of example n; a dense layer has one. With roots m of
the loss, Σ_k m_{n,k} m_{n,k}ᵀ = c_n M_n, and δ_{n,k,t} = (∂f/∂z_{n,t})ᵀ m_{n,k}:

    J_{n,k} = Σ_t a_{n,t} δ_{n,k,t}ᵀ,      F = Σ_{n,k} vec J_{n,k} vec J_{n,k}ᵀ

F is Gauss–Newton if M = ∂²ℓ/∂f², and the Fisher matrix if M is the mean of that over targets
that the network itself draws: the same for cross-entropies and mean squared error (Martens, "New
insights and perspectives on the natural gradient method", JMLR 21, 2020). It is the Monte-Carlo
Fisher if m are gradients at targets that are drawn so, and the empirical Fisher if m is the
gradient of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri, pdtr, pdtrik, softmax

from hesscli.nodes.bilinear import BilinearAt
from hesscli.nodes.dense import DenseAt
from hesscli.nodes.losses import EPSILON
from hesscli.problem.graph import CONV, DENSE, Array, Node
from hesscli.problem.network import Problem, Targets
from hesscli.system.errors import InputError
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import layout_of

GAUSS_NEWTON, FISHER = "gauss_newton", "fisher"
MONTE_CARLO, EMPIRICAL = "monte_carlo", "empirical"
# The one loss here whose ∂²ℓ/∂f² depends on the target, so that Gauss–Newton is not the Fisher.
POISSON = "poisson"
# An eigenvalue of ∂²ℓ/∂f² below this share of the largest is what rounding leaves of 0.
_ROUNDING = 64
# Targets (n, K, …) that the network itself draws with numbers u (n, K, c) between 0 and 1: classes,
# bits, counts, or f + √(c/2) ε.
_Draw = Callable[[Array, Array], Targets]
_Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Factors:
    """``a`` (n, T, rows) and ``delta`` (n, K, T, units) of some examples."""

    a: Array
    delta: Array

    def rotated(self, U_a: Array, U_b: Array) -> Factors:
        return Factors(self.a @ U_a, self.delta @ U_b)

    def reduced(self) -> Factors:
        """One place: the mean of a and the sum of δ over all (Eschenhagen et al. 2023)."""
        return Factors(self.a.mean(axis=1, keepdims=True), self.delta.sum(axis=2, keepdims=True))

    @property
    def J(self) -> Array:
        """(n, K, rows, units)."""
        return np.asarray(np.swapaxes(self.a, 1, 2)[:, None] @ self.delta)

    def product(self, V: Array) -> Array:
        """F V for V (rows · units, k):  Σ_{n,k} J ⟨J, V⟩."""
        (n, K, T, units), rows = self.delta.shape, self.a.shape[2]
        U = (self.a.reshape(n * T, rows) @ V.reshape(rows, -1)).reshape(n, T * units, -1)
        delta = self.delta.reshape(n, K, T * units)
        U = np.swapaxes(delta, 1, 2) @ (delta @ U)
        return np.asarray(self.a.reshape(n * T, rows).T @ U.reshape(n * T, -1)).reshape(V.shape)

    def diagonal(self) -> Array:
        """Σ_{n,k} J², (rows, units)."""
        if self.a.shape[1] > 1:
            return np.asarray(np.square(self.J).sum(axis=(0, 1)))
        return np.asarray(np.square(self.a[:, 0]).T @ np.square(self.delta[:, :, 0]).sum(axis=1))

    def dense(self) -> Array:
        """F (rows · units, rows · units)."""
        (n, K, T, units), rows = self.delta.shape, self.a.shape[2]
        size = rows * units
        if T > 1:
            J = self.J.reshape(n * K, size)
            return np.asarray(J.T @ J)
        # Σ_n a_i a_j B_n[u,v] once for each pair i ≤ j and u ≤ v.
        a, delta = self.a[:, 0], self.delta[:, :, 0]
        B = np.swapaxes(delta, 1, 2) @ delta
        (i, j), (u, v) = np.triu_indices(rows), np.triu_indices(units)
        of_pairs = (a[:, i] * a[:, j]).T @ B[:, u, v]
        ij, uv = np.empty((rows, rows), dtype=int), np.empty((units, units), dtype=int)
        ij[i, j] = ij[j, i] = np.arange(len(i))
        uv[u, v] = uv[v, u] = np.arange(len(u))
        found = of_pairs[ij[:, None, :, None], uv[None, :, None, :]]
        return np.asarray(found.reshape(size, size))

    def A(self) -> Array:
        """Σ_{n,t} a aᵀ."""
        a = self.a.reshape(-1, self.a.shape[2])
        return np.asarray(a.T @ a)

    def B(self) -> Array:
        """1/T Σ_{n,k,t} δ δᵀ."""
        delta = self.delta.reshape(-1, self.delta.shape[3])
        return np.asarray(delta.T @ delta / self.a.shape[1])

    def toward_B(self, A: Array) -> Array:
        """Σ_{n,k} Jᵀ A J: F, rearranged, times vec A (Van Loan and Pitsianis 1993)."""
        if self.a.shape[1] > 1:
            J = self.J
            return np.asarray(np.einsum("nkiu,nkiv->uv", J, A @ J, optimize=True))
        a, delta = self.a[:, 0], self.delta[:, :, 0]
        weights = np.einsum("ni,ni->n", a @ A, a)
        return np.asarray(np.einsum("nku,n,nkv->uv", delta, weights, delta, optimize=True))

    def toward_A(self, B: Array) -> Array:
        """Σ_{n,k} J B Jᵀ."""
        if self.a.shape[1] > 1:
            J = self.J
            return np.asarray(np.einsum("nkiu,nkju->ij", J @ B, J, optimize=True))
        a, delta = self.a[:, 0], self.delta[:, :, 0]
        weights = np.einsum("nku,nku->n", delta @ B, delta)
        return np.asarray((a * weights[:, None]).T @ a)


def sole_node(problem: Problem, parameter: str) -> Node | None:
    """The dense or convolutional node that alone uses a block's tensors, which are of its units."""
    layout, graph = layout_of(problem, parameter), problem.graph
    users = {node.name: node for tensor in layout.tensors for node in graph.users[tensor]}
    if len(users) != 1 or len(layout.segments) != 1:
        return None
    (node,) = users.values()
    plain = node.kind == DENSE or (node.kind == CONV and node.attributes["groups"] == 1)
    return node if plain else None


@dataclass(frozen=True)
class Seen:
    """The inputs of a layer for some examples: ``a``, and ∂f/∂z as ``J`` (n, c, T · units)."""

    a: Array
    J: Array
    units: int

    def factors(self, m: Array) -> Factors:
        """The factors of roots m (n, K, c) of the loss."""
        delta = m @ self.J
        return Factors(self.a, delta.reshape(*m.shape[:2], -1, self.units))


def seen(engine: ChainRule, parameter: str, node: Node) -> Seen:
    """The inputs of a block's node for the engine's examples."""
    linearized, (segment,) = engine.linearized, layout_of(engine.problem, parameter).segments
    linearized.reach([tensor.name for tensor in segment.tensors])
    at = linearized.at(node.name, slice(None))
    examples = engine.problem.examples
    if isinstance(at, DenseAt):
        a = at.x.a[:, None]
    else:
        assert isinstance(at, BilinearAt)  # ``sole_node`` lets no other through
        a = at.a.reshape(examples, math.prod(node.shape[:-1]), -1)
    ones = np.ones((*a.shape[:2], 1), dtype=a.dtype)
    parts = [ones if tensor.is_vector else a for tensor in segment.tensors]
    J = linearized.pulled_outputs(slice(None), values=[node.name]).values.get(node.name)
    if J is None:
        # The output does not depend on the layer.
        J = np.zeros((examples, engine.problem.outputs, *node.shape), dtype=a.dtype)
    return Seen(np.concatenate(parts, axis=2), J.reshape(*J.shape[:2], -1), segment.units)


def root_of(engine: ChainRule, kind: str, samples: int, seed: int) -> Array:
    """Roots m (n, K, c) of a kind; raises InputError for a loss that has none."""
    linearized, problem = engine.linearized, engine.problem
    f, scale = linearized.f, np.sqrt(linearized.scales)[:, None]
    if kind == EMPIRICAL:
        return np.asarray((scale * linearized.loss.gradient(f, problem.targets))[:, None])
    if kind == MONTE_CARLO:
        return _sampled(engine, samples, seed) * scale[:, None] / math.sqrt(samples)
    if draws_of(problem) in (_classes, _one_hot):
        return _expected(engine) * scale[:, None]
    # Poisson's ∂²ℓ/∂f² is linear in the target, whose mean is the rate f + ε of Keras's loss.
    targets = f + f.dtype.type(EPSILON) if kind == FISHER else problem.targets
    M = linearized.loss.hessian(f, targets)
    values, vectors = np.linalg.eigh(M)
    lowest = -_ROUNDING * np.finfo(M.dtype).eps * np.abs(values).max(axis=1, initial=0)
    if (values.min(axis=1) < lowest).any():
        raise InputError(
            f"loss.name: {problem.loss.name}: its ∂²ℓ/∂f² has negative eigenvalues, so that "
            "Gauss–Newton has no square root and no Kronecker factors; use a convex loss"
        )
    m = np.swapaxes(vectors * np.sqrt(np.maximum(values, 0))[:, None], 1, 2)
    return np.asarray(m * scale[:, None])


def draws_of(problem: Problem) -> _Draw | None:
    """How targets are drawn from the loss's distribution; None if it has none."""
    return {
        "sparse_categorical_crossentropy": _classes,
        "categorical_crossentropy": _one_hot,
        "binary_crossentropy": _bits,
        "mean_squared_error": _normal,
        POISSON: _counts,
    }.get(problem.loss.name)


def _expected(engine: ChainRule) -> Array:
    """√p_k ∂ℓ/∂f at class k, for all classes (n, c, c): Σ_k p_k g_k g_kᵀ = ∂²ℓ/∂f²."""
    f, loss = engine.linearized.f, engine.linearized.loss
    is_number = draws_of(engine.problem) is _one_hot
    n, c = f.shape
    classes = np.tile(np.arange(c), n)
    targets = np.eye(c, dtype=f.dtype)[classes] if is_number else classes
    gradients = loss.gradient(np.repeat(f, c, axis=0), targets).reshape(n, c, c)
    return np.asarray(np.sqrt(softmax(f, axis=1))[:, :, None] * gradients)


def _sampled(engine: ChainRule, samples: int, seed: int) -> Array:
    """Gradients (n, K, c) at targets that the network draws.

    An example's draws depend on its numbers, so that they are the same in any chunk or process.
    """
    problem, linearized = engine.problem, engine.linearized
    draw, f = draws_of(problem), linearized.f
    assert draw is not None  # nobody asks otherwise
    # The loss of bits and counts is a mean over c: c ℓ is their −log likelihood, and
    # E ∂²ℓ/∂f² = c E g gᵀ.
    factor = math.sqrt(f.shape[1]) if draw in (_bits, _counts) else 1.0
    inputs = np.ascontiguousarray(problem.batch)
    keys = np.array([crc32(x.tobytes()) for x in inputs], dtype=np.uint64)
    u = _uniform(seed, keys, samples * f.shape[1]).reshape(len(f), samples, -1)
    drawn = draw(f, u)
    gradients = [linearized.loss.gradient(f, drawn[:, s]) for s in range(samples)]
    return np.asarray(np.stack(gradients, axis=1) * f.dtype.type(factor))


def _uniform(seed: int, keys: _Words, count: int) -> Array:
    """Random numbers between 0 and 1, (n, count): SplitMix64 of the seed, a key and a number.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. (NumPy's
    generators would have to be made again for every example.)
    """
    own = _mixed(keys ^ _mixed(np.array(seed, dtype=np.uint64)))
    step = np.uint64(0x9E3779B97F4A7C15)
    bits = _mixed(own[:, None] + step * np.arange(1, count + 1, dtype=np.uint64))
    return np.asarray(((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


def _mixed(z: _Words) -> _Words:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z


def _classes(f: Array, u: Array) -> Targets:
    edges = np.cumsum(softmax(f.astype(np.float64), axis=1), axis=1)[:, None, :-1]
    return np.asarray((u[:, :, :1] >= edges).sum(axis=2))


def _one_hot(f: Array, u: Array) -> Array:
    return np.asarray(np.eye(f.shape[1], dtype=f.dtype)[_classes(f, u)])


def _bits(f: Array, u: Array) -> Array:
    return np.asarray((u < expit(f)[:, None]).astype(f.dtype))


def _counts(f: Array, u: Array) -> Array:
    # The first count whose distribution function is u or more; pdtrik's may be one too high.
    rates = f.astype(np.float64)[:, None] + EPSILON
    counts = np.ceil(pdtrik(u, rates))
    less = np.maximum(counts - 1, 0)
    return np.asarray(np.where(pdtr(less, rates) >= u, less, counts).astype(f.dtype))


def _normal(f: Array, u: Array) -> Array:
    return np.asarray(f[:, None] + math.sqrt(f.shape[1] / 2) * ndtri(u).astype(f.dtype))
