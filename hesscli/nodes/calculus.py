"""The calculus of each kind of node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hesscli.nodes import bilinear, linear, scaled
from hesscli.nodes.activations import derivatives
from hesscli.nodes.dense import Dense
from hesscli.nodes.elementwise import Elementwise
from hesscli.nodes.greatest import GlobalMaxPooling, Maximum, MaxPooling
from hesscli.nodes.node import Calculus
from hesscli.nodes.normalization import Normalization
from hesscli.nodes.ownlayer import own_layer
from hesscli.nodes.product import Product
from hesscli.nodes.softmax import LogSoftmax, Softmax
from hesscli.problem import graph as kinds
from hesscli.problem.graph import Node

# What finds a node's calculus.
Dispatch = Callable[[Node], Calculus]


def calculus_of(node: Node) -> Calculus:
    """The calculus of ``node``; raises InputError for an activation that is not known."""
    return _CALCULI[node.kind](node)


def _elementwise(node: Node) -> Calculus:
    assert node.activation is not None  # an elementwise node has one
    return Elementwise(derivatives(node.activation))


_CALCULI: Mapping[str, Callable[[Node], Calculus]] = MappingProxyType(
    {
        kinds.DENSE: lambda _: Dense(),
        kinds.ELEMENTWISE: _elementwise,
        kinds.SOFTMAX: lambda node: Softmax(**node.attributes),
        kinds.LOG_SOFTMAX: lambda node: LogSoftmax(**node.attributes),
        kinds.ADD: lambda node: linear.WeightedSum([1.0] * len(node.inputs)),
        kinds.SUBTRACT: lambda _: linear.WeightedSum([1.0, -1.0]),
        kinds.AVERAGE: lambda node: linear.WeightedSum([1 / len(node.inputs)] * len(node.inputs)),
        kinds.MAXIMUM: lambda _: Maximum(),
        kinds.CONCATENATE: lambda node: linear.Concatenate(**node.attributes),
        kinds.PRODUCT: lambda node: Product(**node.attributes),
        kinds.EINSUM: lambda node: bilinear.EinsumDense(**node.attributes),
        kinds.CONV: lambda node: bilinear.Conv(**node.attributes),
        kinds.DEPTHWISE_CONV: lambda node: bilinear.DepthwiseConv(**node.attributes),
        kinds.CONV_TRANSPOSE: lambda node: bilinear.ConvTranspose(
            **node.attributes, spatial=node.shape[:-1]
        ),
        kinds.MAX_POOLING: lambda node: MaxPooling(**node.attributes),
        kinds.AVERAGE_POOLING: lambda node: linear.AveragePooling(**node.attributes),
        kinds.GLOBAL_MAX_POOLING: lambda node: GlobalMaxPooling(node.shape),
        kinds.GLOBAL_AVERAGE_POOLING: lambda node: linear.GlobalAveragePooling(node.shape),
        kinds.RESHAPE: lambda node: linear.Reshape(node.shape),
        kinds.PERMUTE: lambda node: linear.Permute(**node.attributes),
        kinds.ZERO_PADDING: lambda node: linear.ZeroPadding(**node.attributes),
        kinds.CROPPING: lambda node: linear.Cropping(**node.attributes),
        kinds.UP_SAMPLING: lambda node: linear.UpSampling(**node.attributes),
        kinds.SCALE: lambda node: scaled.Scale(**node.attributes),
        kinds.BATCH_NORMALIZATION: lambda node: scaled.BatchNormalization(
            **node.attributes, constants=node.constants
        ),
        kinds.PRELU: lambda node: scaled.PReLU(**node.attributes),
        kinds.NORMALIZATION: lambda node: Normalization(**node.attributes),
        kinds.OWN_LAYER: lambda node: own_layer(node.shape, **node.attributes),
    }
)
