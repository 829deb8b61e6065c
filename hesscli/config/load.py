"""YAML text to a Config and back, with errors that name the file, the line and the key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import yaml

from hesscli.config.decode import ConfigKeyError, Path, decode
from hesscli.config.kerasmodel import check_keras_layers, with_keras_layers
from hesscli.config.schema import Config
from hesscli.problem.errors import InputError
from hesscli.problem.initializers import Initializer
from hesscli.problem.network import Activation
from hesscli.problem.npz import reason
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
    path = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
    return Override(path, parsed, "--set")


def load_config(path: str | None, overrides: Iterable[Override] = ()) -> Config:
    """The configuration in the file ``path`` (None: the defaults) with ``overrides`` applied.

    Raises InputError, which names file, line and key, the value, and what would be right.
    """
    document, root = ({}, None) if path is None else _parse(path)
    try:
        config = decode(document)
    except ConfigKeyError as problem:
        line = _line_of(root, problem.path)
        where = f"{path}:{line}" if line else str(path)
        raise InputError(f"{where}: {_dotted(problem.path)}{problem.text}") from None
    sized = "batch_size" in document.get("data", {})
    overrides = sorted(overrides, key=_order)
    origin = f"{path}:{_line_of(root, _KERAS)}"
    given = document.get("model", {})
    early = [override for override in overrides if override.path in (_MODEL, _KERAS)]
    for override in early:
        config, origin = _apply(config, override), override.origin
        given = override.value if override.path == _MODEL else given
    with _prefixed(origin):
        config = with_keras_layers(config, given)
    for override in overrides[len(early) :]:
        sized = sized or override.path == ("data", "batch_size")
        config = _apply(config, override)
    with _prefixed(origin):
        check_keras_layers(config.model)
    if not sized and is_problem_file(config.data.source):
        # A problem file is a batch already.
        config = replace(config, data=replace(config.data, batch_size="all"))
    return config


def to_yaml(config: Config) -> str:
    """The configuration as YAML that ``load_config`` reads back as an equal Config."""
    return yaml.safe_dump(
        _plain(config), sort_keys=False, default_flow_style=None, allow_unicode=True, width=100
    )


def _order(override: Override) -> int:
    """A whole model comes before its Keras file, and both before keys about their layers."""
    return 0 if override.path == _MODEL else 1 if override.path == _KERAS else 2


@contextmanager
def _prefixed(origin: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error


def _apply(config: Config, override: Override) -> Config:
    document = _plain(config)
    try:
        _assign(document, override.path, override.value)
        return decode(document)
    except ConfigKeyError as problem:
        raise InputError(f"{override.origin}: {_dotted(problem.path)}{problem.text}") from None


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
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _parse(path: str) -> tuple[dict[str, Any], yaml.Node | None]:
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
        text = content.decode("utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_duplicates(root, path)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else path
        raise InputError(f"{where}: not valid YAML ({_syntax(error)})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); YAML is needed") from error
    # safe_load raises ValueError on values such as the date 2026-13-01.
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not valid YAML ({_syntax(error)})") from error
    if document is None:
        return {}, root
    if not isinstance(document, Mapping):
        raise InputError(f"{path}:1: the file must be a mapping with {', '.join(_SECTIONS)}")
    return dict(document), root


_SECTIONS = tuple(Config.__dataclass_fields__)


def _syntax(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError):
        return " ".join(part for part in (error.context, error.problem) if part)
    return reason(error)


def _refuse_duplicates(root: yaml.Node | None, path: str) -> None:
    # PyYAML keeps the last of two equal keys without a word. Aliases repeat a node: each is
    # looked at once.
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                waiting.append(value)
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        line = key.start_mark.line + 1
                        raise InputError(
                            f"{path}:{line}: {key.value}: this key stands here twice; once is right"
                        )
                    keys.add(key.value)


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


def _dotted(path: Path) -> str:
    return f"{'.'.join(str(part) for part in path)}: " if path else ""
