"""YAML text to a Config and back, with errors that name the file, the line and the key."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import yaml

from hesscli.config.consistency import require_consistent
from hesscli.config.decode import LARGEST_INTEGER, ConfigKeyError, Path, decode, dotted
from hesscli.config.kerasmodel import check_keras_layers, with_keras_layers
from hesscli.config.schema import Config, DataConfig, LayerConfig, ModelConfig
from hesscli.problem.data import is_batch_file
from hesscli.problem.graph import Activation
from hesscli.problem.initializers import Initializer
from hesscli.problem.layers import DENSE
from hesscli.problem.layertypes import TYPES
from hesscli.system.errors import InputError, reason, shown
from hesscli.system.files import opened

# Where a node stands, as messages begin.
_Place = Callable[[yaml.Node], str]
_MODEL: Path = ("model",)
_KERAS: Path = ("model", "keras")
_REGISTERED: Path = ("model", "registered_names")
# Far beyond any configuration; a larger file is another kind of file.
_MAX_BYTES = 2**20


@dataclass(frozen=True)
class Override:
    """A value for one key that takes precedence; ``origin`` says where it was given."""

    path: Path
    value: Any
    origin: str


def parse_override(text: str) -> Override:
    """``key.path=value``, the value in YAML; raises InputError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text!r}: it must be key.path=value, as in data.offset=10")
    try:
        _, parsed = _safe_load(value, lambda _: f"--set {key}: ")
    except _NO_YAML as error:
        raise InputError(f"--set {key}: {shown(value)} is not YAML ({_syntax(error)})") from error
    path = tuple(whole_number(part) for part in key.strip().split("."))
    return Override(path, parsed, "--set")


def whole_number(text: str) -> int | str:
    """``text`` as a number where it is one of a size that something could have."""
    return int(text) if text.isdecimal() and len(text) <= len(str(LARGEST_INTEGER)) else text


def load_config(path: str | None, overrides: Iterable[Override] = ()) -> Config:
    """The configuration in the file ``path`` (None: the defaults) with ``overrides`` applied.

    The path ``-`` is standard input.

    Raises InputError, which names file, line and key, the value, and what would be right.
    """
    document, root = ({}, None) if path is None else _parse(path)
    return _configured(path, document, root, overrides)


def config_of(
    document: Any, overrides: Iterable[Override] = (), origin: str | None = None
) -> Config:
    """The configuration in plain values, as a YAML file or ``to_document`` gives them.

    ``origin`` is the file that they come from. Raises InputError, which names it and the key.
    """
    if not isinstance(document, Mapping):
        place = "" if origin is None else f"{origin}: "
        raise InputError(f"{place}{shown(document)}; it must be a mapping with {_SECTION_LIST}")
    return _configured(origin, dict(document), None, overrides)


def _configured(
    path: str | None,
    document: dict[str, Any],
    root: yaml.Node | None,
    overrides: Iterable[Override],
) -> Config:
    try:
        config = decode(document)
    except ConfigKeyError as problem:
        raise InputError(f"{_place(path, root, problem.path)}{problem}") from None
    sized = "batch_size" in document.get("data", {})
    overrides = sorted(overrides, key=_order)
    origin = "" if path is None else f"{path}:{_line_of(root, _KERAS)}"
    given = document.get("model", {})
    early = [override for override in overrides if _order(override) < 2]
    for override in early:
        config = _apply(config, override)
        origin = origin if override.path == _REGISTERED else override.origin
        given = override.value if override.path == _MODEL else given
    named = any(override.path in (("loss",), ("loss", "name")) for override in overrides)
    of_loss = (*document.get("loss", {}), *(("name",) if named else ()))
    with _prefixed(origin):
        config = with_keras_layers(config, given, of_loss)
    for override in overrides[len(early) :]:
        sized = sized or _gives_batch_size(override)
        config = _apply(config, override)
    with _prefixed(origin):
        check_keras_layers(config.model)
    try:
        require_consistent(config)
    except ConfigKeyError as problem:
        place = _place(path, root, problem.path)
        for override in overrides:
            if override.path == problem.path[: len(override.path)]:
                place = f"{override.origin}: "
        raise InputError(f"{place}{problem}") from None
    if not sized and (config.data.inputs is not None or is_batch_file(config.data.source)):
        # Inputs in the configuration, like a problem file, are a batch already.
        config = replace(config, data=replace(config.data, batch_size="all"))
    return config


def to_document(config: Config) -> dict[str, Any]:
    """The configuration as plain values, every key spelled out."""
    document: dict[str, Any] = _plain(config)
    return document


