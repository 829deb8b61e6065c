"""What somebody may have meant who gave a name that is not known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches


def nearest(
    name: str, names: Sequence[str], shown: Callable[[str], str] = repr, choose: str = "choose"
) -> str:
    """``; did you mean 'tanh'?`` where one of ``names`` is near ``name``, otherwise all of them.

    ``shown`` writes the name that is near, ``choose`` comes before all of them.
    """
    near = get_close_matches(name, names, n=1)
    return f"; did you mean {shown(near[0])}?" if near else f"; {choose} {', '.join(names)}"
