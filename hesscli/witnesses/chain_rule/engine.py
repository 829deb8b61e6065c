"""The first witness: the chain rule for Hessians, written out by hand in NumPy.

Two things travel backwards for each example n: the gradient g (N, d) and the Hessian S (N, d, d)
with respect to the current quantity. A sweep carries one *term* of S:

    loss          g = c ∂ℓ/∂f          S = c ∂²ℓ/∂f²
    activation    g ← σ′ ⊙ g           S ← diag(σ′) S diag(σ′) + O,   O = diag(σ″ ⊙ g)
    dense         g ← g Wᵀ             S ← W S Wᵀ

The Gauss–Newton term lacks every O below the loss, the curvature term starts at the loss with 0;
the Hessian is their sum. The curvature term is summed from its own parts, never as a difference,
so that it keeps its digits when it is small.

The gradients are computed once, for all examples. S is units × units for every example: it is
computed where rows of a block are asked for, and products go without it (roperator.py).

Source: Skorski, Temperoni and Theobald, "Revisiting Weight Initialization of Deep Neural
Networks" (ACML 2021), and the second-order backpropagation of Bishop, "Pattern Recognition and
Machine Learning", section 5.4.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from hesscli.nodes.activations import derivatives
from hesscli.nodes.losses import loss_derivatives
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.system.errors import InputError, NumericalError
from hesscli.system.memory import available_memory, readable_size
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.blocks import (
    CrossTerm,
    InputBlock,
    InputsBlock,
    LayerBlock,
    NetworkBlock,
)
from hesscli.witnesses.chain_rule.roperator import (
    CURVATURE,
    GAUSS_NEWTON,
    HESSIAN,
    LeanNode,
    Node,
    ROperator,
    Term,
    by_rows,
)
from hesscli.witnesses.layout import INPUT, NETWORK, Layout, input_example, layer_of, layout_of
from hesscli.witnesses.quantities import Quantity

# The Hessians of all examples at one layer leave this share of the available memory.
_SECOND_SHARE = 0.8


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


class FirstOrder:
    """The first-order quantities of one problem, which are computed as they are asked for.

    They know nothing of the blocks that read them: so what holds them is gone with the last block,
    and a sum over many chunks holds no more than the chunk at work.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        # σ′ and σ″ ⊙ g_a from the last layer down to the lowest that was asked for, the input of
        # that one, and the network's output f.
        self._swept: dict[int, tuple[Array, Array]] = {}
        self._lowest_input: Array | None = None
        self._f: Array | None = None

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The first-order quantities, a Node for each layer; NumericalError on overflow."""
        with np.errstate(over="ignore", invalid="ignore"):
            forward = list(self._forward())
            backward = list(self._backward([z for _, z in forward]))
            self._f = self._output_at(forward[-1][1])
        nodes: list[Node] = []
        for a, z in forward:
            slope, bend, g_a, g_z = backward.pop()
            slope, bend = self._swept.setdefault(len(nodes), (slope, bend))
            nodes.append(Node(a, z, slope, bend, g_a, g_z))
        return tuple(nodes)

    def slope_and_bend(self, index: int) -> tuple[Array, Array]:
        """σ′ and σ″ ⊙ g_a (N, units) at a layer's pre-activation; NumericalError on overflow.

        They are computed down to the layer that is asked for, and nothing else is held: at large
        widths a network's first-order quantities take more memory than its weights.
        """
        if index not in self._swept:
            pre_activations: list[Array] = []
            with np.errstate(over="ignore", invalid="ignore"):
                for k, (a, z) in enumerate(self._forward()):
                    if k == index:
                        self._lowest_input = a
                    if k >= index:
                        pre_activations.append(z)
                del a, z
                self._f = self._output_at(pre_activations[-1])
                down = range(len(self.problem.layers) - 1, index - 1, -1)
                for k, (slope, bend, _, _) in zip(
                    down, self._backward(pre_activations), strict=False
                ):
                    self._swept.setdefault(k, (slope, bend))
        return self._swept[index]

    @property
    def output(self) -> Array:
        """The network's output f (N, c)."""
        if self._f is None:
            self.slope_and_bend(len(self.problem.layers) - 1)
        assert self._f is not None
        return self._f

    def input(self, index: int) -> Array:
        """The input a (N, inputs) of layer ``index``."""
        if "nodes" in self.__dict__:
            return self.nodes[index].a
        if self._lowest_input is not None and index == min(self._swept):
            return self._lowest_input
        with np.errstate(over="ignore", invalid="ignore"):
            return next(a for k, (a, _) in enumerate(self._forward()) if k == index)

    def gradient(self, index: int) -> Array:
        """∂L/∂z (N, units) at layer ``index``."""
        return self.nodes[index].g_z

    @property
    def scale(self) -> np.floating:
        scale: np.floating = self.problem.dtype.type(self.problem.scale)
        return scale

    def _output_at(self, z: Array) -> Array:
        return derivatives(self.problem.layers[-1].activation).value(z)

    def _forward(self) -> Iterator[tuple[Array, Array]]:
        """The input a (N, inputs) and the pre-activation z (N, units) of each layer."""
        a = self.problem.batch
        for layer in self.problem.layers:
            z = a @ layer.kernel
            if layer.bias is not None:
                z += layer.bias
            yield a, z
            a = by_rows(derivatives(layer.activation).value, z)
            _require_finite(layer.name, f"forward pass ({layer.activation})", (z, a))

    def _backward(
        self, pre_activations: list[Array]
    ) -> Iterator[tuple[Array, Array, Array, Array]]:
        """(σ′, σ″ ⊙ g_a, g_a, g_z) of each layer, from the last to the first.

        ``pre_activations`` are taken off the list as they are used up.
        """
        problem = self.problem
        f = self._output_at(pre_activations[-1])
        g = self.scale * loss_derivatives(problem.loss).gradient(f, problem.targets)
        for index in reversed(range(len(problem.layers))):
            layer = problem.layers[index]
            sigma, z, g_a = derivatives(layer.activation), pre_activations.pop(), g
            slope = by_rows(sigma.first, z)
            bend = by_rows(lambda z, g_a, sigma=sigma: sigma.second(z) * g_a, z, g_a)
            del z
            g = slope * g_a
            _require_finite(layer.name, "backward sweep", (slope, bend, g))
            yield slope, bend, g_a, g
            del slope, bend, g_a
            if index > 0:
                g = g @ layer.kernel.T


