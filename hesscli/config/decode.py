"""Plain YAML values into the configuration's dataclasses, key by key.

A decoder takes a value and the path of its key and returns what the dataclass holds, or raises
ConfigKeyError with what was wrong and what would be right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from hesscli.config.schema import (
    CheckConfig,
    Config,
    DataConfig,
    LayerConfig,
    ModelConfig,
    Row,
    TrainConfig,
)
from hesscli.problem import data, initializers, registry
from hesscli.problem.graph import Activation, Penalty
from hesscli.problem.initializers import Initializer
from hesscli.problem.layers import DENSE, SHARED, LayerType, Made
from hesscli.problem.layertypes import TYPES
from hesscli.problem.names import (
    ACTIVATION_ALIASES,
    CHECK_METHODS,
    DTYPES,
    MOST_PROBES,
    NORMALIZE,
    REDUCTIONS,
    RESERVED_NAMES,
    SYMMETRIC,
)
from hesscli.problem.network import Loss
from hesscli.system.errors import shown
from hesscli.system.memory import parse_size
from hesscli.system.near import nearest

T = TypeVar("T")
Path = tuple[str | int, ...]
Decoder = Callable[[Any, Path], T]

# The slash separates layer and tensor in a parameter's name.
_LAYER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
# What NumPy's integers hold; more digits than it has are no size or seed of anything.
LARGEST_INTEGER = 2**63 - 1
# Of a longer one the beginning is enough to find it.
_LONGEST_KEY = 60


class ConfigKeyError(Exception):
    """A key whose value cannot be used: ``path``, and a line of text that begins with it."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(f"{dotted(path)}{text}")
        self.path = path


def dotted(path: Path) -> str:
    """A key as messages name it, ``data.offset: ``; nothing for the document itself."""
    return f"{'.'.join(map(_part, path))}: " if path else ""


def _part(part: str | int) -> str:
    text = str(part)
    if text.isprintable() and len(text) <= _LONGEST_KEY:
        return text
    return shown(text)


def decode(document: Any) -> Config:
    """The configuration in a YAML document's plain values; raises ConfigKeyError."""
    return _config(document, ())


def _is_whole(value: Any, minimum: int, maximum: int = LARGEST_INTEGER) -> bool:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and minimum <= value <= maximum


def _integer(minimum: int, maximum: int = LARGEST_INTEGER) -> Decoder[int]:
    def decode(value: Any, path: Path) -> int:
        if not _is_whole(value, minimum, maximum):
            upwards = "or more" if maximum == LARGEST_INTEGER else f"to {maximum:,}"
            wanted = f"it must be a whole number, {minimum} {upwards}"
            raise ConfigKeyError(path, f"{shown(value)}; {wanted}")
        return int(value)

    return decode


def _batch_size(value: Any, path: Path) -> Any:
    if value == "all":
        return value
    if not _is_whole(value, 1):
        raise ConfigKeyError(path, f"{shown(value)}; it must be a whole number, 1 or more, or all")
    return value


def _memory(value: Any, path: Path) -> str | int:
    size = parse_size(value) if isinstance(value, str) else value
    if not _is_whole(size, 1):
        raise ConfigKeyError(path, f"{shown(value)}; it must be a size such as 500MB or 2GB")
    return value  # type: ignore[no-any-return]


def number(value: Any, path: Path) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigKeyError(path, f"{shown(value)}; it must be a number")
    try:
        converted = float(value)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted):
        raise ConfigKeyError(path, f"{shown(value)}; it must be a finite number")
    return converted


def _row(value: Any, path: Path) -> Row:
    if not isinstance(value, list) or not value:
        raise ConfigKeyError(path, f"{shown(value)}; it must be a list of one number or more")
    return tuple(number(item, (*path, index)) for index, item in enumerate(value))


def _matrix(value: Any, path: Path) -> tuple[Row, ...]:
    if not isinstance(value, list) or not value:
        raise ConfigKeyError(
            path, f"{shown(value)}; it must be a list of one row or more, each a list of numbers"
        )
    rows = tuple(_row(item, (*path, index)) for index, item in enumerate(value))
    for index, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ConfigKeyError(
                (*path, index), f"{len(row)} numbers; the first row has {len(rows[0])}"
            )
    return rows


