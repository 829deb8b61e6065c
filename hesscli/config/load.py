"""YAML text to a Config and back, with errors that name the file, the line and the key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import yaml

from hesscli.config.consistency import require_consistent
from hesscli.config.decode import LARGEST_INTEGER, ConfigKeyError, Path, decode, dotted
from hesscli.config.kerasmodel import check_keras_layers, with_keras_layers
from hesscli.config.schema import Config, DataConfig, LayerConfig
from hesscli.problem.errors import InputError, reason
from hesscli.problem.initializers import Initializer
from hesscli.problem.network import Activation
from hesscli.problem.problemfile import is_problem_file

_MODEL: Path = ("model",)
_KERAS: Path = ("model", "keras")
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
        parsed = yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"--set {key}: {value!r} is not YAML ({_syntax(error)})") from error
    path = tuple(whole_number(part) for part in key.strip().split("."))
    return Override(path, parsed, "--set")


def whole_number(text: str) -> int | str:
    """``text`` as a number where it is one of a size that something could have."""
    return int(text) if text.isdecimal() and len(text) <= len(str(LARGEST_INTEGER)) else text


def load_config(path: str | None, overrides: Iterable[Override] = ()) -> Config:
    """The configuration in the file ``path`` (None: the defaults) with ``overrides`` applied.

    Raises InputError, which names file, line and key, the value, and what would be right.
    """
    document, root = ({}, None) if path is None else _parse(path)
    return _loaded(document, overrides, path, root)


def config_of(document: Mapping[str, Any], overrides: Iterable[Override] = ()) -> Config:
    """As ``load_config``, of the plain values that a YAML file would hold."""
    return _loaded(document, overrides, None, None)


def as_mapping(config: Config) -> dict[str, Any]:
    """The configuration as plain values, which ``config_of`` makes an equal Config of."""
    document: dict[str, Any] = _plain(config)
    return document


def _loaded(
    document: Mapping[str, Any],
    overrides: Iterable[Override],
    path: str | None,
    root: yaml.Node | None,
) -> Config:
    try:
        config = decode(document)
    except ConfigKeyError as problem:
        raise InputError(f"{_place(path, root, problem.path)}{problem}") from None
    sized = "batch_size" in document.get("data", {})
    overrides = sorted(overrides, key=_order)
    origin = "" if path is None else f"{path}:{_line_of(root, _KERAS)}"
    given = document.get("model", {})
    early = [override for override in overrides if override.path in (_MODEL, _KERAS)]
    for override in early:
        config, origin = _apply(config, override), override.origin
        given = override.value if override.path == _MODEL else given
    with _prefixed(origin):
        config = with_keras_layers(config, given)
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
    if not sized and (config.data.inputs is not None or is_problem_file(config.data.source)):
        # Inputs in the configuration, like a problem file, are a batch already.
        config = replace(config, data=replace(config.data, batch_size="all"))
    return config


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
    return 0 if override.path == _MODEL else 1 if override.path == _KERAS else 2


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
    if isinstance(value, LayerConfig | DataConfig):
        keys = ("kernel", "bias", "initializer", "inputs", "targets")
        return tuple(key for key in keys if getattr(value, key, None) is None)
    return ()


def _parse(path: str) -> tuple[dict[str, Any], yaml.Node | None]:
    if not path:
        raise InputError("--config '': the name of a YAML file is needed")
    expanded = os.path.expanduser(path)
    if os.path.exists(expanded) and not os.path.isfile(expanded):
        raise InputError(f"{path}: not a regular file; a YAML file is needed")
    try:
        with open(expanded, "rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({reason(error)}); a readable YAML file is needed"
        ) from error
    if len(content) > _MAX_BYTES:
        raise InputError(f"{path}: larger than {_MAX_BYTES // 2**20} MiB; not a configuration")
    try:
        root, document = _safe_load(content.decode("utf-8"), path)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else path
        raise InputError(f"{where}: not valid YAML ({_syntax(error)}); {_NEEDED}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); YAML is needed") from error
    # Values such as the date 2026-13-01 raise a ValueError.
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not valid YAML ({_syntax(error)}); {_NEEDED}") from error
    if document is None:
        return {}, root
    if not isinstance(document, Mapping):
        raise InputError(f"{path}:1: not a mapping; it must be one with {', '.join(_SECTIONS)}")
    return dict(document), root


_NEEDED = "valid YAML is needed"
_SECTIONS = tuple(Config.__dataclass_fields__)


def _syntax(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError):
        return " ".join(part for part in (error.context, error.problem) if part)
    return reason(error)


def _safe_load(text: str, path: str) -> tuple[yaml.Node | None, Any]:
    """What yaml.safe_load does, with a look at the keys in between."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        _check_keys(root, path)
        return root, loader.construct_document(root)
    finally:
        loader.dispose()


def _check_keys(root: yaml.Node, path: str) -> None:
    """Makes every key text, as 1 and yes are not in YAML 1.1; refuses repeated and merged ones."""
    # Aliases repeat a node: each is looked at once.
    waiting: list[tuple[yaml.Node, Path]] = [(root, ())]
    seen: set[int] = set()
    while waiting:
        node, where = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend((item, (*where, index)) for index, item in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                waiting.append((value, (*where, str(key.value))))
                if not isinstance(key, yaml.ScalarNode):
                    continue
                at = f"{path}:{key.start_mark.line + 1}: {dotted((*where, key.value))}"
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
