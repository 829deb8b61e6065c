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

from hesscli.problem.graph import OWN_LAYER, Array, Node
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

    def __init__(
        self, engine: TensorflowNetwork, parameter: str, layout: Layout, fixed: Tensors
    ) -> None:
        self._engine = engine
        self._layout = layout
        self._fixed = fixed
        example = input_example(parameter)
        # One function does for the input of each example.
        self._block = parameter if example is None else f"{INPUT}[]"
        self._batch = engine.batch(example)

    def rows(self, index: int, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of a segment, (stop − start, P).

        The loss gets one small variable for each wanted row's parameter; its gradient (R,) is
        differentiated by all the block's parameters, for all rows in one vectorized pass.
        """
        return self._call("rows", index, self._engine.tf.range(start, stop))

    def panel(self, start: int, stop: int) -> Tensor:
        """Rows of a layer's block as its panel (n, (stop − start) · units).

        As ``rows``, but differentiated first by what is added to the layer's pre-activations,
        for all rows in one vectorized pass, and then through the layer's own linear map z = a W,
        which gives all rows as one matrix product.
        """
        return self._call("panel", 0, self._engine.tf.range(start, stop))

    def products(self, vectors: Array) -> Tensor:
        """The products of a layer's block with vectors (k, P), (n, k · units).

        As ``panel``, with one small variable for each vector. What the directions add to the
        pre-activations is summed, so that all vectors share one pass up and one down.
        """
        (segment,) = self._layout.segments
        V = vectors.reshape(len(vectors), segment.rows, segment.units)
        return self._call("products", 0, self._engine.tf.constant(V))

    def _call(self, kind: str, index: int, asked: Tensor) -> Tensor:
        engine = self._engine
        key = (_likeness(engine.problem), self._block, index, kind)
        with _lock:
            if key not in _kept:
                skeleton = copy(engine)
                skeleton.problem = _without_values(engine.problem)
                skeleton.parameters = {}
                function = _FUNCTIONS[kind](skeleton, self._layout, index)
                _kept[key] = self._traced(function, asked)
                while len(_kept) > _KEPT:
                    _kept.popitem(last=False)
            _kept.move_to_end(key)
            traced = _kept[key]
        return traced(asked, *self._batch, engine.parameters, self._fixed)

    def _traced(self, function: Callable[..., Tensor], asked: Tensor) -> Callable[..., Tensor]:
        tf, spec = self._engine.tf, self._engine.tf.TensorSpec
        given = (*self._batch, self._engine.parameters, self._fixed)
        of_given = tf.nest.map_structure(lambda value: spec(value.shape, value.dtype), given)
        signature = [spec([None, *asked.shape[1:]], asked.dtype), *of_given]
        compiled = tf.function(function, input_signature=signature, autograph=False)
        traced: Callable[..., Tensor] = compiled.get_concrete_function()
        return traced


def _row_function(skeleton: TensorflowNetwork, layout: Layout, index: int) -> Callable[..., Tensor]:
    tf, dtype = skeleton.tf, skeleton.problem.dtype.name
    segment = layout.segments[index]
    node = skeleton.sole_user(segment)

    def rows(
        numbers: Tensor, x: Tensor, targets: Judged, parameters: Tensors, fixed: Tensors
    ) -> Tensor:
        network = skeleton.with_parameters(parameters)
        values = network.variables(layout, x)
        steps = tf.zeros(tf.shape(numbers), dtype=dtype)
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(values)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(steps)
                if node is None:
                    own = network.variables(Layout((segment,)), x)
                    moved = _moved(network, own, numbers, steps)
                    f = network.judged_values(x, {**fixed, **moved})
                else:

                    def shift(a: Tensor) -> Tensor:
                        factors = network.factors(segment, a)
                        return _one_parameter_each(network, segment, numbers, factors, steps)

                    f = network.judged_values(x, fixed, (node, shift))
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
    return _through_layer(skeleton, layout, _one_parameter_each)


def _products_function(
    skeleton: TensorflowNetwork, layout: Layout, _index: int
) -> Callable[..., Tensor]:
    return _through_layer(skeleton, layout, _one_direction_each)


_FUNCTIONS = {"rows": _row_function, "panel": _panel_function, "products": _products_function}


def _through_layer(
    skeleton: TensorflowNetwork, layout: Layout, step_along: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """What a layer's parameters' derivatives are of the slopes along what ``asked`` names."""
    tf, dtype = skeleton.tf, skeleton.problem.dtype.name
    (segment,) = layout.segments
    node = skeleton.sole_user(segment)
    assert node is not None  # only such blocks are asked for panels and products

    def function(
        asked: Tensor, x: Tensor, targets: Judged, parameters: Tensors, fixed: Tensors
    ) -> Tensor:
        network = skeleton.with_parameters(parameters)
        steps = tf.zeros(tf.shape(asked)[:1], dtype=dtype)
        added = tf.zeros((x.shape[0], segment.units), dtype=dtype)
        multiplied: list[Tensor] = []

        def shift(a: Tensor) -> Tensor:
            multiplied.append(network.factors(segment, a))
            return added + step_along(network, segment, asked, multiplied[0], steps)

        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(added)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(steps)
                loss = network.loss(network.judged_values(x, fixed, (node, shift)), targets)
            slopes = inner.gradient(loss, steps, unconnected_gradients="zero")
        jacobian = outer.jacobian(slopes, added, unconnected_gradients="zero")
        by_row = tf.reshape(tf.transpose(jacobian, [1, 0, 2]), [x.shape[0], -1])
        return network.through_layer(multiplied[0], by_row)

    return function


def _one_parameter_each(
    network: TensorflowNetwork, segment: Segment, numbers: Tensor, factors: Tensor, steps: Tensor
) -> Tensor:
    """What steps (R,) in the parameters with these numbers add to pre-activations (N, units)."""
    tf = network.tf
    units = tf.one_hot(numbers % segment.units, segment.units, dtype=network.problem.dtype.name)
    return tf.matmul(tf.gather(factors, numbers // segment.units, axis=1) * steps, units)


def _one_direction_each(
    network: TensorflowNetwork, _segment: Segment, V: Tensor, factors: Tensor, steps: Tensor
) -> Tensor:
    """What steps (R,) along the directions V (R, rows, units) add to pre-activations (N, units)."""
    tf, (_, rows, units) = network.tf, V.shape
    # One product of matrices takes half the time of R.
    wide = tf.matmul(factors, tf.reshape(tf.transpose(V, [1, 0, 2]), [rows, -1]))
    along = tf.transpose(tf.reshape(wide, [factors.shape[0], -1, units]), [1, 0, 2])
    return tf.tensordot(steps, along, 1)


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
