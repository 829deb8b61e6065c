"""The description of a Keras 3 model, as ``config.json`` holds it, as layers (layers.py).

Nothing that it names is imported, built or called. Keras files a layer's numbers under its class
and its place among the layers of that class (``layers/dense``, ``layers/dense_1`` …), as
``keras.src.saving.saving_lib`` does.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from hesscli.problem.data import Scale, to_inputs
from hesscli.problem.graph import INPUT, Activation, Array, Penalty
from hesscli.problem.keras_losses import (
    UnknownLossError,
    compiled_loss,
    is_keras_own,
    registered_name,
    serialized_loss,
)
from hesscli.problem.layers import (
    ACTIVATION,
    ACTIVITY,
    FLATTEN,
    LINEAR,
    LOG_SOFTMAX,
    SHARED,
    SOFTMAX,
    LayerError,
    LayerSpec,
    planned,
)
from hesscli.problem.layertypes import BY_KERAS_CLASS, IDLE, TYPES
from hesscli.problem.names import RESERVED_NAMES
from hesscli.problem.network import Loss
from hesscli.problem.npz import RawArray
from hesscli.problem.registry import ACTIVATION as PLUGIN_ACTIVATION
from hesscli.problem.registry import LAYER, plugin_for
from hesscli.system.errors import InputError

SIGMOID = "sigmoid"

_SUPPORTED = (
    f"supported are InputLayer, Rescaling, {', '.join(BY_KERAS_CLASS)}, ReLU, LeakyReLU, ELU, and "
    f"at inference {', '.join(IDLE)}"
)
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
    "relu6",
    "hard_sigmoid",
)
# Functions that become layers of their own.
_OVER_AXIS = (SOFTMAX, LOG_SOFTMAX)
# As TensorFlow's own functions are called in older files.
OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {"softmax_v2": SOFTMAX, "identity": "linear", "swish": "silu"}
)
# By name celu has α = 1, if it is elu.
_SAME = {**OTHER_NAMES, "celu": "elu"}
_DTYPES = ("float32", "float64")
# Keras's regularizers that have a name, with their defaults.
_REGULARIZERS = {"l1": {"l1": 0.01}, "l2": {"l2": 0.01}, "l1_l2": {"l1": 0.01, "l2": 0.01}}
_MODELS = ("Sequential", "Functional")
# What the configuration of any layer has, and what decides nothing once the numbers are there.
_ACTIVITY_KEY = "activity_regularizer"
_OF_ALL = ("name", "trainable", "dtype", _ACTIVITY_KEY, "build_config")
_DRAWS = re.compile(r".*_(initializer|constraint)")


@dataclass(frozen=True)
class KerasLayer:
    """One use of a layer, and the activation after it.

    ``keras_name`` is what the model calls it, ``group`` where its numbers are stored; ``shapes``
    are those of its tensors and statistics by role, in the order that Keras stores them in, none
    if the layer is used again. ``penalties`` are its regularizers by role. ``trainable`` is
    False of a frozen one.
    """

    spec: LayerSpec
    keras_name: str
    group: str
    penalties: Mapping[str, Penalty]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    trainable: bool = True

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def activation(self) -> Activation:
        return self.spec.activation


@dataclass(frozen=True)
class KerasNetwork:
    """The layers of a model, without their numbers.

    ``shape`` is that of one example of its inputs, ``input_shape`` that of what the first layer
    reads, which is flat if the model flattens it. ``rescaling`` is the (scale, offset) of what
    the model does to its inputs first, None if it does nothing; ``softmax`` says whether a
    softmax at the end was left out of ``layers``. ``loss`` is the one that the model was compiled
    with, None if it was saved without one, or the name of one that has no counterpart here;
    ``serialized_loss`` is as Keras describes it. ``plugins`` are the plugins' names by those that
    Keras has registered.
    """

    path: str
    shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    layers: tuple[KerasLayer, ...]
    rescaling: tuple[float, float] | None
    softmax: bool
    loss: Loss | str | None
    serialized_loss: Any
    plugins: Mapping[str, str]

    @property
    def has_bias(self) -> bool:
        """Whether any layer has one."""
        return any("bias" in layer.shapes for layer in self.layers)

    def network_inputs(self, selected: RawArray, dtype: DTypeLike, scale: Scale = None) -> Array:
        """Examples (N, ...) as the first layer sees them, (N, d).

        A model with a Rescaling gets pixels as they are stored, 0 to 255; one without
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
            scale = 1.0
        return to_inputs(selected, dtype, scale)

    def before_rescaling(self, selected: RawArray, dtype: DTypeLike, scale: Scale = None) -> Array:
        """The model's inputs at which its first layer gets the given ones."""
        factor, offset = self.rescaling or (1.0, 0.0)
        return np.asarray((to_inputs(selected, dtype, scale) - offset) / factor, dtype=dtype)


