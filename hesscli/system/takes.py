"""What a key of the configuration takes: one declaration decodes, encodes and describes it.

A frozen dataclass declares a key as ``Annotated[type, takes, prose]``. If the type includes None,
the key takes null too. ``keys_of`` reads the declarations of a dataclass, and ``Record`` walks
over them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hesscli.system.errors import shown
from hesscli.system.memory import parse_size
from hesscli.system.near import nearest

Path = tuple[str | int, ...]
# What NumPy's integers hold: no size and no seed is larger.
LARGEST_INTEGER = 2**63 - 1
# The beginning of a longer key is enough to find it.
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
    return text if text.isprintable() and len(text) <= _LONGEST_KEY else shown(text)


@dataclass(frozen=True, kw_only=True)
class Takes(ABC):
    """The values that a key takes.

    ``also`` are words, and None for null, that are taken as they are. ``says`` is how the
    documentation describes the values if ``words``, which complete "it must be …", are not enough.
    A key that is not ``spelled`` is written only if its value is not the default. A key takes the
    place of those it is ``instead_of``: one configuration cannot have both.
    """

    also: tuple[str | None, ...] = ()
    says: str = ""
    spelled: bool = True
    instead_of: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What the value must be."""
        return self.says

    @abstractmethod
    def decoded(self, value: Any, path: Path) -> Any:
        """The value that the dataclass holds; raises ConfigKeyError."""

    def decode(self, value: Any, path: Path) -> Any:
        """``decoded``, unless the plain value is one of ``also``."""
        is_word = (value is None or isinstance(value, str)) and value in self.also
        return value if is_word else self.decoded(value, path)

    def encode(self, value: Any) -> Any:
        """A value of the dataclass as YAML and JSON hold it."""
        return [self.encode(each) for each in value] if isinstance(value, tuple) else value

    @property
    def documented(self) -> str:
        """The values as the documentation describes them."""
        return self._with_also(self.says or self.words)

    def refused(self, value: Any, path: Path, words: str = "") -> ConfigKeyError:
        """The error that says what the value must be."""
        return ConfigKeyError(
            path, f"{shown(value)}; it must be {self._with_also(words or self.words)}"
        )

    def _with_also(self, words: str) -> str:
        each = [words, *("null" if word is None else word for word in self.also)]
        return ", or ".join([", ".join(each[:-1]), each[-1]]) if self.also else words


