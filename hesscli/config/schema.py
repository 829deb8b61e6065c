"""The configuration as frozen dataclasses; the defaults are those of ``configs/mnist_mlp.yaml``.

Every key is annotated with what it takes and what it is: ``docs/configuration.md`` is made from
these words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from hesscli.config.layer import LayerConfig as LayerConfig
from hesscli.config.layer import Layers, Row
from hesscli.config.named import BIAS_INITIALIZER, INITIALIZER
from hesscli.problem import registry
from hesscli.problem.data import SPLITS
from hesscli.problem.graph import INPUT, Activation
from hesscli.problem.initializers import Initializer
from hesscli.problem.layers import Plan, planned
from hesscli.problem.layertypes import TYPES
from hesscli.problem.names import CHECK_METHODS, DTYPES, MOST_PROBES, NORMALIZE, SYMMETRIC
from hesscli.problem.network import Loss
from hesscli.system.takes import (
    LARGEST_INTEGER,
    ListOf,
    Matrix,
    Number,
    Path,
    Takes,
    boolean,
    is_whole,
    not_negative,
    one_of,
    positive,
    size,
    text,
    whole,
)

BatchSize = int | Literal["all"]


def _is_registered(value: Any) -> bool:
    name = str(value).partition("=")[2]
    return name in (*registry.plugin_names(), *registry.plugin_names(registry.LAYER))


_REGISTERED_NAME = Takes(
    "as in mine>GatedUnit=glu, the second being an activation or a layer of a plugin (--plugin)",
    _is_registered,
)


@dataclass(frozen=True)
class _Targets(Matrix):
    """Labels, numbers or rows of numbers; whole numbers may be labels."""

    def decoded(self, value: Any, path: Path) -> Any:
        if isinstance(value, list) and any(isinstance(item, list) for item in value):
            return super().decoded(value, path)
        numbers = ListOf().decode(value, path)
        are_labels = all(is_whole(item, -LARGEST_INTEGER) for item in value)
        return tuple(value) if are_labels else numbers


_BATCH_SIZE = whole(1, also=("all",))


@dataclass(frozen=True)
class ModelConfig:
    """The network: the values of an example, its layers, and where the parameters are from."""

    inputs: Annotated[
        int | tuple[int, ...],
        ListOf(
            says="a whole number, 1 or more, or a shape such as `[28, 28, 1]`",
            item=whole(1),
            noun="size",
            alone=whole(1),
        ),
        "the number of values of an example",
    ] = 784
    bias: Annotated[bool, boolean(), "whether the layers have biases"] = True
    initializer: Annotated[Initializer, INITIALIZER, "draws the kernels"] = Initializer(
        "glorot_uniform"
    )
    bias_initializer: Annotated[Initializer, BIAS_INITIALIZER, "draws the biases"] = Initializer(
        "zeros"
    )
    layers: Annotated[
        tuple[LayerConfig, ...], Layers(says="a list of layers"), "from the input to the output"
    ] = (
        LayerConfig("dense1", 30, Activation("relu")),
        LayerConfig("dense2", 30, Activation("relu")),
        LayerConfig("dense3", 10, Activation("linear")),
    )
    weights: Annotated[
        str | None,
        text(says="the path of a problem file"),
        "the parameters, instead of the initializers' values",
    ] = None
    keras: Annotated[
        str | None,
        text(says="the path of a Keras model"),
        "the inputs, layers and parameters are those of this model",
    ] = None
    registered_names: Annotated[
        tuple[str, ...],
        ListOf(
            says="a list such as `[mine>GatedUnit=glu]`",
            item=_REGISTERED_NAME,
            least=0,
            alone=_REGISTERED_NAME,
            wrapped=True,
            spelled=False,
        ),
        "what the Keras model's registered names are called in a plugin, if it differs",
    ] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.inputs,) if isinstance(self.inputs, int) else self.inputs

    @property
    def width(self) -> int:
        """How many numbers an example has."""
        return math.prod(self.input_shape)

    def plan(self) -> Plan:
        """The nodes and shapes of all layers; raises LayerError if they do not fit."""
        names = [INPUT, *(layer.name for layer in self.layers)]
        both = zip(self.layers, names, strict=False)
        specs = [layer.spec(before, self.bias) for layer, before in both]
        return planned(specs, self.input_shape, TYPES)


@dataclass(frozen=True)
class DataConfig:
    """Where the batch comes from, and which examples it takes.

    ``inputs`` is (N, d); then ``targets`` are N labels or rows, None for a loss that has none.
    """

    source: Annotated[
        str,
        text(
            says="embedded, keras, or the path of an `.npz`, `.csv` or `.mat` file or of a folder "
            "with IDX, `.npy` or `.csv` files or images"
        ),
        "where the examples come from",
    ] = "embedded"
    split: Annotated[str, one_of(SPLITS), "which half of the source"] = "train"
    batch_size: Annotated[BatchSize, _BATCH_SIZE, "examples in the batch"] = 32
    offset: Annotated[int, whole(0), "the first example"] = 0
    shuffle: Annotated[
        bool, boolean(), "permute all examples with `seed` before `offset` is counted"
    ] = False
    scale: Annotated[
        float | str | None,
        positive(also=(SYMMETRIC, NORMALIZE)),
        "what the source's numbers are multiplied by; without it, unsigned bytes are divided by "
        "255; `symmetric` maps these to 2x − 1, `normalize` is `keras.utils.normalize(x, axis=1)`",
    ] = None
    memory: Annotated[
        str | int | None,
        size(),
        "what the examples may take at a time; without it a quarter of what is free",
    ] = None
    inputs: Annotated[
        tuple[Row, ...] | None,
        Matrix(says="`[[…], …]`", spelled=False, instead_of=("source", "split")),
        "the examples themselves, in place of a source",
    ] = None
    targets: Annotated[
        tuple[int, ...] | Row | tuple[Row, ...] | None,
        _Targets(says="a label or a row of numbers for each of `inputs`", spelled=False),
        "what the loss compares with",
    ] = None
    sample_weight: Annotated[
        str | Row | None,
        ListOf(
            says="the name of an array in the source, or a number for each of `inputs`",
            alone=text(),
            spelled=False,
        ),
        "what the loss of each example is multiplied by; as in Keras, the sum is still divided by "
        "the number of examples",
    ] = None


@dataclass(frozen=True)
class CheckConfig:
    """How much of a block is compared, and how exactly."""

    method: Annotated[str, one_of(CHECK_METHODS), "how much of a block is compared"] = "auto"
    rtol: Annotated[
        float | None,
        not_negative(),
        "the relative tolerance; without it 1e-10 in float64 and 1e-5 in float32",
    ] = None
    probes: Annotated[int, whole(1, MOST_PROBES), "random products that `probes` compares"] = 32


@dataclass(frozen=True)
class TrainConfig:
    """How ``hesscli train`` trains, and what it measures on the way.

    It trains on the first ``examples`` of the data from ``data.offset`` on, in mini-batches of
    ``batch_size``, for ``steps`` steps in all; ``data.batch_size`` says nothing about training.
    Every ``every`` steps the curvature is measured on the first ``measure_examples`` of the
    training examples (on all of them if there are fewer), and every ``checkpoint_every`` steps
    a checkpoint is written if one was asked for.
    """

    learning_rate: Annotated[float, positive(), "the learning rate η"] = 0.1
    momentum: Annotated[
        float, Number("0 or more and below 1", lambda value: 0 <= value < 1), "the momentum β"
    ] = 0.0
    batch_size: Annotated[BatchSize, _BATCH_SIZE, "examples in a mini-batch"] = 64
    steps: Annotated[int, whole(1), "of the whole run, those before it was resumed included"] = 2000
    examples: Annotated[BatchSize, _BATCH_SIZE, "train on the first N examples"] = "all"
    every: Annotated[int, whole(1), "steps from one measurement to the next"] = 20
    measure_examples: Annotated[
        BatchSize, _BATCH_SIZE, "measure on the first N training examples"
    ] = 256
    checkpoint_every: Annotated[int, whole(1), "steps from one checkpoint to the next"] = 200


@dataclass(frozen=True)
class Config:
    """Everything that decides what a command computes."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: Loss = field(default_factory=Loss)
    data: DataConfig = field(default_factory=DataConfig)
    dtype: Annotated[str, one_of(DTYPES), "floating-point type of everything"] = "float64"
    seed: Annotated[int, whole(0), "decides the parameters and the shuffle"] = 0
    check: CheckConfig = field(default_factory=CheckConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
