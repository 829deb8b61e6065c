"""Examples as people keep them: comma-separated text and MATLAB files.

What a file does not say is not guessed if two guesses are left: it is refused with what would
say it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

from hesscli.problem.npz import MAX_ARRAY_BYTES, RawArray, require_finite
from hesscli.system.errors import InputError, reason
from hesscli.system.files import expanded, opened

# What a column, or an array, of labels is called; in lower case.
LABELS = ("label", "labels", "class", "target", "targets", "y")
_INPUTS = ("x", "data", "images", "inputs", "features", "samples")
_WHITE, _SMALLEST_IMAGE = 255, 8
_BYTES_OF_A_NUMBER = 8
Arrays = tuple[RawArray, RawArray]


def csv_in_folder(folder: str, split: str) -> str | None:
    """``train.csv`` or ``mnist_train.csv`` of a folder, None if there is neither."""
    paths = (os.path.join(folder, f"{prefix}{split}.csv") for prefix in ("", "mnist_"))
    return next((path for path in paths if os.path.isfile(expanded(path))), None)


def read_csv(path: str) -> Arrays:
    """The examples (M, d) and labels (M,) in the rows of a CSV file, with a header or without.

    The labels are the column that the header calls label, class, target or y, else the only one
    of the first and the last that holds whole numbers, and the first of a table of pixels. Whole
    numbers 0 to 255 of square images become uint8. Raises InputError if the labels could be
    either column, and if the file is not of numbers.
    """
    needed = "a CSV file of numbers, with one label in each row, is needed"
    with opened(path, needed) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size * _BYTES_OF_A_NUMBER / 2 > MAX_ARRAY_BYTES:
            raise InputError(f"{path}: {size / 2**30:.1f} GiB; save it as .npz, which is smaller")
        try:
            first = stream.readline().decode("utf-8-sig").strip().split(",")
            header = not all(map(_is_number, first))
            stream.seek(0)
            rows = np.loadtxt(stream, delimiter=",", skiprows=int(header), ndmin=2, comments=None)
        except (ValueError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: no table of numbers ({reason(error)}); {needed}") from error
    if rows.shape[0] == 0 or rows.shape[1] < 2:
        raise InputError(f"{path}: a table of shape {rows.shape}; {needed}")
    require_finite(rows, path)
    column = _label_column(path, [name.strip(' "').lower() for name in first], header, rows)
    inputs, labels = np.delete(rows, column, axis=1), rows[:, column]
    if _are_whole(labels):
        labels = labels.astype(np.int64)
    return (inputs.astype(np.uint8) if _are_pixels(inputs) else inputs), labels


def read_mat(path: str) -> Arrays:
    """The examples (M, …) and labels (M,) of a MATLAB file, by the usual names.

    Images that have the examples along their last axis, as those of SVHN, are turned round.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        with opened(path, "a readable .mat file is needed") as stream:
            found = loadmat(stream)
    except NotImplementedError as error:
        raise InputError(f"{path}: of MATLAB 7.3; save it with '-v7'") from error
    except (MatReadError, ValueError, TypeError, KeyError, IndexError, OSError) as error:
        raise InputError(f"{path}: damaged or no MATLAB file ({reason(error)})") from error
    arrays = {name.lower(): array for name, array in found.items() if not name.startswith("__")}
    inputs, labels = (named(path, arrays, names) for names in (_INPUTS, LABELS))
    labels = labels.reshape(-1) if min(labels.shape, default=0) == 1 else labels
    if len(labels) != len(inputs) and inputs.shape[-1] == len(labels):
        inputs = np.moveaxis(inputs, -1, 0)
    for array, name in ((inputs, "inputs"), (labels, "labels")):
        if array.dtype.kind not in "iuf":
            raise InputError(f"{path}: the {name} are of type {array.dtype}; they must be numbers")
        require_finite(array, path)
    return inputs, labels


def named(path: str, arrays: dict[str, RawArray], names: Sequence[str]) -> RawArray:
    """The only one of the arrays that has one of these names; InputError for none or several."""
    found = [name for name in names if name in arrays]
    if len(found) != 1:
        raise InputError(
            f"{path}: {len(found)} arrays called {', '.join(names)} (it holds "
            f"{', '.join(arrays) or 'none'}); name one so"
        )
    return arrays[found[0]]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _label_column(path: str, names: Sequence[str], header: bool, rows: RawArray) -> int:
    called = [index for index, name in enumerate(names) if header and name in LABELS]
    if len(called) == 1:
        return called[0]
    whole = [column for column in (0, -1) if _are_whole(rows[:, column])]
    if len(whole) == 1:
        return whole[0]
    if whole and _are_pixels(rows[:, 1:]):
        return 0
    raise InputError(
        f"{path}: the labels may be the first column or the last; give it a header in which one "
        f"is called {LABELS[0]}"
    )


def _are_whole(numbers: RawArray) -> bool:
    return bool(np.equal(numbers, np.round(numbers)).all())


def _are_pixels(rows: RawArray) -> bool:
    """Whether they are square images of bytes."""
    side = math.isqrt(rows.shape[1])
    square = side >= _SMALLEST_IMAGE and side**2 == rows.shape[1]
    return square and _are_whole(rows) and bool(((rows >= 0) & (rows <= _WHITE)).all())