class ChainRule:
    """The chain-rule engine for one problem; its sweeps run when they are first needed."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.first_order = FirstOrder(problem)
        self._kept: dict[tuple[Term, int], Array] = {}

    def hessian(self, parameter: str) -> HessianBlock:
        return self._block(parameter, HESSIAN)

    def gauss_newton(self, parameter: str) -> HessianBlock:
        return self._block(parameter, GAUSS_NEWTON)

    def curvature(self, parameter: str) -> HessianBlock:
        return self._block(parameter, CURVATURE)

    def second(self, index: int, term: Term = HESSIAN) -> Array:
        """S (N, units, units) at the pre-activation of layer ``index``, kept for later.

        Raises InputError, with the size, beyond the memory there is, and NumericalError where it
        leaves the range of the dtype.
        """
        if (term, index) not in self._kept:
            problem, units = self.problem, self.problem.layers[index].units
            shape = (problem.examples, units, units)
            _require_memory(problem, index, shape)
            S = np.empty(shape, dtype=problem.dtype)
            for start, stop in self._chunks(index):
                *_, (_, S[start:stop]) = self.sweep(slice(start, stop), term, down_to=index)
            self._kept[term, index] = S
        return self._kept[term, index]

    def sweep(
        self, chosen: slice, term: Term = HESSIAN, down_to: int = 0
    ) -> Iterator[tuple[int, Array]]:
        """(k, S) of one term at the pre-activation of each layer k from the last to ``down_to``.

        S is (n, units, units) for the n examples ``chosen``: what is held at a time grows with
        them and not with the batch.
        """
        problem = self.problem
        self.first_order.slope_and_bend(down_to)
        # Overflow is reported by name below, not by NumPy's warnings.
        with np.errstate(over="ignore", invalid="ignore"):
            S = self._second_at_output(chosen, term)
            for index in range(len(problem.layers) - 1, down_to - 1, -1):
                S = self._through_activation(index, S, chosen, term)
                _require_finite(problem.layers[index].name, "backward sweep", (S,))
                yield index, S
                if index > down_to:
                    W = problem.layers[index].kernel
                    S = W @ S @ W.T

    def node_terms(self, quantity: Quantity, start: int, stop: int) -> NodeTerms:
        """The node whose input is ``quantity``, for the examples from ``start`` to ``stop``."""
        chosen, index = slice(start, stop), quantity.layer
        # Overflow is for who judges the numbers, as in ``nodes``.
        with np.errstate(over="ignore", invalid="ignore"):
            if quantity.kind == "loss":
                S = self._second_at_output(chosen, HESSIAN)
                return NodeTerms(g=self.nodes[-1].g_a[chosen], I=S, O=np.zeros_like(S), S=S)
            node = self.nodes[index]
            if quantity.kind == "activation":
                # I = diag(σ′) S_a diag(σ′),   O = diag(σ″ ⊙ g_a)
                slope, S_a = node.slope[chosen], self.second_at_activation(index, chosen)
                linear = slope[:, :, None] * S_a * slope[:, None, :]
                curvature = _diagonal(node.bend[chosen])
                return NodeTerms(
                    g=node.g_z[chosen],
                    I=linear,
                    O=curvature,
                    S=self._through_activation(index, S_a, chosen, HESSIAN),
                )
            # g_x = g_z Wᵀ,   I = W S_z Wᵀ,   O = 0
            W = self.problem.layers[index].kernel
            *_, (_, S_z) = self.sweep(chosen, down_to=index)
            linear = W @ S_z @ W.T
            g = self.nodes[index - 1].g_a[chosen] if index > 0 else node.g_z[chosen] @ W.T
            return NodeTerms(g=g, I=linear, O=np.zeros_like(linear), S=linear)

    def second_at_activation(self, index: int, chosen: slice) -> Array:
        """The Hessian S_a (n, units, units) at the output of layer ``index``'s activation."""
        if index == len(self.problem.layers) - 1:
            return self._second_at_output(chosen, HESSIAN)
        W = self.problem.layers[index + 1].kernel
        *_, (_, S) = self.sweep(chosen, down_to=index + 1)
        return np.asarray(W @ S @ W.T)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The first-order quantities, a Node for each layer; NumericalError on overflow."""
        return self.first_order.nodes

    @cached_property
    def r_operator(self) -> ROperator:
        """Products with every block, without S."""
        f, problem = self.first_order.output, self.problem
        product = loss_derivatives(problem.loss).hessian_product(f, problem.targets)
        nodes = [
            LeanNode(
                partial(self.first_order.slope_and_bend, index),
                partial(self.first_order.input, index),
                partial(self.first_order.gradient, index),
            )
            for index in range(len(problem.layers))
        ]
        return ROperator(problem.layers, nodes, product, self.first_order.scale)

    def _block(self, parameter: str, term: Term) -> HessianBlock:
        layout = layout_of(self.problem, parameter)
        example = input_example(parameter)
        if parameter in (NETWORK, INPUT) or example is not None:
            self.first_order.slope_and_bend(0)
        if example is not None or parameter == INPUT:
            return self._input_block(parameter, layout, example, term)
        if parameter == NETWORK:
            layers = tuple(self._layer_block(name, term) for name in self.problem.layer_names)
            return NetworkBlock(parameter, layout, self.r_operator, term, layers, self._cross)
        return self._layer_block(parameter, term)

    def _input_block(
        self, parameter: str, layout: Layout, example: int | None, term: Term
    ) -> HessianBlock:
        W = self.problem.layers[0].kernel
        if example is None:
            return InputsBlock(parameter, layout, self.r_operator, term)
        chosen = slice(example, example + 1)

        def S() -> Array:
            *_, (_, at_first) = self.sweep(chosen, term)
            return np.asarray(at_first[0])

        return InputBlock(parameter, layout, self.r_operator, term, example, W, S)

    def _layer_block(self, parameter: str, term: Term) -> LayerBlock:
        layout = layout_of(self.problem, parameter)
        index = self.problem.layer_index(layer_of(parameter))
        self.first_order.slope_and_bend(index)
        return LayerBlock(
            parameter,
            layout,
            self.r_operator,
            term,
            index,
            lambda: self.second(index, term),
        )

    def _cross(self, layers: tuple[LayerBlock, ...]) -> dict[tuple[int, int], CrossTerm]:
        """M = ∂a_{l-1}/∂z_k and B = S_l W_lᵀ M for every k < l.

        M grows layer by layer: it is diag(σ′_k) for l = k + 1, and diag(σ′_l) W_lᵀ M beyond l.
        """
        cross: dict[tuple[int, int], CrossTerm] = {}
        for k in range(len(layers)):
            M = _diagonal(self.nodes[k].slope)
            for upper in range(k + 1, len(layers)):
                through = self.problem.layers[upper].kernel.T @ M
                constant = layers[upper].inputs - M.shape[1]
                padded = np.pad(M, ((0, 0), (0, constant), (0, 0)))
                cross[k, upper] = CrossTerm(padded, layers[upper].S @ through)
                M = self.nodes[upper].slope[:, :, None] * through
        return cross

    def _second_at_output(self, chosen: slice, term: Term) -> Array:
        problem = self.problem
        hessian = loss_derivatives(problem.loss).hessian
        S = self.first_order.scale * hessian(
            self.first_order.output[chosen], problem.targets[chosen]
        )
        return S if term.seeded else np.zeros_like(S)

    def _through_activation(self, index: int, S: Array, chosen: slice, term: Term) -> Array:
        """diag(σ′) S diag(σ′) + diag(σ″ ⊙ g_a), the second where the term has it."""
        slopes, bend = self.first_order.slope_and_bend(index)
        slope = slopes[chosen]
        S = slope[:, :, None] * S * slope[:, None, :]
        if term.bent:
            diagonal = np.arange(S.shape[1])
            S[:, diagonal, diagonal] += bend[chosen]
        return S

    def _chunks(self, down_to: int) -> Iterator[tuple[int, int]]:
        """Chunks of examples whose Hessians at the layers above ``down_to`` stay small."""
        widest = max(self.problem.widths[down_to + 1 :])
        return pieces(0, self.problem.examples, widest * widest * self.problem.dtype.itemsize)


def _diagonal(values: Array) -> Array:
    """(N, d) as N diagonal matrices."""
    return values[:, :, None] * np.eye(values.shape[1], dtype=values.dtype)


def _require_memory(problem: Problem, index: int, shape: tuple[int, ...]) -> None:
    needed = int(np.prod(shape)) * problem.dtype.itemsize
    available = available_memory()
    if available is not None and needed > _SECOND_SHARE * available:
        raise InputError(
            f"{problem.layers[index].name}: the Hessians of {shape[0]:,} examples at "
            f"{shape[1]:,} units need {readable_size(needed)} and {readable_size(available)} are "
            "free; use products (--check probes or form) or a smaller batch"
        )


def _require_finite(layer: str, where: str, arrays: Iterable[Array]) -> None:
    for array in arrays:
        if not np.isfinite(array).all():
            wider = " or dtype float64" if array.dtype == np.float32 else ""
            raise NumericalError(
                f"{layer}: the chain rule's {where} leaves the range of {array.dtype}; "
                f"use smaller weights{wider}"
            )