def is_whole(value: Any, least: int, most: int = LARGEST_INTEGER) -> bool:
    """Whether ``value`` is an integer in this range; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


@dataclass(frozen=True)
class Whole(Takes):
    """A whole number in a range."""

    least: int
    most: int = LARGEST_INTEGER

    @property
    def words(self) -> str:
        upwards = "or more" if self.most == LARGEST_INTEGER else f"to {self.most:,}"
        return f"a whole number, {self.least} {upwards}"

    def decoded(self, value: Any, path: Path) -> Any:
        if not is_whole(value, self.least, self.most):
            raise self.refused(value, path)
        return value


@dataclass(frozen=True)
class Number(Takes):
    """A finite number, with bounds that belong to the range (``least``, ``most``) or do not."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    @property
    def words(self) -> str:
        if self.above > -math.inf:
            return f"a number above {self.above:g}"
        if self.most < math.inf:
            return f"a number from {self.least:g} to {self.most:g}"
        if self.least == -math.inf:
            return "a number"
        upper = f" and below {self.below:g}" if self.below < math.inf else ""
        return f"{self.least:g} or more{upper}"

    def decoded(self, value: Any, path: Path) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refused(value, path, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.refused(value, path, "a finite number")
        if not (self.least <= number <= self.most and self.above < number < self.below):
            raise self.refused(value, path)
        return number


@dataclass(frozen=True)
class Boolean(Takes):
    """True or false."""

    words = "true or false"

    def decoded(self, value: Any, path: Path) -> bool:
        if not isinstance(value, bool):
            raise self.refused(value, path)
        return value


@dataclass(frozen=True)
class Text(Takes):
    """Text that is not empty."""

    words = "text, and not empty"

    def decoded(self, value: Any, path: Path) -> str:
        if not isinstance(value, str) or not value:
            raise self.refused(value, path)
        return value


@dataclass(frozen=True)
class Size(Takes):
    """Bytes as a number, or with a unit."""

    words = "a size such as 500MB or 2GB"

    def decoded(self, value: Any, path: Path) -> Any:
        if not is_whole(parse_size(value) if isinstance(value, str) else value, 1):
            raise self.refused(value, path)
        return value


@dataclass(frozen=True)
class Choice(Takes):
    """One of some names; a function gives those that may change while the program runs."""

    names: Sequence[str] | Callable[[], Sequence[str]]

    @property
    def words(self) -> str:
        names = self._names()
        return f"{', '.join(names[:-1])} or {names[-1]}"

    def decoded(self, value: Any, path: Path) -> str:
        names = self._names()
        if value not in names:
            hint = nearest(value if isinstance(value, str) else "", names)
            raise ConfigKeyError(path, f"{shown(value)} is unknown{hint}")
        return str(value)

    def _names(self) -> Sequence[str]:
        return self.names() if callable(self.names) else self.names


@dataclass(frozen=True)
class ListOf(Takes):
    """A list with an item or more; ``noun`` names an item, ``each`` says more about it.

    With ``or_one``, text alone stands for a list with it.
    """

    item: Takes
    noun: str = "number"
    each: str = ""
    least: int = 1
    or_one: bool = False

    @property
    def words(self) -> str:
        each = f", each {self.each}" if self.each else ""
        return f"a list of one {self.noun} or more{each}"

    def decoded(self, value: Any, path: Path) -> tuple[Any, ...]:
        if self.or_one and isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or len(value) < self.least:
            raise self.refused(value, path)
        return tuple(self.item.decode(item, (*path, place)) for place, item in enumerate(value))


@dataclass(frozen=True)
class Matrix(ListOf):
    """Rows of equally many numbers."""

    item: Takes = ListOf(Number())
    noun: str = "row"
    each: str = "a list of numbers"

    def decoded(self, value: Any, path: Path) -> tuple[Any, ...]:
        rows = super().decoded(value, path)
        for place, row in enumerate(rows):
            if len(row) != len(rows[0]):
                text = f"{len(row)} numbers; the first row has {len(rows[0])}"
                raise ConfigKeyError((*path, place), text)
        return rows


@dataclass(frozen=True)
class OrList(Takes):
    """A value of one kind, or a list of several."""

    one: Takes
    several: Takes

    @property
    def words(self) -> str:
        return f"{self.one.words}, or {self.several.words}"

    def decoded(self, value: Any, path: Path) -> Any:
        return (self.several if isinstance(value, list) else self.one).decode(value, path)


@dataclass(frozen=True)
class Record(Takes):
    """A mapping with the keys that a dataclass declares."""

    kind: Any

    @property
    def words(self) -> str:
        return _mapping_with(keys_of(self.kind))

    def decoded(self, value: Any, path: Path) -> Any:
        keys = keys_of(self.kind)
        mapping = mapping_with(value, path, keys)
        found = {name: keys[name].takes.decode(of, (*path, name)) for name, of in mapping.items()}
        for name in found:
            for other in keys[name].takes.instead_of:
                if other in mapping and found[name] is not None:
                    text = f"{dotted((*path, name))[:-2]} is given as well, give one of them"
                    raise ConfigKeyError((*path, other), f"{shown(mapping[other])}; {text}")
        return self.kind(**found)

    def encode(self, value: Any) -> dict[str, Any]:
        found = {}
        replaced: set[str] = set()
        for name, key in keys_of(self.kind).items():
            own = getattr(value, name)
            if own != key.default:
                replaced.update(key.takes.instead_of)
            if key.takes.spelled or own != key.default:
                found[name] = key.takes.encode(own)
        return {name: of for name, of in found.items() if name not in replaced}


@dataclass(frozen=True)
class Key:
    """A key of a dataclass: what it takes, what it is, and its default (MISSING for none)."""

    name: str
    takes: Takes
    prose: str
    default: Any


@cache
def keys_of(kind: Any) -> Mapping[str, Key]:
    """The keys that a dataclass declares, by name; a nested dataclass is a Record."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):
        hint = hints[field.name]
        if get_origin(hint) is Annotated:
            type_, takes, prose = get_args(hint)
            if NoneType in get_args(type_):
                takes = replace(takes, also=(*takes.also, None))
        elif is_dataclass(hint):
            takes, prose = Record(hint), ""
        else:
            raise TypeError(f"{kind.__name__}.{field.name} does not declare what it takes")
        found[field.name] = Key(field.name, takes, prose, field.default)
    return found


def mapping_with(value: Any, path: Path, keys: Iterable[str]) -> Mapping[str, Any]:
    """``value`` if it is a mapping without other keys; raises ConfigKeyError."""
    names = list(keys)
    if not isinstance(value, Mapping):
        raise ConfigKeyError(path, f"{shown(value)}; it must be {_mapping_with(names)}")
    for key in value:
        if key not in names:
            raise ConfigKeyError((*path, str(key)), f"unknown key{nearest(str(key), names)}")
    return value


def _mapping_with(keys: Iterable[str]) -> str:
    return f"a mapping with {', '.join(keys)}"
