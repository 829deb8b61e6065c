"""One layer of the configuration: its keys are those that its type has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from hesscli.config.named import ACTIVATION, BIAS_INITIALIZER, INITIALIZER
from hesscli.problem.graph import Activation
from hesscli.problem.initializers import Initializer
from hesscli.problem.layers import DENSE, SHARED, LayerSpec, LayerType, Made
from hesscli.problem.layertypes import TYPES
from hesscli.problem.names import RESERVED_NAMES
from hesscli.problem.network import Penalty
from hesscli.system.errors import shown
from hesscli.system.takes import (
    Boolean,
    Choice,
    ConfigKeyError,
    ListOf,
    Matrix,
    Number,
    Path,
    Record,
    Takes,
    Text,
    Whole,
    keys_of,
    mapping_with,
)

Row = tuple[float, ...]
# The slash separates layer and tensor in a parameter's name.
_LAYER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


@dataclass(frozen=True)
class LayerName(Takes):
    """A name that a layer may have."""

    words = "made of letters, digits, _ . and -"

    def decoded(self, value: Any, path: Path) -> str:
        name: str = Text().decode(value, path)
        if not _LAYER_NAME.fullmatch(name):
            raise self.refused(name, path)
        if name in RESERVED_NAMES:
            raise ConfigKeyError(path, f"{shown(name)} names a block; choose another name")
        return name


@dataclass(frozen=True)
class _Argument(Takes):
    """What layertypes.py judges: numbers, text, true and false, and lists of them."""

    words = "a number, text or a list"

    def decoded(self, value: Any, path: Path) -> Any:
        if isinstance(value, list):
            return tuple(self.decode(item, path) for item in value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise self.refused(value, path)


@dataclass(frozen=True)
class _ByName(Takes):
    """Pairs that are keys of the layer themselves; ``item`` is what each takes."""

    item: Takes

    def decoded(self, value: Any, path: Path) -> Any:
        raise self.refused(value, path)


def _layer_types() -> tuple[str, ...]:
    return (*TYPES, SHARED)


_PENALTY = Record(Penalty, says="`{l1: …, l2: …}`", spelled=False)


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
        LayerName(says="letters, digits, _ . and -"),
        "what results call the layer; dense1, dense2 … if it is left out",
    ]
    units: Annotated[int, Whole(1), "a dense layer's outputs; must be given there"] = 0
    activation: Annotated[Activation, ACTIVATION, "applied to the layer's output"] = Activation(
        "linear"
    )
    kernel: Annotated[
        tuple[Row, ...] | None,
        Matrix(says="`[[…], …]`, inputs × units", spelled=False),
        "the kernel's values, not drawn",
    ] = None
    bias: Annotated[
        Row | None, ListOf(Number(), says="`[…]`", spelled=False), "the bias's values, not drawn"
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
    trainable: Annotated[
        bool, Boolean(spelled=False), "whether the block `network` has the layer's parameters"
    ] = True
    type: Annotated[
        str,
        Choice(_layer_types, says="a type of layer", spelled=False),
        "Keras's class in other letters: dense, conv2d, max_pooling2d …",
    ] = DENSE
    inputs: Annotated[
        tuple[str, ...] | None,
        ListOf(Text(), "name", or_one=True, says="`[name, …]`, or `input`", spelled=False),
        "the layers that it takes; without it the one before",
    ] = None
    use_bias: Annotated[
        bool | None, Boolean(spelled=False), "whether it has a bias; without it, as the model says"
    ] = None
    arguments: Annotated[
        tuple[tuple[str, Any], ...],
        _ByName(_Argument(), says="each a key of the layer"),
        "Keras's arguments of the type, such as `filters`, `kernel_size`, `strides`, `padding`",
    ] = ()
    initializers: Annotated[
        tuple[tuple[str, Initializer], ...],
        _ByName(BIAS_INITIALIZER, says="`gamma_initializer: …` and the like"),
        "draw the tensors that are no kernel: `bias`, `gamma`, `beta`, `alpha`",
    ] = ()
    regularizers: Annotated[
        tuple[tuple[str, Penalty], ...],
        _ByName(replace(_PENALTY, also=(None,)), says="`gamma_regularizer: …` and the like"),
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
        own = {"kernel": self.kernel_regularizer, "bias": self.bias_regularizer}
        found = {role: penalty for role, penalty in own.items() if penalty is not None}
        return {**found, **dict(self.regularizers)}


# Of a type without a class of its own.
_SHARED = LayerType(lambda _of, _shapes: Made(()), SHARED, ("of",))


def _keys(type_: str) -> Iterator[tuple[str, str, str]]:
    """The keys that a type of layer has, in order, each with its field and its name there.

    The name is empty unless the field holds pairs.
    """
    of = TYPES.get(type_, _SHARED)
    dense = ("name", "units", "activation", "type", "inputs", "kernel", "bias")
    first = dense if type_ == DENSE else ("name", "type", "inputs", "activation")
    yield from ((key, key, "") for key in first if key != "activation" or of.activated)
    for key in of.arguments:
        if key == "use_bias":
            yield key, key, ""
        elif key not in first:
            yield key, "arguments", key
    if any(role.endswith("kernel") for role in of.roles):
        yield "initializer", "initializer", ""
    for role in of.roles:
        key = f"{role.removesuffix('_kernel')}_regularizer"
        yield (key, key, "") if role in ("kernel", "bias") else (key, "regularizers", role)
    for role in of.roles:
        if "kernel" not in role:
            yield f"{role}_initializer", "initializers", role
    if of.roles:
        yield "trainable", "trainable", ""


@dataclass(frozen=True)
class LayerTakes(Takes):
    """A mapping with the keys that the layer's type has."""

    words = "a layer"

    def decoded(self, value: Any, path: Path) -> LayerConfig:
        declared = keys_of(LayerConfig)
        type_ = value.get("type", DENSE) if isinstance(value, Mapping) else DENSE
        declared["type"].takes.decode(type_, (*path, "type"))
        keys = list(_keys(type_))
        mapping = mapping_with(value, path, [key for key, _, _ in keys])
        if type_ == DENSE and "units" not in mapping:
            raise ConfigKeyError((*path, "units"), "missing; it must be given")
        found: dict[str, Any] = {}
        for key, field, place in keys:
            if key in mapping:
                takes = declared[field].takes
                takes = takes.item if isinstance(takes, _ByName) else takes
                decoded = takes.decode(mapping[key], (*path, key))
                if not place:
                    found[field] = decoded
                elif decoded is not None:
                    found[field] = (*found.get(field, ()), (place, decoded))
        return LayerConfig(**found)

    def encode(self, value: LayerConfig) -> dict[str, Any]:
        """The layer with the keys that its type has, but for those that say nothing."""
        declared = keys_of(LayerConfig)
        found = {}
        for key, field, place in _keys(value.type):
            takes, own = declared[field].takes, getattr(value, field)
            if isinstance(takes, _ByName):
                takes, own = takes.item, dict(own).get(place)
                if own is not None:
                    found[key] = takes.encode(own)
            elif takes.spelled or own != declared[field].default:
                found[key] = takes.encode(own)
        return found


@dataclass(frozen=True)
class Layers(ListOf):
    """The layers, whose names differ; one without a name is called by its type and place."""

    item: Takes = LayerTakes()
    noun: str = "layer"

    def decoded(self, value: Any, path: Path) -> tuple[LayerConfig, ...]:
        if isinstance(value, list):
            value = [
                {"name": _usual_name(item.get("type", DENSE), place), **item}
                if isinstance(item, Mapping)
                else item
                for place, item in enumerate(value)
            ]
        layers = super().decoded(value, path)
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
