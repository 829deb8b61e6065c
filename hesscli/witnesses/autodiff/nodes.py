"""Nodes as TensorFlow functions: its own operation for each, and no derivative.

A function takes a batch (N, *in) of each input, and the tensors by role. What there are several
copies of is for ``over_copies``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from types import ModuleType
from typing import Any

from hesscli.problem import graph as kinds
from hesscli.problem.graph import Graph, Node
from hesscli.problem.registry import LAYER, tensorflow_function
from hesscli.system.errors import InputError

Tensor = Any
Function = Callable[..., Tensor]


def node_function(tf: ModuleType, node: Node, graph: Graph) -> Function:
    """A node's value, out of its inputs in order and its tensors by role.

    Both may have a leading axis of copies, and a vector is (1, units). (The function of an
    elementwise node is that of its activation.)
    """
    if node.kind in _BROADCASTING:
        return _BROADCASTING[node.kind](tf, **node.attributes)
    function = _FUNCTIONS[node.kind](tf, node)
    ranks = [1 + len(graph.shape_of(value)) for value in node.inputs]
    shapes = {role: graph.tensors[name].shape for role, name in node.tensors.items()}
    return over_copies(tf, function, ranks, shapes)


def over_copies(
    tf: ModuleType,
    function: Function,
    ranks: Sequence[int],
    shapes: Mapping[str, tuple[int, ...]],
) -> Function:
    """``function`` of inputs and tensors of which some have a leading axis of copies.

    Copies of inputs alone are more examples; for each copy of a tensor it is called on its own.
    """

    def of_copies(*x: Tensor, **tensors: Tensor) -> Tensor:
        x_copied = [value.shape.rank > rank for value, rank in zip(x, ranks, strict=True)]
        copied = {role: _is_copied(tensors[role], shape) for role, shape in shapes.items()}
        if any(copied.values()):
            several = [of for of, each in zip(x, x_copied, strict=True) if each]
            several += [tensors[role] for role, each in copied.items() if each]
            return tf.stack(
                [
                    function(
                        *(v[i] if each else v for v, each in zip(x, x_copied, strict=True)),
                        **{
                            role: tf.reshape(
                                tensors[role][i] if each else tensors[role], shapes[role]
                            )
                            for role, each in copied.items()
                        },
                    )
                    for i in range(several[0].shape[0])
                ]
            )
        plain = {role: tf.reshape(tensors[role], shape) for role, shape in shapes.items()}
        if not any(x_copied):
            return function(*x, **plain)
        count = next(tf.shape(v)[0] for v, each in zip(x, x_copied, strict=True) if each)
        every = [
            v if each else tf.broadcast_to(v[None], [count, *v.shape])
            for v, each in zip(x, x_copied, strict=True)
        ]
        examples = every[0].shape[1]
        y = function(*(tf.reshape(v, [-1, *v.shape[2:]]) for v in every), **plain)
        return tf.reshape(y, [count, examples, *y.shape[1:]])

    return of_copies


def _is_copied(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    return bool(tensor.shape.rank > max(2, len(shape)))


def _dense(tf: ModuleType) -> Function:
    def dense(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        # Copies of x alone are more examples. (Of a product of many matrices TensorFlow takes the
        # derivative by each of them, although one is a constant: as many kernels as copies.)
        copied = x.shape.rank > kernel.shape.rank
        z = tf.tensordot(x, kernel, 1) if copied else tf.matmul(x, kernel)
        return z if bias is None else z + bias

    return dense


# Functions that take copies as they are.
_BROADCASTING: Mapping[str, Callable[..., Function]] = {
    kinds.DENSE: _dense,
    kinds.SOFTMAX: lambda tf, axis=-1: lambda x: tf.nn.softmax(x, axis=axis),
    kinds.LOG_SOFTMAX: lambda tf, axis: lambda x: tf.nn.log_softmax(x, axis=axis),
    kinds.ADD: lambda tf: lambda *x: reduce(tf.add, x),
    kinds.SUBTRACT: lambda tf: tf.subtract,
    kinds.AVERAGE: lambda tf: lambda *x: reduce(tf.add, x) / len(x),
    kinds.MAXIMUM: lambda tf: tf.maximum,
}


def _batched(equation: str, *, both: bool) -> str:
    """The equation with the examples as the first axis of y and of one operand or both."""
    operands, y = equation.split("->")
    first, second = operands.split(",")
    return f"n{first},{'n' if both else ''}{second}->n{y}"


def _product(tf: ModuleType, node: Node) -> Function:
    equation = _batched(node.attributes["equation"], both=True)
    return lambda x, y: tf.einsum(equation, x, y)


def _with_bias(product: Callable[[Tensor, Tensor], Tensor]) -> Function:
    def function(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        y = product(x, kernel)
        return y if bias is None else y + bias

    return function


def _einsum_dense(tf: ModuleType, node: Node) -> Function:
    equation = _batched(node.attributes["equation"], both=False)
    return _with_bias(lambda x, kernel: tf.einsum(equation, x, kernel))


def _conv(tf: ModuleType, node: Node) -> Function:
    of = node.attributes
    causal = of["padding"] == "causal"
    padding = "VALID" if causal else of["padding"].upper()

    def of_group(x: Tensor, kernel: Tensor) -> Tensor:
        if causal:
            before = of["dilation_rate"][0] * (of["kernel_size"][0] - 1)
            x = tf.pad(x, [[0, 0], [before, 0], [0, 0]])
        return tf.nn.convolution(
            x,
            kernel,
            strides=of["strides"],
            padding=padding,
            dilations=of["dilation_rate"],
            data_format="NWC" if x.shape.rank == 3 else "NHWC",
        )

    def product(x: Tensor, kernel: Tensor) -> Tensor:
        groups = of["groups"]
        parts = zip(tf.split(x, groups, axis=-1), tf.split(kernel, groups, axis=-1), strict=True)
        found = [of_group(*part) for part in parts]
        return found[0] if groups == 1 else tf.concat(found, axis=-1)

    return _with_bias(product)


def _depthwise_conv(tf: ModuleType, node: Node) -> Function:
    of = node.attributes

    def product(x: Tensor, kernel: Tensor) -> Tensor:
        return tf.nn.depthwise_conv2d(
            x,
            kernel,
            strides=(1, *of["strides"], 1),
            padding=of["padding"].upper(),
            dilations=of["dilation_rate"],
        )

    return _with_bias(product)


def _conv_transpose(tf: ModuleType, node: Node) -> Function:
    of = node.attributes
    return _with_bias(
        lambda x, kernel: tf.nn.conv_transpose(
            x,
            kernel,
            output_shape=(x.shape[0], *node.shape),
            strides=of["strides"],
            padding=of["padding"].upper(),
        ),
    )


def _pooling(name: str) -> Callable[[ModuleType, Node], Function]:
    def made(tf: ModuleType, node: Node) -> Function:
        of = node.attributes
        pool = getattr(tf.nn, f"{name}_pool{len(of['pool_size'])}d")
        return lambda x: pool(x, of["pool_size"], of["strides"], of["padding"].upper())

    return made


def _global(name: str) -> Callable[[ModuleType, Node], Function]:
    def made(tf: ModuleType, node: Node) -> Function:
        reduced = getattr(tf, name)

        def function(x: Tensor) -> Tensor:
            y = reduced(x, axis=list(range(1, x.shape.rank - 1)))
            return tf.reshape(y, (-1, *node.shape))

        return function

    return made


def _cropping(_: ModuleType, node: Node) -> Function:
    sizes = zip(node.attributes["cropping"], node.shape, strict=False)
    inside = (slice(None), *(slice(low, low + n) for (low, _), n in sizes))
    return lambda x: x[inside]


def _up_sampling(tf: ModuleType, node: Node) -> Function:
    def function(x: Tensor) -> Tensor:
        for axis, times in enumerate(node.attributes["size"], start=1):
            x = tf.repeat(x, times, axis=axis)
        return x

    return function


def _wide(tf: ModuleType, tensor: Tensor, axes: Sequence[int], rank: int) -> Tensor:
    """A tensor that has some axes of an example, with axes of one in place of the others."""
    sizes = iter(tensor.shape)
    return tf.reshape(tensor, [next(sizes) if axis in axes else 1 for axis in range(rank)])


def _scale(tf: ModuleType, node: Node) -> Function:
    axes, rank = node.attributes["axes"], len(node.shape)

    def function(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
        y = x if gamma is None else x * _wide(tf, gamma, axes, rank)
        return y if beta is None else y + _wide(tf, beta, axes, rank)

    return function


def _batch_normalization(tf: ModuleType, node: Node) -> Function:
    axis, rank = node.attributes["axis"], len(node.shape)

    def function(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
        constants = (
            tf.cast(node.constants[f"moving_{of}"], x.dtype) for of in ("mean", "variance")
        )
        mean, variance, offset, scale = (
            None if of is None else _wide(tf, of, (axis,), rank) for of in (*constants, beta, gamma)
        )
        epsilon = tf.constant(node.attributes["epsilon"], x.dtype)
        return tf.nn.batch_normalization(x, mean, variance, offset, scale, epsilon)

    return function


def _normalization(tf: ModuleType, node: Node) -> Function:
    of = node.attributes
    groups = of.get("groups", 0)

    def function(x: Tensor) -> Tensor:
        parted = x
        if groups:
            parted = tf.reshape(x, (-1, *x.shape[1:-1], groups, x.shape[-1] // groups))
        axes = [1 + axis for axis in of["axes"]]
        # tf.nn.moments stops the gradient at the mean, which is right for first derivatives only.
        mean = tf.reduce_mean(parted, axes, keepdims=True)
        variance = tf.math.reduce_variance(parted, axes, keepdims=True)
        epsilon = tf.constant(of["epsilon"], x.dtype)
        normal = tf.nn.batch_normalization(parted, mean, variance, None, None, epsilon)
        return tf.reshape(normal, (-1, *x.shape[1:]))

    return function


def _prelu(tf: ModuleType, _: Node) -> Function:
    return lambda x, alpha: tf.nn.relu(x) - alpha * tf.nn.relu(-x)


def _own_layer(_: ModuleType, node: Node) -> Function:
    arguments = dict(node.attributes)
    name = arguments.pop("layer")
    function = tensorflow_function(name, LAYER)
    if function is None:
        raise InputError(
            f"layer {name!r} has no TensorFlow function, so autodiff cannot differentiate it; give "
            "its plugin one under the key tensorflow"
        )
    return lambda x, **theta: function(x, theta, **arguments)


_FUNCTIONS: Mapping[str, Callable[[ModuleType, Node], Function]] = {
    kinds.CONCATENATE: lambda tf, node: lambda *x: tf.concat(x, axis=1 + node.attributes["axis"]),
    kinds.PRODUCT: _product,
    kinds.EINSUM: _einsum_dense,
    kinds.CONV: _conv,
    kinds.DEPTHWISE_CONV: _depthwise_conv,
    kinds.CONV_TRANSPOSE: _conv_transpose,
    kinds.MAX_POOLING: _pooling("max"),
    kinds.AVERAGE_POOLING: _pooling("avg"),
    kinds.GLOBAL_MAX_POOLING: _global("reduce_max"),
    kinds.GLOBAL_AVERAGE_POOLING: _global("reduce_mean"),
    kinds.RESHAPE: lambda tf, node: lambda x: tf.reshape(x, (-1, *node.shape)),
    kinds.PERMUTE: lambda tf, node: lambda x: tf.transpose(x, (0, *node.attributes["dims"])),
    kinds.ZERO_PADDING: lambda tf, node: (
        lambda x: tf.pad(x, ((0, 0), *node.attributes["padding"], (0, 0)))
    ),
    kinds.CROPPING: _cropping,
    kinds.UP_SAMPLING: _up_sampling,
    kinds.SCALE: _scale,
    kinds.BATCH_NORMALIZATION: _batch_normalization,
    kinds.NORMALIZATION: _normalization,
    kinds.PRELU: _prelu,
    kinds.OWN_LAYER: _own_layer,
}
# Of these tf.GradientTape.jacobian takes all rows at once; of convolutions where their kernels do
# not move, and of a plugin's function nobody knows.
VECTORIZED = frozenset({*_BROADCASTING, *_FUNCTIONS, kinds.ELEMENTWISE}) - {kinds.OWN_LAYER}
CONVOLUTIONS = frozenset({kinds.CONV, kinds.DEPTHWISE_CONV, kinds.CONV_TRANSPOSE})
