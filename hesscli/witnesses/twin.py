"""Keras's own model, evaluated by Keras: what a Problem made of it must agree with.

The twin is the model's configuration with its dtype replaced, and its weights. Nothing of the
user's runs but the functions that a live model holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import isfunction
from types import ModuleType
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np

from hesscli.problem.graph import Array
from hesscli.problem.keras_formats import is_json, weights_beside
from hesscli.problem.keras_layers import OTHER_NAMES
from hesscli.problem.network import Problem, Targets
from hesscli.system.errors import InputError, reason
from hesscli.system.files import expanded, opened
from hesscli.system.quiet import silenced
from hesscli.system.tensorflow import load_keras, load_tensorflow
from hesscli.witnesses.twinned import custom_objects

Tensor = Any
# What decides nothing about a model whose weights are given, and could name anything.
_UNUSED = re.compile(r".*_(initializer|constraint)|build_config|compile_config")


class KerasBatch(NamedTuple):
    """The model's inputs (N, …) and targets; w₁ times the loss plus w₂ times the penalties.

    ``of_examples`` (N,) is what Keras calls ``sample_weight``. ``as_logits`` takes the loss of the
    outputs as they are, although Keras on TensorFlow takes a softmax off that it knows of.
    """

    inputs: Array
    targets: Targets
    weights: tuple[float, float]
    of_examples: Array | None
    as_logits: bool


@dataclass(frozen=True)
class Differentiated:
    """Keras's own model on the batch of ``problem``, whose Hessian it has.

    ``paths`` are Keras's of the problem's tensors.
    """

    twin: KerasTwin
    batch: KerasBatch
    problem: Problem
    paths: Mapping[str, str]

    def is_of(self, problem: Problem) -> bool:
        """Whether ``problem`` is still the one, and nothing of it has been replaced."""
        own = self.problem
        same = problem.graph is own.graph and problem.penalties is own.penalties
        return (
            same
            and problem.loss == own.loss
            and problem.part_of == own.part_of
            and _is_same(problem.inputs, own.inputs)
            and _is_same(problem.targets, own.targets)
            and _is_same(problem.sample_weight, own.sample_weight)
        )


def _is_same(one: Any, other: Any) -> bool:
    """Whether two arrays are views of the same numbers, without a look at them."""
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return one is other
    views = (one, one.ctypes.data), (other, other.ctypes.data)
    (shape, at), (other_shape, other_at) = ((of.shape, address) for of, address in views)
    return bool(shape == other_shape and at == other_at)


class KerasTwin:
    """A model in the floating-point type ``dtype``, with a loss as Keras describes it.

    ``model`` is the path of a model that Keras saved, or a live ``keras.Model``. ``loss`` None
    leaves the loss out. ``plugins`` are the plugins' names of what a file has registered. Raises
    InputError if Keras cannot make the model.
    """

    def __init__(
        self, model: Any, dtype: str, loss: Any, plugins: Mapping[str, str] | None = None
    ) -> None:
        self.tf = load_tensorflow()
        keras = self._keras = load_keras()
        try:
            with silenced(), catch_warnings():
                # Keras 3 is not quite NumPy 2's where it reads weights.
                simplefilter("ignore")
                objects: dict[str, Any] = {}
                if isinstance(model, str):
                    functions = {
                        name: getattr(keras.activations, own) for name, own in OTHER_NAMES.items()
                    }
                    objects = custom_objects(keras, plugins or {})
                    model = _loaded(keras, model, functions | objects)
                with keras.saving.custom_object_scope(
                    {**objects, **{of.__name__: of for of in objects.values()}}
                ):
                    self.model = _twin(keras, model, dtype)
                self._loss = None if loss is None else _loss(keras, loss, dtype)
        # Whatever Keras raises on what it cannot make.
        except Exception as error:
            raise InputError(f"Keras cannot make the model ({reason(error)})") from error

    def outputs(self, inputs: Array) -> Array:
        """The model's outputs (N, c) for its own inputs (N, …)."""
        return np.asarray(self._called(inputs))

    def loss_and_gradient(self, batch: KerasBatch) -> tuple[float, dict[str, Array]]:
        """The loss of a batch, and its gradient by weights' paths."""
        parameters = self._parameters
        with self.tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            loss = self._total(batch)
        found = tape.gradient(loss, parameters, unconnected_gradients="zero")
        return float(loss), {path: np.asarray(g) for path, g in found.items()}

    def product(self, batch: KerasBatch, directions: Mapping[str, Array]) -> dict[str, Array]:
        """The Hessian's product with directions by weights' paths, at the same weights."""
        tf, every = self.tf, self._parameters
        moved = {path: every[path] for path in directions}
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(moved)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(moved)
                loss = self._total(batch)
            slopes = inner.gradient(loss, moved, unconnected_gradients="zero")
        along = {path: tf.constant(v) for path, v in directions.items()}
        found = outer.gradient(slopes, moved, along, unconnected_gradients="zero")
        return {path: np.asarray(product) for path, product in found.items()}

    @property
    def _parameters(self) -> dict[str, Any]:
        weights = [w for w in self.model.weights if "float" in str(w.dtype)]
        return {weight.path: weight.value for weight in weights}

    def _total(self, batch: KerasBatch) -> Tensor:
        assert self._loss is not None
        f = self._called(batch.inputs)
        f = self.tf.identity(f) if batch.as_logits else f
        of_data, of_penalties = batch.weights
        loss = of_data * self.tf.reduce_mean(self._loss(batch.targets, f, batch.of_examples))
        if of_penalties and self.model.losses:
            loss = loss + of_penalties * self.tf.add_n(self.model.losses)
        return loss

    def layer_outputs(self, inputs: Array) -> Iterator[tuple[str, Array]]:
        """(name, value) of each layer in order, those of models within the model included."""
        yield from self._within(self.model, self.tf.constant(inputs))

    def _within(self, model: Any, x: Tensor) -> Iterator[tuple[str, Array]]:
        layers = model.layers
        tensors = {layer.name: (layer.input, layer.output) for layer in layers}
        with silenced():
            values = self._keras.Model(model.inputs, list(tensors.values()))(x)
        for layer, (own, value) in zip(layers, values, strict=True):
            if hasattr(layer, "layers"):
                yield from self._within(layer, own)
            else:
                yield layer.name, np.asarray(value)

    def _called(self, inputs: Array) -> Tensor:
        return self.model(self.tf.constant(inputs), training=False)


