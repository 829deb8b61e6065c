"""Which library an array is of: formulas take their functions from their arrays.

What is written with ``namespace`` alone, in the words of the array API standard
(https://data-apis.org/array-api), runs on NumPy, on a GPU through CuPy, and under
array-api-strict, which refuses whatever is outside the standard.
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import array_api_compat.numpy
import numpy as np


def namespace(*arrays: Any) -> Any:
    """The module of the array library that all ``arrays`` are of, NumPy's for numbers alone.

    Raises TypeError for arrays of several libraries.
    """
    if all(isinstance(array, np.ndarray) for array in arrays):
        return array_api_compat.numpy
    return array_api_compat.array_namespace(*arrays)


def is_numpy(array: Any) -> bool:
    """Whether the array is NumPy's own, for what only NumPy can do, or does faster."""
    return isinstance(array, np.ndarray)


def from_device(array: Any) -> Any:
    """An array of another library, wherever it is, as NumPy's (by DLPack).

    Raises what NumPy and the other library raise if it cannot be had: TypeError, BufferError,
    RuntimeError.
    """
    return np.from_dlpack(array, device="cpu")
