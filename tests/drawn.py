"""How many random cases a test draws: a share of them each time, all of them where asked.

``make test`` draws the first fifth, the same ones in each run, so that it takes minutes;
``make test-thorough`` sets HESSCLI_TESTS=thorough and draws all.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SHARE = 5
THOROUGH = os.environ.get("HESSCLI_TESTS") == "thorough"


def cases(most: int) -> int:
    """How many of ``most`` cases this run looks at."""
    return most if THOROUGH else max(5, most // _SHARE)


# Fixed seeds, so that a failure stays.
settings.register_profile(
    "hesscli",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("hesscli")


def drawn(most: int) -> settings:
    """Hypothesis's settings for so many random cases."""
    return settings(max_examples=cases(most))
