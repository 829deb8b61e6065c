"""What the scripts that a person would write begin and end with: ``PROBLEM FORM`` on their line."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from benchmarks.worker import DISAGREED

# Sums of a few thousand numbers in float64, in different orders.
_RTOL = 1e-10


def problem() -> tuple[dict[str, Any], list[Any]]:
    """The arrays of the problem file, and its kernels from the input to the output."""
    with np.load(sys.argv[1]) as stored:
        arrays = dict(stored)
    return arrays, [array for name, array in arrays.items() if name.endswith("/kernel")]


def hold(form: float) -> None:
    """Ends the script where vᵀHv at the kernel itself is not hesscli's."""
    ours = float(sys.argv[2])
    if not abs(form - ours) <= _RTOL * abs(ours):
        sys.stderr.write(f"the quadratic form is {form!r}, hesscli has {ours!r}\n")
        sys.exit(DISAGREED)
