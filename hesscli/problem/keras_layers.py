"""The description of a Keras 3 model, as ``config.json`` holds it, as a chain of dense layers.

Nothing that it names is imported, built or called. Keras files a layer's numbers under its class
and its place among the layers of that class (``layers/dense``, ``layers/dense_1`` …), as
``keras.src.saving.saving_lib`` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from hesscli.problem.data import Scale, require_pixels, to_inputs
from hesscli.problem.graph import Activation, Array
from hesscli.problem.keras_losses import (
    UnknownLossError,
    compiled_loss,
    is_keras_own,
    serialized_loss,
)
from hesscli.problem.names import RESERVED_NAMES
from hesscli.problem.network import Loss, Penalty
from hesscli.problem.npz import RawArray
from hesscli.system.errors import InputError

SOFTMAX, SIGMOID = "softmax", "sigmoid"

_SUPPORTED = (
    "supported are InputLayer, Flatten, Rescaling, Dense, Activation, ReLU, LeakyReLU, ELU, "
    "Dropout, and a Softmax at the end"
)
_LINEAR = Activation("linear")
# Keras's elementwise functions that are ours by the same name.
_FUNCTIONS = (
    "linear",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "mish",
    SIGMOID,
    "tanh",
    "softplus",
    "softsign",
    "exponential",
)
_DTYPES = ("float32", "float64")
# Keras's regularizers that have a name, with their defaults.
_REGULARIZERS = {"l1": {"l1": 0.01}, "l2": {"l2": 0.01}, "l1_l2": {"l1": 0.01, "l2": 0.01}}
_MODELS = ("Sequential", "Functional")


@dataclass(frozen=True)
class KerasLayer:
    """One Dense layer and the activation after it.

    ``keras_name`` is what the model calls it, ``group`` where its numbers are stored;
    ``penalties`` are its regularizers by role, kernel and bias. ``trainable`` is False of a frozen
    one.
    """

    name: str
    keras_name: str
    inputs: int
    units: int
    bias: bool
    activation: Activation
    group: str
    penalties: Mapping[str, Penalty]
    trainable: bool = True

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of its tensors by role, in the order that Keras stores them in."""
        shapes: dict[str, tuple[int, ...]] = {"kernel": (self.inputs, self.units)}
        return {**shapes, "bias": (self.units,)} if self.bias else shapes


@dataclass(frozen=True)
class KerasNetwork:
    """The layers of a model, without their numbers.

    ``shape`` is that of one example of its inputs. ``rescaling`` is the (scale, offset) of what
    the model does to its inputs first, None where it does nothing; ``softmax`` says whether a
    softmax at the end was left out of ``layers``. ``loss`` is the one that the model was compiled
    with, None where it was saved without one, or the name of one that has no counterpart here;
    ``serialized_loss`` is as Keras describes it.
    """

    path: str
    shape: tuple[int, ...]
    layers: tuple[KerasLayer, ...]
    rescaling: tuple[float, float] | None
    softmax: bool
    loss: Loss | str | None
    serialized_loss: Any

    @property
    def inputs(self) -> int:
        return self.layers[0].inputs

    @property
    def has_bias(self) -> bool:
        """Whether any layer has one."""
        return any(layer.bias for layer in self.layers)

    def network_inputs(self, selected: RawArray, dtype: DTypeLike, scale: Scale = None) -> Array:
        """Examples (N, ...) as the first Dense layer sees them, (N, d).

        A model with a Rescaling gets integer pixels as they are stored, 0 to 255; one without
        gets them scaled into [0, 1]. Floating-point numbers are given to the model as they are. A
        ``scale`` is what the model's own inputs are multiplied by instead.
        """
        inputs = self.model_inputs(selected, dtype, scale)
        if self.rescaling is None:
            return inputs
        factor, offset = self.rescaling
        return np.asarray(inputs * factor + offset).astype(np.dtype(dtype), copy=False)

    def model_inputs(self, selected: RawArray, dtype: DTypeLike, scale: Scale = None) -> Array:
        """Examples (N, ...) as the model itself takes them, but flat, (N, d)."""
        if self.rescaling is not None and scale is None and selected.dtype.kind in "iu":
            selected, scale = require_pixels(selected), 1.0
        return to_inputs(selected, dtype, scale)

    def before_rescaling(self, selected: RawArray, dtype: DTypeLike, scale: Scale = None) -> Array:
        """What the model takes, given what its first Dense layer shall see."""
        factor, offset = self.rescaling or (1.0, 0.0)
        return np.asarray((to_inputs(selected, dtype, scale) - offset) / factor, dtype=dtype)


