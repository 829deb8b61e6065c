"""Reads numbers from an ``.npz`` file that may be damaged or hostile.

Every array's header is read before the array: nothing is unpickled, and nothing is allocated
for a size that the file does not hold.
"""

from __future__ import annotations

import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hesscli.problem.errors import InputError, reason

RawArray = NDArray[Any]

# Twenty times the full MNIST training set in float64: beyond it, a size is an accident or a trap.
MAX_ARRAY_BYTES = 8 * 2**30

# What zipfile, its decompressors and NumPy's header parser raise on bytes that are not theirs.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    EOFError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    ValueError,
)
_NAMES_SHOWN = 8


def array_names(path: str) -> tuple[str, ...]:
    """The names of the arrays in the ``.npz`` file ``path``, in file order.

    Raises InputError where ``path`` is missing, cannot be read or is no zip archive.
    """
    with _opened(path) as archive:
        return tuple(_members(archive))


def read_arrays(path: str, names: Sequence[str], layout: str) -> dict[str, RawArray]:
    """The arrays called ``names``, of integers or floating-point numbers, in native byte order.

    ``layout`` says in messages what the file should hold. Raises InputError where the file is
    missing or damaged, where an array is missing, larger than ``MAX_ARRAY_BYTES``, of another
    size than its header declares, of objects or other non-numbers, or not finite.
    """
    arrays = {}
    with _opened(path) as archive:
        members = _members(archive)
        for name in names:
            if name not in members:
                raise InputError(f"{path}: no array {name!r} in it ({_listing(members)}); {layout}")
            arrays[name] = _read_member(archive, members[name], f"{path}: {name}")
    for name, array in arrays.items():
        require_finite(array, f"{path}: {name}")
    return arrays


def require_finite(array: RawArray, where: str) -> None:
    """Raises InputError with the first index where ``array`` is NaN or infinite."""
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if not finite.all():
        index = np.unravel_index(int(np.argmin(finite)), array.shape)
        position = ", ".join(str(int(i)) for i in index)
        raise InputError(f"{where}[{position}] is {array[index]}; every number must be finite")


@contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    expanded = os.path.expanduser(path)
    # A pipe would block in open() and a device has no end.
    if os.path.exists(expanded) and not os.path.isfile(expanded):
        raise InputError(f"{path}: not a regular file; an .npz file is needed")
    try:
        with zipfile.ZipFile(expanded) as archive:
            yield archive
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({reason(error)}); a readable .npz file is needed"
        ) from error
    except DAMAGE as error:
        raise InputError(
            f"{path}: damaged or not an .npz file ({reason(error)}); "
            "an .npz file as numpy.savez writes it is needed"
        ) from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {
        info.filename.removesuffix(".npy"): info
        for info in archive.infolist()
        if info.filename.endswith(".npy")
    }


def _listing(members: dict[str, zipfile.ZipInfo]) -> str:
    if not members:
        return "it holds no arrays"
    shown = ", ".join(repr(name) for name in list(members)[:_NAMES_SHOWN])
    return f"it holds {shown}{', …' if len(members) > _NAMES_SHOWN else ''}"


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> RawArray:
    with archive.open(info) as member:
        shape, dtype = _read_header(member)
        stored = info.file_size - member.tell()
    if dtype.hasobject:
        raise InputError(
            f"{where} holds Python objects, which are never unpickled; "
            "an array of numbers is needed"
        )
    if dtype.kind not in "iuf":
        raise InputError(
            f"{where} is of type {dtype}; integers or floating-point numbers are needed"
        )
    declared = math.prod(shape) * dtype.itemsize
    if declared > MAX_ARRAY_BYTES:
        raise InputError(
            f"{where} declares shape {shape} of {dtype}, {declared / 2**30:.1f} GiB; "
            f"at most {MAX_ARRAY_BYTES / 2**30:g} GiB are read"
        )
    if declared != stored:
        raise InputError(
            f"{where} declares {declared} bytes for shape {shape} of {dtype} but {stored} bytes "
            "are stored; the two must be equal"
        )
    with archive.open(info) as member:
        array: RawArray = npy.read_array(member, allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(member)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(member)
    else:
        # Version 3.0 exists only for structured types with non-Latin field names.
        raise ValueError(f"array format version {version[0]}.{version[1]}")
    return shape, dtype
