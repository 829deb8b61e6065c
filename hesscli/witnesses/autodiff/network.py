"""A problem written in TensorFlow: what the autodiff engine differentiates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from math import prod
from typing import Any, NamedTuple

import numpy as np

from hesscli.problem.graph import DENSE, INPUT, Activation, Array, Node, Penalty
from hesscli.problem.network import Problem
from hesscli.problem.registry import lacks_tensorflow, tensorflow_function
from hesscli.system.errors import InputError
from hesscli.system.tensorflow import load_tensorflow
from hesscli.witnesses.autodiff.functions import (
    activation_functions,
    loss_function,
    penalty_function,
)
from hesscli.witnesses.autodiff.nodes import CONVOLUTIONS, VECTORIZED, node_function
from hesscli.witnesses.layout import Layout, Segment

Tensor = Any
Tensors = Mapping[str, Tensor]
Function = Callable[[Tensor], Tensor]


class Judged(NamedTuple):
    """What examples' outputs are compared with, and the factors (N,) of their losses.

    ``of_activity`` is the factor of the penalties on values.
    """

    targets: Tensor
    scales: Tensor
    of_activity: Tensor


class TensorflowNetwork:
    """A problem's network and loss as TensorFlow functions of whatever is differentiated.

    Imports TensorFlow when it is made.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        tf = load_tensorflow()
        functions = activation_functions(tf)

        def activation(of: Activation) -> Function:
            function = functions.get(of.name) or tensorflow_function(of.name)
            if function is None and lacks_tensorflow(of.name):
                raise InputError(
                    f"activation {of.name!r} has no TensorFlow function, so autodiff cannot "
                    "differentiate it; give its plugin one under the key tensorflow"
                )
            if function is None:
                raise InputError(f"autodiff has no activation {of.name!r}")
            return lambda z: function(z, **dict(of.parameters))

        self.tf = tf
        self._functions: dict[str, Callable[..., Tensor]] = {
            node.name: (
                activation(node.activation)
                if node.activation
                else node_function(tf, node, problem.graph)
            )
            for node in problem.graph.nodes
        }
        self._loss_function = loss_function(tf, problem.loss)
        # A vector is (1, units), so that copies of it stand beside those of (N, units).
        self.parameters: dict[str, Tensor] = {
            name: tf.constant(np.atleast_2d(array)) for name, array in problem.graph.tensors.items()
        }

    def batch(self, example: int | None) -> tuple[Tensor, Judged]:
        """Inputs (N, *in) and targets of the batch, or of one of its examples."""
        return self.some(slice(None) if example is None else slice(example, example + 1))

    def some(self, chosen: slice) -> tuple[Tensor, Judged]:
        """Inputs (n, *in) and targets of some of the examples."""
        tf, problem = self.tf, self.problem
        scales = tf.constant(problem.scales[chosen], problem.dtype.name)
        x = problem.graph.shaped(problem.inputs[chosen])
        of_activity = tf.constant(problem.of_activity, problem.dtype.name)
        return tf.constant(x), Judged(tf.constant(problem.targets[chosen]), scales, of_activity)

    def variables(self, layout: Layout, x: Tensor) -> dict[str, Tensor]:
        """What a block is differentiated by: its tensors, or its inputs x."""
        names = [tensor.name for segment in layout.segments for tensor in segment.tensors]
        tensors = {name: self.parameters[name] for name in names if name in self.parameters}
        return tensors or {INPUT: x}

    def copies(self, value: Tensor, count: int) -> Tensor:
        """A tensor ``count`` times, (count, *shape)."""
        return self.tf.tile(value[None], [count, *[1] * value.shape.rank])

    def sole_user(self, segment: Segment) -> str | None:
        """The dense node that alone uses the segment's tensors; None where it is not so."""
        users = self.problem.graph.users
        nodes = {user for tensor in segment.tensors for user in users.get(tensor.name, ())}
        if len(nodes) != 1:
            return None
        (node,) = nodes
        return node.name if node.kind == DENSE else None

    def moved(self, layout: Layout) -> tuple[Node, ...]:
        """The nodes whose values depend on the block."""
        graph = self.problem.graph
        tensors = [name for name in layout.tensors if name in graph.tensors]
        return graph.downstream(() if tensors else [INPUT], tensors)

    def widest(self, layout: Layout) -> int:
        """The largest value that depends on the block, in numbers of one example."""
        return max((prod(node.shape) for node in self.moved(layout)), default=1)

    def fixed(self, layout: Layout, x: Tensor, node: str | None = None) -> dict[str, Tensor]:
        """What does not depend on the block, of the values that the others and the loss read.

        Of a block of one ``node``, which moves by what is added to its value, that value too.
        """
        graph = self.problem.graph
        moved = self.moved(layout) if node is None else graph.downstream([node], ())
        names = {each.name for each in moved}
        others = [each for each in graph.nodes if each.name not in names]
        readers = [each for each in graph.nodes if each in moved or each.name == node]
        read = {name for each in readers for name in each.inputs}
        read |= {graph.output, *graph.activities, *([] if node is None else [node])}
        return {name: of for name, of in self.values({INPUT: x}, others) if name in read}

    def rows_at_once(self, layout: Layout) -> bool:
        """Whether TensorFlow vectorizes derivatives of all nodes that depend on the block."""
        users = self.problem.graph.users
        own = {node for name in layout.tensors for node in users.get(name, ())}
        return all(
            node.kind in VECTORIZED and not (node.kind in CONVOLUTIONS and node in own)
            for node in self.moved(layout)
        )

    def values(
        self, given: Tensors, nodes: Sequence[Node], shift: tuple[str, Function] | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """(name, value) of some nodes in order, none of which is held after its last reader.

        ``given`` has what they read besides, and tensors that are others than the problem's. Each
        value and tensor may have a leading axis of copies. ``shift`` (node, function) adds
        function(a) to the value of a node with one input a, which may be given too.
        """
        values = {**self.parameters, **given}
        unread = Counter(name for node in nodes for name in node.inputs)
        for node in nodes:
            x = [values[name] for name in node.inputs]
            tensors = {role: values[name] for role, name in node.tensors.items()}
            value = given.get(node.name)
            if value is None:
                value = self._functions[node.name](*x, **tensors)
            if shift is not None and shift[0] == node.name:
                value = value + shift[1](*x)
            values[node.name] = value
            yield node.name, value
            unread.subtract(node.inputs)
            for name in set(node.inputs):
                if not unread[name]:
                    del values[name]

    def judged_values(
        self, x: Tensor, replaced: Tensors, shift: tuple[str, Function] | None = None
    ) -> dict[str, Tensor]:
        """What the loss is of, at examples x, with some tensors, values or INPUT replaced.

        That is the network's output (…, N, c), and the values (…, N, *shape) that have a penalty.
        """
        graph = self.problem.graph
        given, wanted = {INPUT: x, **replaced}, {graph.output, *graph.activities}
        shifted = None if shift is None else shift[0]
        nodes, read = [], set(wanted)
        for node in reversed(graph.nodes):
            if node.name in read and (node.name not in given or node.name == shifted):
                nodes.append(node)
                read |= {*node.inputs}
        known = {name: given[name] for name in wanted if name in given}
        found = self.values(given, nodes[::-1], shift)
        return {**known, **{name: value for name, value in found if name in wanted}}

    def output(self, x: Tensor, replaced: Tensors) -> Tensor:
        """The network's output (…, N, c) at examples x, with some tensors, or INPUT, replaced."""
        return self.judged_values(x, replaced)[self.problem.graph.output]

    def loss(self, values: Tensors, by: Judged) -> Tensor:
        """The loss (…) of ``judged_values``, summed over the examples."""
        tf, graph = self.tf, self.problem.graph
        f = values[graph.output]
        loss = tf.reduce_sum(by.scales * self._loss_function(f, by.targets), axis=-1)
        for name, of in graph.activities.items():
            each = penalty_function(tf, of)(values[name])
            own = range(-1 - len(graph.shape_of(name)), 0)
            loss = loss + by.of_activity * tf.reduce_sum(each, axis=list(own))
        return loss

    def loss_hessian_product(self, values: Tensors, by: Judged, v: Tensors) -> dict[str, Tensor]:
        """(∂²L/∂v²) v at ``judged_values``, of which each penalty and the loss have one."""
        tf = self.tf
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(values)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(values)
                loss = self.loss(values, by)
            gradient = inner.gradient(loss, values, unconnected_gradients="zero")
        product: dict[str, Tensor] = outer.gradient(
            gradient, values, output_gradients=v, unconnected_gradients="zero"
        )
        return product

    def penalty_curvature(self, theta: Array, penalty: Penalty) -> Array:
        """The diagonal of ∂²P/∂θ², like θ: the sums of its rows."""
        tf = self.tf
        value = tf.constant(theta)
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(value)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(value)
                total = tf.reduce_sum(penalty_function(tf, penalty)(value))
            slopes = inner.gradient(total, value)
        return np.asarray(outer.gradient(slopes, value, unconnected_gradients="zero"))

    def penalty_gradient(self, theta: Array, penalty: Penalty) -> Array:
        """∂P/∂θ, like θ."""
        value = self.tf.constant(theta)
        with self.tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(value)
            total = self.tf.reduce_sum(penalty_function(self.tf, penalty)(value))
        return np.asarray(tape.gradient(total, value))

    def with_parameters(self, parameters: Tensors) -> TensorflowNetwork:
        """The same network with other parameters."""
        other = copy(self)
        other.parameters = dict(parameters)
        return other

    def factors(self, segment: Segment, a: Tensor) -> Tensor:
        """What the segment's parameters multiply, (N, rows): a for a kernel, 1 for a bias."""
        ones = self.tf.ones_like(a[:, :1])
        parts = [ones if tensor.is_vector else a for tensor in segment.tensors]
        return self.tf.concat(parts, axis=1) if len(parts) > 1 else parts[0]

    def through_layer(self, factors: Tensor, cotangents: Tensor) -> Tensor:
        """The derivative (rows, m) by W of the linear map z = a W, given those by z (N, m)."""
        tf, dtype = self.tf, self.problem.dtype.name
        wide = tf.zeros((factors.shape[1], tf.shape(cotangents)[1]), dtype=dtype)
        # With the factors the other way round the gradient is a product without a transposed
        # factor. In a traced function the product's own value, never needed, is left out.
        transposed = tf.transpose(factors)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(wide)
            z = tf.matmul(transposed, wide, transpose_a=True)
        return tape.gradient(z, wide, output_gradients=cotangents)