def described(document: Mapping[str, Any], path: str, names: Mapping[str, str]) -> KerasNetwork:
    """The layers that a ``config.json`` describes, of the model ``path``.

    ``names`` are the plugins' by those that Keras has registered, if they differ.

    Raises InputError for a layer that is not supported, and what a document of another form leads
    to: LookupError, TypeError, ValueError, AttributeError or RecursionError.
    """
    kind, config = document["class_name"], document["config"]
    if kind not in _MODELS or document.get("registered_name") not in (
        None,
        kind,
    ):
        raise InputError(f"{path}: the model is a {kind}; a Sequential or Functional one is needed")
    shape = _input_shape(config["layers"], config, document, path)
    reader = KerasReader(path, shape, names)
    reader.model(kind, config, "", [INPUT])
    reader.require_one_input()
    found, input_shape = _without_flatten(_with_activations(reader.found), shape)
    softmax = bool(found) and _is_softmax(found[-1])
    found = found[:-1] if softmax else found
    try:
        plan = planned([layer.spec for layer in found], input_shape, TYPES)
    except LayerError as error:
        wrong = found[error.place]
        key = "" if error.key is None else f"{error.key} "
        raise InputError(f"{path}: layer {wrong.keras_name!r}: {key}{error}") from None
    if not plan.tensors:
        raise InputError(f"{path}: no layer with parameters in it; at least one is needed")
    try:
        loss: Loss | str | None = compiled_loss(document)
    except UnknownLossError as error:
        loss = str(error)
    return KerasNetwork(
        path,
        shape,
        input_shape,
        tuple(replace(layer, shapes=plan.shapes_of(layer.name)) for layer in found),
        reader.rescaling,
        softmax,
        loss,
        serialized_loss(document),
        reader.plugins,
    )


def _is_softmax(layer: KerasLayer) -> bool:
    """Whether a loss may have the layer in it."""
    is_last_axis = layer.spec.arguments.get("axis", -1) in (-1, [-1])
    return layer.spec.type == SOFTMAX and is_last_axis and ACTIVITY not in layer.penalties


def _with_activations(found: Sequence[KerasLayer]) -> list[KerasLayer]:
    """Layers with the activation behind them as their own, and without those that do nothing."""
    readers = Counter(name for layer in found for name in layer.spec.inputs)
    shared = {layer.spec.arguments.get("of") for layer in found if layer.spec.type == SHARED}
    kept: dict[str, KerasLayer] = {}
    renamed: dict[str, str] = {}
    for layer in found:
        spec = replace(layer.spec, inputs=tuple(renamed.get(n, n) for n in layer.spec.inputs))
        if spec.type == ACTIVATION:
            (name,) = spec.inputs
            before = kept.get(name)
            if spec.activation == LINEAR and not layer.penalties:
                renamed[spec.name] = name
                readers[name] += readers[spec.name] - 1
                continue
            if (
                before is not None
                and before.spec.type != ACTIVATION
                and before.spec.type in TYPES
                and TYPES[before.spec.type].activated
                and before.activation == LINEAR
                and ACTIVITY not in before.penalties
                and readers[name] == 1
                and name not in shared
            ):
                own = replace(before.spec, activation=spec.activation)
                kept[name] = replace(
                    before, spec=own, penalties={**before.penalties, **layer.penalties}
                )
                renamed[spec.name] = name
                readers[name] = readers[spec.name]
                continue
        kept[spec.name] = replace(layer, spec=spec)
    return list(kept.values())


