"""A network as a directed acyclic graph of named nodes.

Names, shapes and arrays only. No formula stands here, because every witness reads it: the calculus
of a node is found by its ``kind`` (hesscli.nodes), autodiff's function likewise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from hesscli.system import xp
from hesscli.system.arrays import is_numpy
from hesscli.system.takes import not_negative

Array = NDArray[np.floating]

# The value that the examples themselves are.
INPUT = "input"
# The kinds of node that there are. (A dense node has vectors for inputs.)
DENSE, ELEMENTWISE, SOFTMAX, ADD = "dense", "elementwise", "softmax", "add"
SUBTRACT, AVERAGE, MAXIMUM, CONCATENATE = "subtract", "average", "maximum", "concatenate"
PRODUCT, EINSUM = "product", "einsum_dense"
CONV, DEPTHWISE_CONV, CONV_TRANSPOSE = "conv", "depthwise_conv", "conv_transpose"
MAX_POOLING, AVERAGE_POOLING = "max_pooling", "average_pooling"
GLOBAL_MAX_POOLING, GLOBAL_AVERAGE_POOLING = "global_max_pooling", "global_average_pooling"
RESHAPE, PERMUTE, ZERO_PADDING, CROPPING = "reshape", "permute", "zero_padding", "cropping"
UP_SAMPLING, SCALE, NORMALIZATION, PRELU = "up_sampling", "scale", "normalization", "prelu"
BATCH_NORMALIZATION, LOG_SOFTMAX = "batch_normalization", "log_softmax"
# What a plugin defines; the attribute ``layer`` is its name.
OWN_LAYER = "own_layer"


@dataclass(frozen=True)
class Activation:
    """An activation by its Keras name, with the parameters that differ from the defaults."""

    name: str
    parameters: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        if not self.parameters:
            return self.name
        return f"{self.name}({', '.join(f'{key}={value:g}' for key, value in self.parameters)})"


@dataclass(frozen=True)
class Layer:
    """A dense layer z = a W + b followed by an activation σ(z).

    ``kernel`` W is (inputs, units); ``bias`` b is (units,), or None for a layer without one.
    """

    name: str
    kernel: Array
    bias: Array | None
    activation: Activation

    @property
    def inputs(self) -> int:
        return int(self.kernel.shape[0])

    @property
    def units(self) -> int:
        return int(self.kernel.shape[1])

    @property
    def parameter_count(self) -> int:
        return int(self.kernel.size) + (0 if self.bias is None else int(self.bias.size))


@dataclass(frozen=True, eq=False)
class Node:
    """One node y = F(x_1 … x_m; θ), applied to each example on its own.

    Its value y bears its ``name`` and has the ``shape`` of one example. ``inputs`` are the names
    of the values x, ``tensors`` those of the parameters θ by their role (``kernel``, ``bias``):
    two nodes that name the same tensor share it. ``activation`` is that of an elementwise node.

    ``attributes`` are what else decides F, by Keras's names and with Keras's meaning (``strides``,
    ``padding``, ``epsilon``); axes are those of one example. ``constants`` are arrays that are
    no parameters (``moving_mean``). Both are read-only.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    tensors: Mapping[str, str] = field(default_factory=dict)
    activation: Activation | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        views = {role: read_only(array) for role, array in self.constants.items()}
        object.__setattr__(self, "constants", MappingProxyType(views))
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))

    @property
    def layer(self) -> str:
        """The layer that the node belongs to, as in ``dense1`` for ``dense1/activation``."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Penalty:
    """Keras's regularizer of numbers: Σ l1 |θ| + l2 θ²."""

    l1: Annotated[float, not_negative(), "times Σ |θ|"] = 0.0
    l2: Annotated[float, not_negative(), "times Σ θ²"] = 0.0

    def __add__(self, other: Penalty) -> Penalty:
        return Penalty(self.l1 + other.l1, self.l2 + other.l2)


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in an order in which each comes after its inputs; the last one's value is the output.

    ``tensors`` are the parameters by name, ``<layer>/<role>``, in the order of the block
    ``network``. They are read-only views: every witness sees the same numbers, and the arrays of
    the graph's maker stay writable. ``activities`` are the penalties on values, by their
    names: they are part of each example's loss, divided by the number of examples.
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Array]
    input_shape: tuple[int, ...]
    activities: Mapping[str, Penalty] = field(default_factory=dict)

    def __post_init__(self) -> None:
        views = {name: read_only(array) for name, array in self.tensors.items()}
        object.__setattr__(self, "tensors", MappingProxyType(views))

    @property
    def output(self) -> str:
        """The name of the network's output."""
        return self.nodes[-1].name

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, a node as often as it reads it."""
        readers: dict[str, tuple[Node, ...]] = {INPUT: (), **{node.name: () for node in self.nodes}}
        for node in self.nodes:
            for value in node.inputs:
                readers[value] = (*readers[value], node)
        return readers

    @cached_property
    def effective(self) -> frozenset[str]:
        """The values that the loss depends on: the output, what is penalized, and all before."""
        found = {self.output, *self.activities}
        for node in reversed(self.nodes):
            if node.name in found:
                found.update(node.inputs)
        return frozenset(found)

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that use each tensor."""
        return {
            tensor: tuple(node for node in self.nodes if tensor in node.tensors.values())
            for tensor in self.tensors
        }

    @cached_property
    def layer_tensors(self) -> Mapping[str, tuple[str, ...]]:
        """The tensors of each layer, in the order of the layers."""
        layers: dict[str, tuple[str, ...]] = {}
        for tensor in self.tensors:
            layer = tensor.partition("/")[0]
            layers[layer] = (*layers.get(layer, ()), tensor)
        return layers

    @cached_property
    def constants(self) -> Mapping[str, Array]:
        """The arrays that are not parameters by name, ``<layer>/<role>``."""
        return {
            f"{node.layer}/{role}": array
            for node in self.nodes
            for role, array in node.constants.items()
        }

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The dense layers, each with the activation that alone reads it, or linear."""
        found: dict[str, Layer] = {}
        for node in self.nodes:
            if node.kind != DENSE or node.layer in found:
                continue
            readers = self.readers[node.name]
            sole = readers[0].activation if len(readers) == 1 else None
            found[node.layer] = Layer(
                node.layer,
                self.tensors[node.tensors["kernel"]],
                self.tensors[node.tensors["bias"]] if "bias" in node.tensors else None,
                sole or Activation("linear"),
            )
        return tuple(found.values())

    @cached_property
    def hidden(self) -> Mapping[str, Activation]:
        """The activations by node, without the output's and the one before a softmax there."""
        last = self.nodes[-1]
        outputs = (last.name, *(last.inputs if last.kind == SOFTMAX else ()))
        return {
            node.name: node.activation
            for node in self.nodes
            if node.activation is not None and node.name not in outputs
        }

    def shape_of(self, value: str) -> tuple[int, ...]:
        """The shape of a value for one example."""
        return self.input_shape if value == INPUT else self.by_name[value].shape

    def shaped(self, inputs: Array) -> Array:
        """Examples (N, d), as problems hold them, in the shape that the nodes read."""
        return xp.reshape(inputs, (inputs.shape[0], *self.input_shape))

    def downstream(self, values: Collection[str], tensors: Collection[str]) -> tuple[Node, ...]:
        """The nodes whose values depend on some of ``values`` or ``tensors``, in order.

        A node whose own value is among ``values`` is not one of them for that.
        """
        key = frozenset(values), frozenset(tensors)
        if key not in self._downstream:
            self._downstream[key] = self._found_downstream(*key)
        return self._downstream[key]

    @cached_property
    def _downstream(self) -> dict[tuple[frozenset[str], frozenset[str]], tuple[Node, ...]]:
        return {}

    def _found_downstream(
        self, values: frozenset[str], tensors: frozenset[str]
    ) -> tuple[Node, ...]:
        moved = set(values)
        found = []
        for node in self.nodes:
            own = any(tensor in tensors for tensor in node.tensors.values())
            if own or any(value in moved for value in node.inputs):
                moved.add(node.name)
                found.append(node)
        return tuple(found)

    def vector(self) -> Array:
        """All parameters as one vector (P,), a copy, in the order of ``tensors``."""
        return xp.concat([xp.reshape(tensor, (-1,)) for tensor in self.tensors.values()])

    def with_vector(self, vector: Array) -> Graph:
        """The same nodes with the parameters in ``vector`` (P,), as views of it."""
        tensors, start = {}, 0
        for name, tensor in self.tensors.items():
            tensors[name] = xp.reshape(vector[start : start + tensor.size], tensor.shape)
            start += tensor.size
        return replace(self, tensors=tensors)

    def with_tensors(self, tensors: Mapping[str, Array]) -> Graph:
        """The same nodes with other parameters of the same shapes."""
        return replace(self, tensors=tensors)

    def with_activation(self, activation: Activation) -> Graph:
        """The same graph with every activation but the output's replaced."""
        nodes = tuple(
            replace(node, activation=activation) if node.name in self.hidden else node
            for node in self.nodes
        )
        return replace(self, nodes=nodes)


def chain(layers: Sequence[Layer], softmax: bool = False) -> Graph:
    """The graph of dense layers one after the other, each followed by its activation.

    With ``softmax`` a softmax follows the last one's.
    """
    nodes: list[Node] = []
    tensors: dict[str, Array] = {}
    value = INPUT
    for layer in layers:
        roles = {"kernel": f"{layer.name}/kernel"}
        tensors[roles["kernel"]] = layer.kernel
        if layer.bias is not None:
            roles["bias"] = f"{layer.name}/bias"
            tensors[roles["bias"]] = layer.bias
        shape = (layer.units,)
        nodes.append(Node(layer.name, DENSE, (value,), shape, roles))
        value = f"{layer.name}/activation"
        nodes.append(Node(value, ELEMENTWISE, (layer.name,), shape, activation=layer.activation))
    if softmax:
        nodes.append(Node(f"{layers[-1].name}/{SOFTMAX}", SOFTMAX, (value,), shape))
    return Graph(tuple(nodes), tensors, (layers[0].inputs,))


def read_only(array: Array) -> Array:
    """A view of ``array`` that cannot be written to; itself if its library has no such views."""
    if not is_numpy(array):
        return array
    view: Array = array.view()
    view.flags.writeable = False
    return view
