"""What goes wrong, as exceptions that say what would be right."""

from __future__ import annotations


class HesscliError(Exception):
    """An error that the user can mend; its text is one line, shown as it is."""


class InputError(HesscliError):
    """A file, a key or a value that cannot be used."""


class UnknownBlockError(InputError, KeyError):
    """The name of a block that the problem does not have."""

    # A KeyError shows its text in quotes.
    __str__ = Exception.__str__


class NumericalError(HesscliError):
    """A computation that left the range of its floating-point type."""


def reason(error: BaseException) -> str:
    """What ``error`` says, on one line: for an OSError the system's text, without the path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
