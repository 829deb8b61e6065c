"""Which library an array is of: formulas take their functions from their arrays.

What is written with ``namespace`` alone, in the words of the array API standard
(https://data-apis.org/array-api), runs on NumPy, on a GPU through CuPy, and under
array-api-strict, which refuses whatever is outside the standard.
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np


def namespace(*arrays: Any) -> Any:
    """The module of the array library that all ``arrays`` are of.

    Raises TypeError for arrays of several libraries.
    """
    for array in arrays:
        if not isinstance(array, np.ndarray):
            return array_api_compat.array_namespace(*arrays)
    return np


def is_numpy(array: Any) -> bool:
    """Whether the array is NumPy's own, for what only NumPy can do, or does faster."""
    return isinstance(array, np.ndarray)


def dtype_of(array: Any) -> np.dtype[Any]:
    """The element type of an array of any library, as NumPy's type of the same name."""
    dtype = array.dtype
    # Others than NumPy and CuPy have types of their own, as array_api_strict.float64.
    return dtype if isinstance(dtype, np.dtype) else np.dtype(str(dtype).rpartition(".")[2])


def is_foreign(array: Any) -> bool:
    """Whether it is an array, and of another library than NumPy."""
    is_array = array_api_compat.is_array_api_obj(array)
    return is_array and not array_api_compat.is_numpy_array(array)


def place(array: Any) -> Any:
    """The device that an array of any library is on."""
    return array_api_compat.device(array)


def from_device(array: Any) -> Any:
    """An array of another library, wherever it is, as NumPy's (by DLPack).

    Raises what NumPy and the other library raise if it cannot be had: TypeError, BufferError,
    RuntimeError.
    """
    return np.from_dlpack(array, device="cpu")