def described(document: Mapping[str, Any], path: str) -> KerasNetwork:
    """The layers that a ``config.json`` describes, of the model ``path``.

    Raises InputError for what is no chain of supported layers, and what a document of another
    form leads to: LookupError, TypeError, ValueError, AttributeError or RecursionError.
    """
    kind, config = document["class_name"], document["config"]
    if kind not in _MODELS or document.get("registered_name") not in (
        None,
        kind,
    ):
        raise InputError(
            f"{path}: the model is a {kind}; a Sequential model, or a Functional one that is a "
            "chain of layers, is needed"
        )
    layers = config["layers"]
    shape = _input_shape(layers, config, document, path)
    chain = _Chain(path, shape)
    for layer, group in _flat(kind, layers, path):
        chain.add(layer, group)
    if not chain.layers:
        raise InputError(f"{path}: no Dense layer in it; at least one is needed")
    try:
        loss: Loss | str | None = compiled_loss(document)
    except UnknownLossError as error:
        loss = str(error)
    softmax = chain.softmax is not None
    return KerasNetwork(
        path,
        shape,
        tuple(chain.layers),
        chain.rescaling,
        softmax,
        loss,
        serialized_loss(document),
    )


def _flat(
    kind: str, layers: Sequence[Any], path: str, above: str = ""
) -> Iterator[tuple[Any, str]]:
    """The layers from the input on, and where Keras stores the numbers of each.

    Those of a model within the model stand in its place.
    """
    groups: dict[str, str] = {}
    counted: dict[str, int] = {}
    for layer in layers:
        name = layer["class_name"].lower()
        count = counted[name] = counted.get(name, -1) + 1
        groups[layer["config"]["name"]] = f"{above}layers/{name}{f'_{count}' if count else ''}/"
    for layer in layers if kind == "Sequential" else _in_order(layers, path):
        group = groups[layer["config"]["name"]]
        if layer["class_name"] in _MODELS and is_keras_own(layer):
            yield from _flat(layer["class_name"], layer["config"]["layers"], path, group)
        else:
            yield layer, f"{group}vars"


def _input_shape(
    layers: Sequence[Any], config: Mapping[str, Any], document: Mapping[str, Any], path: str
) -> tuple[int, ...]:
    """The shape of one example."""
    batch_shape = config.get("build_input_shape")
    batch_shape = batch_shape or (document.get("build_config") or {}).get("input_shape")
    for layer in layers:
        if layer["class_name"] == "InputLayer":
            own = layer["config"]
            batch_shape = own["batch_shape"] if "batch_shape" in own else own["batch_input_shape"]
    if batch_shape is None:
        raise InputError(f"{path}: the model was saved before it was built; train or build it")
    shape = tuple(batch_shape[1:])
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(
            f"{path}: the model takes inputs of shape {tuple(batch_shape)}; every size but the "
            "first must be known"
        )
    return shape


def _in_order(layers: Sequence[Any], path: str) -> list[Any]:
    """The layers of a functional model from its input on; raises InputError for a branch."""
    refused = InputError(
        f"{path}: the model is not a chain: each layer must take the one before it, and once"
    )
    after: dict[str, Any] = {}
    for layer in layers:
        sources = list(_sources(layer["inbound_nodes"]))
        if len(sources) != (0 if layer["class_name"] == "InputLayer" else 1):
            raise refused
        for source in sources:
            if source in after:
                raise refused
            after[source] = layer
    ordered = [layer for layer in layers if layer["class_name"] == "InputLayer"][:1]
    while ordered and ordered[-1]["config"]["name"] in after:
        ordered.append(after.pop(ordered[-1]["config"]["name"]))
    if len(ordered) != len(layers):
        raise refused
    return ordered


def _sources(nodes: Any) -> Iterator[str]:
    """The names of the layers whose outputs a layer takes, once for each time it does."""
    if isinstance(nodes, Mapping):
        if nodes.get("class_name") == "__keras_tensor__":
            yield nodes["config"]["keras_history"][0]
        else:
            for inner in nodes.values():
                yield from _sources(inner)
    elif isinstance(nodes, list):
        for inner in nodes:
            yield from _sources(inner)


