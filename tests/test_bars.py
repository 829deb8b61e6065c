"""Bars beside numbers: their lengths, and what a stream that cannot show them gets."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hesscli.report.bars import PLAIN, share_bar, sparkline

EIGHTHS = {"░": 0, "▏": 1, "▎": 2, "▍": 3, "▌": 4, "▋": 5, "▊": 6, "▉": 7, "█": 8}
HEIGHTS = "▁▂▃▄▅▆▇█"


@given(st.floats(0, 1), st.integers(1, 30))
def test_a_bar_has_its_width_and_is_filled_to_an_eighth(fraction: float, width: int) -> None:
    bar = share_bar(fraction, width)
    filled = sum(EIGHTHS[sign] for sign in bar) / 8
    assert len(bar) == width
    # Half an eighth by rounding; beyond, an eighth stands for what is almost 0 or almost 1.
    assert abs(filled - fraction * width) <= 1 / 8
    assert (filled == 0) == (fraction == 0)
    assert (filled == width) == (fraction == 1)
    assert bar == "".join(sorted(bar, key=EIGHTHS.__getitem__, reverse=True))


def test_bars_of_known_shares() -> None:
    assert share_bar(0.5, 7) == "███▌░░░"
    assert share_bar(0.25, 2) == "▌░"
    assert (share_bar(0, 3), share_bar(1, 3)) == ("░░░", "███")
    assert (share_bar(1e-9, 2), share_bar(1 - 1e-9, 2)) == ("▏░", "█▉")
    assert (share_bar(-1, 2), share_bar(1.5, 2)) == ("░░", "██")
    assert (share_bar(None, 5), share_bar(float("nan"), 5)) == ("", "")


def test_sparklines_of_known_values() -> None:
    assert sparkline(range(8)) == HEIGHTS
    assert sparkline([7, 0, 7]) == "█▁█"
    assert sparkline([3, 3]) == "▅▅"
    assert sparkline([0, float("nan"), float("inf"), 1]) == "▁  █"
    assert sparkline([5, 9], low=0, high=7) == "▆█"
    assert (sparkline([]), sparkline([float("nan")])) == ("", " ")
    assert sparkline([-1.7e308, 0, 1.7e308]) == "▁▅█"


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_a_higher_sign_is_a_larger_value(values: list[float]) -> None:
    heights = [HEIGHTS.index(sign) for sign in sparkline(values)]
    by_value = [height for _, height in sorted(zip(values, heights, strict=True))]
    assert by_value == sorted(heights)
    if min(values) < max(values):
        assert (min(heights), max(heights)) == (0, 7)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stream_that_cannot_show_a_bar_gets_ascii(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=PLAIN)
    stream.write(f"{share_bar(0.4, 7)} {HEIGHTS} {'─' * 3} ⊗")
    stream.flush()
    assert stream.buffer.getvalue() == b"##+.... _.:-=+*# --- ?"  # type: ignore[attr-defined]
