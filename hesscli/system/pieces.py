"""Work in pieces of a bounded size, so that memory stays flat."""

from __future__ import annotations

from collections.abc import Iterator

# Small enough that the few pieces alive at once stay far below the cost of importing TensorFlow,
# large enough to keep the matrix products busy.
_PIECE_BYTES = 32 * 2**20


def pieces(
    start: int, stop: int, bytes_each: int, piece_bytes: int = _PIECE_BYTES
) -> Iterator[tuple[int, int]]:
    """(low, high) pairs that cover start … stop; each piece takes at most ``piece_bytes``."""
    step = max(1, piece_bytes // max(1, bytes_each))
    for low in range(start, stop, step):
        yield low, min(low + step, stop)