class _Chain:
    """Dense layers as they are gathered, layer by layer of the Keras model."""

    def __init__(self, path: str, shape: tuple[int, ...]) -> None:
        self.path = path
        self.shape = shape
        self.layers: list[KerasLayer] = []
        self.rescaling: tuple[float, float] | None = None
        # The label of the layer whose softmax stands at the end, as far as is known.
        self.softmax: str | None = None

    def add(self, layer: Mapping[str, Any], group: str) -> None:
        kind, config = layer["class_name"], layer["config"]
        label = f"layer {config['name']!r}"
        add = _KINDS.get(kind)
        if add is None or not is_keras_own(layer):
            raise self._refused(f"{label} is a {kind}; {_SUPPORTED}")
        policy = _policy(config.get("dtype"))
        if kind != "InputLayer" and policy not in _DTYPES:
            raise self._refused(
                f"{label} computes in {policy}; supported are {' and '.join(_DTYPES)}"
            )
        add(self, label, config, group)

    def nothing(self, label: str, config: Mapping[str, Any], group: str) -> None:
        """An InputLayer, or a Dropout, which does nothing at inference."""

    def flatten(self, label: str, config: Mapping[str, Any], _: str) -> None:
        if len(self.shape) > 1 and config.get("data_format") == "channels_first":
            raise self._refused(f"{label} has data_format channels_first; channels_last is needed")
        self.shape = (math.prod(self.shape),)

    def rescale(self, label: str, config: Mapping[str, Any], _: str) -> None:
        if self.layers:
            raise self._refused(f"{label} is a Rescaling after a Dense; it must come before them")
        scale, offset = config["scale"], config["offset"]
        if not (_is_number(scale) and _is_number(offset)):
            raise self._refused(f"{label} has a scale or offset that is not one finite number")
        before = self.rescaling or (1.0, 0.0)
        self.rescaling = (before[0] * scale, before[1] * scale + offset)

    def dense(self, label: str, config: Mapping[str, Any], group: str) -> None:
        self._refuse_after_softmax(label)
        if len(self.shape) != 1:
            raise self._refused(f"{label} gets inputs of shape {self.shape}; Flatten them first")
        units = config["units"]
        if not isinstance(units, int) or units < 1:
            raise ValueError(f"units {units!r}")
        name = _free_name(config["name"], [other.name for other in self.layers])
        bias = bool(config["use_bias"])
        trainable = config.get("trainable", True) is not False
        self.layers.append(
            KerasLayer(
                name,
                config["name"],
                self.shape[0],
                units,
                bias,
                _LINEAR,
                group,
                # As in Keras, which regularizes what it trains.
                self._penalties(label, config) if trainable else {},
                trainable,
            )
        )
        self.shape = (units,)
        self._activate(label, self._function(label, config.get("activation")))

    def _penalties(self, label: str, config: Mapping[str, Any]) -> Mapping[str, Penalty]:
        if config.get("activity_regularizer") is not None:
            raise self._refused(f"{label} has an activity_regularizer, which is not supported")
        found = {role: config.get(f"{role}_regularizer") for role in ("kernel", "bias")}
        return {
            role: self._penalty(f"{label}: {role}_regularizer", given)
            for role, given in found.items()
            if given is not None
        }

    def _penalty(self, label: str, given: Any) -> Penalty:
        if isinstance(given, str):
            numbers = _REGULARIZERS.get(given)
        else:
            own = is_keras_own(given) and given["class_name"] in ("L1", "L2", "L1L2")
            numbers = given["config"] if own else None
        if (
            not isinstance(numbers, Mapping)
            or not set(numbers) <= {"l1", "l2"}
            or not all(_is_number(value) for value in numbers.values())
        ):
            raise self._refused(f"{label} {given!r} is not supported; L1, L2 and L1L2 are")
        return Penalty(**{key: float(value) for key, value in numbers.items()})

    def activation(self, label: str, config: Mapping[str, Any], _: str) -> None:
        self._activate(label, self._function(label, config["activation"]))

    def relu(self, label: str, config: Mapping[str, Any], _: str) -> None:
        self._activate(label, self._relu(label, config))

    def leaky_relu(self, label: str, config: Mapping[str, Any], _: str) -> None:
        self._activate(label, _leaky_relu(config))

    def elu(self, label: str, config: Mapping[str, Any], _: str) -> None:
        self._activate(label, _elu(config))

    def softmax_layer(self, label: str, config: Mapping[str, Any], _: str) -> None:
        self._require_last_axis(label, config)
        self._activate(label, Activation(SOFTMAX))

    def _require_last_axis(self, label: str, config: Mapping[str, Any]) -> None:
        if config.get("axis", -1) not in (-1, 1, [-1], [1]):
            raise self._refused(f"{label} has axis {config['axis']}; it must be -1")

    def _function(self, label: str, value: Any) -> Activation:
        """The activation that a ``activation=`` argument holds, a name or a serialized object."""
        if value is None:
            return _LINEAR
        if isinstance(value, Mapping):
            kind, inner = value["class_name"], value.get("config")
            if is_keras_own(value) and kind == "LeakyReLU":
                return _leaky_relu(inner or {})
            if is_keras_own(value) and kind == "ELU":
                return _elu(inner or {})
            if is_keras_own(value) and kind == "ReLU":
                return self._relu(label, inner or {})
            if is_keras_own(value) and kind == "Softmax":
                self._require_last_axis(label, inner or {})
                return Activation(SOFTMAX)
            name = inner if isinstance(inner, str) else kind
            known = is_keras_own(value) and name in (*_FUNCTIONS, SOFTMAX)
        else:
            name, known = value, value in (*_FUNCTIONS, SOFTMAX)
        if known:
            return Activation(name)
        raise self._refused(
            f"{label} has activation {name!r}; supported are {', '.join(_FUNCTIONS)}, and a "
            "softmax at the end"
        )

    def _relu(self, label: str, config: Mapping[str, Any]) -> Activation:
        if config.get("max_value") is not None or config.get("threshold"):
            raise self._refused(f"{label} is a ReLU with max_value or threshold; use one without")
        slope = config.get("negative_slope") or 0.0
        return _leaky_relu({"negative_slope": slope}) if slope else Activation("relu")

    def _activate(self, label: str, activation: Activation) -> None:
        if activation == _LINEAR:
            return
        self._refuse_after_softmax(label)
        if not self.layers:
            raise self._refused(
                f"{label} is an activation ({activation}) before the first Dense; it must follow "
                "a Dense"
            )
        last = self.layers[-1]
        if activation.name == SOFTMAX:
            self.softmax = label
        elif last.activation != _LINEAR:
            raise self._refused(
                f"{label} is a second activation ({activation}) after {last.activation}; one "
                "after each Dense is supported"
            )
        else:
            self.layers[-1] = replace(last, activation=activation)

    def _refuse_after_softmax(self, label: str) -> None:
        if self.softmax is not None:
            raise self._refused(
                f"{self.softmax} is a softmax before {label}; it is supported at the end only"
            )

    def _refused(self, text: str) -> InputError:
        return InputError(f"{self.path}: {text}")


