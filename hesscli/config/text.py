"""YAML text by PyYAML with the core schema of YAML 1.2: no aliases, no tags of other kinds.

PyYAML knows the types of YAML 1.1, in which ``yes`` is true, ``1e-3`` is text and ``010`` is 8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import yaml

from hesscli.system.errors import InputError, reason
from hesscli.system.takes import Path, dotted

# Where a node stands, as messages begin.
Place = Callable[[yaml.Node], str]
# No number of a configuration has as many digits, and some take hours to be read.
_MOST_DIGITS = 1000
# No configuration is as deep, and PyYAML takes time that grows with the square of the depth.
_DEEPEST = 50
_TAG = "tag:yaml.org,2002:"
_INT, _FLOAT = f"{_TAG}int", f"{_TAG}float"
# YAML 1.2.2, section 10.3.2; what a scalar may begin with makes the look-up fast.
_SCHEMA = (
    (f"{_TAG}null", r"null|Null|NULL|~|", "nN~"),
    (f"{_TAG}bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (_INT, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        _FLOAT,
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
_FORMS: Mapping[str, re.Pattern[str]] = {tag: re.compile(form) for tag, form, _ in _SCHEMA}
# Text and collections are PyYAML's own; None is what it makes of any other tag: an error.
_COLLECTIONS = (f"{_TAG}str", f"{_TAG}seq", f"{_TAG}map", None)
# The last two are PyYAML's for escapes of characters that there are not.
NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, OverflowError)


def _scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | bool | None:
    """A scalar of the core schema; raises ConstructorError if it is not of its tag's form."""
    text, kind = str(loader.construct_scalar(node)), node.tag
    if not _FORMS[kind].fullmatch(text):
        problem = f"{text[:40]!r} is not of the kind that its tag says"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    if kind == _INT:
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if kind == _FLOAT:
        return float(re.sub(r"\.(?=[in])", "", text.lower()))
    return None if kind == f"{_TAG}null" else text.lower() == "true"


class _Loader(yaml.SafeLoader):
    # Its own, empty: PyYAML copies the base's for a class that has none.
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        **{tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _COLLECTIONS},
        **dict.fromkeys(_FORMS, _scalar),
    }

    def fetch_flow_collection_start(self, kind: Any) -> None:
        if self.flow_level >= _DEEPEST:
            raise RecursionError
        super().fetch_flow_collection_start(kind)

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.get_mark()
            raise yaml.MarkedYAMLError(None, None, "aliases are not read: write it out", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


class Dumper(yaml.SafeDumper):
    """Puts in quotation marks what the loader would take for something else than text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, _: Any) -> bool:
        return True


for _tag, _, _first in _SCHEMA:
    for _class in (_Loader, Dumper):
        _class.add_implicit_resolver(
            _tag, re.compile(f"(?:{_FORMS[_tag].pattern})$"), [*_first, ""]
        )


def parsed(text: str, place: Place) -> tuple[yaml.Node | None, Any]:
    """The node and the plain value of a document; raises one of NOT_YAML, or InputError."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        _check(root, (), place)
        return root, loader.construct_document(root)
    finally:
        loader.dispose()


def dumped(value: Any, **style: Any) -> str:
    """Plain values as YAML, in the order that they have."""
    text: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, **style)
    return text


def syntax(error: Exception) -> str:
    """The error in the text, for a message."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError):
        return " ".join(part for part in (error.context, error.problem) if part)
    return reason(error)


def _check(node: yaml.Node, where: Path, place: Place) -> None:
    """Makes every key text; refuses keys that stand twice, and numbers of thousands of digits."""
    if isinstance(node, yaml.ScalarNode):
        if node.tag in (_INT, _FLOAT) and len(node.value) > _MOST_DIGITS:
            raise InputError(
                f"{place(node)}{dotted(where)}a number of {len(node.value)} digits; at most "
                f"{_MOST_DIGITS} are read"
            )
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _check(item, (*where, index), place)
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
            path = (*where, key.value)
            if key.value in keys:
                raise InputError(
                    f"{place(key)}{dotted(path)}this key stands here twice; once is right"
                )
            keys.add(key.value)
            key.tag = f"{_TAG}str"
            _check(value, path, place)


def line_of(root: yaml.Node | None, path: Path) -> int | None:
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
            found = node.value[part] if part < len(node.value) else None
            line = line if found is None else found.start_mark.line + 1
        if found is None:
            break
        node = found
    return line
