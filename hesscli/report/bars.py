"""Small bars next to numbers, as text: shares, and rows of values.

They are made of block elements. A stream that cannot encode these shows signs of ASCII instead
if ``PLAIN`` is its error handler, as ``hesscli.cli.main`` has it.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Mapping, Sequence

_FULL, _TRACK = "█", "░"
# Eighths of a full block: from the left in a bar, from below in a sparkline.
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_HEIGHTS = "▁▂▃▄▅▆▇█"
_GAP = " "

# The error handler for streams that cannot show everything.
PLAIN = "hesscli.plain"
_ASCII: Mapping[str, str] = {
    **dict(zip("█▉▊▋▌▍▎▏░▁▂▃▄▅▆▇─–−·×ᵀ‖∂†", "#++++---._.:-=+*----x'|d*", strict=True)),
    **dict(zip("÷′λΣℓη", "/'LSln", strict=True)),
    "²": "^2",
    "₂": "_2",
    "±": "~",
    "…": "...",
    "≥": ">=",
    "≤": "<=",
    "→": "->",
    "β": "beta",
    "σ": "sigma",
    "″": "''",
    "√": "sqrt",
}


def share_bar(fraction: float | None, width: int) -> str:
    """A bar of ``width`` characters, of which ``fraction`` (0 to 1) is filled; "" for None.

    What is more than nothing shows, and what is less than everything does not fill the bar.
    """
    if fraction is None or math.isnan(fraction):
        return ""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    if fraction > 0:
        eighths = max(eighths, 1)
    if fraction < 1:
        eighths = min(eighths, width * 8 - 1)
    full, rest = divmod(eighths, 8)
    return (_FULL * full + _EIGHTHS[rest]).ljust(width, _TRACK)


def sparkline(values: Sequence[float], low: float | None = None, high: float | None = None) -> str:
    """A character for each value, higher for larger ones; a gap for what is not finite.

    The lowest is ``low`` and the highest ``high``, by default the least and the largest value;
    if these are the same, all are at half the height. Values that span many orders of
    magnitude are the caller's to bring on a logarithmic scale.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return _GAP * len(values)
    bottom = min(finite) if low is None else low
    top = max(finite) if high is None else high
    return "".join(
        _height(value, bottom, top) if math.isfinite(value) else _GAP for value in values
    )


def _height(value: float, bottom: float, top: float) -> str:
    # Halves: the range may be larger than the largest number.
    span = top / 2 - bottom / 2
    part = (value / 2 - bottom / 2) / span if span > 0 else 0.5
    last = len(_HEIGHTS) - 1
    return _HEIGHTS[min(max(round(part * last), 0), last)]


def ascii_of(text: str) -> str:
    """``text`` with signs of ASCII only; ``?`` for a sign that has nothing like it there."""
    return "".join(sign if sign.isascii() else _ASCII.get(sign, "?") for sign in text)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return ascii_of(error.object[error.start : error.end]), error.end


codecs.register_error(PLAIN, _plain)
