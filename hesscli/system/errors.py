"""Exceptions whose text says what is wrong and what would be right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN_LENGTH = 40
# Of a longer line, as a name of 5,000 characters makes it, begin and end say what is wrong.
_LINE_LENGTH = 1000


class HesscliError(Exception):
    """An error that the user can mend; its text is one line, shown as it is."""


class InputError(HesscliError):
    """A file, a key or a value that cannot be used."""


class WrongNumberError(InputError):
    """A number of an array that cannot be used, and where it stands.

    ``before`` is what a message begins with, ``array`` what it calls the array, ``index`` the
    number's, ``wrong`` what it is and what would be right.
    """

    def __init__(self, before: str, array: str, index: tuple[int, ...], wrong: str) -> None:
        position = ", ".join(map(str, index))
        super().__init__(f"{before}{array}[{position}] {wrong}")
        self.before = before
        self.index = index
        self.wrong = wrong

    def within(self, array: str, row: int) -> WrongNumberError:
        """The same number as part of another array, where it stands in ``row``."""
        return WrongNumberError(self.before, array, (row, *self.index[1:]), self.wrong)


class UnknownBlockError(InputError, KeyError):
    """The name of a block that the problem does not have."""

    # A KeyError shows its text in quotes.
    __str__ = Exception.__str__


class NumericalError(HesscliError):
    """A computation that left the range of its floating-point type."""


def reason(error: BaseException) -> str:
    """The text of ``error`` on one line: for an OSError the system's, without the path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def printable(text: str) -> str:
    """``text`` as it can be sent to a terminal, whatever names are in it.

    Control characters, and all that does not print, stand as in a Python string.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def one_line(text: str) -> str:
    """``text`` on one line, printable, and no longer than a line is read."""
    line = printable(" ".join(text.split()))
    if len(line) <= _LINE_LENGTH:
        return line
    half = _LINE_LENGTH // 2
    return f"{line[:half]} … {line[-half:]}"


def shown(value: Any) -> str:
    """A value as messages quote it: short, and never the inside of a collection."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = repr(value)
    except ValueError:
        # Python refuses to print integers of more than some thousand digits.
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"
