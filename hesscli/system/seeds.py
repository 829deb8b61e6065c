"""Seeds that nobody has chosen."""

from __future__ import annotations

import os

# Few enough digits to type again.
_SEEDS = 10**9


def fresh_seed() -> int:
    """A seed that no former run had, but by chance."""
    # The module secrets takes time to be imported, and --help would wait for it.
    return int.from_bytes(os.urandom(16), "little") % _SEEDS