def to_yaml(config: Config) -> str:
    """The configuration as YAML that ``load_config`` reads back as an equal Config."""
    return yaml.safe_dump(_plain(config), sort_keys=False, default_flow_style=None, width=100)


def layers_to_yaml(layers: tuple[LayerConfig, ...]) -> str:
    """The section ``model.layers`` alone, in short lines: a key and its value on each."""
    section = {"model": {"layers": _plain(layers)}}
    return yaml.safe_dump(section, sort_keys=False, default_flow_style=False)


def _place(path: str | None, root: yaml.Node | None, key: Path) -> str:
    """``file:line: `` of a key; nothing where there is no file."""
    if path is None:
        return ""
    line = _line_of(root, key)
    return f"{path}:{line}: " if line else f"{path}: "


def _gives_batch_size(override: Override) -> bool:
    if override.path == ("data",):
        return isinstance(override.value, Mapping) and "batch_size" in override.value
    return override.path == ("data", "batch_size")


# The batch comes from one of the two: naming one takes the place of the other.
_TAKES_THE_PLACE_OF: Mapping[Path, tuple[str, ...]] = {
    ("data", "inputs"): ("source", "split"),
    ("data", "source"): ("inputs", "targets"),
}


def _order(override: Override) -> int:
    """A whole model comes before its Keras file, and both before keys about their layers."""
    return 0 if override.path == _MODEL else 1 if override.path in (_KERAS, _REGISTERED) else 2