def _without_flatten(
    found: Sequence[KerasLayer], shape: tuple[int, ...]
) -> tuple[list[KerasLayer], tuple[int, ...]]:
    """The layers, and the shape of what they read: flat if all that read it flatten it."""
    first = [layer.name for layer in found if INPUT in layer.spec.inputs]
    if not all(
        layer.spec.type == FLATTEN and not layer.penalties for layer in found if layer.name in first
    ):
        return list(found), shape

    def named(layer: KerasLayer) -> KerasLayer:
        inputs = tuple(INPUT if name in first else name for name in layer.spec.inputs)
        return replace(layer, spec=replace(layer.spec, inputs=inputs))

    kept = [named(layer) for layer in found if layer.name not in first]
    return kept, (math.prod(shape),)


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


def _histories(value: Any) -> Iterator[tuple[str, int, int]]:
    """(layer, call, output) of all tensors that a description names, as Keras 3 and 2 write them.

    (Keras 2 a list of [layer, call, output, …], Keras 3 an object, with such a list in it.)
    """
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            value = value["config"]["keras_history"]
        else:
            for inner in value.values():
                yield from _histories(inner)
            return
    if isinstance(value, list | tuple):
        is_history = len(value) >= 3 and isinstance(value[0], str)
        if is_history and all(isinstance(n, int) for n in value[1:3]):
            yield value[0], value[1], value[2]
            return
        for inner in value:
            yield from _histories(inner)