_KINDS: Mapping[str, Callable[[_Chain, str, Mapping[str, Any], str], None]] = MappingProxyType(
    {
        "InputLayer": _Chain.nothing,
        "Dropout": _Chain.nothing,
        "Flatten": _Chain.flatten,
        "Rescaling": _Chain.rescale,
        "Dense": _Chain.dense,
        "Activation": _Chain.activation,
        "ReLU": _Chain.relu,
        "LeakyReLU": _Chain.leaky_relu,
        "ELU": _Chain.elu,
        "Softmax": _Chain.softmax_layer,
    }
)


def _leaky_relu(config: Mapping[str, Any]) -> Activation:
    return Activation("leaky_relu", (("negative_slope", float(config["negative_slope"])),))


def _elu(config: Mapping[str, Any]) -> Activation:
    return Activation("elu", (("alpha", float(config["alpha"])),))


def _policy(dtype: Any) -> str:
    if isinstance(dtype, Mapping):
        own = dtype["class_name"] == "DTypePolicy"
        return str(dtype["config"]["name"]) if own else str(dtype["class_name"])
    return str(dtype)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _free_name(name: str, taken: Sequence[str]) -> str:
    """A Keras name as a layer may be called here, and no other layer is."""
    clean = re.sub(r"[^A-Za-z0-9_.\-]", "_", name)
    if not clean or clean[0] in ".-":
        clean = f"_{clean}"
    free, count = clean, 1
    while free in taken or free in RESERVED_NAMES:
        free, count = f"{clean}_{count}", count + 1
    return free
