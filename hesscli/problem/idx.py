"""Reads images and labels in the IDX format of the original MNIST files.

A file is a big-endian header, the magic number and one 32-bit size for each dimension, followed
by unsigned bytes. The format: http://yann.lecun.com/exdb/mnist/ (section "File formats").
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hesscli.problem.npz import MAX_ARRAY_BYTES, require_unpackable
from hesscli.problem.stored import LARGE_BYTES, FileRows
from hesscli.system.errors import InputError, reason
from hesscli.system.files import expanded, opened

Pixels = NDArray[np.uint8]

# The magic number is 0x08 (unsigned bytes) followed by the number of dimensions.
_UNSIGNED_BYTES = 0x0800
_PREFIXES = {"train": "train", "test": "t10k"}
_BELOW = (os.path.join("MNIST", "raw"), "raw")
# Small enough that a header's promise costs no memory before the bytes are there.
_CHUNK_BYTES = 2**20


def find_idx_files(folder: str, split: str) -> tuple[str, str]:
    """The paths of the image and the label file of ``split`` in ``folder``.

    Raises InputError if one of them is missing.
    """
    prefix = _PREFIXES[split]
    # torchvision's folder.
    below = [os.path.join(folder, inner) for inner in _BELOW]
    folder = next((inner for inner in below if os.path.isdir(expanded(inner))), folder)
    return _find(folder, f"{prefix}-images", 3), _find(folder, f"{prefix}-labels", 1)


def read_idx(path: str, dimensions: int) -> Pixels | FileRows:
    """The uint8 array of ``dimensions`` dimensions in the IDX file ``path``, gzipped if ``.gz``.

    A large one that is not gzipped stays in its file.

    Raises InputError if the file cannot be read, is damaged, is of another kind or holds
    another number of bytes than its header declares.
    """
    with opened(path, "a readable IDX file is needed") as file:
        try:
            if path.endswith(".gz"):
                with gzip.open(file, "rb") as compressed:
                    return _read(compressed, path, dimensions)
            return _read(file, path, dimensions)
        except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
            raise InputError(
                f"{path}: damaged ({reason(error)}); a complete IDX file is needed"
            ) from error


def _find(folder: str, stem: str, dimensions: int) -> str:
    usual = f"{stem}-idx{dimensions}-ubyte"
    for name in (usual, f"{stem}.idx{dimensions}-ubyte"):
        for suffix in ("", ".gz"):
            path = os.path.join(folder, name + suffix)
            if os.path.isfile(expanded(path)):
                return path
    raise InputError(
        f"{folder}: no file {usual} in it, plain or .gz; "
        "a folder with the MNIST IDX files is needed"
    )


def _read(stream: BinaryIO | gzip.GzipFile, path: str, dimensions: int) -> Pixels | FileRows:
    expected = _UNSIGNED_BYTES + dimensions
    (magic,) = struct.unpack(">I", stream.read(4))
    if magic != expected:
        raise InputError(f"{path}: IDX magic number {magic}; it must be {expected}")
    shape = struct.unpack(f">{dimensions}I", stream.read(4 * dimensions))
    declared = math.prod(shape)
    if declared > LARGE_BYTES and not isinstance(stream, gzip.GzipFile):
        start = stream.tell()
        if os.fstat(stream.fileno()).st_size - start == declared:
            return FileRows(path, expanded(path), start, shape, np.dtype(np.uint8))
    if declared > MAX_ARRAY_BYTES:
        raise InputError(
            f"{path}: the header declares shape {shape}, {declared / 2**30:.1f} GiB; "
            f"at most {MAX_ARRAY_BYTES / 2**30:g} GiB are read"
        )
    require_unpackable(declared, os.fstat(stream.fileno()).st_size, path)
    # One byte more than declared shows what trails, and makes gzip compare its checksum.
    content = _read_at_most(stream, declared + 1)
    if len(content) != declared:
        found = "more" if len(content) > declared else f"only {len(content)}"
        raise InputError(
            f"{path}: the header declares shape {shape} but {found} bytes follow it; "
            f"there must be {declared}"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _read_at_most(stream: BinaryIO | gzip.GzipFile, count: int) -> bytearray:
    content = bytearray()
    while chunk := stream.read(min(_CHUNK_BYTES, count - len(content))):
        content += chunk
    return content
