"""What somebody may have meant who gave a name that is not known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches


def nearest(
    name: str, names: Sequence[str], shown: Callable[[str], str] = repr, choose: str = "choose"
) -> str:
    """``; did you mean 'tanh'?`` if one of ``names`` is near ``name``, otherwise all of them.

    Neither upper case nor a hyphen in the place of an underscore makes a name another one.
    ``shown`` writes the name that is near, ``choose`` comes before all of them.
    """
    folded = {_folded(each): each for each in reversed(names)}
    near = get_close_matches(_folded(name), list(folded), n=1)
    if near:
        return f"; did you mean {shown(folded[near[0]])}?"
    return f"; {choose} {', '.join(names)}"


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")
