"""Files that must be gone when the program ends, however it ends."""

from __future__ import annotations

import os
from contextlib import suppress

_noted: set[str] = set()


def note(path: str) -> None:
    """Says before ``path`` is made that it is not to stay."""
    _noted.add(path)


def remove(path: str) -> None:
    """Removes ``path``, if it is there."""
    # It may have taken its place under another name, or was never made.
    with suppress(OSError):
        os.remove(path)
    _noted.discard(path)


def remove_all() -> None:
    """Removes what an interruption in the middle of ``remove`` has left."""
    for path in tuple(_noted):
        remove(path)
