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
from hesscli.engines.chainblocks import (
    CrossTerm,
    InputBlock,
    InputsBlock,
    LayerBlock,
    NetworkBlock,
)
from hesscli.engines.layout import INPUT, NETWORK, input_example, layer_of, layout_of
from hesscli.engines.quantities import Quantity
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


@dataclass(frozen=True)
class NodeTerms:
    """What one node does to the sweep, for n examples: S = I + O at the node's input.

    ``g`` (n, d) is the gradient there; ``I`` and ``O`` (n, d, d) are the linear part Jᵀ S J, out
    of the whole Hessian S above the node, and the node's own curvature part; ``S`` (n, d, d) is
    the Hessian that the sweep goes on with.
    """

    g: Array
    I: Array  # noqa: E741  # the letter of the mathematics
    O: Array  # noqa: E741
    S: Array


class ChainRule:
    """The chain-rule engine for one problem; the sweep runs once, when it is first needed."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def hessian(self, parameter: str) -> HessianBlock:
        return self._block(parameter, [node.G + node.C for node in self.nodes], 1)

    def gauss_newton(self, parameter: str) -> HessianBlock:
        return self._block(parameter, [node.G for node in self.nodes], 0)

    def curvature(self, parameter: str) -> HessianBlock:
        return self._block(parameter, [node.C for node in self.nodes], 1)

    def node_terms(self, quantity: Quantity, start: int, stop: int) -> NodeTerms:
        """The node whose input is ``quantity``, for the examples from ``start`` to ``stop``."""
        chosen, index = slice(start, stop), quantity.layer
        # Overflow is for who judges the numbers, as in ``nodes``.
        with np.errstate(over="ignore", invalid="ignore"):
            if quantity.kind == "loss":
                last = self.nodes[-1]
                S = last.S_a[chosen]
                return NodeTerms(g=last.g_a[chosen], I=S, O=np.zeros_like(S), S=S)
            node = self.nodes[index]
            S_z = node.G[chosen] + node.C[chosen]
            if quantity.kind == "activation":
                # I = diag(σ′) S_a diag(σ′),   O = diag(σ″ ⊙ g_a)
                sigma, z = derivatives(self.problem.layers[index].activation), node.z[chosen]
                slope = sigma.first(z)
                linear = slope[:, :, None] * node.S_a[chosen] * slope[:, None, :]
                curvature = _diagonal(sigma.second(z) * node.g_a[chosen])
                return NodeTerms(g=node.g_z[chosen], I=linear, O=curvature, S=S_z)
            # g_x = g_z Wᵀ,   I = W S_z Wᵀ,   O = 0
            W = self.problem.layers[index].kernel
            linear = W @ S_z @ W.T
            g, S = node.g_z[chosen] @ W.T, linear
            if index > 0:
                g, S = self.nodes[index - 1].g_a[chosen], self.nodes[index - 1].S_a[chosen]
            return NodeTerms(g=g, I=linear, O=np.zeros_like(linear), S=S)

    def _block(self, parameter: str, S: list[Array], share_of_g: int) -> HessianBlock:
        """The block of one term: ``S`` at every pre-activation, and whether g is in it (1 or 0)."""
        layout = layout_of(self.problem, parameter)
        example = input_example(parameter)
        if example is not None:
            return InputBlock(parameter, layout, self.problem.layers[0].kernel, S[0][example])
        if parameter == INPUT:
            return InputsBlock(parameter, layout, self.problem.layers[0].kernel, S[0])
        if parameter == NETWORK:
            names = self.problem.layer_names
            layers = tuple(self._layer_block(name, S[k]) for k, name in enumerate(names))
            g = tuple(share_of_g * node.g_z for node in self.nodes)
            return NetworkBlock(parameter, layout, layers, g, self._cross_terms(layers))
        return self._layer_block(parameter, S[self.problem.layer_index(layer_of(parameter))])

    def _layer_block(self, parameter: str, S: Array) -> LayerBlock:
        layout = layout_of(self.problem, parameter)
        a = self.nodes[self.problem.layer_index(layer_of(parameter))].a
        ones = np.ones((len(a), 1), dtype=a.dtype)
        (segment,) = layout.segments
        factors = [ones if tensor.is_vector else a for tensor in segment.tensors]
        return LayerBlock(parameter, layout, np.concatenate(factors, axis=1), S)

    def _cross_terms(self, layers: tuple[LayerBlock, ...]) -> dict[tuple[int, int], CrossTerm]:
        """M = ∂a_{l-1}/∂z_k and B = S_l W_lᵀ M for every k < l.

        M grows layer by layer: it is diag(σ′_k) for l = k + 1, and diag(σ′_l) W_lᵀ M beyond l.
        """
        cross: dict[tuple[int, int], CrossTerm] = {}
        for k in range(len(layers)):
            M = _diagonal(self._slope(k))
            for upper in range(k + 1, len(layers)):
                through = self.problem.layers[upper].kernel.T @ M
                constant = layers[upper].inputs - M.shape[1]
                padded = np.pad(M, ((0, 0), (0, constant), (0, 0)))
                cross[k, upper] = CrossTerm(padded, layers[upper].S @ through)
                M = self._slope(upper)[:, :, None] * through
        return cross

    def _slope(self, index: int) -> Array:
        return derivatives(self.problem.layers[index].activation).first(self.nodes[index].z)

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


def _diagonal(values: Array) -> Array:
    """(N, d) as N diagonal matrices."""
    return values[:, :, None] * np.eye(values.shape[1], dtype=values.dtype)


def _require_finite(layer: str, where: str, arrays: Iterable[Array]) -> None:
    for array in arrays:
        if not np.isfinite(array).all():
            wider = " or dtype float64" if array.dtype == np.float32 else ""
            raise NumericalError(
                f"{layer}: the chain rule's {where} leaves the range of {array.dtype}; "
                f"use smaller weights{wider}"
            )
