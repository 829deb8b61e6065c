"""One layer of the configuration: its keys are those that its type has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from hesscli.config.named import ACTIVATION, BIAS_INITIALIZER, INITIALIZER
from hesscli.problem.graph import Activation, Penalty
from hesscli.problem.initializers import Initializer
from hesscli.problem.layers import ACTIVITY, DENSE, SHARED, LayerSpec, LayerType, Made
from hesscli.problem.layertypes import TYPES
from hesscli.problem.names import RESERVED_NAMES
from hesscli.system.errors import shown
from hesscli.system.takes import (
    Choice,
    ConfigKeyError,
    ListOf,
    Matrix,
    Path,
    Record,
    Takes,
    boolean,
    keys_of,
    mapping_with,
    text,
    whole,
)

Row = tuple[float, ...]
# The slash separates layer and tensor in a parameter's name.
_LAYER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


@dataclass(frozen=True)
class _Name(Takes):
    def decoded(self, value: Any, path: Path) -> Any:
        text().decode(value, path)
        if value in RESERVED_NAMES:
            raise ConfigKeyError(path, f"{shown(value)} names a block; choose another name")
        return super().decoded(value, path)


NAME = _Name(
    "made of letters, digits, _ . and -", lambda value: _LAYER_NAME.fullmatch(value) is not None
)


@dataclass(frozen=True)
class _Argument(Takes):
    """Any value; layertypes.py judges it."""

    words: str = "a number, text or a list"

    def decoded(self, value: Any, path: Path) -> Any:
        if isinstance(value, list):
            return tuple(self.decode(item, path) for item in value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise self.refused(value, path)


def _types() -> tuple[str, ...]:
    return (*TYPES, SHARED)


_INPUTS = replace(text(), words="the names of layers, or input")
_PENALTY = Record(says="`{l1: …, l2: …}`", spelled=False, kind=Penalty)


@dataclass(frozen=True)
class LayerConfig:
    """One layer; None leaves it to the model, to the initializers or to the layer's type.

    ``type`` and ``arguments`` are Keras's (hesscli.problem.layertypes); ``initializers`` and
    ``regularizers`` are pairs of a role and what it has.
    """

    name: Annotated[str, NAME, "what results call the layer; dense1, dense2 … if it is left out"]
    units: Annotated[int, whole(1), "a dense layer's outputs; required for a dense layer"] = 0
    activation: Annotated[Activation, ACTIVATION, "applied to the layer's output"] = Activation(
        "linear"
    )
    kernel: Annotated[
        tuple[Row, ...] | None,
        Matrix(says="`[[…], …]`, inputs × units", spelled=False),
        "the kernel's values, if they are not drawn",
    ] = None
    bias: Annotated[
        Row | None, ListOf(says="`[…]`", spelled=False), "the bias's values, if they are not drawn"
    ] = None
    initializer: Annotated[
        Initializer | None,
        replace(INITIALIZER, spelled=False),
        "draws this layer's kernel; without it, the model's",
    ] = None
    kernel_regularizer: Annotated[
        Penalty | None, _PENALTY, "added to the loss: Σ l1 |W| + l2 W²"
    ] = None
    bias_regularizer: Annotated[Penalty | None, _PENALTY, "added to the loss: Σ l1 |b| + l2 b²"] = (
        None
    )
    activity_regularizer: Annotated[
        Penalty | None,
        _PENALTY,
        "added to the loss for the layer's output y: 1/N Σ l1 |y| + l2 y² over the N examples",
    ] = None
    trainable: Annotated[
        bool, boolean(spelled=False), "whether the block `network` contains the layer's parameters"
    ] = True
    type: Annotated[
        str,
        Choice("a type of layer", names=_types, spelled=False),
        "Keras's class in snake case: dense, conv2d, max_pooling2d …",
    ] = DENSE
    inputs: Annotated[
        tuple[str, ...] | None,
        ListOf(
            _INPUTS.words,
            says="`[name, …]`, or `input`",
            item=text(),
            alone=_INPUTS,
            wrapped=True,
            spelled=False,
        ),
        "the layers whose outputs it takes; without it, the layer before",
    ] = None
    use_bias: Annotated[
        bool | None, boolean(spelled=False), "whether it has a bias; without it, as in `model.bias`"
    ] = None
    arguments: Annotated[
        tuple[tuple[str, Any], ...],
        Takes("each a key of the layer"),
        "Keras's arguments of the type, such as `filters`, `kernel_size`, `strides`, `padding`",
    ] = ()
    initializers: Annotated[
        tuple[tuple[str, Initializer], ...],
        Takes("`gamma_initializer: …` and the like"),
        "draw the tensors that are not a kernel: `bias`, `gamma`, `beta`, `alpha`",
    ] = ()
    regularizers: Annotated[
        tuple[tuple[str, Penalty], ...],
        Takes("`gamma_regularizer: …` and the like"),
        "added to the loss for the tensors that are neither kernel nor bias",
    ] = ()

    @property
    def is_plain(self) -> bool:
        """Whether it is a dense layer of the one before."""
        return self.type == DENSE and self.inputs is None

    def spec(self, before: str, bias: bool) -> LayerSpec:
        """The layer behind ``before``; ``bias`` is whether it has one if it says nothing."""
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


# Of a type without a class of its own.
_SHARED = LayerType(lambda _of, _shapes: Made(()), SHARED, ("of",))


def _keys(type_: str) -> dict[str, tuple[str, str, Takes]]:
    """The keys that a type of layer has: the field of each, its name in a field of pairs, Takes."""
    of = TYPES.get(type_, _SHARED)
    is_dense = type_ == DENSE

    def own(*keys: str) -> dict[str, tuple[str, str, Takes]]:
        return {key: (key, "", keys_of(LayerConfig)[key].takes) for key in keys}

    found = own("name", "units") if is_dense else own("name", "type", "inputs")
    found |= own("activation") if of.activated else {}
    found |= own("type", "inputs", "kernel", "bias") if is_dense else {}
    found |= {key: ("arguments", key, _Argument()) for key in of.arguments if key not in found}
    found |= own("initializer") if any(role.endswith("kernel") for role in of.roles) else {}
    for role in of.roles:
        regularizer = f"{role.removesuffix('_kernel')}_regularizer"
        found[regularizer] = "regularizers", role, replace(_PENALTY, also=(None,))
        if "kernel" not in role:
            found[f"{role}_initializer"] = "initializers", role, BIAS_INITIALIZER
    found |= own(*({"use_bias", "kernel_regularizer", "bias_regularizer"} & found.keys()))
    found |= own("activity_regularizer") if type_ != SHARED else {}
    return found | (own("trainable") if of.roles else {})


@dataclass(frozen=True)
class _Layer(Takes):
    """A mapping with the keys that the layer's type has."""

    def decoded(self, value: Any, path: Path) -> LayerConfig:
        type_ = value.get("type", DENSE) if isinstance(value, Mapping) else DENSE
        keys_of(LayerConfig)["type"].takes.decode(type_, (*path, "type"))
        keys = _keys(type_)
        mapping = mapping_with(value, path, keys)
        if type_ == DENSE and "units" not in mapping:
            raise ConfigKeyError((*path, "units"), "missing; it must be given")
        found: dict[str, Any] = {}
        for key, (field, name, takes) in keys.items():
            decoded = takes.decode(mapping[key], (*path, key)) if key in mapping else None
            if name and decoded is not None:
                found[field] = (*found.get(field, ()), (name, decoded))
            elif not name and key in mapping:
                found[field] = decoded
        return LayerConfig(**found)

    def encode(self, value: LayerConfig) -> dict[str, Any]:
        declared = keys_of(LayerConfig)
        found = {}
        for key, (field, name, takes) in _keys(value.type).items():
            own = dict(getattr(value, field)).get(name) if name else getattr(value, field)
            default = None if name else declared[field].default
            if own != default or (takes.spelled and not name):
                found[key] = takes.encode(own)
        return found


@dataclass(frozen=True)
class Layers(ListOf):
    """The layers, whose names differ; one without a name is called by its type and place."""

    item: Takes = _Layer()
    noun: str = "layer"

    def decoded(self, value: Any, path: Path) -> tuple[LayerConfig, ...]:
        if isinstance(value, list):
            value = [
                {"name": _usual_name(item.get("type", DENSE), place), **item}
                if isinstance(item, Mapping)
                else item
                for place, item in enumerate(value)
            ]
        layers: tuple[LayerConfig, ...] = super().decoded(value, path)
        names = [layer.name for layer in layers]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ConfigKeyError(
                    (*path, place, "name"), f"{name!r} is taken; names must differ"
                )
        return layers

    def encode(self, value: Any) -> list[dict[str, Any]]:
        return [self.item.encode(layer) for layer in value]


def _usual_name(type_: Any, index: int) -> str:
    return f"dense{index + 1}" if type_ == DENSE else f"{type_}_{index + 1}"
