"""The configuration as frozen dataclasses; the defaults are those of ``configs/mnist_mlp.yaml``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hesscli.problem.initializers import Initializer
from hesscli.problem.network import Activation, Loss

BatchSize = int | Literal["all"]
Row = tuple[float, ...]


@dataclass(frozen=True)
class LayerConfig:
    """One dense layer; ``activation`` is applied to its output.

    ``kernel``, rows of (inputs, units), and ``bias`` (units,) stand in place of the
    initializers' values; None draws them. ``initializer`` draws this layer's kernel; None leaves
    it to the model's.
    """

    name: str
    units: int
    activation: Activation = Activation("linear")
    kernel: tuple[Row, ...] | None = None
    bias: Row | None = None
    initializer: Initializer | None = None


@dataclass(frozen=True)
class ModelConfig:
    """The network: ``inputs`` values an example, dense layers, and where the parameters are from.

    ``weights`` is the path of a problem file; None draws them from the initializers. ``keras`` is
    the path of a Keras model, from which inputs, layers and parameters are then taken.
    """

    inputs: int = 784
    bias: bool = True
    initializer: Initializer = Initializer("glorot_uniform")
    bias_initializer: Initializer = Initializer("zeros")
    layers: tuple[LayerConfig, ...] = (
        LayerConfig("dense1", 30, Activation("relu")),
        LayerConfig("dense2", 30, Activation("relu")),
        LayerConfig("dense3", 10, Activation("linear")),
    )
    weights: str | None = None
    keras: str | None = None


@dataclass(frozen=True)
class DataConfig:
    """Where the batch comes from, and which examples it takes.

    ``inputs``, rows of (N, d), stand in place of ``source`` and ``split``; then ``targets`` are
    N labels or rows of numbers, or None for a loss that looks at none.
    """

    source: str = "embedded"
    split: str = "train"
    batch_size: BatchSize = 32
    offset: int = 0
    shuffle: bool = False
    inputs: tuple[Row, ...] | None = None
    targets: tuple[int, ...] | Row | tuple[Row, ...] | None = None


@dataclass(frozen=True)
class CheckConfig:
    """How much of a block is compared; ``rtol`` None means the default of the dtype.

    ``probes`` is the number of random products, where these are what is compared.
    """

    method: str = "auto"
    rtol: float | None = None
    probes: int = 32


@dataclass(frozen=True)
class TrainConfig:
    """How ``hesscli train`` trains, and what it measures on the way.

    It trains on the first ``examples`` of the data from ``data.offset`` on, in mini-batches of
    ``batch_size``, for ``steps`` steps in all; ``data.batch_size`` says nothing about training.
    Every ``every`` steps the curvature is measured on the first ``measure_examples`` of the
    training examples (on all of them where there are fewer), and every ``checkpoint_every`` steps
    a checkpoint is written where one was asked for.
    """

    learning_rate: float = 0.1
    momentum: float = 0.0
    batch_size: BatchSize = 64
    steps: int = 2000
    examples: BatchSize = "all"
    every: int = 20
    measure_examples: BatchSize = 256
    checkpoint_every: int = 200


@dataclass(frozen=True)
class Config:
    """Everything that decides what a command computes."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: Loss = field(default_factory=Loss)
    data: DataConfig = field(default_factory=DataConfig)
    dtype: str = "float64"
    seed: int = 0
    check: CheckConfig = field(default_factory=CheckConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