def _targets(value: Any, path: Path) -> tuple[int, ...] | Row | tuple[Row, ...]:
    if isinstance(value, list) and any(isinstance(item, list) for item in value):
        return _matrix(value, path)
    numbers = _row(value, path)
    # Whole numbers may be labels.
    if all(type(item) is int and abs(item) < 2**63 for item in value):
        return tuple(value)
    return numbers


def _tolerance(value: Any, path: Path) -> float:
    rtol = number(value, path)
    if rtol < 0:
        raise ConfigKeyError(path, f"{shown(value)}; it must be 0 or more, or null")
    return rtol


def _not_negative(value: Any, path: Path) -> float:
    found = number(value, path)
    if found < 0:
        raise ConfigKeyError(path, f"{shown(value)}; it must be 0 or more")
    return found


def _positive(value: Any, path: Path) -> float:
    rate = number(value, path)
    if rate <= 0:
        raise ConfigKeyError(path, f"{shown(value)}; it must be a number above 0")
    return rate


def _scale(value: Any, path: Path) -> float | str:
    if isinstance(value, str):
        return _choice((SYMMETRIC, NORMALIZE))(value, path)
    return _positive(value, path)


def _momentum(value: Any, path: Path) -> float:
    momentum = number(value, path)
    if not 0 <= momentum < 1:
        raise ConfigKeyError(path, f"{shown(value)}; it must be 0 or more and below 1")
    return momentum


def _share(value: Any, path: Path) -> float:
    share = number(value, path)
    if not 0 <= share <= 1:
        raise ConfigKeyError(path, f"{shown(value)}; it must be a number from 0 to 1")
    return share


def _class_weight(value: Any, path: Path) -> dict[int, float]:
    if not isinstance(value, Mapping) or not value:
        raise ConfigKeyError(path, f"{shown(value)}; it must be {{class: weight, …}}")
    # JSON has text for keys.
    given = {int(key) if str(key).isdecimal() else key: of for key, of in value.items()}
    for key in given:
        if not _is_whole(key, 0):
            raise ConfigKeyError(path, f"{shown(key)} is no class; they are whole numbers from 0")
    return {key: _not_negative(of, (*path, key)) for key, of in given.items()}


def _sample_weight(value: Any, path: Path) -> str | Row:
    return _row(value, path) if isinstance(value, list) else _text(value, path)


def _boolean(value: Any, path: Path) -> bool:
    if not isinstance(value, bool):
        raise ConfigKeyError(path, f"{shown(value)}; it must be true or false")
    return value


def _text(value: Any, path: Path) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigKeyError(path, f"{shown(value)}; it must be text, and not empty")
    return value


def _optional(inner: Decoder[T]) -> Decoder[T | None]:
    return lambda value, path: None if value is None else inner(value, path)


def _choice(names: Sequence[str]) -> Decoder[str]:
    def decode(value: Any, path: Path) -> str:
        if value not in names:
            hint = nearest(value, names) if isinstance(value, str) else nearest("", names)
            raise ConfigKeyError(path, f"{shown(value)} is unknown{hint}")
        return str(value)

    return decode


