"""Examples that stay where they are stored until some of them are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from hesscli.system.errors import InputError, WrongNumberError, reason

RawArray = NDArray[Any]
Floats = NDArray[np.floating]
Chosen = slice | NDArray[np.intp]
# Arrays of more bytes stay in their file, if the format allows it.
LARGE_BYTES = 64 * 2**20


class Rows(Protocol):
    """Anything like an array along its first axis: an array, or rows of a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, chosen: Any, /) -> Any: ...


@dataclass(frozen=True)
class FileRows:
    """An array in C order inside a file, of which only the rows that are asked for are read.

    ``offset`` is where its numbers begin, in bytes; ``name`` is what messages call it. Nothing of
    the file stays in the process. Raises InputError if the file is no longer as it was.
    """

    name: str
    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def reshape(self, *shape: int) -> FileRows:
        """The same numbers as rows of another shape (M, …)."""
        return replace(self, shape=shape)

    def __getitem__(self, chosen: Chosen) -> RawArray:
        native = self.dtype.newbyteorder("=")
        try:
            if isinstance(chosen, slice) and chosen.step in (None, 1):
                start, stop, _ = chosen.indices(self.shape[0])
                return self._neighbours(start, stop).astype(native, copy=False)
            mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
            return np.array(mapped[chosen], dtype=native)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.name}: cannot be read any more ({reason(error)}); leave the file as it is "
                "while it is used"
            ) from error

    def _neighbours(self, start: int, stop: int) -> RawArray:
        each = math.prod(self.shape[1:])
        with open(self.path, "rb") as stream:
            stream.seek(self.offset + start * each * self.dtype.itemsize)
            numbers = np.fromfile(stream, self.dtype, (stop - start) * each)
        return numbers.reshape(stop - start, *self.shape[1:])


@dataclass(frozen=True)
class StoredInputs:
    """Network inputs (N, d) in ``dtype``, made of stored rows when they are asked for.

    ``order`` (N,) are the rows they are, one after the other or shuffled; ``convert`` makes rows
    as stored into inputs. ``memory`` is how many bytes examples that are read may take at a time,
    with what is computed of them. A slice or an array of indices gives an array; nothing is kept.
    """

    rows: Rows
    order: range | NDArray[np.intp]
    convert: Callable[[RawArray], Floats]
    width: int
    dtype: np.dtype[np.floating]
    memory: int

    def __len__(self) -> int:
        return len(self.order)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.order), self.width

    @overload
    def __getitem__(self, chosen: Chosen) -> Floats: ...

    @overload
    def __getitem__(self, chosen: int) -> Floats: ...

    def __getitem__(self, chosen: Chosen | int) -> Floats:
        if isinstance(chosen, int):
            one: Floats = self[chosen : chosen + 1][0]
            return one
        where = self._places(chosen)
        try:
            inputs: Floats = self.convert(self.rows[where])
        except WrongNumberError as error:
            # Of a file it is said where in it, not where among the examples of a chunk.
            if not isinstance(self.rows, FileRows):
                raise
            row = range(len(self.rows))[where] if isinstance(where, slice) else where
            raise error.within(self.rows.name, int(row[error.index[0]])) from None
        return inputs

    def part(self, chosen: slice) -> StoredInputs:
        """Some of the examples, still stored."""
        return replace(self, order=self.order[chosen])

    def _places(self, chosen: Chosen) -> Chosen:
        if isinstance(self.order, range) and not isinstance(chosen, slice):
            return chosen + self.order.start
        some = self.order[chosen]
        assert not isinstance(some, int)
        return places(some)


def places(order: range | NDArray[np.intp]) -> Chosen:
    """Rows as an index: as a slice if they are neighbours, which is the quickest to read."""
    return slice(order.start, order.stop) if isinstance(order, range) else order
