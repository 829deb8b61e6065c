"""Small networks of one layer each of every type, and random graphs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hesscli.problem.graph import INPUT, Activation, Array
from hesscli.problem.layers import LINEAR, LayerSpec, planned
from hesscli.problem.layertypes import TYPES
from hesscli.problem.network import Loss, Problem

TANH = Activation("tanh")


def layer(
    name: str,
    type_: str,
    *inputs: str,
    activation: Activation = LINEAR,
    **arguments: Any,
) -> LayerSpec:
    return LayerSpec(name, type_, inputs or (INPUT,), arguments, activation)


def network(
    specs: Sequence[LayerSpec],
    shape: tuple[int, ...],
    seed: int = 0,
    *,
    dtype: str = "float64",
    examples: int = 2,
    inputs: Array | None = None,
) -> Problem:
    """A problem of these layers with normal parameters, classified into what they give."""
    plan = planned(specs, shape, TYPES)
    generator = np.random.default_rng(seed)
    arrays = {
        name: drawn(name, of, generator).astype(dtype)
        for name, of in {**plan.tensors, **plan.constants}.items()
    }
    graph = plan.graph(arrays)
    if inputs is None:
        inputs = generator.standard_normal((examples, int(np.prod(shape))))
    (outputs,) = graph.nodes[-1].shape
    targets = generator.integers(0, outputs, len(inputs))
    return Problem(graph, inputs.astype(dtype), targets, Loss())


def drawn(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    if name.endswith("variance"):
        return generator.uniform(0.3, 2.0, shape)
    scale = 1.0 if len(shape) < 2 else 1.5 / np.sqrt(np.prod(shape[:-1]))
    return scale * generator.standard_normal(shape)


def ended(last: str) -> tuple[LayerSpec, ...]:
    """What makes three logits of any value."""
    return (
        layer("flat", "flatten", last),
        layer("bent", "activation", "flat", activation=TANH),
        layer("logits", "dense", "bent", units=3),
    )


def one(type_: str, *, activation: Activation = LINEAR, **arguments: Any) -> Sequence[LayerSpec]:
    """The input through tanh, so that it has curvature, then the layer, then logits."""
    return (
        layer("first", "activation", activation=TANH),
        layer("layer", type_, "first", activation=activation, **arguments),
        *ended("layer"),
    )


def merging(type_: str, shapes: int = 2, **arguments: Any) -> Sequence[LayerSpec]:
    """Dense layers of the input, and the layer of what they give."""
    names = [f"branch{i}" for i in range(shapes)]
    branches = [
        layer(name, "dense", activation=Activation(of), units=2)
        for name, of in zip(names, ("tanh", "sigmoid", "sin"), strict=False)
    ]
    return (*branches, layer("layer", type_, *names, **arguments), *ended("layer"))


Case = tuple[Sequence[LayerSpec], tuple[int, ...]]
IMAGE, LONG = (4, 5, 2), (6, 2)
CASES: Mapping[str, Case] = {
    "dense of rows": (one("dense", units=2), LONG),
    "conv1d": (one("conv1d", filters=2, kernel_size=3, strides=2), LONG),
    "conv1d causal": (
        one("conv1d", filters=2, kernel_size=2, padding="causal", dilation_rate=2),
        LONG,
    ),
    "conv2d": (one("conv2d", filters=2, kernel_size=(2, 3), strides=2), IMAGE),
    "conv2d same": (
        one("conv2d", filters=2, kernel_size=2, strides=(2, 3), padding="same", activation=TANH),
        IMAGE,
    ),
    "conv2d dilated": (
        one("conv2d", filters=1, kernel_size=2, dilation_rate=2, padding="same", use_bias=False),
        IMAGE,
    ),
    "conv2d in groups": (one("conv2d", filters=4, kernel_size=2, groups=2), IMAGE),
    "depthwise_conv2d": (
        one("depthwise_conv2d", kernel_size=2, depth_multiplier=2, strides=2, padding="same"),
        IMAGE,
    ),
    "separable_conv2d": (
        one("separable_conv2d", filters=2, kernel_size=2, depth_multiplier=2),
        IMAGE,
    ),
    "conv2d_transpose": (
        one("conv2d_transpose", filters=2, kernel_size=3, strides=2, padding="same"),
        (2, 3, 2),
    ),
    "conv2d_transpose valid": (
        one("conv2d_transpose", filters=1, kernel_size=(2, 3), strides=(3, 2)),
        (2, 2, 2),
    ),
    "einsum_dense": (
        one("einsum_dense", equation="abc,cde->abde", output_shape=[3, 2, 2], bias_axes="de"),
        (3, 2),
    ),
    "einsum_dense of other axes": (
        one("einsum_dense", equation="...bc,bd->...dc", output_shape=[3, 2], bias_axes="d"),
        (3, 4, 2),
    ),
    "max_pooling1d": (one("max_pooling1d", pool_size=3, strides=2, padding="same"), LONG),
    "max_pooling2d": (one("max_pooling2d", pool_size=2), IMAGE),
    "max_pooling2d overlapping": (
        one("max_pooling2d", pool_size=3, strides=2, padding="same"),
        IMAGE,
    ),
    "average_pooling1d": (one("average_pooling1d", pool_size=2, padding="same"), (5, 2)),
    "average_pooling2d": (
        one("average_pooling2d", pool_size=3, strides=2, padding="same"),
        IMAGE,
    ),
    "global_max_pooling1d": (one("global_max_pooling1d"), LONG),
    "global_max_pooling2d": (one("global_max_pooling2d", keepdims=True), IMAGE),
    "global_average_pooling1d": (one("global_average_pooling1d"), LONG),
    "global_average_pooling2d": (one("global_average_pooling2d", keepdims=True), IMAGE),
    "zero_padding1d": (one("zero_padding1d", padding=[1, 2]), LONG),
    "zero_padding2d": (one("zero_padding2d", padding=[[1, 0], [2, 1]]), IMAGE),
    "cropping1d": (one("cropping1d", cropping=[1, 2]), LONG),
    "cropping2d": (one("cropping2d", cropping=[[1, 0], [2, 1]]), IMAGE),
    "up_sampling1d": (one("up_sampling1d", size=3), (3, 2)),
    "up_sampling2d": (one("up_sampling2d", size=(2, 3)), (2, 3, 2)),
    "flatten": (one("flatten"), IMAGE),
    "reshape": (one("reshape", target_shape=[5, -1]), IMAGE),
    "permute": (one("permute", dims=[3, 1, 2]), IMAGE),
    "batch_normalization": (one("batch_normalization"), IMAGE),
    "batch_normalization of rows": (
        one("batch_normalization", axis=1, center=False, epsilon=0.1),
        LONG,
    ),
    "layer_normalization": (one("layer_normalization"), LONG),
    "layer_normalization of all": (
        one("layer_normalization", axis=[1, 2], scale=False, epsilon=0.1),
        LONG,
    ),
    "group_normalization": (one("group_normalization", groups=2), (2, 3, 4)),
    "prelu": (one("prelu"), LONG),
    "prelu shared": (one("prelu", shared_axes=[1]), LONG),
    "softmax": (one("softmax", axis=1), LONG),
    "activation": (one("activation", activation=Activation("softplus")), LONG),
    "add": (merging("add", 3), (3,)),
    "subtract": (merging("subtract"), (3,)),
    "multiply": (merging("multiply", 3), (3,)),
    "average": (merging("average", 3), (3,)),
    "maximum": (merging("maximum", 3), (3,)),
    "concatenate": (merging("concatenate", 3), (3,)),
    "dot": (merging("dot", axes=1), (3,)),
    "dot of rows": (
        (
            layer("branch0", "dense", units=2, activation=TANH),
            layer("branch1", "conv1d", filters=2, kernel_size=2),
            layer("layer", "dot", "branch0", "branch1", axes=[2, 2]),
            *ended("layer"),
        ),
        (3, 2),
    ),
    "shared": (
        (
            layer("conv", "conv2d", filters=2, kernel_size=2, padding="same", activation=TANH),
            layer("again", "shared", "conv", of="conv"),
            layer("sum", "add", "conv", "again"),
            layer("pool", "max_pooling2d", "sum"),
            *ended("pool"),
        ),
        (3, 4, 2),
    ),
}
