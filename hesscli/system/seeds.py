"""Seeds that nobody has chosen."""

from __future__ import annotations

import secrets

# Few enough digits to type again.
_SEEDS = 10**9


def fresh_seed() -> int:
    """A seed that no former run had, but by chance."""
    return secrets.randbelow(_SEEDS)
