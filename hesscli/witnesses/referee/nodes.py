"""Nodes in mpmath, one function a kind: the value of one example out of its inputs and tensors.

A function takes the node, its inputs and its tensors by role, arrays of mpmath numbers in the
shapes of one example and of the parameters, and ``pieces``, which gets on which of its smooth
pieces each number is. To add a kind of node is to add its function to NODES. Names and arguments
are Keras's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from mpmath import mp
from numpy.typing import NDArray

from hesscli.problem import graph as kinds
from hesscli.problem.graph import Node
from hesscli.problem.registry import LAYER, mpmath_function
from hesscli.problem.shapes import window_count
from hesscli.system.errors import InputError
from hesscli.witnesses.referee.functions import (
    ACTIVATIONS,
    CORNERS,
    ActivationFunction,
    Number,
    Pieces,
)

# An array of mpmath numbers.
Numbers = NDArray[Any]
Tensors = Mapping[str, Numbers]
NodeFunction = Callable[[Node, Sequence[Numbers], Tensors, Pieces], Numbers]
Place = tuple[int, ...]


def numbers(array: NDArray[Any]) -> Numbers:
    """The floating-point numbers of ``array``, exactly."""
    found = np.empty(array.size, dtype=object)
    found[:] = [mp.mpf(float(number)) for number in array.reshape(-1)]
    return found.reshape(array.shape)


def activation_function(node: Node) -> ActivationFunction | None:
    """The activation of an elementwise node; None for one that the referee does not know."""
    assert node.activation is not None  # an elementwise node has one
    name = node.activation.name
    return ACTIVATIONS.get(name) or mpmath_function(name)


def _each(of: Callable[[Number], Number], x: Numbers) -> Numbers:
    found = np.empty(x.size, dtype=object)
    found[:] = [of(number) for number in x.reshape(-1)]
    return found.reshape(x.shape)


def _elementwise(node: Node, x: Sequence[Numbers], _: Tensors, pieces: Pieces) -> Numbers:
    function = activation_function(node)
    assert function is not None  # what is not known was refused
    assert node.activation is not None
    name, parameters = node.activation.name, dict(node.activation.parameters)
    # Of a plugin's function only 0 may be a corner.
    for corner in CORNERS.get(name, () if name in ACTIVATIONS else (0.0,)):
        pieces.extend(mp.sign(z - corner) for z in x[0].reshape(-1))
    return _each(lambda z: function(z, **parameters), x[0])


def _biased(y: Numbers, tensors: Tensors) -> Numbers:
    return y + tensors["bias"] if "bias" in tensors else y


def _dense(_: Node, x: Sequence[Numbers], tensors: Tensors, __: Pieces) -> Numbers:
    # z = x W + b, without the inputs that are 0.
    (inputs,), W = x, tensors["kernel"]
    lit = [index for index, each in enumerate(inputs) if each != 0]
    a = [inputs[index] for index in lit]
    z = np.array([mp.fdot(a, column) for column in W[lit].T], dtype=object)
    return _biased(z, tensors)


def _softmax(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    axis = node.attributes.get("axis", -1)
    raised = _each(mp.exp, x[0] - x[0].max(axis=axis, keepdims=True))
    return np.asarray(raised / raised.sum(axis=axis, keepdims=True))


def _log_softmax(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    axis = node.attributes["axis"]
    below = x[0] - x[0].max(axis=axis, keepdims=True)
    return np.asarray(below - _each(mp.log, _each(mp.exp, below).sum(axis=axis, keepdims=True)))


def _add(_: Node, x: Sequence[Numbers], __: Tensors, ___: Pieces) -> Numbers:
    return np.asarray(reduce(np.add, x))


def _subtract(_: Node, x: Sequence[Numbers], __: Tensors, ___: Pieces) -> Numbers:
    return np.asarray(x[0] - x[1])


def _average(_: Node, x: Sequence[Numbers], __: Tensors, ___: Pieces) -> Numbers:
    return np.asarray(reduce(np.add, x) / len(x))


def _maximum(_: Node, x: Sequence[Numbers], __: Tensors, pieces: Pieces) -> Numbers:
    pieces.extend(_each(mp.sign, x[0] - x[1]).reshape(-1))
    return np.asarray(np.maximum(*x))


def _concatenate(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    return np.concatenate(x, axis=node.attributes["axis"])


def _product(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    return np.asarray(np.einsum(node.attributes["equation"], *x))


def _einsum(node: Node, x: Sequence[Numbers], tensors: Tensors, _: Pieces) -> Numbers:
    y = np.einsum(node.attributes["equation"], x[0], tensors["kernel"])
    return _biased(np.asarray(y), tensors)


def _windows(
    spatial: Place, size: Place, of: Mapping[str, Any]
) -> Iterator[tuple[Place, list[tuple[Place, Place]]]]:
    """Each output's place, and (tap, place) of what it sees inside: o · s + tap · d − before."""
    strides, padding = of["strides"], of["padding"]
    dilation = of.get("dilation_rate", (1,) * len(size))
    out, before = [], []
    for n, k, s, d in zip(spatial, size, strides, dilation, strict=True):
        out.append(window_count(n, k, s, padding, d))
        reach = (k - 1) * d + 1
        same = max((out[-1] - 1) * s + reach - n, 0) // 2
        before.append({"same": same, "causal": reach - 1}.get(padding, 0))
    for o in product(*map(range, out)):
        seen = []
        for tap in product(*map(range, size)):
            place = tuple(
                i * s + t * d - b
                for i, s, t, d, b in zip(o, strides, tap, dilation, before, strict=True)
            )
            if all(0 <= i < n for i, n in zip(place, spatial, strict=True)):
                seen.append((tap, place))
        yield o, seen