class KerasReader:
    """Layers as they are gathered, call by call of the Keras model."""

    def __init__(self, path: str, shape: tuple[int, ...], names: Mapping[str, str]) -> None:
        self.path = path
        self.shape = shape
        self.names = names
        # The names of plugins that were found, by what Keras has registered.
        self.plugins: dict[str, str] = {}
        self.found: list[KerasLayer] = []
        self.rescaling: tuple[float, float] | None = None
        # What a layer that is stored as this group is called here.
        self._names: dict[str, str] = {}
        # How often what is but the input has been rescaled, and what other layers read of it.
        self._rescaled: dict[str, int] = {INPUT: 0}
        self._read: set[int] = set()

    def model(self, kind: str, config: Mapping[str, Any], above: str, values: list[str]) -> str:
        """The value of a model for the values of its inputs; its numbers are stored ``above``."""
        layers = config["layers"]
        groups = _groups(layers, above)
        if kind == "Sequential":
            self._require_one(values, "inputs")
            (value,) = values
            for layer in layers:
                value = self._call(layer, groups, [value])
            return value
        inputs = [name for name, _, _ in _histories(config["input_layers"])]
        self._require_one(inputs, "inputs")
        known = {(name, 0): value for name, value in zip(inputs, values, strict=True)}
        calls = [
            (layer, (layer["config"]["name"], index), list(_histories(node)), node)
            for layer in layers
            for index, node in enumerate(layer["inbound_nodes"])
        ]
        counts = Counter(key[0] for _, key, _, _ in calls)
        while calls:
            waiting = []
            for call in calls:
                layer, key, sources, node = call
                # Calls by other models are not counted by all versions of Keras.
                read = [(name, n if counts[name] > 1 else 0) for name, n, _ in sources]
                if all(source in known for source in read) and read:
                    self._require_plain(layer, node, sources)
                    known[key] = self._call(layer, groups, [known[source] for source in read])
                else:
                    waiting.append(call)
            if len(waiting) == len(calls):
                names = ", ".join(key[0] for _, key, _, _ in calls)
                raise self._refused(f"no way leads from the input to {names}")
            calls = waiting
        outputs = [(name, n) for name, n, _ in _histories(config["output_layers"])]
        self._require_one(outputs, "outputs")
        ((name, number),) = outputs
        return known[name, number if counts[name] > 1 else 0]

    def _require_one(self, of: Sequence[Any], what: str) -> None:
        if len(of) != 1:
            raise self._refused(f"the model has {len(of)} {what}; one is needed")

    def _require_plain(
        self, layer: Mapping[str, Any], node: Any, sources: Sequence[tuple[str, int, int]]
    ) -> None:
        """Refuses a call that asks for what is done at training, or for another output."""
        label = f"layer {layer['config']['name']!r}"
        if isinstance(node, Mapping) and node.get("kwargs", {}).get("training") is True:
            raise self._refused(f"{label} is called with training=True; inference is supported")
        if any(output for _, _, output in sources):
            raise self._refused(f"{label} reads one of several outputs, which is not supported")

    def _call(self, layer: Mapping[str, Any], groups: Mapping[str, str], inputs: list[str]) -> str:
        """The value of a layer, or a model within the model, for these inputs."""
        kind, config = layer["class_name"], layer["config"]
        label, group = f"layer {config['name']!r}", groups[config["name"]]
        own = is_keras_own(layer) and ".ops" not in str(layer.get("module"))
        if own and kind in _MODELS:
            return self.model(kind, config, group, inputs)
        policy = _policy(config.get("dtype"))
        of_plugin = None
        if not own or kind not in BY_KERAS_CLASS:
            of_plugin = self._plugin(registered_name(layer), LAYER)
        if (own or of_plugin) and kind != "InputLayer" and policy not in _DTYPES:
            raise self._refused(
                f"{label} computes in {policy}; supported are {' and '.join(_DTYPES)}"
            )
        if own and kind in ("InputLayer", *IDLE):
            if config.get(_ACTIVITY_KEY) is None:
                return inputs[0]
            return self._layer(ACTIVATION, label, config, f"{group}vars", inputs)
        if own and kind == "ActivityRegularization":
            of = {"class_name": "L1L2", "config": {key: config[key] for key in ("l1", "l2")}}
            named = {"name": config["name"], _ACTIVITY_KEY: {"module": "keras.regularizers", **of}}
            return self._layer(ACTIVATION, label, named, f"{group}vars", inputs)
        if own and kind == "Rescaling":
            return self._rescale(label, config, inputs)
        if kind == "Lambda":
            raise self._refused(
                f"{label} is a Lambda, which holds Python code that is never run; write it with "
                "Keras's own layers"
            )
        if of_plugin is not None:
            self._require_known(label, config, of_plugin)
            return self._layer(of_plugin, label, config, f"{group}vars", inputs)
        if not own or kind not in (*BY_KERAS_CLASS, *_ACTIVATIONS):
            of_user = "" if is_keras_own(layer) else f"; {_of_plugin(registered_name(layer))}"
            raise self._refused(f"{label} is a {kind}; {_SUPPORTED}{of_user}")
        type_ = BY_KERAS_CLASS.get(kind, ACTIVATION)
        return self._layer(type_, label, config, f"{group}vars", inputs, _ACTIVATIONS.get(kind))

    def _plugin(self, registered: str, kind: str) -> str | None:
        """The plugin's name of what Keras has registered, which is remembered."""
        found = plugin_for(registered, kind, self.names)
        if found is not None:
            self.plugins[registered] = found
        return found

    def _require_known(self, label: str, config: Mapping[str, Any], type_: str) -> None:
        """Refuses a plugin's layer that says what the plugin does not ask for."""
        of = TYPES[type_]
        regularizers = [_regularizer_key(config, role) for role in of.roles]
        known = (*_OF_ALL, *regularizers, *of.arguments)
        for key, value in config.items():
            if value is not None and key not in known and not _DRAWS.fullmatch(key):
                raise self._refused(
                    f"{label} has {key} {value!r}, and the plugin's layer {type_} takes "
                    f"{', '.join(of.arguments) or 'no arguments'}; make it one of these"
                )

    def _rescale(self, label: str, config: Mapping[str, Any], inputs: list[str]) -> str:
        (value,) = inputs
        if value not in self._rescaled or self._read:
            raise self._refused(f"{label} is a Rescaling after other layers; it must come first")
        if config.get(_ACTIVITY_KEY) is not None:
            raise self._refused(f"{label} is a Rescaling with an {_ACTIVITY_KEY}; use one without")
        scale, offset = config["scale"], config["offset"]
        if not (_is_number(scale) and _is_number(offset)):
            raise self._refused(f"{label} has a scale or offset that is not one finite number")
        before = self.rescaling or (1.0, 0.0)
        self.rescaling = (before[0] * scale, before[1] * scale + offset)
        # Nothing here, because inputs are rescaled before; but another value than the input.
        spec = LayerSpec(self._free(config["name"]), ACTIVATION, (value,))
        self.found.append(KerasLayer(spec, config["name"], "", {}))
        self._rescaled[spec.name] = self._rescaled[value] + 1
        return spec.name

    def require_one_input(self) -> None:
        """Refuses a model of which a layer reads the input before it is rescaled."""
        if self._read - {max(self._rescaled.values())}:
            raise self._refused("a layer reads the inputs before a Rescaling that others read")

    def _layer(
        self,
        type_: str,
        label: str,
        config: Mapping[str, Any],
        group: str,
        inputs: list[str],
        activation_of: _ActivationOf | None = None,
    ) -> str:
        of, arguments = TYPES[type_], {}
        levels = {self._rescaled[value] for value in inputs if value in self._rescaled}
        if type_ != FLATTEN:
            self._read |= levels
        if config.get("data_format") == "channels_first" and (
            type_ != FLATTEN or len(self.shape) > 1
        ):
            raise self._refused(f"{label} has data_format channels_first; channels_last is needed")
        activation = LINEAR
        if activation_of is not None:
            activation = activation_of(self, label, config)
        elif of.activated:
            activation = self._function(label, config.get("activation"))
        if group in self._names and type_ not in (ACTIVATION, *_OVER_AXIS):
            type_, arguments = SHARED, {"of": self._names[group]}
        else:
            arguments = {key: config[key] for key in of.arguments if key in config}
        spec = LayerSpec(
            self._free(config["name"]),
            type_,
            tuple(inputs),
            arguments,
            LINEAR if activation.name in _OVER_AXIS or type_ == SHARED else activation,
        )
        if activation.name in _OVER_AXIS and type_ == ACTIVATION:
            spec = replace(spec, type=activation.name)
        trainable = config.get("trainable", True) is not False
        # As in Keras, which regularizes what it trains, and what a layer gives in any case.
        penalties = self._penalties(label, config, of.roles if trainable else ())
        at_end = activation.name in _OVER_AXIS and spec.type not in _OVER_AXIS
        of_end = {ACTIVITY: penalties.pop(ACTIVITY)} if at_end and ACTIVITY in penalties else {}
        penalties = {} if type_ == SHARED else penalties
        self._names.setdefault(group, spec.name)
        found = KerasLayer(spec, config["name"], group, penalties, trainable=trainable)
        self.found.append(found)
        if type_ == FLATTEN and levels:
            self._rescaled[spec.name] = max(levels)
        if not at_end:
            return spec.name
        return self._over_axis(activation.name, config["name"], group, spec.name, of_end)

    def _over_axis(
        self, kind: str, keras_name: str, group: str, value: str, penalties: Mapping[str, Penalty]
    ) -> str:
        name = self._free(f"{keras_name}_{kind}")
        self.found.append(
            KerasLayer(LayerSpec(name, kind, (value,)), keras_name, f"{group}/{kind}", penalties)
        )
        return name

    def _free(self, name: str) -> str:
        return _free_name(name, [layer.name for layer in self.found])

    def _penalties(
        self, label: str, config: Mapping[str, Any], roles: Sequence[str]
    ) -> dict[str, Penalty]:
        found = {role: config.get(_regularizer_key(config, role)) for role in (*roles, ACTIVITY)}
        return {
            role: self._penalty(f"{label}: {_regularizer_key(config, role)}", given)
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
            name = given if isinstance(given, str) else given.get("class_name")
            raise self._refused(f"{label} {name!r} is not supported; L1, L2 and L1L2 are")
        return Penalty(**{key: float(value) for key, value in numbers.items()})

    def _require_last_axis(self, label: str, config: Mapping[str, Any]) -> None:
        if config.get("axis", -1) not in (-1, [-1]):
            raise self._refused(f"{label} has axis {config['axis']}; it must be -1")

    def _function(self, label: str, value: Any) -> Activation:
        """The activation that a ``activation=`` argument holds, a name or a serialized object."""
        if value is None:
            return LINEAR
        if isinstance(value, Mapping):
            if "class_name" not in value:
                raise self._refused(f"{label} has an activation that is a function of Python's own")
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
            name, known = inner if isinstance(inner, str) else kind, is_keras_own(value)
        else:
            name, known = value, isinstance(value, str)
        plain = _SAME.get(name, name)
        if known and plain in (*_FUNCTIONS, *_OVER_AXIS):
            return Activation(plain)
        own = self._plugin(name, PLUGIN_ACTIVATION)
        if own is not None:
            return Activation(own)
        raise self._refused(
            f"{label} has activation {name!r}; supported are "
            f"{', '.join((*_FUNCTIONS, *_OVER_AXIS))}; {_of_plugin(name)}"
        )

    def _relu(self, label: str, config: Mapping[str, Any]) -> Activation:
        most, slope = config.get("max_value"), config.get("negative_slope") or 0.0
        if most == 6 and not slope and not config.get("threshold"):
            return Activation("relu6")
        if most is not None or config.get("threshold"):
            raise self._refused(
                f"{label} is a ReLU with max_value (not 6) or threshold; use one without"
            )
        return _leaky_relu({"negative_slope": slope}) if slope else Activation("relu")

    def _refused(self, text: str) -> InputError:
        return InputError(f"{self.path}: {text}")


_ActivationOf = Callable[[KerasReader, str, Mapping[str, Any]], Activation]
# Layers that are an activation.
_ACTIVATIONS: Mapping[str, _ActivationOf] = MappingProxyType(
    {
        "Activation": lambda of, label, config: of._function(label, config["activation"]),
        "ReLU": lambda of, label, config: of._relu(label, config),
        "LeakyReLU": lambda _of, _label, config: _leaky_relu(config),
        "ELU": lambda _of, _label, config: _elu(config),
    }
)


def _of_plugin(registered: str) -> str:
    return (
        "one of your own needs the plugin that defines it (--plugin), and --registered-name "
        f"{registered}=NAME if its name there is another"
    )


def _groups(layers: Sequence[Any], above: str) -> dict[str, str]:
    """Where Keras stores the numbers of each layer, by its name."""
    groups: dict[str, str] = {}
    counted: Counter[str] = Counter()
    for layer in layers:
        name = _snake_case(layer["class_name"])
        count = counted[name]
        counted[name] += 1
        groups[layer["config"]["name"]] = f"{above}layers/{name}{f'_{count}' if count else ''}/"
    return groups


def _snake_case(name: str) -> str:
    """As ``keras.src.utils.naming.to_snake_case``."""
    parted = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", parted).lower()


def _regularizer_key(config: Mapping[str, Any], role: str) -> str:
    """Keras's argument for the regularizer of a tensor."""
    if role == "kernel" and "depthwise_regularizer" in config:
        return "depthwise_regularizer"
    return f"{role.removesuffix('_kernel')}_regularizer"


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
