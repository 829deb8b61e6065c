"""The configuration as frozen dataclasses; the defaults are those of ``configs/mnist_mlp.yaml``.

Every key is annotated with what it takes and what it is: ``docs/configuration.md`` is made from
these words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from hesscli.problem.graph import INPUT, Activation, Penalty
from hesscli.problem.initializers import Initializer
from hesscli.problem.layers import ACTIVITY, DENSE, LayerSpec, Plan, planned
from hesscli.problem.layertypes import TYPES
from hesscli.problem.network import Loss

BatchSize = int | Literal["all"]
Row = tuple[float, ...]


@dataclass(frozen=True)
class LayerConfig:
    """One layer; ``activation`` is applied to its output.

    ``kernel``, rows of (inputs, units), and ``bias`` (units,) of a dense layer stand in place of
    the initializers' values; None draws them. ``initializer`` draws this layer's kernels; None
    leaves it to the model's. ``type`` and ``arguments`` are Keras's (hesscli.problem.layertypes);
    ``inputs`` None is the layer before. ``initializers`` and ``regularizers`` are those of other
    tensors than kernel and bias, by role.
    """

    name: Annotated[
        str,
        "letters, digits, _ . and -",
        "what results call the layer; dense1, dense2 … where it is left out",
    ]
    units: Annotated[
        int, "a whole number, 1 or more", "a dense layer's outputs; must be given there"
    ] = 0
    activation: Annotated[Activation, "an activation", "applied to the layer's output"] = (
        Activation("linear")
    )
    kernel: Annotated[
        tuple[Row, ...] | None, "`[[…], …]`, inputs × units", "the kernel's values, not drawn"
    ] = None
    bias: Annotated[Row | None, "`[…]`", "the bias's values, not drawn"] = None
    initializer: Annotated[
        Initializer | None, "an initializer", "draws this layer's kernel; without it, the model's"
    ] = None
    kernel_regularizer: Annotated[
        Penalty | None, "`{l1: …, l2: …}`", "added to the loss: Σ l1 |W| + l2 W²"
    ] = None
    bias_regularizer: Annotated[
        Penalty | None, "`{l1: …, l2: …}`", "added to the loss: Σ l1 |b| + l2 b²"
    ] = None
    activity_regularizer: Annotated[
        Penalty | None,
        "`{l1: …, l2: …}`",
        "added to the loss for the layer's output y: 1/N Σ l1 |y| + l2 y² over the N examples",
    ] = None
    trainable: Annotated[
        bool, "true or false", "whether the block `network` has the layer's parameters"
    ] = True
    type: Annotated[
        str, "a type of layer", "Keras's class in other letters: dense, conv2d, max_pooling2d …"
    ] = DENSE
    inputs: Annotated[
        tuple[str, ...] | None,
        "`[name, …]`, or `input`",
        "the layers that it takes; without it the one before",
    ] = None
    use_bias: Annotated[
        bool | None, "true or false", "whether it has a bias; without it, as the model says"
    ] = None
    arguments: Annotated[
        tuple[tuple[str, Any], ...],
        "each a key of the layer",
        "Keras's arguments of the type, such as `filters`, `kernel_size`, `strides`, `padding`",
    ] = ()
    initializers: Annotated[
        tuple[tuple[str, Initializer], ...],
        "`gamma_initializer: …` and the like",
        "draw the tensors that are no kernel: `bias`, `gamma`, `beta`, `alpha`",
    ] = ()
    regularizers: Annotated[
        tuple[tuple[str, Penalty], ...],
        "`gamma_regularizer: …` and the like",
        "added to the loss for the tensors that are neither kernel nor bias",
    ] = ()

    @property
    def is_plain(self) -> bool:
        """Whether it is a dense layer of the one before."""
        return self.type == DENSE and self.inputs is None

    def spec(self, before: str, bias: bool) -> LayerSpec:
        """The layer behind ``before``; ``bias`` is whether it has one where it says nothing."""
        arguments = dict(self.arguments)
        takes = TYPES[self.type].arguments if self.type in TYPES else ()
        if self.type == DENSE:
            arguments["units"] = self.units
        if "use_bias" in takes:
            arguments["use_bias"] = bias if self.use_bias is None else self.use_bias
        inputs = (before,) if self.inputs is None else self.inputs
        return LayerSpec(self.name, self.type, inputs, arguments, self.activation)

    def penalties(self) -> dict[str, Penalty]:
        """Its regularizers by role."""
        own = {
            "kernel": self.kernel_regularizer,
            "bias": self.bias_regularizer,
            ACTIVITY: self.activity_regularizer,
        }
        found = {role: penalty for role, penalty in own.items() if penalty is not None}
        return {**found, **dict(self.regularizers)}


@dataclass(frozen=True)
class ModelConfig:
    """The network: ``inputs`` values an example, layers, and where the parameters are from.

    ``inputs`` may be a shape, as [28, 28, 1].

    ``weights`` is the path of a problem file; None draws them from the initializers. ``keras`` is
    the path of a Keras model, from which inputs, layers and parameters are then taken;
    ``registered_names`` are pairs ``registered=plugin's``.
    """

    inputs: Annotated[
        int | tuple[int, ...],
        "a whole number, 1 or more, or a shape such as `[28, 28, 1]`",
        "values of an example",
    ] = 784
    bias: Annotated[bool, "true or false", "whether the layers have biases"] = True
    initializer: Annotated[Initializer, "an initializer", "draws the kernels"] = Initializer(
        "glorot_uniform"
    )
    bias_initializer: Annotated[
        Initializer, "an initializer, but orthogonal", "draws the biases"
    ] = Initializer("zeros")
    layers: Annotated[
        tuple[LayerConfig, ...], "a list of layers", "from the input to the output"
    ] = (
        LayerConfig("dense1", 30, Activation("relu")),
        LayerConfig("dense2", 30, Activation("relu")),
        LayerConfig("dense3", 10, Activation("linear")),
    )
    weights: Annotated[
        str | None, "the path of a problem file", "parameters in the place of the initializers'"
    ] = None
    keras: Annotated[
        str | None, "the path of a Keras model", "inputs, layers and parameters, all from there"
    ] = None
    registered_names: Annotated[
        tuple[str, ...],
        "a list such as `[mine>GatedUnit=glu]`",
        "what the Keras model's registered names are called in a plugin, where it differs",
    ] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.inputs,) if isinstance(self.inputs, int) else self.inputs

    @property
    def width(self) -> int:
        """How many numbers an example has."""
        return math.prod(self.input_shape)

    def plan(self) -> Plan:
        """The nodes and shapes of all layers; raises LayerError where they do not fit."""
        names = [INPUT, *(layer.name for layer in self.layers)]
        both = zip(self.layers, names, strict=False)
        specs = [layer.spec(before, self.bias) for layer, before in both]
        return planned(specs, self.input_shape, TYPES)


@dataclass(frozen=True)
class DataConfig:
    """Where the batch comes from, and which examples it takes.

    ``inputs``, rows of (N, d), stand in place of ``source`` and ``split``; then ``targets`` are
    N labels or rows of numbers, or None for a loss that looks at none. ``sample_weight`` names an
    array (M,) of the source, or holds N numbers beside ``inputs``.
    """

    source: Annotated[
        str,
        "embedded, keras, or the path of an `.npz`, `.csv` or `.mat` file or of a folder with IDX, "
        "`.npy` or `.csv` files or images",
        "where the examples are from",
    ] = "embedded"
    split: Annotated[str, "train or test", "which half of the source"] = "train"
    batch_size: Annotated[
        BatchSize, "a whole number, 1 or more, or all", "examples in the batch"
    ] = 32
    offset: Annotated[int, "a whole number, 0 or more", "the first example"] = 0
    shuffle: Annotated[
        bool, "true or false", "permute all examples with `seed` before `offset` is counted"
    ] = False
    scale: Annotated[
        float | str | None,
        "a number above 0, symmetric or normalize",
        "what the source's numbers are multiplied by; without it unsigned bytes by 1/255; "
        "`symmetric` is 2x − 1 of these, `normalize` is `keras.utils.normalize(x, axis=1)`",
    ] = None
    memory: Annotated[
        str | int | None,
        "a size such as 500MB or 2GB",
        "what the examples may take at a time; without it a quarter of what is free",
    ] = None
    inputs: Annotated[
        tuple[Row, ...] | None, "`[[…], …]`", "the examples themselves, in place of a source"
    ] = None
    targets: Annotated[
        tuple[int, ...] | Row | tuple[Row, ...] | None,
        "a label or a row of numbers for each of `inputs`",
        "what the loss compares with",
    ] = None
    sample_weight: Annotated[
        str | Row | None,
        "the name of an array in the source, or a number for each of `inputs`",
        "what the loss of each example is multiplied by; their sum stays divided by the number of "
        "examples, as in Keras",
    ] = None


@dataclass(frozen=True)
class CheckConfig:
    """How much of a block is compared; ``rtol`` None means the default of the dtype.

    ``probes`` is the number of random products, where these are what is compared.
    """

    method: Annotated[str, "auto, entries, probes or form", "how much of a block is compared"] = (
        "auto"
    )
    rtol: Annotated[
        float | None,
        "a number, 0 or more",
        "the relative tolerance; without it 1e-10 in float64 and 1e-5 in float32",
    ] = None
    probes: Annotated[int, "a whole number, 1 to 1,000,000", "random products of `probes`"] = 32


@dataclass(frozen=True)
class TrainConfig:
    """How ``hesscli train`` trains, and what it measures on the way.

    It trains on the first ``examples`` of the data from ``data.offset`` on, in mini-batches of
    ``batch_size``, for ``steps`` steps in all; ``data.batch_size`` says nothing about training.
    Every ``every`` steps the curvature is measured on the first ``measure_examples`` of the
    training examples (on all of them where there are fewer), and every ``checkpoint_every`` steps
    a checkpoint is written where one was asked for.
    """

    learning_rate: Annotated[float, "a number above 0", "η"] = 0.1
    momentum: Annotated[float, "0 or more and below 1", "β"] = 0.0
    batch_size: Annotated[
        BatchSize, "a whole number, 1 or more, or all", "examples in a mini-batch"
    ] = 64
    steps: Annotated[
        int, "a whole number, 1 or more", "in all, those of a resumed run included"
    ] = 2000
    examples: Annotated[
        BatchSize, "a whole number, 1 or more, or all", "train on the first N examples"
    ] = "all"
    every: Annotated[int, "a whole number, 1 or more", "steps from one measurement to the next"] = (
        20
    )
    measure_examples: Annotated[
        BatchSize, "a whole number, 1 or more, or all", "measure on the first N training examples"
    ] = 256
    checkpoint_every: Annotated[
        int, "a whole number, 1 or more", "steps from one checkpoint to the next"
    ] = 200


@dataclass(frozen=True)
class Config:
    """Everything that decides what a command computes."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: Loss = field(default_factory=Loss)
    data: DataConfig = field(default_factory=DataConfig)
    dtype: Annotated[str, "float32 or float64", "floating-point type of everything"] = "float64"
    seed: Annotated[int, "a whole number, 0 or more", "of the parameters and the shuffle"] = 0
    check: CheckConfig = field(default_factory=CheckConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
