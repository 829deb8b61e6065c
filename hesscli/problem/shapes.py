"""How many windows there are along an axis."""

from __future__ import annotations


def window_count(n: int, size: int, stride: int, padding: str, dilation: int = 1) -> int:
    """Windows of ``size`` taps over n numbers; Keras's paddings ``valid``, ``same``, ``causal``."""
    if padding != "valid":
        return -(-n // stride)
    return (n - ((size - 1) * dilation + 1)) // stride + 1
