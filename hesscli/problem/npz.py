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
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hesscli.problem.stored import LARGE_BYTES, FileRows
from hesscli.system.errors import InputError, WrongNumberError, reason
from hesscli.system.files import expanded, opened
from hesscli.system.memory import readable_size, require_memory

RawArray = NDArray[Any]

# Twenty times the full MNIST training set in float64: beyond it, a size is an accident or a trap.
MAX_ARRAY_BYTES = 8 * 2**30

# What unpacks to more than this may not be packed a hundred times smaller: images never are.
_BOMB_BYTES, _BOMB_RATIO = 256 * 2**20, 100
# Others are unpacked without a bound by zipfile: some kB of them fill the memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

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

    Raises InputError if ``path`` is missing, cannot be read or is not a zip archive.
    """
    with _opened(path) as archive:
        return tuple(_members(archive))


def read_arrays(path: str, names: Sequence[str], layout: str) -> dict[str, RawArray]:
    """The arrays called ``names``, of integers or floating-point numbers, in native byte order.

    ``layout`` says in messages what the file should hold. Raises InputError if the file is
    missing or damaged, if an array is missing, larger than ``MAX_ARRAY_BYTES``, of another
    size than its header declares, of objects or other non-numbers, or not finite.
    """
    arrays = {}
    with _opened(path) as archive:
        members = _members(archive)
        declared = 0
        for name in names:
            if name not in members:
                raise InputError(f"{path}: no array {name!r} in it ({_listing(members)}); {layout}")
            declared += _declared(archive, members[name], f"{path}: {name}")
        require_unpackable(declared, packed_size(archive), path)
        for name in names:
            arrays[name] = _read_member(archive, members[name], f"{path}: {name}")
    for name, array in arrays.items():
        require_finite(array, f"{path}: {name}")
    return arrays


def read_rows(path: str, names: Sequence[str], layout: str) -> dict[str, RawArray | FileRows]:
    """The arrays called ``names`` as ``read_arrays`` gives them, but large ones stay in the file.

    Those are the ones of more than LARGE_BYTES that are stored as they are, as ``numpy.savez``
    does: whether their numbers are finite, and the archive's checksum, is then not looked at.
    """
    arrays: dict[str, RawArray | FileRows] = {}
    with _opened(path) as archive:
        members = _members(archive)
        for name in names:
            info = members.get(name)
            rows = None if info is None else _rows_of(archive, info, path, f"{path}: {name}")
            if rows is not None:
                arrays[name] = rows
    rest = [name for name in names if name not in arrays]
    return {**arrays, **read_arrays(path, rest, layout)}


def rows_in_file(path: str, where: str) -> RawArray | FileRows:
    """The array of an ``.npy`` file, which stays there if it is large.

    Raises InputError if the file is missing or damaged, or holds anything but numbers.
    """
    try:
        with opened(path, "an .npy file is needed") as stream:
            shape, dtype, in_c_order = _read_header(stream)
            start, size = stream.tell(), os.fstat(stream.fileno()).st_size
            declared = _require_numbers(shape, dtype, size - start, where)
            if declared > LARGE_BYTES and in_c_order and shape:
                return FileRows(where, expanded(path), start, shape, dtype)
            require_unpackable(declared, size, where)
            stream.seek(0)
            with _in_silence():
                array: RawArray = npy.read_array(stream, allow_pickle=False)
    except DAMAGE as error:
        raise InputError(
            f"{path}: damaged or not an .npy file ({reason(error)}); "
            "an .npy file as numpy.save writes it is needed"
        ) from error
    require_finite(array, where)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def require_unpackable(declared: int, packed: int, where: str) -> None:
    """Raises InputError if ``declared`` bytes out of ``packed`` ones of a file are a trap.

    Or if there is not as much memory free.
    """
    if declared > max(_BOMB_BYTES, _BOMB_RATIO * packed):
        raise InputError(
            f"{where} would unpack to {readable_size(declared)} from {readable_size(packed)}; "
            f"beyond {readable_size(_BOMB_BYTES)} it may be {_BOMB_RATIO} times as much"
        )
    require_memory(declared, f"{where} needs", "use a smaller file")


def packed_size(archive: zipfile.ZipFile) -> int:
    """The bytes of an archive's file."""
    assert archive.fp is not None
    return os.fstat(archive.fp.fileno()).st_size


