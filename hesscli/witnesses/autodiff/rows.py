"""Rows of autodiff's Hessian: traced TensorFlow functions, kept for the next problem like it.

Tracing a function takes as long as thousands of rows. So a function takes the parameters and the
batch as arguments, and one does for every problem of the same network, loss, batch size and dtype.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import replace

import numpy as np

from hesscli.problem.graph import OWN_LAYER, Node
from hesscli.problem.network import Problem
from hesscli.problem.registry import LAYER, LOSS, tensorflow_function
from hesscli.witnesses.autodiff.network import Judged, Tensor, TensorflowNetwork, Tensors
from hesscli.witnesses.layout import INPUT, Layout, Segment, input_example

_KEPT = 64
_kept: OrderedDict[Hashable, Callable[..., Tensor]] = OrderedDict()
# Two threads must not trace the same function.
_lock = threading.Lock()


class TracedRows:
    """The rows of one block by traced functions; its layout's segments are asked one by one."""

    def __init__(self, engine: TensorflowNetwork, parameter: str, layout: Layout) -> None:
        self._engine = engine
        self._layout = layout
        example = input_example(parameter)
        # One function does for the input of each example.
        self._block = parameter if example is None else f"{INPUT}[]"
        self._batch = engine.batch(example)

    def rows(self, index: int, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of a segment, (stop − start, P).

        The loss gets one small variable for each wanted row's parameter; its gradient (R,) is
        differentiated by all the block's parameters, for all rows in one vectorized pass.
        """
        return self._call("rows", index, start, stop)

    def panel(self, start: int, stop: int) -> Tensor:
        """Rows of a layer's block as its panel (n, (stop − start) · units).

        As ``rows``, but differentiated first by what is added to the layer's pre-activations,
        for all rows in one vectorized pass, and then through the layer's own linear map z = a W,
        which gives all rows as one matrix product.
        """
        return self._call("panel", 0, start, stop)

    def _call(self, kind: str, index: int, start: int, stop: int) -> Tensor:
        engine = self._engine
        key = (_likeness(engine.problem), self._block, index, kind)
        with _lock:
            if key not in _kept:
                skeleton = copy(engine)
                skeleton.problem = _without_values(engine.problem)
                skeleton.parameters = {}
                make = _row_function if kind == "rows" else _panel_function
                _kept[key] = self._traced(make(skeleton, self._layout, index))
                while len(_kept) > _KEPT:
                    _kept.popitem(last=False)
            _kept.move_to_end(key)
            traced = _kept[key]
        return traced(engine.tf.range(start, stop), *self._batch, engine.parameters)

    def _traced(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        tf, spec = self._engine.tf, self._engine.tf.TensorSpec
        x, targets, parameters = tf.nest.map_structure(
            lambda value: spec(value.shape, value.dtype), (*self._batch, self._engine.parameters)
        )
        signature = [spec([None], tf.int32), x, targets, parameters]
        compiled = tf.function(function, input_signature=signature, autograph=False)
        traced: Callable[..., Tensor] = compiled.get_concrete_function()
        return traced


def _row_function(skeleton: TensorflowNetwork, layout: Layout, index: int) -> Callable[..., Tensor]:
    tf, dtype = skeleton.tf, skeleton.problem.dtype.name
    segment = layout.segments[index]
    node = skeleton.sole_user(segment)

    def rows(numbers: Tensor, x: Tensor, targets: Judged, parameters: Tensors) -> Tensor:
        network = skeleton.with_parameters(parameters)
        values = network.variables(layout, x)
        steps = tf.zeros(tf.shape(numbers), dtype=dtype)
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(values)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(steps)
                if node is None:
                    own = network.variables(Layout((segment,)), x)
                    f = network.judged_values(x, _moved(network, own, numbers, steps))
                else:
                    f, _ = _moved_output(network, segment, node, numbers, steps, x, 0)
                loss = network.loss(f, targets)
            slopes = inner.gradient(loss, steps, unconnected_gradients="zero")
        jacobians = outer.jacobian(slopes, values, unconnected_gradients="zero")
        count = tf.shape(numbers)[0]
        flat = [tf.reshape(jacobian, [count, -1]) for jacobian in jacobians.values()]
        return tf.concat(flat, axis=1) if len(flat) > 1 else flat[0]

    return rows


def _panel_function(
    skeleton: TensorflowNetwork, layout: Layout, _index: int
) -> Callable[..., Tensor]:
    tf, dtype = skeleton.tf, skeleton.problem.dtype.name
    (segment,) = layout.segments
    node = skeleton.sole_user(segment)
    assert node is not None  # only such blocks are asked for panels

    def panel(numbers: Tensor, x: Tensor, targets: Judged, parameters: Tensors) -> Tensor:
        network = skeleton.with_parameters(parameters)
        steps = tf.zeros(tf.shape(numbers), dtype=dtype)
        added = tf.zeros((x.shape[0], segment.units), dtype=dtype)
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(added)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(steps)
                f, factors = _moved_output(network, segment, node, numbers, steps, x, added)
                loss = network.loss(f, targets)
            slopes = inner.gradient(loss, steps, unconnected_gradients="zero")
        jacobian = outer.jacobian(slopes, added, unconnected_gradients="zero")
        by_row = tf.reshape(tf.transpose(jacobian, [1, 0, 2]), [x.shape[0], -1])
        return network.through_layer(factors, by_row)

    return panel


def _moved(
    network: TensorflowNetwork, values: Tensors, numbers: Tensor, steps: Tensor
) -> dict[str, Tensor]:
    """The tensors of a segment after steps (R,) in the parameters with these numbers in it."""
    tf = network.tf
    sizes = {name: tensor.shape.num_elements() for name, tensor in values.items()}
    chosen = tf.one_hot(numbers, sum(sizes.values()), dtype=network.problem.dtype.name)
    parts = tf.split(tf.matmul(steps[None], chosen)[0], list(sizes.values()))
    return {
        name: value + tf.reshape(part, value.shape)
        for (name, value), part in zip(values.items(), parts, strict=True)
    }


def _moved_output(
    network: TensorflowNetwork,
    segment: Segment,
    node: str,
    numbers: Tensor,
    steps: Tensor,
    x: Tensor,
    added: Tensor,
) -> tuple[dict[str, Tensor], Tensor]:
    """What the loss is of after steps (R,) in the parameters with these numbers in the segment.

    And what the segment's parameters multiply, (N, rows). ``added`` is added to the node's
    pre-activations.
    """
    tf = network.tf
    units = tf.one_hot(numbers % segment.units, segment.units, dtype=network.problem.dtype.name)
    multiplied: list[Tensor] = []

    def shift(a: Tensor) -> Tensor:
        factors = network.factors(segment, a)
        multiplied.append(factors)
        chosen = tf.gather(factors, numbers // segment.units, axis=1)
        return added + tf.matmul(chosen * steps, units)

    return network.judged_values(x, {}, (node, shift)), multiplied[0]


def _likeness(problem: Problem) -> Hashable:
    """What two problems share that one function serves."""
    graph = problem.graph
    nodes = tuple(
        (
            node.name,
            node.kind,
            node.inputs,
            tuple(node.tensors.items()),
            node.activation,
            _own_function(node),
            tuple(node.attributes.items()),
            tuple((role, array.tobytes()) for role, array in node.constants.items()),
        )
        for node in graph.nodes
    )
    shapes = tuple((name, tensor.shape) for name, tensor in graph.tensors.items())
    targets = problem.targets.shape, problem.targets.dtype.name
    loss = (
        str(problem.loss),
        tensorflow_function(problem.loss.name, LOSS),
        tuple(graph.activities.items()),
    )
    return nodes, shapes, loss, problem.dtype.name, problem.inputs.shape, targets


def _own_function(node: Node) -> Hashable:
    """That of a plugin: another one may have its name later on."""
    if node.kind == OWN_LAYER:
        return tensorflow_function(node.attributes["layer"], LAYER)
    return node.activation and tensorflow_function(node.activation.name)


def _without_values(problem: Problem) -> Problem:
    """The problem with zeros that take no memory in place of its parameters and inputs."""
    zero = np.zeros((), dtype=problem.dtype)
    tensors = {
        name: np.broadcast_to(zero, tensor.shape) for name, tensor in problem.graph.tensors.items()
    }
    inputs = np.broadcast_to(zero, problem.inputs.shape)
    return replace(problem, graph=problem.graph.with_tensors(tensors), inputs=inputs)
