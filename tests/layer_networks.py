"""Small networks of one layer each of every type, and random graphs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hesscli.problem.graph import INPUT, Activation, Array
from hesscli.problem.layers import LINEAR, LayerError, LayerSpec, planned
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
    """Parameters and tanh, so that what the layer reads moves and has curvature; then logits."""
    return (
        layer("below", "batch_normalization"),
        layer("first", "activation", "below", activation=TANH),
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
        one("conv2d", filters=2, kernel_size=2, strides=(1, 2), padding="same", activation=TANH),
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
    "log_softmax": (one("log_softmax", axis=1), LONG),
    "log_softmax of channels": (one("log_softmax"), LONG),
    "normalization": (one("normalization", axis=2), IMAGE),
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

# What a random network is made of, with arguments that are drawn.
_IMAGE_TYPES = (
    "conv2d",
    "depthwise_conv2d",
    "separable_conv2d",
    "conv2d_transpose",
    "max_pooling2d",
    "average_pooling2d",
    "zero_padding2d",
    "cropping2d",
    "up_sampling2d",
    "batch_normalization",
    "layer_normalization",
    "group_normalization",
    "prelu",
    "softmax",
    "dense",
    "permute",
)
_MERGES = ("add", "subtract", "multiply", "average", "maximum", "concatenate")
_FUNCTIONS = ("tanh", "sigmoid", "softplus", "gelu", "silu", "sin", "relu", "elu")
# A value beyond this makes the comparison slow.
_LARGEST = 96


class _Drawn:
    """Layers that are drawn one after the other, and the shapes of their values."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        draw = self.generator.integers
        self.input_shape = (int(draw(3, 7)), int(draw(3, 7)), int(draw(1, 3)))
        self.specs: list[LayerSpec] = []
        self.shapes: dict[str, tuple[int, ...]] = {INPUT: self.input_shape}

    def whole(self, low: int, high: int) -> int:
        return int(self.generator.integers(low, high))

    def choice(self, names: Sequence[str]) -> str:
        return str(self.generator.choice(names))

    def add(self, type_: str, *inputs: str, **arguments: Any) -> bool:
        """Whether the layer fits; then it is one more."""
        function = Activation(self.choice(_FUNCTIONS))
        activated = TYPES[type_].activated if type_ in TYPES else False
        activation = function if activated and self.generator.random() < 0.7 else LINEAR
        name = f"{type_}_{len(self.specs)}"
        spec = LayerSpec(name, type_, inputs, arguments, activation)
        try:
            plan = planned([*self.specs, spec], self.input_shape, TYPES)
        except LayerError:
            return False
        shape = plan.nodes[-1].shape
        if not 0 < np.prod(shape) <= _LARGEST:
            return False
        self.specs.append(spec)
        self.shapes[name] = shape
        return True

    def one(self) -> bool:
        """One more layer of any value, if what is drawn fits."""
        values = list(self.shapes)
        # Later values more often, so that the network becomes deep.
        value = values[-1 - min(int(self.generator.exponential(0.7)), len(values) - 1)]
        kind = self.generator.random()
        if kind < 0.15 and self.specs:
            of = self.specs[self.whole(0, len(self.specs))]
            return of.type != "shared" and self.add("shared", value, of=of.name)
        if kind < 0.35:
            others = [name for name, shape in self.shapes.items() if shape == self.shapes[value]]
            return self.add(self.choice(_MERGES), value, self.choice(others))
        if kind < 0.45:
            return self.add("activation", value)
        type_ = self.choice(_IMAGE_TYPES)
        return self.add(type_, value, **self.arguments(type_))

    def arguments(self, type_: str) -> dict[str, Any]:
        size = [self.whole(1, 4), self.whole(1, 4)]
        stride = self.whole(1, 3)
        padding = self.choice(("valid", "same"))
        windows: dict[str, Any] = {"kernel_size": size, "strides": stride, "padding": padding}
        if stride == 1 and "transpose" not in type_:
            windows["dilation_rate"] = self.whole(1, 3)
        pooling = {"pool_size": size, "strides": stride, "padding": padding}
        margins = [[self.whole(0, 2), self.whole(0, 2)] for _ in range(2)]
        given: dict[str, dict[str, Any]] = {
            "conv2d": {**windows, "filters": self.whole(1, 4)},
            "depthwise_conv2d": {**windows, "depth_multiplier": self.whole(1, 3)},
            "separable_conv2d": {**windows, "filters": self.whole(1, 3)},
            "conv2d_transpose": {**windows, "filters": self.whole(1, 3)},
            "max_pooling2d": pooling,
            "average_pooling2d": pooling,
            "zero_padding2d": {"padding": margins},
            "cropping2d": {"cropping": margins},
            "up_sampling2d": {"size": [self.whole(1, 3), self.whole(1, 3)]},
            "batch_normalization": {"axis": self.whole(1, 4), "scale": bool(self.whole(0, 2))},
            "layer_normalization": {"axis": self.whole(1, 4), "epsilon": 0.1},
            "group_normalization": {"groups": -1, "epsilon": 0.1},
            "prelu": {"shared_axes": [1, 2]},
            "softmax": {"axis": self.whole(1, 4)},
            "dense": {"units": self.whole(1, 4)},
            "permute": {"dims": [int(i) for i in 1 + self.generator.permutation(3)]},
        }
        return given[type_]


def random_network(seed: int, dtype: str = "float64") -> Problem:
    """A network of 4 to 7 layers of any type, with branches, merges and shared layers."""
    drawn = _Drawn(seed)
    drawn.add("conv2d", INPUT, filters=2, kernel_size=2, padding="same")
    wanted, tries = drawn.whole(4, 8), 0
    while len(drawn.specs) < wanted and tries < 60:
        drawn.one()
        tries += 1
    specs = [*drawn.specs, *ended(drawn.specs[-1].name)]
    return network(specs, drawn.input_shape, seed, dtype=dtype)