def _conv(node: Node, x: Sequence[Numbers], tensors: Tensors, _: Pieces) -> Numbers:
    W, of = tensors["kernel"], node.attributes
    groups = of.get("groups", 1)
    *size, inputs, units = W.shape
    y = np.empty(node.shape, dtype=object)
    for o, seen in _windows(x[0].shape[:-1], tuple(size), of):
        for unit in range(units):
            first = unit // (units // groups) * inputs
            a = [number for _, at in seen for number in x[0][at][first : first + inputs]]
            y[o][unit] = mp.fdot(a, [w for tap, _ in seen for w in W[tap][:, unit]])
    return _biased(y, tensors)


def _depthwise_conv(node: Node, x: Sequence[Numbers], tensors: Tensors, _: Pieces) -> Numbers:
    W = tensors["kernel"]
    *size, inputs, times = W.shape
    y = np.empty((*node.shape[:-1], inputs, times), dtype=object)
    for o, seen in _windows(x[0].shape[:-1], tuple(size), node.attributes):
        for c, m in product(range(inputs), range(times)):
            y[o][c, m] = mp.fdot([(x[0][at][c], W[tap][c, m]) for tap, at in seen])
    return _biased(y.reshape(node.shape), tensors)


def _conv_transpose(node: Node, x: Sequence[Numbers], tensors: Tensors, _: Pieces) -> Numbers:
    # The transpose of a convolution from y to x; the kernel is (*size, outputs, inputs).
    W = tensors["kernel"]
    y = numbers(np.zeros(node.shape))
    for i, seen in _windows(node.shape[:-1], W.shape[:-2], node.attributes):
        for tap, at in seen:
            y[at] = y[at] + W[tap] @ x[0][i]
    return _biased(y, tensors)


def _max_pooling(node: Node, x: Sequence[Numbers], _: Tensors, pieces: Pieces) -> Numbers:
    of, y = node.attributes, np.empty(node.shape, dtype=object)
    for o, seen in _windows(x[0].shape[:-1], tuple(of["pool_size"]), of):
        window = np.array([x[0][at] for _, at in seen])
        pieces.extend(window.argmax(axis=0).tolist())
        y[o] = window.max(axis=0)
    return y


