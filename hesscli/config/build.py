"""A Config into the Problem that it describes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from hesscli.config.consistency import require_consistent
from hesscli.config.ending import Ending, ending_of, is_compiled
from hesscli.config.kerasmodel import network_of
from hesscli.config.parameters import drawn_parameters, parameters_of
from hesscli.config.schema import Config, DataConfig, ModelConfig
from hesscli.problem import graph as kinds
from hesscli.problem.data import (
    Dataset,
    Scale,
    labels,
    load_dataset,
    preparation,
    select_order,
    to_inputs,
)
from hesscli.problem.execution import fits
from hesscli.problem.graph import Activation, Array, Graph, Layer, Node, Penalty, chain
from hesscli.problem.keras_layers import KerasNetwork
from hesscli.problem.keras_losses import serialized
from hesscli.problem.layers import ACTIVITY, LINEAR
from hesscli.problem.names import NORMALIZE, SYMMETRIC
from hesscli.problem.network import Loss, Original, Problem, Targets
from hesscli.problem.problemfile import read_penalties
from hesscli.problem.registry import is_untold
from hesscli.problem.stored import StoredInputs, places
from hesscli.problem.targets import fit_targets, smoothed
from hesscli.problem.weights import example_weights, require_weights, stored_weights
from hesscli.system.errors import InputError
from hesscli.system.memory import (
    examples_memory,
    parse_size,
)
from hesscli.system.takes import ConfigKeyError
from hesscli.workers.share import ALONE, Workers, share_of

# How pixels may have been prepared for a model, as data.scale says it.
_SCALES: Mapping[str, Scale] = MappingProxyType(
    {"1": 1.0, "0.00392156862745098": 1 / 255, SYMMETRIC: SYMMETRIC, NORMALIZE: NORMALIZE}
)


def with_hidden_activation(config: Config, activation: Activation) -> Config:
    """``config`` with the activation of every layer but the last replaced."""
    layers = config.model.layers
    plain = all(layer.is_plain for layer in layers)
    hidden = tuple(
        # Elsewhere a layer without an activation is meant to have none.
        replace(layer, activation=activation) if plain or layer.activation != LINEAR else layer
        for layer in layers[:-1]
    )
    return replace(config, model=replace(config.model, layers=(*hidden, layers[-1])))


def build_problem(
    config: Config, examples: Dataset | None = None, workers: Workers = ALONE
) -> Problem:
    """The network, parameters and batch of ``config``; raises InputError if they do not fit.

    ``examples``, if given, stand in place of those that ``config.data`` names. Of several
    ``workers`` each gets its share of the batch. Inputs that do not fit ``data.memory`` at once
    stay stored.
    """
    dtype = np.dtype(config.dtype)
    data = config.data
    try:
        require_consistent(config)
    except ConfigKeyError as error:
        raise InputError(str(error)) from None
    dataset = _dataset(data) if examples is None else examples
    size = None if data.batch_size == "all" else data.batch_size
    whole = select_order(dataset, size, data.offset, data.shuffle, config.seed)
    if len(whole) < workers.count:
        raise InputError(
            f"data.batch_size: {len(whole)} examples for {workers.count} processes; each needs one "
            "at least"
        )
    order = whole[share_of(len(whole), workers)]
    model = config.model
    keras = None if model.keras is None else network_of(model.keras, model.registered_names)
    width = int(dataset.inputs.shape[1])
    if width != config.model.width:
        shape = config.model.input_shape
        given = config.model.inputs if len(shape) == 1 else list(shape)
        raise InputError(
            f"model.inputs: {given}; {dataset.name} has examples of "
            f"{width} values, so it must be {width}"
        )
    read = to_inputs if keras is None or dataset.is_batch else keras.network_inputs
    convert = partial(read, dtype=dtype, scale=data.scale)
    memory = _memory(data, workers.here)
    stored = StoredInputs(dataset.inputs, order, convert, width, dtype, memory)
    plan = config.model.plan()
    widths = (width, *(math.prod(node.shape) for node in plan.nodes if node.tensors))
    held = fits(len(order), widths, dtype.itemsize, memory)
    targets = labels(dataset.targets[places(order)])
    arrays = parameters_of(config.model, keras, config.seed, dtype)
    layers = config.model.layers
    notes: tuple[str, ...] = ()
    ending = Ending(layers)
    if keras is not None:
        ending = ending_of(layers, keras, config.loss)
        notes = _keras_notes(keras, ending.of_loss, config.loss, dataset)
    last = ending.layers[-1]
    origin = f"data.source: {dataset.name}" if data.inputs is None else "data.targets"
    where = f"{origin}: for {last.name} and loss {config.loss.name}"
    found = _penalties(config)
    graph = _graph(config, ending, arrays, found)
    penalties = {
        name: of for name, of in found.items() if name in graph.tensors and of != Penalty()
    }
    if not config.loss.regularization:
        notes = (*notes, *_left_out([*penalties, *_activities(config.model, ending, found)]))
    fitted = fit_targets(targets, config.loss.name, graph.nodes[-1].shape[-1], dtype, where)
    of_all = dataset.sample_weight
    own = None if of_all is None else of_all[places(order)]
    weights = example_weights(config.loss, own, fitted, graph.nodes[-1].shape[-1])
    if config.loss.of_class is not None:
        part = f"only the examples of class {config.loss.of_class} have a loss (loss.of_class)"
        notes = (*notes, part)
    elif weights is not None:
        key = "data.sample_weight" if config.loss.class_weight is None else "loss.class_weight"
        notes = (*notes, f"the loss of each example is multiplied by its weight ({key})")
    original = None
    if keras is not None:
        as_given = keras.before_rescaling if dataset.is_batch else keras.model_inputs
        convert = partial(as_given, dtype=dtype, scale=data.scale)
        inputs = replace(stored, convert=convert)
        original = _original(config, keras, arrays, inputs, fitted, found)
        if not dataset.is_batch and dataset.inputs.dtype.kind in "iu":
            original = replace(
                original,
                prepared_otherwise={
                    text: replace(stored, convert=partial(read, dtype=dtype, scale=scale))
                    for text, scale in _SCALES.items()
                    if scale != data.scale
                },
            )
    return Problem(
        graph=graph,
        inputs=stored[:] if held else stored,
        targets=smoothed(fitted, config.loss),
        loss=config.loss,
        seed=config.seed,
        notes=notes,
        weights=config.model.weights if keras is None else keras.path,
        part_of=None if workers.count == 1 else len(whole),
        penalties=penalties if config.loss.regularization else {},
        original=original,
        frozen=tuple(layer.name for layer in config.model.layers if not layer.trainable),
        prepared=_prepared(dataset, keras, data.scale),
        sample_weight=None if weights is None else weights.astype(dtype),
    )


def _prepared(dataset: Dataset, keras: KerasNetwork | None, scale: Scale) -> str:
    """How the inputs were prepared, in words."""
    kind = dataset.inputs.dtype
    if keras is None or keras.rescaling is None or dataset.is_batch:
        return preparation(kind, scale)
    factor, offset = keras.rescaling
    shift = f" {'−' if offset < 0 else '+'} {abs(offset):g}" if offset else ""
    return f"{preparation(kind, scale or 1)}, then its Rescaling ({factor:g}·x{shift})"


def _penalties(config: Config) -> dict[str, Penalty]:
    """The regularizers by tensor or value, ``<layer>/activity`` for the values of a layer.

    Those of the configuration stand before those of a problem file. They may be left out of the
    loss.
    """
    model = config.model
    found = {} if model.weights is None else read_penalties(model.weights)
    return found | {
        f"{layer.name}/{role}": penalty
        for layer in model.layers
        for role, penalty in layer.penalties().items()
    }


def _activities(
    model: ModelConfig, ending: Ending, penalties: Mapping[str, Penalty]
) -> dict[str, Penalty]:
    """The penalties on the values of the graph: one for each use of a layer."""
    plan = replace(model, layers=ending.layers).plan()
    own: dict[str, Penalty] = {}
    for layer, values in plan.outputs.items():
        of = penalties.get(f"{layer}/{ACTIVITY}")
        if of is not None:
            own |= {value: own.get(value, Penalty()) + of for value in values}
    found = {name: penalties[name] for name in plan.values if name in penalties}
    return {name: of for name, of in {**found, **own}.items() if of != Penalty()}


def _left_out(penalties: Collection[str]) -> tuple[str, ...]:
    """The note about regularizers that are left out."""
    layers = dict.fromkeys(name.partition("/")[0] for name in penalties)
    if not layers:
        return ()
    return (f"the regularizers of {', '.join(layers)} are left out (loss.regularization: false)",)


def redrawn(problem: Problem, model: ModelConfig, seed: int) -> Problem:
    """``problem`` with the parameters that ``model``'s initializers draw with ``seed``.

    They are those that ``build_problem`` draws; batch and activations stay as they are.
    ``model`` must have the problem's shapes. Raises InputError if a parameter leaves the range
    of the problem's dtype.
    """
    drawn = drawn_parameters(model, seed, problem.dtype)
    tensors = {name: drawn[name] for name in problem.graph.tensors}
    return replace(problem, graph=problem.graph.with_tensors(tensors), seed=seed)


def _memory(data: DataConfig, processes: int) -> int:
    """The bytes that the examples of one of ``processes`` may take at a time."""
    limit = parse_size(data.memory) if isinstance(data.memory, str) else data.memory
    return examples_memory() // processes if limit is None else limit


def _dataset(data: DataConfig) -> Dataset:
    if data.inputs is not None:
        inputs = np.array(data.inputs)
        # A loss that looks at no targets takes any.
        targets = np.zeros(len(inputs), dtype=np.int64)
        if data.targets is not None:
            targets = np.array(data.targets)
        return _weighted(Dataset(inputs, targets, "data.inputs", is_batch=True), data.sample_weight)
    try:
        dataset = load_dataset(data.source, data.split)
        assert data.sample_weight is None or isinstance(data.sample_weight, str)  # as was checked
        return _weighted(dataset, stored_weights(data.source, data.sample_weight))
    except InputError as error:
        raise InputError(_with_key("data.source", str(error))) from error


def _weighted(dataset: Dataset, weights: ArrayLike | None) -> Dataset:
    if weights is None:
        return dataset
    own = require_weights(weights, dataset.examples, "data.sample_weight")
    return replace(dataset, sample_weight=own)


def _with_key(key: str, text: str) -> str:
    return text if text.startswith("data.") else f"{key}: {text}"


def _graph(
    config: Config,
    ending: Ending,
    arrays: Mapping[str, Array],
    penalties: Mapping[str, Penalty],
) -> Graph:
    """The nodes, with the penalties on their values if these are part of the loss."""
    graph = _nodes(config.model, ending, arrays)
    if not config.loss.regularization:
        return graph
    return replace(graph, activities=_activities(config.model, ending, penalties))


def _nodes(model: ModelConfig, ending: Ending, arrays: Mapping[str, Array]) -> Graph:
    """The nodes of the layers, and a softmax behind them if there is one."""
    layers = ending.layers
    if all(layer.is_plain for layer in layers) and isinstance(model.inputs, int):
        dense = [
            Layer(
                layer.name,
                arrays[f"{layer.name}/kernel"],
                arrays.get(f"{layer.name}/bias"),
                layer.activation,
            )
            for layer in layers
        ]
        return chain(dense, ending.softmax)
    graph = replace(model, layers=layers).plan().graph(arrays)
    last = graph.nodes[-1]
    if len(last.shape) != 1:
        raise InputError(
            f"model.layers: {last.layer} gives values of shape {last.shape} in the end; the loss "
            "takes vectors, so flatten or pool them"
        )
    if not ending.softmax:
        return graph
    softmax = Node(f"{last.layer}/{kinds.SOFTMAX}", kinds.SOFTMAX, (last.name,), last.shape)
    return replace(graph, nodes=(*graph.nodes, softmax))


def _original(
    config: Config,
    keras: KerasNetwork,
    arrays: Mapping[str, Array],
    inputs: StoredInputs,
    targets: Targets,
    penalties: Mapping[str, Penalty],
) -> Original:
    """The model as it is: the configured activations may be others, which the user chose."""
    loss, both = config.loss, zip(config.model.layers, keras.layers, strict=True)
    own = tuple(replace(layer, activation=of_keras.activation) for layer, of_keras in both)
    ending = ending_of(own, keras, loss)
    of_loss = serialized(loss, from_logits=ending.folded is None)
    return Original(
        path=keras.path,
        graph=_graph(config, ending, arrays, penalties),
        shape=keras.shape,
        inputs=inputs,
        targets=targets,
        layers={layer.name: layer.keras_name for layer in keras.layers},
        loss=keras.serialized_loss if is_compiled(keras, loss) else of_loss,
        folded=ending.folded,
        prepared_otherwise={},
        plugins=keras.plugins,
    )


def _keras_notes(
    keras: KerasNetwork, of_loss: str, loss: Loss, dataset: Dataset
) -> tuple[str, ...]:
    notes: list[str] = []
    penalized = [layer.name for layer in keras.layers if layer.penalties]
    if penalized and loss.regularization:
        notes.append(f"the regularizers of {', '.join(penalized)} are part of the loss")
    for registered, name in keras.plugins.items():
        notes.append(f"{registered} is the plugin's {name}: the file contains its name only")
    untold = [name for name in keras.plugins.values() if is_untold(name)]
    if untold:
        notes.append(
            f"Keras's own model is not evaluated: {', '.join(untold)} without TensorFlow function"
        )
    if keras.rescaling is not None and dataset.is_batch:
        notes.append(f"its Rescaling is not applied: {dataset.name} holds a network's own inputs")
    return tuple(f"{keras.path}: {note}" for note in (*notes, of_loss))
