"""The values of a key of the configuration: one declaration decodes, encodes and describes it.

A frozen dataclass declares a key as ``Annotated[type, takes, prose]``. If the type includes None,
the key takes null too. ``keys_of`` reads the declarations of a dataclass, and ``Record`` walks
over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache, partial
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


def _anything(_value: Any) -> bool:
    return True


@dataclass(frozen=True)
class Takes:
    """The values that a key takes: those that ``fits`` is true of.

    ``words`` complete "it must be …". ``also`` are texts, and None for null, that are taken as they
    are. ``says`` is what the documentation says in place of ``words``. A key that is not
    ``spelled`` is written only if its value is not the default. A configuration that has the key
    cannot have those that it is ``instead_of``.
    """

    words: str = ""
    fits: Callable[[Any], bool] = _anything
    also: tuple[str | None, ...] = field(default=(), kw_only=True)
    says: str = field(default="", kw_only=True)
    spelled: bool = field(default=True, kw_only=True)
    instead_of: tuple[str, ...] = field(default=(), kw_only=True)

    def decode(self, value: Any, path: Path) -> Any:
        """The dataclass's value for a plain one of YAML or JSON; raises ConfigKeyError."""
        is_word = (value is None or isinstance(value, str)) and value in self.also
        return value if is_word else self.decoded(value, path)

    def decoded(self, value: Any, path: Path) -> Any:
        """As ``decode``, for a value that is not one of ``also``."""
        if not self.fits(value):
            raise self.refused(value, path)
        return value

    def encode(self, value: Any) -> Any:
        """The plain value for one of the dataclass."""
        return [self.encode(each) for each in value] if isinstance(value, tuple) else value

    def described(self, words: str = "") -> str:
        """A description of the right values, as in the documentation or in other words."""
        each = [words or self.says or self.words]
        each += ["null" if word is None else word for word in self.also]
        return ", or ".join([", ".join(each[:-1]), each[-1]]) if self.also else each[0]

    def refused(self, value: Any, path: Path, words: str = "") -> ConfigKeyError:
        """The error that says what the value must be."""
        wanted = self.described(words or self.words)
        return ConfigKeyError(path, f"{shown(value)}; it must be {wanted}")


def is_whole(value: Any, least: int, most: int = LARGEST_INTEGER) -> bool:
    """Whether ``value`` is an integer in this range; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def whole(least: int, most: int = LARGEST_INTEGER, **more: Any) -> Takes:
    """A whole number in a range."""
    upwards = "or more" if most == LARGEST_INTEGER else f"to {most:,}"
    words = f"a whole number, {least} {upwards}"
    return Takes(words, lambda value: is_whole(value, least, most), **more)


@dataclass(frozen=True)
class Number(Takes):
    """A finite number that ``fits``."""

    words: str = "a number"

    def decoded(self, value: Any, path: Path) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refused(value, path, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.refused(value, path, "a finite number")
        if not self.fits(number):
            raise self.refused(value, path)
        return number


positive = partial(Number, "a number above 0", lambda value: value > 0)
not_negative = partial(Number, "0 or more", lambda value: value >= 0)
boolean = partial(Takes, "true or false", lambda value: isinstance(value, bool))
text = partial(Takes, "text, and not empty", lambda value: isinstance(value, str) and value != "")
size = partial(
    Takes,
    "a size such as 500MB or 2GB",
    lambda value: is_whole(parse_size(value) if isinstance(value, str) else value, 1),
)


@dataclass(frozen=True)
class Choice(Takes):
    """One of some names, which may change while the program runs."""

    names: Callable[[], Sequence[str]] = tuple

    def decoded(self, value: Any, path: Path) -> str:
        if value not in (names := self.names()):
            hint = nearest(value if isinstance(value, str) else "", names)
            raise ConfigKeyError(path, f"{shown(value)} is unknown{hint}")
        return str(value)


def one_of(names: Sequence[str], **more: Any) -> Takes:
    """One of some names that stay the same."""
    return Choice(f"{', '.join(names[:-1])} or {names[-1]}", names=lambda: names, **more)


@dataclass(frozen=True)
class ListOf(Takes):
    """A list with an item or more; ``noun`` names an item.

    A value that is not a list may be taken ``alone``, as it is or ``wrapped``: a list with it.
    """

    item: Takes = Number()
    noun: str = "number"
    least: int = 1
    alone: Takes | None = None
    wrapped: bool = False

    def decoded(self, value: Any, path: Path) -> Any:
        if self.alone is not None and not isinstance(value, list):
            one = self.alone.decode(value, path)
            return (one,) if self.wrapped else one
        if not isinstance(value, list) or len(value) < self.least:
            raise self.refused(value, path, self.words or f"a list of one {self.noun} or more")
        return tuple(self.item.decode(item, (*path, place)) for place, item in enumerate(value))


@dataclass(frozen=True)
class Matrix(ListOf):
    """Rows of equally many numbers."""

    words: str = "a list of one row or more, each a list of numbers"
    item: Takes = ListOf()

    def decoded(self, value: Any, path: Path) -> Any:
        rows = super().decoded(value, path)
        for place, row in enumerate(rows):
            if len(row) != len(rows[0]):
                text = f"{len(row)} numbers; the first row has {len(rows[0])}"
                raise ConfigKeyError((*path, place), text)
        return rows


@dataclass(frozen=True)
class Record(Takes):
    """A mapping with the keys that the dataclass ``kind`` declares."""

    kind: Any = None

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
        keys = keys_of(self.kind)
        given = [name for name, key in keys.items() if getattr(value, name) != key.default]
        replaced = {other for name in given for other in keys[name].takes.instead_of}
        return {
            name: key.takes.encode(getattr(value, name))
            for name, key in keys.items()
            if (key.takes.spelled or name in given) and name not in replaced
        }


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
    for each in fields(kind):
        hint = hints[each.name]
        if get_origin(hint) is Annotated:
            type_, takes, prose = get_args(hint)
            if NoneType in get_args(type_):
                takes = replace(takes, also=(*takes.also, None))
        elif is_dataclass(hint):
            takes, prose = Record(kind=hint), ""
        else:
            raise TypeError(f"{kind.__name__}.{each.name} does not declare what it takes")
        found[each.name] = Key(each.name, takes, prose, each.default)
    return found


def mapping_with(value: Any, path: Path, keys: Iterable[str]) -> Mapping[str, Any]:
    """``value`` if it is a mapping without other keys; raises ConfigKeyError."""
    names = list(keys)
    if not isinstance(value, Mapping):
        text = f"it must be a mapping with {', '.join(names)}"
        raise ConfigKeyError(path, f"{shown(value)}; {text}")
    for key in value:
        if key not in names:
            raise ConfigKeyError((*path, str(key)), f"unknown key{nearest(str(key), names)}")
    return value
