"""YAML text to a Config and back, with errors that name the file, the line and the key."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import yaml

from hesscli.config.consistency import require_consistent
from hesscli.config.kerasmodel import check_keras_layers, with_keras_layers
from hesscli.config.layer import LayerConfig, Layers
from hesscli.config.schema import Config, DataConfig
from hesscli.config.text import NOT_YAML, dumped, line_of, parsed, syntax
from hesscli.problem.data import is_batch_file
from hesscli.system.errors import InputError, shown
from hesscli.system.files import opened
from hesscli.system.takes import LARGEST_INTEGER, ConfigKeyError, Path, Record, keys_of

_CONFIG = Record(kind=Config)
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
        _, plain = parsed(value, lambda _: f"--set {key}: ")
    except NOT_YAML as error:
        raise InputError(f"--set {key}: {shown(value)} is not YAML ({syntax(error)})") from error
    path = tuple(whole_number(part) for part in key.strip().split("."))
    return Override(path, plain, "--set")


def whole_number(text: str) -> int | str:
    """``text`` as a number if it is one of a size that something could have."""
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
    """The ``overrides`` are laid over the document, which is decoded once, as a whole.

    A Keras model's layers are laid under the overrides of single keys.
    """
    document, overrides = copy.deepcopy(document), sorted(overrides, key=_order)
    early = [override for override in overrides if _order(override) < 2]
    _overlay(document, early)
    origin = "" if path is None else f"{path}:{line_of(root, _KERAS)}"
    origin = next((each.origin for each in reversed(early) if each.path != _REGISTERED), origin)
    model = document.get("model")
    if isinstance(model, Mapping) and model.get("keras") is not None:
        named = any(override.path in (("loss",), ("loss", "name")) for override in overrides)
        with _placed(path, root, early):
            config: Config = _CONFIG.decode(document, ())
        of_loss = (*document.get("loss", {}), *(("name",) if named else ()))
        with _prefixed(origin):
            config = with_keras_layers(config, model, of_loss)
        plain = to_document(config)
        document |= {"model": plain["model"], "loss": plain["loss"]}
    _overlay(document, overrides[len(early) :])
    with _placed(path, root, overrides):
        config = _CONFIG.decode(document, ())
    with _prefixed(origin):
        check_keras_layers(config.model)
    with _placed(path, root, overrides):
        require_consistent(config)
    if "batch_size" not in document.get("data", {}) and (
        config.data.inputs is not None or is_batch_file(config.data.source)
    ):
        # Inputs in the configuration, like a problem file, are a batch already.
        config = replace(config, data=replace(config.data, batch_size="all"))
    return config


def to_document(config: Config) -> dict[str, Any]:
    """The configuration as plain values, every key spelled out."""
    return _CONFIG.encode(config)


def to_yaml(config: Config) -> str:
    """The configuration as YAML that ``load_config`` reads back as an equal Config."""
    return dumped(to_document(config), default_flow_style=None, width=100)


def layers_to_yaml(layers: tuple[LayerConfig, ...]) -> str:
    """The section ``model.layers`` alone, in short lines: a key and its value on each."""
    section = {"model": {"layers": Layers().encode(layers)}}
    return dumped(section, default_flow_style=False)


@contextmanager
def _placed(
    path: str | None, root: yaml.Node | None, overrides: Sequence[Override]
) -> Iterator[None]:
    """Puts where a key was given before what is wrong with it: the last override, or file:line."""
    try:
        yield
    except ConfigKeyError as problem:
        key = problem.path
        origins = [each.origin for each in overrides if key[: len(each.path)] == each.path]
        origins = origins or [each.origin for each in overrides if each.path[: len(key)] == key]
        line = None if path is None else line_of(root, key)
        place = origins[-1] if origins else f"{path}:{line}" if line else path
        raise InputError(f"{place}: {problem}" if place else str(problem)) from None


# The batch comes from one of the two: naming one takes the place of the other.
_TAKES_THE_PLACE_OF: Mapping[Path, tuple[str, ...]] = {
    ("data", "inputs"): keys_of(DataConfig)["inputs"].takes.instead_of,
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


def _overlay(document: dict[str, Any], overrides: Iterable[Override]) -> None:
    for override in overrides:
        data = document.get("data")
        for key in _TAKES_THE_PLACE_OF.get(override.path, ()):
            if isinstance(data, dict):
                data.pop(key, None)
        try:
            _assign(document, override.path, copy.deepcopy(override.value))
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
            container[key] = _default(path[: depth + 1])
        if last:
            container[key] = value
        else:
            if isinstance(container[key], str):
                container[key] = {"name": container[key]}
            container = container[key]


def _default(path: Path) -> Any:
    """The value that an override of a part of ``path`` changes if the file does not give one."""
    value: Any = _CONFIG.encode(Config())
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str | list) else {}


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
        root, document = parsed(text, lambda node: f"{path}:{node.start_mark.line + 1}: ")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else path
        raise InputError(f"{where}: not valid YAML ({syntax(error)}); {_NEEDED}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); YAML is needed") from error
    except NOT_YAML as error:
        raise InputError(f"{path}: not valid YAML ({syntax(error)}); {_NEEDED}") from error
    if document is None:
        return {}, root
    if not isinstance(document, Mapping):
        raise InputError(f"{path}:1: not a mapping; it must be one with {_SECTION_LIST}")
    return dict(document), root


_NEEDED = "valid YAML is needed"
_SECTION_LIST = ", ".join(Config.__dataclass_fields__)