@contextmanager
def opened_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str
) -> Iterator[IO[bytes]]:
    """A member of an archive, to be read; InputError if its packing is none that NumPy uses."""
    if info.compress_type not in _METHODS:
        raise InputError(
            f"{where} is packed by method {info.compress_type}; stored or deflated is needed, as "
            "numpy.savez and numpy.savez_compressed do"
        )
    with archive.open(info) as member:
        yield member


def require_finite(array: RawArray, where: str, before: str = "") -> None:
    """Raises WrongNumberError with the first index where ``array`` is NaN or infinite.

    ``where`` is what the message calls the array, ``before`` what stands before it.
    """
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if not finite.all():
        index = np.unravel_index(int(np.argmin(finite)), array.shape)
        wrong = f"is {array[index]}; every number must be finite"
        raise WrongNumberError(before, where, tuple(map(int, index)), wrong)


@contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    try:
        with opened(path, "an .npz file is needed") as stream, zipfile.ZipFile(stream) as archive:
            yield archive
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


def _rows_of(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, where: str
) -> FileRows | None:
    """A large member as rows of the file; None if it is to be read."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size <= LARGE_BYTES:
        return None
    with opened_member(archive, info, where) as member:
        shape, dtype, in_c_order = _read_header(member)
        header = member.tell()
    _require_numbers(shape, dtype, info.file_size - header, where)
    with opened(path, "an .npz file is needed") as stream:
        # The local header: 30 bytes, of which the last four are the lengths of what follows.
        stream.seek(info.header_offset)
        name, extra = struct.unpack("<26x2H", stream.read(30))
        start = info.header_offset + 30 + name + extra + header
        size = os.fstat(stream.fileno()).st_size
    if not in_c_order or not shape or start + info.file_size - header > size:
        return None
    return FileRows(where, expanded(path), start, shape, dtype)


def _declared(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> int:
    """The bytes of a member's numbers."""
    with opened_member(archive, info, where) as member:
        shape, dtype, _ = _read_header(member)
        stored = info.file_size - member.tell()
    return _require_numbers(shape, dtype, stored, where, limit=MAX_ARRAY_BYTES)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> RawArray:
    with opened_member(archive, info, where) as member, _in_silence():
        array: RawArray = npy.read_array(member, allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _require_numbers(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    stored: int,
    where: str,
    limit: int | None = None,
) -> int:
    """The bytes that a header declares; InputError if it is not an array of as many numbers."""
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
    if limit is not None and declared > limit:
        raise InputError(
            f"{where} declares shape {shape} of {dtype}, {declared / 2**30:.1f} GiB; "
            f"at most {limit / 2**30:g} GiB are read"
        )
    if declared != stored:
        raise InputError(
            f"{where} declares {declared} bytes for shape {shape} of {dtype} but {stored} bytes "
            "are stored; the two must be equal"
        )
    return declared


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape and type, and whether the numbers are in C order."""
    version = npy.read_magic(member)
    with _in_silence():
        if version == (1, 0):
            shape, by_columns, dtype = npy.read_array_header_1_0(member)
        elif version == (2, 0):
            shape, by_columns, dtype = npy.read_array_header_2_0(member)
        else:
            # Version 3.0 exists only for structured types with non-Latin field names.
            raise ValueError(f"array format version {version[0]}.{version[1]}")
    if min(shape, default=0) < 0:
        raise ValueError(f"shape {shape}")
    return shape, dtype, not by_columns


@contextmanager
def _in_silence() -> Iterator[None]:
    """NumPy warns of headers that Python 2 wrote, Python of what looks odd in a header."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
