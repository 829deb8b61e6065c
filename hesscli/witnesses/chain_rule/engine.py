"""The first witness: the chain rule for Hessians, written by hand over arrays.

What it says of a node stands with the node (hesscli.nodes), what it says of a graph in the passes
(hesscli.nodes.passes). Here it becomes blocks: of any graph by products, and where a layer is one
dense node by the structure of that.

The curvature term is summed from its own parts, never as a difference, so that it keeps its digits
when it is small.

Source: Skorski, Temperoni and Theobald, "Revisiting Weight Initialization of Deep Neural
Networks" (ACML 2021), and the second-order backpropagation of Bishop, "Pattern Recognition and
Machine Learning", section 5.4.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hesscli.nodes import penalty
from hesscli.nodes.calculus import Dispatch, calculus_of
from hesscli.nodes.losses import LossDerivatives, loss_derivatives
from hesscli.nodes.passes import CURVATURE, GAUSS_NEWTON, HESSIAN, Check, Linearized, Term
from hesscli.problem.graph import DENSE, INPUT, Array, Node
from hesscli.problem.network import Problem
from hesscli.system import xp
from hesscli.system.arrays import dtype_of
from hesscli.system.errors import NumericalError
from hesscli.system.memory import require_memory
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.blocks import InputsBlock, ProductBlock
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.jacobian import ChainJacobian
from hesscli.witnesses.chain_rule.network import NetworkBlock
from hesscli.witnesses.layout import NETWORK, input_example, layout_of
from hesscli.witnesses.penalized import of_penalties, penalized

# The Hessians of all examples at one layer leave this share of the available memory.
_SECOND_SHARE = 0.8


@dataclass(frozen=True)
class NodeTerms:
    """What one value does to the sweep, for n examples: S = I + O at the value.

    ``g`` (n, d) is the gradient there; ``I`` and ``O`` (n, d, d) are the linear part Jᵀ S J, out
    of the whole Hessian S above the node that reads the value, and that node's own curvature part.
    """

    g: Array
    I: Array  # noqa: E741  # the letter of the mathematics
    O: Array  # noqa: E741
    S: Array


class ChainRule:
    """The chain-rule engine for one problem; its passes run when they are first needed.

    ``calculus`` and ``loss`` are what nodes and loss do, by default what they are defined to. What
    is computed is of the library, and on the device, that the problem's arrays are of.
    """

    def __init__(
        self,
        problem: Problem,
        calculus: Dispatch = calculus_of,
        loss: LossDerivatives | None = None,
        check: Check | None = None,
    ) -> None:
        self.problem = problem
        self.linearized = Linearized(
            problem.graph,
            lambda: problem.graph.shaped(problem.batch),
            problem.targets,
            loss_derivatives(problem.loss) if loss is None else loss,
            problem.scales,
            problem.of_activity,
            calculus,
            _require_finite if check is None else check,
        )
        self._gradients: dict[str, Array] = {}
        self._kept: dict[tuple[Term, str], Array] = {}

    def hessian(self, parameter: str) -> HessianBlock:
        return penalized(self.block(parameter, HESSIAN), self.problem, penalty.curvature)

    def gauss_newton(self, parameter: str) -> HessianBlock:
        return penalized(self.block(parameter, GAUSS_NEWTON), self.problem, penalty.curvature)

    def curvature(self, parameter: str) -> HessianBlock:
        return self.block(parameter, CURVATURE)

    def terms(self, parameter: str, V: Array) -> tuple[Array, Array]:
        """G V and C V for V (P, k), for less than a product with each."""
        block = self.products(parameter, HESSIAN)
        assert isinstance(block, ProductBlock)  # not of inputs
        GV, CV = block.terms(V)
        added = of_penalties(self.problem, parameter, penalty.curvature)
        return (GV if added is None else GV + added[:, None] * V), CV

    def gradient(self, parameter: str) -> Array:
        """∂L/∂θ (P,) of a block; of ``input`` in all inputs, one after the other."""
        layout, example = layout_of(self.problem, parameter), input_example(parameter)
        if example is not None or parameter == INPUT:
            chosen = slice(None) if example is None else slice(example, example + 1)
            return xp.reshape(self.gradient_at(INPUT)[chosen, ...], (-1,))
        found = self.linearized.cotangents(tensors=layout.tensors).tensors
        tensors = self.problem.graph.tensors
        for name in layout.tensors:
            # The output may not depend on it.
            found.setdefault(name, xp.zeros_like(tensors[name])[None, ...])
        gradient: Array = layout.join(found)[:, 0]
        added = of_penalties(self.problem, parameter, penalty.gradient)
        return gradient if added is None else gradient + added

    def jacobian(self, parameter: str) -> ChainJacobian:
        """∂f/∂θ (N·c, P) of a block, by rows; raises InputError for all inputs at once."""
        return ChainJacobian(self.problem, parameter, self.linearized)

    def second(self, value: str, term: Term = HESSIAN) -> Array:
        """S (N, units, units) at a value of the graph, kept for later.

        Raises InputError, with the size, beyond the memory there is, and NumericalError where it
        leaves the range of the dtype.
        """
        if (term, value) not in self._kept:
            problem, units = self.problem, math.prod(self.problem.graph.shape_of(value))
            shape = (problem.examples, units, units)
            _require_memory(problem, value, shape)
            S = xp.empty(shape, like=self.linearized.f)
            for start, stop in self._chunks(value):
                *_, (_, S[start:stop, ...]) = self.sweep(slice(start, stop), term, value)
            self._kept[term, value] = S
        return self._kept[term, value]

    def sweep(
        self, chosen: slice, term: Term = HESSIAN, down_to: str | None = None
    ) -> Iterator[tuple[str, Array]]:
        """(v, S) of one term at each value v from the output to ``down_to``.

        By default that is the lowest value which is not the input. S is (n, d, d) for the n
        examples ``chosen``: what is held at a time grows with them and not with the batch.
        """
        lowest = self.problem.graph.nodes[0].name if down_to is None else down_to
        return self.linearized.second(chosen, term, lowest)

    def node_terms(self, value: str, start: int, stop: int) -> NodeTerms:
        """What the nodes that read ``value`` do, for the examples from ``start`` to ``stop``.

        At the network's output that is the loss, which is linear part only.
        """
        chosen = slice(start, stop)
        I, O = self.linearized.split_second(chosen, value)  # noqa: E741
        g = xp.reshape(self.gradient_at(value)[chosen, ...], (I.shape[0], -1))
        return NodeTerms(g=g, I=I, O=O, S=I + O)

    def gradient_at(self, value: str) -> Array:
        """∂L/∂v (N, *shape) at a value of the graph."""
        if value not in self._gradients:
            # The output may not depend on it.
            shape = (self.problem.examples, 1, *self.problem.graph.shape_of(value))
            found = self.linearized.cotangents(values=[value]).values
            g = found[value] if value in found else xp.zeros(shape, like=self.linearized.f)
            self._gradients[value] = g[:, 0, ...]
        return self._gradients[value]

    def products(self, parameter: str, term: Term) -> ProductBlock | InputsBlock:
        """A block by the passes alone, whatever structure it has."""
        layout, example = layout_of(self.problem, parameter), input_example(parameter)
        if example is not None or parameter == INPUT:
            chosen = slice(None) if example is None else slice(example, example + 1)
            return InputsBlock(parameter, layout, self.linearized, term, chosen)
        return ProductBlock(parameter, layout, self.linearized, term)

    def block(self, parameter: str, term: Term) -> ProductBlock | InputsBlock:
        """One term of a block, by the structure that it has, without penalties."""
        layout, linearized = layout_of(self.problem, parameter), self.linearized
        if input_example(parameter) is not None or parameter == INPUT:
            return self.products(parameter, term)
        if parameter != NETWORK:
            return self._layer_block(parameter, term)
        linearized.reach(layout.tensors)
        layers = [self._layer_block(name, term) for name in self.problem.trainable_layers]
        dense = [layer for layer in layers if isinstance(layer, DenseBlock)]
        if len(dense) == len(layers):
            return NetworkBlock(parameter, layout, linearized, term, tuple(dense))
        return ProductBlock(parameter, layout, linearized, term)

    def is_dense(self, parameter: str) -> bool:
        """Whether a block is that of one dense layer, with all that its structure gives."""
        return self._sole_dense_node(layout_of(self.problem, parameter).tensors) is not None

    def _layer_block(self, parameter: str, term: Term) -> ProductBlock:
        layout = layout_of(self.problem, parameter)
        node = self._sole_dense_node(layout.tensors)
        if node is None:
            return ProductBlock(parameter, layout, self.linearized, term)
        return DenseBlock(
            parameter,
            layout,
            self.linearized,
            term,
            node.name,
            lambda: self.second(node.name, term),
        )

    def _sole_dense_node(self, tensors: tuple[str, ...]) -> Node | None:
        """The dense node that alone uses the tensors, and on which the output depends."""
        graph = self.problem.graph
        users = {node.name: node for tensor in tensors for node in graph.users[tensor]}
        if len(users) != 1:
            return None
        (node,) = users.values()
        above = graph.downstream([node.name], [])
        reaches = node is graph.nodes[-1] or graph.nodes[-1] in above
        return node if node.kind == DENSE and reaches else None

    def _chunks(self, down_to: str) -> Iterator[tuple[int, int]]:
        """Chunks of examples whose Hessians at the values above ``down_to`` stay small."""
        graph = self.problem.graph
        shapes = [node.shape for node in graph.downstream([down_to], [])]
        widest = max(math.prod(shape) for shape in [graph.shape_of(down_to), *shapes])
        return pieces(0, self.problem.examples, widest * widest * self.problem.dtype.itemsize)


def _require_memory(problem: Problem, value: str, shape: tuple[int, ...]) -> None:
    what = f"{value}: the Hessians of {shape[0]:,} examples at {shape[1]:,} units need"
    remedy = "use products (--check probes or form) or a smaller batch"
    require_memory(math.prod(shape) * problem.dtype.itemsize, what, remedy, _SECOND_SHARE)


def _require_finite(node: Node, where: str, numbers: Array) -> None:
    if not xp.all(xp.isfinite(numbers)):
        dtype = dtype_of(numbers)
        wider = " or dtype float64" if dtype == np.float32 else ""
        of = f" ({node.activation})" if node.activation is not None else ""
        raise NumericalError(
            f"{node.layer}: the chain rule's {where}{of} leaves the range of {dtype}; "
            f"use smaller weights{wider}"
        )