def _mapping(value: Any, path: Path, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigKeyError(path, f"{shown(value)}; it must be a mapping with {', '.join(keys)}")
    for key in value:
        if key not in keys:
            hint = nearest(str(key), keys)
            raise ConfigKeyError((*path, str(key)), f"unknown key{hint}")
    return value


def _record(
    kind: type[T], decoders: Mapping[str, Decoder[Any]], required: Sequence[str] = ()
) -> Decoder[T]:
    def decode(value: Any, path: Path) -> T:
        mapping = _mapping(value, path, list(decoders))
        for key in required:
            if key not in mapping:
                raise ConfigKeyError((*path, key), "missing; it must be given")
        return kind(**{key: decoders[key](inner, (*path, key)) for key, inner in mapping.items()})

    return decode


def _named(
    names: Callable[[], Sequence[str]],
    aliases: Mapping[str, str],
    defaults: Callable[[str], Mapping[str, float]],
) -> Decoder[tuple[str, tuple[tuple[str, float], ...]]]:
    """A name, or ``{name: …, parameter: …}`` with the parameters that the name has."""

    def decode(value: Any, path: Path) -> tuple[str, tuple[tuple[str, float], ...]]:
        if not isinstance(value, Mapping):
            value = {"name": value}
            name_path = path
        else:
            name_path = (*path, "name")
        given = value.get("name")
        name = _choice([*names(), *aliases])(given, name_path)
        name = aliases.get(name, name)
        parameters = _mapping(value, path, ["name", *defaults(name)])
        return name, tuple(
            (key, number(inner, (*path, key))) for key, inner in parameters.items() if key != "name"
        )

    return decode


_named_activation = _named(
    registry.activation_names, ACTIVATION_ALIASES, registry.parameter_defaults
)
_named_initializer = _named(lambda: initializers.NAMES, {}, initializers.parameter_defaults)


def activation(value: Any, path: Path) -> Activation:
    """An activation by its Keras name, with its parameters."""
    return Activation(*_named_activation(value, path))


def _initializer(value: Any, path: Path) -> Initializer:
    initializer = Initializer(*_named_initializer(value, path))
    values = {**initializers.parameter_defaults(initializer.name), **dict(initializer.parameters)}
    if "minval" in values and not 0 <= values["maxval"] - values["minval"] < math.inf:
        text = f"minval {values['minval']:g} and maxval {values['maxval']:g}"
        raise ConfigKeyError(path, f"{text}; maxval must be above minval, by a finite amount")
    return initializer


def _bias_initializer(value: Any, path: Path) -> Initializer:
    initializer = _initializer(value, path)
    if initializer.name in initializers.MATRIX_ONLY:
        raise ConfigKeyError(
            path, f"{initializer.name!r} needs a matrix; choose another for biases"
        )
    return initializer


def layer_name(value: Any, path: Path) -> str:
    """A name that a layer may have."""
    name = _text(value, path)
    if not _LAYER_NAME.fullmatch(name):
        raise ConfigKeyError(path, f"{shown(name)}; it must be made of letters, digits, _ . and -")
    if name in RESERVED_NAMES:
        raise ConfigKeyError(path, f"{shown(name)} names a block; choose another name")
    return name


def _layers(value: Any, path: Path) -> tuple[LayerConfig, ...]:
    if not isinstance(value, list) or not value:
        raise ConfigKeyError(path, f"{shown(value)}; it must be a list of one layer or more")
    layers: list[LayerConfig] = []
    for index, item in enumerate(value):
        if isinstance(item, Mapping):
            item = {"name": _usual_name(item.get("type", DENSE), index), **item}
        layer = _layer(item, (*path, index))
        if layer.name in (other.name for other in layers):
            raise ConfigKeyError(
                (*path, index, "name"), f"{layer.name!r} is taken; names must differ"
            )
        layers.append(layer)
    return tuple(layers)


def _usual_name(type_: Any, index: int) -> str:
    return f"dense{index + 1}" if type_ == DENSE else f"{type_}_{index + 1}"


def _layer(value: Any, path: Path) -> LayerConfig:
    """One layer, by the keys that its type has."""
    type_ = value.get("type", DENSE) if isinstance(value, Mapping) else DENSE
    _choice((*TYPES, SHARED))(type_, (*path, "type"))
    of = TYPES.get(str(type_), _OF_SHARED)
    own: dict[str, Decoder[Any]] = {"name": layer_name}
    if type_ == DENSE:
        own["units"] = _integer(1)
    if of.activated:
        own["activation"] = activation
    if type_ == DENSE:
        own.update({"kernel": _optional(_matrix), "bias": _optional(_row)})
    own.update({"type": _text, "inputs": _optional(_names)})
    if of.roles:
        own["trainable"] = _boolean
    if any(role.endswith("kernel") for role in of.roles):
        own["initializer"] = _optional(_initializer)
    initializers = {f"{role}_initializer": role for role in of.roles if "kernel" not in role}
    regularizers = {f"{role.removesuffix('_kernel')}_regularizer": role for role in of.roles}
    own.update(dict.fromkeys(initializers, _bias_initializer))
    own.update(dict.fromkeys(regularizers, _optional(_penalty)))
    if type_ != SHARED:
        own["activity_regularizer"] = _optional(_penalty)
    arguments = [key for key in of.arguments if key not in own]
    own.update(dict.fromkeys(arguments, _argument))
    if "use_bias" in of.arguments:
        arguments.remove("use_bias")
        own["use_bias"] = _optional(_boolean)
    if of.roles:
        own["trainable"] = _boolean
    mapping = _mapping(value, path, list(own))
    if type_ == DENSE and "units" not in mapping:
        raise ConfigKeyError((*path, "units"), "missing; it must be given")
    found = {key: own[key](inner, (*path, key)) for key, inner in mapping.items()}

    def taken(keys: Mapping[str, str]) -> tuple[tuple[str, Any], ...]:
        """What is given of these keys, by role; None says the same as no key."""
        each = [(role, found.pop(key, None)) for key, role in keys.items()]
        return tuple((role, given) for role, given in each if given is not None)

    fields = {role: key for key, role in regularizers.items() if role in ("kernel", "bias")}
    others = {key: role for key, role in regularizers.items() if role not in fields}
    return LayerConfig(
        initializers=taken(initializers),
        regularizers=taken(others),
        arguments=taken({key: key for key in arguments}),
        **found,
    )


_OF_SHARED = LayerType(lambda _of, _shapes: Made(()), SHARED, ("of",))


def _names(value: Any, path: Path) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ConfigKeyError(path, f"{shown(value)}; it must be the names of layers, or input")
    return tuple(_text(name, (*path, index)) for index, name in enumerate(value))


def _argument(value: Any, path: Path) -> Any:
    """What layertypes.py judges: numbers, text, true and false, and lists of them."""
    if isinstance(value, list):
        return tuple(_argument(item, path) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigKeyError(path, f"{shown(value)}; it must be a number, text or a list")


def _inputs(value: Any, path: Path) -> int | tuple[int, ...]:
    if not isinstance(value, list):
        return _integer(1)(value, path)
    if not value:
        raise ConfigKeyError(path, "[]; it must be a whole number, or a list of them")
    return tuple(_integer(1)(size, (*path, index)) for index, size in enumerate(value))


def _registered_names(value: Any, path: Path) -> tuple[str, ...]:
    pairs = value if isinstance(value, list) else [value]
    for index, pair in enumerate(pairs):
        name = _text(pair, (*path, index)).partition("=")[2]
        if name not in (*registry.plugin_names(), *registry.plugin_names(registry.LAYER)):
            raise ConfigKeyError(
                (*path, index),
                f"{shown(pair)}; it must be as in mine>GatedUnit=glu, the second being an "
                "activation or a layer of a plugin (--plugin)",
            )
    return tuple(pairs)


_penalty = _record(Penalty, {"l1": _not_negative, "l2": _not_negative})
_model = _record(
    ModelConfig,
    {
        "inputs": _inputs,
        "bias": _boolean,
        "initializer": _initializer,
        "bias_initializer": _bias_initializer,
        "layers": _layers,
        "weights": _optional(_text),
        "keras": _optional(_text),
        "registered_names": _registered_names,
    },
)
_loss = _record(
    Loss,
    {
        "name": lambda value, path: _choice(registry.loss_names())(value, path),
        "reduction": _choice(REDUCTIONS),
        "from_logits": _optional(_boolean),
        "label_smoothing": _share,
        "regularization": _boolean,
        "delta": _positive,
        "alpha": _positive,
        "gamma": _not_negative,
        "class_weight": _optional(_class_weight),
    },
)
_data_record = _record(
    DataConfig,
    {
        "source": _text,
        "split": _choice(data.SPLITS),
        "batch_size": _batch_size,
        "offset": _integer(0),
        "shuffle": _boolean,
        "scale": _optional(_scale),
        "memory": _optional(_memory),
        "inputs": _optional(_matrix),
        "targets": _optional(_targets),
        "sample_weight": _optional(_sample_weight),
    },
)


def _data(value: Any, path: Path) -> DataConfig:
    decoded = _data_record(value, path)
    for key in ("source", "split"):
        if decoded.inputs is not None and key in value:
            raise ConfigKeyError(
                (*path, key), f"{shown(value[key])}; data.inputs is given as well, give one of them"
            )
    return decoded


_check = _record(
    CheckConfig,
    {
        "method": _choice(CHECK_METHODS),
        "rtol": _optional(_tolerance),
        "probes": _integer(1, MOST_PROBES),
    },
)
_train = _record(
    TrainConfig,
    {
        "learning_rate": _positive,
        "momentum": _momentum,
        "batch_size": _batch_size,
        "steps": _integer(1),
        "examples": _batch_size,
        "every": _integer(1),
        "measure_examples": _batch_size,
        "checkpoint_every": _integer(1),
    },
)
_config = _record(
    Config,
    {
        "model": _model,
        "loss": _loss,
        "data": _data,
        "dtype": _choice(DTYPES),
        "seed": _integer(0),
        "check": _check,
        "train": _train,
    },
)