def _average_pooling(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    of, y = node.attributes, np.empty(node.shape, dtype=object)
    for o, seen in _windows(x[0].shape[:-1], tuple(of["pool_size"]), of):
        y[o] = np.array([x[0][at] for _, at in seen]).sum(axis=0) / len(seen)
    return y


def _global_max(node: Node, x: Sequence[Numbers], _: Tensors, pieces: Pieces) -> Numbers:
    flat = x[0].reshape(-1, x[0].shape[-1])
    pieces.extend(flat.argmax(axis=0).tolist())
    return np.asarray(flat.max(axis=0)).reshape(node.shape)


def _global_average(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    flat = x[0].reshape(-1, x[0].shape[-1])
    return np.asarray(flat.sum(axis=0) / len(flat)).reshape(node.shape)


def _reshape(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    return np.asarray(x[0].reshape(node.shape))


def _permute(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    return np.asarray(x[0].transpose([axis - 1 for axis in node.attributes["dims"]]))


def _zero_padding(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    y = numbers(np.zeros(node.shape))
    sizes = zip(node.attributes["padding"], x[0].shape, strict=False)
    y[tuple(slice(low, low + n) for (low, _), n in sizes)] = x[0]
    return y


def _cropping(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    sizes = zip(node.attributes["cropping"], node.shape, strict=False)
    return np.asarray(x[0][tuple(slice(low, low + n) for (low, _), n in sizes)])


def _up_sampling(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    y = x[0]
    for axis, times in enumerate(node.attributes["size"]):
        y = np.repeat(y, times, axis=axis)
    return y


def _wide(tensor: Numbers, axes: Sequence[int], rank: int) -> Numbers:
    """A tensor that has some of the axes, with axes of one in place of the others."""
    sizes = iter(tensor.shape)
    return tensor.reshape([next(sizes) if axis in axes else 1 for axis in range(rank)])


def _scaled(x: Numbers, tensors: Tensors, axes: Sequence[int]) -> Numbers:
    if "gamma" in tensors:
        x = x * _wide(tensors["gamma"], axes, x.ndim)
    return x + _wide(tensors["beta"], axes, x.ndim) if "beta" in tensors else x


def _scale(node: Node, x: Sequence[Numbers], tensors: Tensors, _: Pieces) -> Numbers:
    return _scaled(x[0], tensors, node.attributes["axes"])


def _deviation(variance: Numbers, node: Node) -> Numbers:
    epsilon = mp.mpf(node.attributes["epsilon"])
    return _each(lambda each: mp.sqrt(each + epsilon), variance)


def _batch_normalization(node: Node, x: Sequence[Numbers], tensors: Tensors, _: Pieces) -> Numbers:
    # γ (x − mean)/√(variance + ε) + β with the moving ones. The axis is one of the batch's.
    axes, rank = (node.attributes["axis"],), x[0].ndim
    mean, variance = (
        _wide(numbers(node.constants[f"moving_{of}"]), axes, rank) for of in ("mean", "variance")
    )
    return _scaled((x[0] - mean) / _deviation(variance, node), tensors, axes)


def _normalization(node: Node, x: Sequence[Numbers], _: Tensors, __: Pieces) -> Numbers:
    # (x − mean x)/√(var x + ε) over some axes, of groups of channels if there are some.
    groups = node.attributes.get("groups", 0)
    parted = x[0].reshape(*x[0].shape[:-1], groups, -1) if groups else x[0]
    axes = tuple(node.attributes["axes"])
    count = math.prod(parted.shape[axis] for axis in axes)
    centred = parted - parted.sum(axis=axes, keepdims=True) / count
    variance = (centred * centred).sum(axis=axes, keepdims=True) / count
    return np.asarray(centred / _deviation(variance, node)).reshape(node.shape)


def _prelu(_: Node, x: Sequence[Numbers], tensors: Tensors, pieces: Pieces) -> Numbers:
    pieces.extend(mp.sign(z) for z in x[0].reshape(-1))
    slopes = np.broadcast_to(tensors["alpha"], x[0].shape)
    return np.where(x[0] > 0, x[0], slopes * x[0])


def layer_function(node: Node) -> Callable[..., Numbers] | None:
    """The function of a plugin's layer; None for one that came without."""
    return mpmath_function(node.attributes["layer"], LAYER)


def _own_layer(node: Node, x: Sequence[Numbers], tensors: Tensors, _: Pieces) -> Numbers:
    function, arguments = layer_function(node), dict(node.attributes)
    assert function is not None  # what is not known was refused
    name = arguments.pop("layer")
    y = function(x[0], tensors, **arguments)
    if y.shape != node.shape:
        raise InputError(
            f"layer {name!r}, mpmath: returns shape {y.shape} for one example; it must be "
            f"{node.shape}"
        )
    return y


NODES: Mapping[str, NodeFunction] = {
    kinds.DENSE: _dense,
    kinds.ELEMENTWISE: _elementwise,
    kinds.SOFTMAX: _softmax,
    kinds.LOG_SOFTMAX: _log_softmax,
    kinds.ADD: _add,
    kinds.SUBTRACT: _subtract,
    kinds.AVERAGE: _average,
    kinds.MAXIMUM: _maximum,
    kinds.CONCATENATE: _concatenate,
    kinds.PRODUCT: _product,
    kinds.EINSUM: _einsum,
    kinds.CONV: _conv,
    kinds.DEPTHWISE_CONV: _depthwise_conv,
    kinds.CONV_TRANSPOSE: _conv_transpose,
    kinds.MAX_POOLING: _max_pooling,
    kinds.AVERAGE_POOLING: _average_pooling,
    kinds.GLOBAL_MAX_POOLING: _global_max,
    kinds.GLOBAL_AVERAGE_POOLING: _global_average,
    kinds.RESHAPE: _reshape,
    kinds.PERMUTE: _permute,
    kinds.ZERO_PADDING: _zero_padding,
    kinds.CROPPING: _cropping,
    kinds.UP_SAMPLING: _up_sampling,
    kinds.SCALE: _scale,
    kinds.BATCH_NORMALIZATION: _batch_normalization,
    kinds.NORMALIZATION: _normalization,
    kinds.PRELU: _prelu,
    kinds.OWN_LAYER: _own_layer,
}