def _loaded(keras: ModuleType, path: str, functions: Mapping[str, Any]) -> Any:
    if not is_json(path):
        return keras.models.load_model(expanded(path), functions, compile=False, safe_mode=True)
    with opened(path, "a model as JSON is needed") as stream:
        model = keras.models.model_from_json(stream.read().decode("utf-8"), functions)
    model.load_weights(expanded(weights_beside(path)))
    return model


def _loss(keras: ModuleType, serialized: Any, dtype: str) -> Any:
    if isinstance(serialized, Mapping) and isinstance(serialized["config"], Mapping):
        serialized = {**serialized, "config": {**serialized["config"], "dtype": dtype}}
    loss = keras.losses.get(serialized)
    if isinstance(loss, keras.losses.Loss):
        return loss
    # A function, of each example.
    return lambda targets, f, weights: loss(targets, f) * (1 if weights is None else weights)


def _twin(keras: ModuleType, model: Any, dtype: str) -> Any:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        twin = type(model).from_config(_in_dtype(model.get_config(), dtype))
        if not twin.built:
            twin.build(model.input_shape)
    finally:
        keras.config.set_dtype_policy(before)
    twin.set_weights(model.get_weights())
    for layer in _flat(twin):
        if hasattr(layer, "finalize_state"):
            # A Normalization computes with what it makes of its weights.
            layer.finalize_state()
    # A live model's own functions: its configuration has only their names.
    for own, other in zip(_flat(model), _flat(twin), strict=True):
        if isfunction(getattr(own, "activation", None)):
            other.activation = own.activation
    return twin


def _flat(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _flat(layer)
        else:
            yield layer


def _in_dtype(serialized: Any, dtype: str) -> Any:
    """A Keras description that computes in ``dtype``, without the keys that are not needed."""
    if isinstance(serialized, Mapping):
        found = {
            key: _in_dtype(inner, dtype)
            for key, inner in serialized.items()
            if not _UNUSED.fullmatch(str(key))
        }
        return {**found, "dtype": dtype} if "dtype" in found else found
    if isinstance(serialized, list | tuple):
        return type(serialized)(_in_dtype(inner, dtype) for inner in serialized)
    return serialized
