"""The name that may be meant by one that is not known."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def nearest(
    name: str, names: Sequence[str], shown: Callable[[str], str] = repr, choose: str = "choose"
) -> str:
    """``; did you mean 'tanh'?`` if one of ``names`` is near ``name``, otherwise all of them.

    Neither upper case nor a hyphen in the place of an underscore makes a name another one.
    ``shown`` writes the name that is near, ``choose`` comes before all of them.
    """
    near = nearest_of(name, names)
    return f"; {choose} {', '.join(names)}" if near is None else f"; did you mean {shown(near)}?"


def nearest_of(name: str, names: Sequence[str]) -> str | None:
    """The one of ``names`` that is near ``name``; the hyphens of an option make none nearer."""
    # Only wrong usage needs it: --help does not wait for its import.
    from difflib import get_close_matches

    folded = {_folded(each): each for each in reversed(names)}
    near = get_close_matches(_folded(name), list(folded), n=1)
    return folded[near[0]] if near else None


def _folded(name: str) -> str:
    return name.casefold().lstrip("-").replace("-", "_")
