"""The first witness: the chain rule for Hessians, written out by hand in NumPy.

Two things travel backwards for each example n: the gradient g (N, d) and the Hessian S (N, d, d)
with respect to the current quantity. S is kept as its two parts: G, the Gauss–Newton term, to
which every curvature part O below the loss is missing, and C, the curvature term, with S = G + C.
C is summed from its own parts, never as a difference, so that it keeps its digits when it is
small.

    loss          g = c ∂ℓ/∂f          G = c ∂²ℓ/∂f²            C = 0
    activation    g ← σ′ ⊙ g           G ← diag(σ′) G diag(σ′)   C ← diag(σ′) C diag(σ′) + O,
                                                                 O = diag(σ″ ⊙ g)
    dense         g ← g Wᵀ             G ← W G Wᵀ                C ← W C Wᵀ

Source: Skorski, Temperoni and Theobald, "Revisiting Weight Initialization of Deep Neural
Networks" (ACML 2021), and the second-order backpropagation of Bishop, "Pattern Recognition and
Machine Learning", section 5.4.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hesscli.engines.block import HessianBlock
from hesscli.engines.pieces import pieces
from hesscli.problem.activations import derivatives
from hesscli.problem.errors import NumericalError
from hesscli.problem.losses import loss_derivatives
from hesscli.problem.network import Array, Problem


@dataclass(frozen=True)
class Node:
    """What the two sweeps leave at one dense layer.

    ``a`` (N, inputs) is the layer's input and ``z`` (N, units) its pre-activation; ``g_a`` and
    ``g_z`` (N, units) are the gradients at the activation's output and at z; ``G`` and ``C``
    (N, units, units) the Gauss–Newton and curvature terms of the Hessian at z; ``S_a``
    (N, units, units) is the Hessian at the activation's output.
    """

    a: Array
    z: Array
    g_a: Array
    g_z: Array
    S_a: Array
    G: Array
    C: Array


class ChainRule:
    """The chain-rule engine for one problem; the sweep runs once, when it is first needed."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def hessian(self, parameter: str) -> KernelBlock:
        node = self._node(parameter)
        return KernelBlock(parameter, node.a, node.G + node.C)

    def gauss_newton(self, parameter: str) -> KernelBlock:
        node = self._node(parameter)
        return KernelBlock(parameter, node.a, node.G)

    def curvature(self, parameter: str) -> KernelBlock:
        node = self._node(parameter)
        return KernelBlock(parameter, node.a, node.C)

    def _node(self, parameter: str) -> Node:
        layer, _, tensor = parameter.partition("/")
        if tensor != "kernel":
            raise KeyError(parameter)
        return self.nodes[self.problem.layer_index(layer)]

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The sweep's quantities, a Node for each layer; NumericalError where it overflows."""
        # Overflow is reported by name below, not by NumPy's warnings.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._sweep()

    def _sweep(self) -> tuple[Node, ...]:
        problem = self.problem
        inputs, pre_activations, f = self._forward()
        loss = loss_derivatives(problem.loss)
        c = problem.dtype.type(problem.loss.scale(problem.examples))
        g = c * loss.gradient(f, problem.targets)
        G = c * loss.hessian(f, problem.targets)
        C = np.zeros_like(G)
        nodes: list[Node] = []
        for layer, a, z in reversed(
            list(zip(problem.layers, inputs, pre_activations, strict=True))
        ):
            sigma = derivatives(layer.activation)
            slope, bend = sigma.first(z), sigma.second(z)
            g_a, S_a = g, G + C
            g = slope * g_a
            G = slope[:, :, None] * G * slope[:, None, :]
            C = slope[:, :, None] * C * slope[:, None, :]
            diagonal = np.arange(layer.units)
            C[:, diagonal, diagonal] += bend * g_a
            _require_finite(layer.name, "backward sweep", (g, G, C))
            nodes.append(Node(a=a, z=z, g_a=g_a, g_z=g, S_a=S_a, G=G, C=C))
            if layer is not problem.layers[0]:
                W = layer.kernel
                g = g @ W.T
                G = W @ G @ W.T
                C = W @ C @ W.T
        return tuple(reversed(nodes))

    def _forward(self) -> tuple[list[Array], list[Array], Array]:
        a = self.problem.inputs
        inputs: list[Array] = []
        pre_activations: list[Array] = []
        for layer in self.problem.layers:
            inputs.append(a)
            z = a @ layer.kernel
            if layer.bias is not None:
                z = z + layer.bias
            pre_activations.append(z)
            a = derivatives(layer.activation).value(z)
            _require_finite(layer.name, f"forward pass ({layer.activation})", (z, a))
        return inputs, pre_activations, a


def _require_finite(layer: str, where: str, arrays: Iterable[Array]) -> None:
    for array in arrays:
        if not np.isfinite(array).all():
            raise NumericalError(
                f"{layer}: the chain rule's {where} leaves the range of {array.dtype}; "
                "use smaller weights or dtype float64"
            )


class KernelBlock(HessianBlock):
    """The block of one kernel: H[(i,h),(j,l)] = Σ_n a_n[i] a_n[j] S_n[h,l].

    ``a`` is (N, inputs), ``S`` (N, units, units). Nothing of size (P, P) is ever formed.
    """

    def __init__(self, parameter: str, a: Array, S: Array) -> None:
        self.a = a
        self.S = S
        self.inputs, self.units = a.shape[1], S.shape[1]
        super().__init__(parameter, self.inputs * self.units, a.dtype)

    def _matmat(self, V: Array) -> Array:
        # H·V = Σ_n a_n (S_n u_n)ᵀ,  u_n = Vᵀ a_n
        examples, columns = len(self.a), V.shape[1]
        U = self.a @ V.reshape(self.inputs, -1)
        SU = self.S @ U.reshape(examples, self.units, columns)
        product: Array = self.a.T @ SU.reshape(examples, -1)
        return product.reshape(-1, columns)

    def rows(self, start: int, stop: int) -> Array:
        # Row (i,h) as an (inputs, units) array:  aᵀ · (a[:, i] ⊙ S[:, h, :])
        stop = min(stop, self.shape[0])
        rows = np.empty((stop - start, self.inputs, self.units), dtype=self.dtype)
        S = self.S.transpose(1, 0, 2)
        for low, high in pieces(start, stop, self.S[:, 0].nbytes):
            i, h = np.divmod(np.arange(low, high), self.units)
            weighted = self.a.T[i, :, None] * S[h]
            np.matmul(self.a.T, weighted, out=rows[low - start : high - start])
        return rows.reshape(stop - start, self.shape[0])

    def quadratic_form(self, v: Array) -> float:
        # Σ_n u_nᵀ S_n u_n,  u_n = Vᵀ a_n
        u = self.a @ np.asarray(v, dtype=self.dtype).reshape(self.inputs, self.units)
        return float(np.einsum("nh,nhl,nl->", u, self.S, u, optimize=True))
