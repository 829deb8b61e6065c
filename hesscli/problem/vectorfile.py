"""A vector in the parameters of a block, as a file: ``.npy`` or ``.npz``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import NoReturn

import numpy as np

from hesscli.problem.graph import Array
from hesscli.problem.npz import RawArray, array_names, read_arrays, require_finite, rows_in_file
from hesscli.system.errors import InputError
from hesscli.system.files import check_writable, replacing

# The tensors of a block in order, each with its shape.
Shapes = Mapping[str, tuple[int, ...]]
# The v of a block, whose tensors have these shapes.
Vector = Callable[[Shapes], Array]
_SUFFIXES = (".npy", ".npz")


def read_vector(path: str, key: str, shapes: Shapes) -> Array:
    """The vector v (P,) in the file ``path``, for a block with the tensors ``shapes``.

    An ``.npy`` file, or an ``.npz`` file of a single array, holds (P,) numbers, or of a block of
    one tensor an array of its shape. An ``.npz`` file with an array for each tensor, called like it
    (``dense1/kernel``), holds what ``write_vector`` writes; what else is in it is left alone.
    ``key`` is what messages begin with, as in ``--vector``. Raises InputError if the file is
    missing, damaged, or holds anything but finite real numbers of these shapes.
    """
    try:
        return _read(path, shapes)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error


def require_vector_path(path: str, key: str) -> None:
    """Raises InputError if ``path`` has no suffix of a vector file or cannot be written."""
    if _suffix(path) not in _SUFFIXES:
        _refuse_suffix(f"{key} {path}")
    check_writable(path)


def holds_tensors(path: str) -> bool:
    """Whether a vector file has an array for each tensor, and so may have those of other blocks."""
    return _suffix(path) == ".npz"


def write_vector(path: str, v: Array, shapes: Shapes) -> None:
    """Writes v (P,) to ``path``, whole or not at all, so that ``read_vector`` reads it.

    ``.npy`` as it is, ``.npz`` as an array for each tensor of its shape. Raises InputError if
    the file cannot be written.
    """
    with replacing(path) as stream:
        if _suffix(path) == ".npy":
            np.save(stream, v, allow_pickle=False)
            return
        ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
        parts = np.split(v, ends[:-1])
        arrays = {
            name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)
        }
        # Not with allow_pickle, which NumPy 2.0 takes for the name of an array.
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _read(path: str, shapes: Shapes) -> Array:
    if _suffix(path) == ".npy":
        found = rows_in_file(path, path)
        _require_shape(path, found.shape, shapes)
        whole: RawArray = found[:]
        require_finite(whole, path)
        return _flat(whole)
    if _suffix(path) != ".npz":
        _refuse_suffix(path)
    names = array_names(path)
    needed = f"an array for each of {', '.join(shapes)} is needed, or a single one of all"
    if set(shapes) <= set(names):
        arrays = read_arrays(path, list(shapes), needed)
        for name, array in arrays.items():
            if array.shape != shapes[name]:
                raise InputError(
                    f"{path}: {name} has the shape {array.shape}; it must be {shapes[name]}"
                )
        return np.concatenate([_flat(arrays[name]) for name in shapes])
    if len(names) != 1:
        missing = next(name for name in shapes if name not in names)
        raise InputError(f"{path}: no array {missing!r} among the {len(names)} in it; {needed}")
    (single,) = read_arrays(path, names, needed).values()
    _require_shape(path, single.shape, shapes)
    return _flat(single)


def _require_shape(path: str, shape: tuple[int, ...], shapes: Shapes) -> None:
    whole = (sum(math.prod(of) for of in shapes.values()),)
    allowed = [whole, *shapes.values()] if len(shapes) == 1 else [whole]
    if shape not in allowed:
        parameters = ", ".join(shapes) if len(shapes) <= 2 else f"{len(shapes)} tensors"
        of_tensor = "".join(f" or {of}" for of in allowed[1:] if of != whole)
        raise InputError(
            f"{path}: of shape {shape}; the parameters of {parameters} are {whole[0]:,}, so it "
            f"must be {whole}{of_tensor}"
        )


def _flat(array: RawArray) -> Array:
    return array.reshape(-1).astype(array.dtype if array.dtype.kind == "f" else np.float64)


def _suffix(path: str) -> str:
    return PurePath(path).suffix.lower()


def _refuse_suffix(path: str) -> NoReturn:
    raise InputError(f"{path}: the suffix must be {' or '.join(_SUFFIXES)}")