@contextmanager
def _prefixed(origin: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{origin}: {error}" if origin else str(error)) from error


def _apply(config: Config, override: Override) -> Config:
    document = _plain(config)
    for key in _TAKES_THE_PLACE_OF.get(override.path, ()):
        document["data"].pop(key, None)
    try:
        _assign(document, override.path, override.value)
        return decode(document)
    except ConfigKeyError as problem:
        raise InputError(f"{override.origin}: {problem}") from None


def _assign(document: Any, path: Path, value: Any) -> None:
    container = document
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(container, list):
            if not isinstance(key, int) or key >= len(container):
                raise ConfigKeyError(
                    path[: depth + 1], f"there are {len(container)}; it must be a number below that"
                )
        elif not isinstance(container, dict):
            raise ConfigKeyError(path[:depth], "it holds a value, not keys")
        elif not last and key not in container:
            container[key] = {}
        if last:
            container[key] = value
        else:
            if isinstance(container[key], str):
                container[key] = {"name": container[key]}
            container = container[key]


def _plain(value: Any) -> Any:
    """A configuration's dataclasses as YAML holds them."""
    if isinstance(value, Activation | Initializer):
        # A name alone stands for {name: …}.
        return {"name": value.name, **dict(value.parameters)} if value.parameters else value.name
    if isinstance(value, LayerConfig):
        return _plain_layer(value)
    if is_dataclass(value):
        unused = _unused_keys(value)
        names = [field.name for field in fields(value) if field.name not in unused]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _unused_keys(value: Any) -> tuple[str, ...]:
    """Keys that say nothing beside the others."""
    if isinstance(value, DataConfig) and value.inputs is not None:
        return ("source", "split")
    if isinstance(value, ModelConfig) and not value.registered_names:
        return ("registered_names",)
    if isinstance(value, DataConfig):
        return tuple(key for key in ("inputs", "targets") if getattr(value, key) is None)
    return ()


def _plain_layer(layer: LayerConfig) -> dict[str, Any]:
    """A layer with the keys that its type has, but for those that say nothing."""
    found: dict[str, Any] = {"name": layer.name}
    if layer.type != DENSE:
        found["type"] = layer.type
    if layer.inputs is not None:
        found["inputs"] = list(layer.inputs)
    if layer.type == DENSE:
        found["units"] = layer.units
    if layer.type in TYPES and TYPES[layer.type].activated:
        found["activation"] = _plain(layer.activation)
    found.update({key: _plain(inner) for key, inner in layer.arguments})
    optional = ["use_bias", "kernel", "bias", "initializer"]
    optional += ["kernel_regularizer", "bias_regularizer"]
    given = {key: getattr(layer, key) for key in optional}
    given["trainable"] = None if layer.trainable else False
    given |= {f"{role}_initializer": of for role, of in layer.initializers}
    given |= {f"{role.removesuffix('_kernel')}_regularizer": of for role, of in layer.regularizers}
    found |= {key: _plain(inner) for key, inner in given.items() if inner is not None}
    return found if layer.trainable else found | {"trainable": False}


def _parse(path: str) -> tuple[dict[str, Any], yaml.Node | None]:
    if not path:
        raise InputError("--config '': the name of a YAML file is needed")
    if path == "-":
        content = sys.stdin.buffer.read(_MAX_BYTES + 1)
    else:
        with opened(path, "a YAML file is needed") as stream:
            content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise InputError(f"{path}: larger than {_MAX_BYTES // 2**20} MiB; not a configuration")
    try:
        text = content.decode("utf-8")
        root, document = _safe_load(text, lambda node: f"{path}:{node.start_mark.line + 1}: ")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else path
        raise InputError(f"{where}: not valid YAML ({_syntax(error)}); {_NEEDED}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); YAML is needed") from error
    except _NO_YAML as error:
        raise InputError(f"{path}: not valid YAML ({_syntax(error)}); {_NEEDED}") from error
    if document is None:
        return {}, root
    if not isinstance(document, Mapping):
        raise InputError(f"{path}:1: not a mapping; it must be one with {_SECTION_LIST}")
    return dict(document), root


_NEEDED = "valid YAML is needed"
# Beside its own errors PyYAML raises, for a value that is not what its tag says: a ValueError for
# the date 2026-13-01, others for !!bool maybe, !!int "", !!timestamp now and 1:1:1:…:1.5.
_WRONG_VALUE = (ArithmeticError, AttributeError, LookupError, TypeError)
_NO_YAML = (yaml.YAMLError, RecursionError, ValueError, *_WRONG_VALUE)
# No number of a configuration has as many digits, and some take hours to be read.
_MOST_DIGITS = 1000
# No configuration is as deep.
_DEEPEST = 50
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_SECTION_LIST = ", ".join(Config.__dataclass_fields__)


def _syntax(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, _WRONG_VALUE):
        return "a value is not of the kind that its tag says"
    if isinstance(error, yaml.MarkedYAMLError):
        return " ".join(part for part in (error.context, error.problem) if part)
    return reason(error)


class _Loader(yaml.SafeLoader):
    """For lists in lists PyYAML takes time that grows with the square of their depth."""

    def fetch_flow_collection_start(self, kind: Any) -> None:
        if self.flow_level >= _DEEPEST:
            raise RecursionError
        super().fetch_flow_collection_start(kind)


def _safe_load(text: str, place: _Place) -> tuple[yaml.Node | None, Any]:
    """What yaml.safe_load does, with a look at the nodes in between."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        if _unfolded_size(root, {}) > _MAX_BYTES:
            raise InputError(f"{place(root)}the aliases stand for too much; write it out")
        _check_nodes(root, place)
        return root, loader.construct_document(root)
    finally:
        loader.dispose()


def _unfolded_size(node: yaml.Node, sizes: dict[int, float]) -> float:
    """How many nodes there are when every alias is what it stands for."""
    if id(node) not in sizes:
        # As long as it is not known: an alias inside of what it stands for has no end.
        sizes[id(node)] = math.inf
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        sizes[id(node)] = 1 + sum(_unfolded_size(child, sizes) for child in children)
    return sizes[id(node)]


def _check_nodes(root: yaml.Node, place: _Place) -> None:
    """Makes every key text, as 1 and yes are not in YAML 1.1; refuses what no key or number is.

    Keys that stand twice, are merged, or are no scalars, and numbers of thousands of digits.
    """
    # Aliases repeat a node: each is looked at once.
    waiting: list[tuple[yaml.Node, Path]] = [(root, ())]
    seen: set[int] = set()
    while waiting:
        node, where = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > _MOST_DIGITS:
                raise InputError(
                    f"{place(node)}{dotted(where)}a number of {len(node.value)} digits; at most "
                    f"{_MOST_DIGITS} are read"
                )
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend((item, (*where, index)) for index, item in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(
                        "while constructing a mapping",
                        node.start_mark,
                        "found unhashable key",
                        key.start_mark,
                    )
                waiting.append((value, (*where, key.value)))
                at = f"{place(key)}{dotted((*where, key.value))}"
                if key.value == "<<":
                    # PyYAML copies what is merged: a few lines of it can fill the memory.
                    raise InputError(f"{at}keys are not merged here; write them out")
                if key.value in keys:
                    raise InputError(f"{at}this key stands here twice; once is right")
                keys.add(key.value)
                key.tag = "tag:yaml.org,2002:str"


def _line_of(root: yaml.Node | None, path: Path) -> int | None:
    """The line of the deepest key of ``path`` that the file has."""
    line = None
    node = root
    for part in path:
        found = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    found, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            found = node.value[part]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return line
