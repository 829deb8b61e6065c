"""A Problem: a network, its parameters and one batch.

Names and arrays only. No formula stands here, because both witnesses read it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from hesscli.problem.graph import Activation, Array, Graph, Layer, Penalty, read_only
from hesscli.problem.names import OUTPUT, REDUCTIONS
from hesscli.problem.registry import loss_names
from hesscli.problem.stored import StoredInputs
from hesscli.system import xp
from hesscli.system.arrays import dtype_of
from hesscli.system.errors import InputError, shown
from hesscli.system.takes import (
    Choice,
    ConfigKeyError,
    Number,
    Path,
    Takes,
    boolean,
    is_whole,
    not_negative,
    one_of,
    positive,
    whole,
)

# Class labels (N,), or numbers (N, c) for the losses that compare with the output itself.
Targets = NDArray[Any]


@dataclass(frozen=True)
class _ClassWeights(Takes):
    """A weight for each of some classes; JSON has text for the classes."""

    words: str = "{class: weight, …}"

    def decoded(self, value: Any, path: Path) -> dict[int, float]:
        if not isinstance(value, Mapping) or not value:
            raise self.refused(value, path)
        given = {int(key) if str(key).isdecimal() else key: of for key, of in value.items()}
        for key in given:
            if not is_whole(key, 0):
                text = f"{shown(key)} is not a class; they are whole numbers from 0"
                raise ConfigKeyError(path, text)
        return {key: not_negative().decode(of, (*path, key)) for key, of in given.items()}


@dataclass(frozen=True)
class Loss:
    """A loss by its Keras name and with its Keras arguments.

    ``reduction`` is ``mean`` (c = 1/N) or ``sum`` (c = 1). The cross-entropies take logits. If
    a network ends in the softmax or sigmoid that a cross-entropy has in it, ``from_logits`` says
    what the loss is of: False of probabilities, so that the two are one function of the logits;
    True of what the network gives, so that there are two softmaxes; None as False if there is
    one at the end. ``label_smoothing`` is in the targets that a Problem has.
    """

    name: Annotated[str, Choice("a loss", names=loss_names), "the loss of one example"] = (
        "sparse_categorical_crossentropy"
    )
    reduction: Annotated[str, one_of(REDUCTIONS), "over the batch: c = 1/N or 1"] = "mean"
    from_logits: Annotated[
        bool | None,
        boolean(),
        "false if a cross-entropy takes probabilities, true if it takes the network's outputs",
    ] = None
    label_smoothing: Annotated[
        float,
        Number("a number from 0 to 1", lambda value: 0 <= value <= 1),
        "of the targets of a cross-entropy, if they are numbers",
    ] = 0.0
    regularization: Annotated[
        bool, boolean(), "whether the layers' regularizers are part of the loss"
    ] = True
    delta: Annotated[float, positive(), "the error above which the loss huber is linear"] = 1.0
    alpha: Annotated[float, positive(spelled=False), "the factor of the focal loss"] = 0.25
    gamma: Annotated[float, not_negative(spelled=False), "the power of 1 − p in the focal loss"] = (
        2.0
    )
    index: Annotated[
        int, whole(0, spelled=False), "the index of the output that is the loss `output`"
    ] = 0
    of_class: Annotated[
        int | None,
        whole(0, spelled=False),
        "the only class whose examples count; the sum is still divided by the number of all",
    ] = None
    class_weight: Annotated[
        Mapping[int, float] | None,
        _ClassWeights(says="`{class: weight, …}`, each 0 or more", spelled=False),
        "what the losses of a class's examples are multiplied by; 1 for the classes left out",
    ] = None

    def scale(self, examples: int) -> float:
        """The factor c of the loss L = c Σ_n ℓ(f_n, y_n)."""
        return 1.0 / examples if self.reduction == "mean" else 1.0


@dataclass(frozen=True)
class Original:
    """The Keras model that a problem is made of, on the batch as the model itself takes it.

    ``graph`` has the model's own activations, whatever those of the problem are. ``inputs`` (N, d)
    are in the model's ``shape`` once they are reshaped, and ``targets`` without label smoothing.
    ``layers`` are Keras's names by ours. ``loss`` is as Keras describes
    it, None if Keras has none; ``folded`` the softmax or sigmoid at the end that is in it.
    ``prepared_otherwise`` is the problem's batch by what ``data.scale`` would have to be.
    ``differentiated`` is Keras's own model on the batch, None if autodiff does without.
    ``plugins`` are the plugins' names by those that Keras has registered.
    """

    path: str
    graph: Graph
    shape: tuple[int, ...]
    inputs: StoredInputs
    targets: Targets
    layers: Mapping[str, str]
    loss: Any
    folded: str | None
    prepared_otherwise: Mapping[str, StoredInputs]
    plugins: Mapping[str, str]
    differentiated: Any = None


@dataclass(frozen=True)
class Problem:
    """A network, its parameters and one batch, in one floating-point type.

    ``inputs`` is (N, d_0), ``targets`` (N,) class labels or (N, c) numbers. The problem has
    read-only views of the arrays: every witness sees the same ones. ``notes`` are sentences that
    every result repeats, on what was done to make the problem; ``weights`` is the file that the
    parameters are from, None if ``seed`` drew them.

    ``part_of`` is how many examples the loss is the mean or sum of if the batch is some of them
    only: their Hessians add up to that of the whole. ``inputs`` may be StoredInputs, which are read
    in slices. ``sample_weight`` (N,) multiplies the examples' losses; None is 1 for all.
    ``penalties`` are those of the tensors that have one, by name, added as they are; those of
    values stand in the graph. ``original`` is the Keras model that the problem is made of, and
    ``prepared`` says how its inputs were prepared. ``frozen`` are the layers that are not
    trainable. How a problem is run is an Execution (hesscli.problem.execution).
    """

    graph: Graph
    inputs: Array | StoredInputs
    targets: Targets
    loss: Loss = field(default_factory=Loss)
    seed: int | None = None
    notes: tuple[str, ...] = ()
    weights: str | None = None
    part_of: int | None = None
    penalties: Mapping[str, Penalty] = field(default_factory=dict)
    original: Original | None = None
    prepared: str = ""
    frozen: tuple[str, ...] = ()
    sample_weight: Array | None = None

    def __post_init__(self) -> None:
        if self.loss.name == OUTPUT and self.loss.index >= self.outputs:
            raise InputError(
                f"loss.index: {self.loss.index}; the network has the outputs 0 to "
                f"{self.outputs - 1}"
            )
        if not isinstance(self.inputs, StoredInputs):
            object.__setattr__(self, "inputs", read_only(self.inputs))
        object.__setattr__(self, "targets", read_only(self.targets))
        if self.sample_weight is not None:
            object.__setattr__(self, "sample_weight", read_only(self.sample_weight))

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return dtype_of(self.inputs)

    @property
    def examples(self) -> int:
        """How many examples the batch has."""
        return int(self.inputs.shape[0])

    @property
    def total(self) -> int:
        """How many examples the loss is the mean or sum of."""
        return self.examples if self.part_of is None else self.part_of

    @property
    def scales(self) -> Array:
        """The factors c w_n (N,) of the loss L = c Σ_n w_n ℓ(f_n, y_n), in double precision.

        c is 1/N or 1 whatever the weights sum to, as in Keras.
        """
        c, weight = self.loss.scale(self.total), self.sample_weight
        return np.full(self.examples, c) if weight is None else c * xp.double(weight)

    @property
    def of_activity(self) -> float:
        """The factor of the penalties on values, which Keras divides by the batch: 1/N."""
        return 1.0 / self.total

    @property
    def share(self) -> float:
        """The part of the penalties that belongs to these examples: those of all parts add up."""
        return self.examples / self.total

    @property
    def batch(self) -> Array:
        """``inputs`` as an array (N, d_0); those that are stored are read."""
        return rows_of(self.inputs, slice(None))

    def part(self, start: int, stop: int) -> Problem:
        """The examples from ``start`` to ``stop``, held, as a part of the whole sum."""
        return self.chosen(slice(start, stop), self.total)

    def chosen(self, examples: slice | NDArray[np.intp], of: int | None = None) -> Problem:
        """Some examples, held; ``of`` so many of which they are a part, None for all there are."""
        weights = self.sample_weight
        return replace(
            self,
            inputs=rows_of(self.inputs, examples),
            targets=rows_of(self.targets, examples),
            sample_weight=None if weights is None else rows_of(weights, examples),
            part_of=of,
        )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The dense layers, each with its activation."""
        return self.graph.layers

    @property
    def parameter_count(self) -> int:
        return sum(int(tensor.size) for tensor in self.graph.tensors.values())

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The layers that have parameters, from the input on."""
        return tuple(self.graph.layer_tensors)

    @property
    def trainable_layers(self) -> tuple[str, ...]:
        """The layers of the block ``network``, in order: those that are not frozen."""
        return tuple(name for name in self.layer_names if name not in self.frozen)

    @property
    def outputs(self) -> int:
        """How many numbers the network gives for an example."""
        return self.graph.nodes[-1].shape[-1]

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of what has parameters, from the input to the output, as in 784-30-30-10."""
        graph = self.graph
        of_nodes = (math.prod(node.shape) for node in graph.nodes if node.tensors)
        return (math.prod(graph.input_shape), *of_nodes)

    def layer_index(self, name: str) -> int:
        """The position of the layer called ``name``; raises KeyError if there is none."""
        try:
            return self.layer_names.index(name)
        except ValueError:
            raise KeyError(name) from None

    @property
    def hidden_activation(self) -> str:
        """The hidden activation's name; several different ones are joined by commas."""
        every = [node.activation for node in self.graph.nodes if node.activation is not None]
        names = dict.fromkeys(map(str, self.graph.hidden.values() or every))
        return ",".join(names) or "linear"

    def with_activation(self, activation: Activation) -> Problem:
        """The same parameters and batch with every hidden activation replaced."""
        return replace(self, graph=self.graph.with_activation(activation))


def rows_of(rows: Array | StoredInputs, chosen: slice | NDArray[np.intp]) -> Array:
    """Some of the examples, as an array; those that are stored are read."""
    if isinstance(rows, StoredInputs):
        return rows[chosen]
    return rows[chosen, ...] if isinstance(chosen, slice) else xp.take(rows, chosen, axis=0)
