"""Image sets: the embedded sample, Keras's MNIST, and files as users have them.

A set keeps its pixels as stored; only the examples that are selected become floating-point
numbers.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hesscli.problem.graph import Array
from hesscli.problem.idx import find_idx_files, read_idx
from hesscli.problem.imagefolder import image_files, read_images
from hesscli.problem.names import NORMALIZE, SYMMETRIC
from hesscli.problem.network import Targets
from hesscli.problem.npz import (
    RawArray,
    array_names,
    read_arrays,
    read_rows,
    require_finite,
    rows_in_file,
)
from hesscli.problem.problemfile import is_problem_file, read_batch
from hesscli.problem.stored import FileRows
from hesscli.problem.tables import csv_in_folder, read_csv, read_mat
from hesscli.system.errors import InputError, reason
from hesscli.system.files import expanded
from hesscli.system.quiet import silenced
from hesscli.system.tensorflow import plain_tensorflow

# What the numbers of a source are multiplied by, or how else they are prepared.
Scale: TypeAlias = float | str | None

EMBEDDED = "embedded"
KERAS = "keras"
# What data.source says without being a file's name, whatever there is of files.
NAMED_SOURCES = (EMBEDDED, KERAS)
SPLITS = ("train", "test")

_EMBEDDED_FILE = Path(__file__).with_name("mnist_5k.npz")
_WHITE = 255
_SOURCES = (
    "data.source takes embedded, keras, an .npz, .csv or .mat file, a folder with MNIST's IDX, "
    ".npy or .csv files, or with a folder of images for each class, or a problem file"
)
_LAYOUTS = (
    "a Keras-layout file holds x_train, y_train, x_test and y_test, a problem file inputs and "
    "targets"
)
_WITHOUT_KERAS = "use data.source: embedded, or the path of a copy of MNIST"


@dataclass(frozen=True)
class Dataset:
    """An image set. Its arrays are made read-only.

    ``inputs`` is (M, d), uint8 pixels or floating-point numbers; ``targets`` is (M,) class
    labels, or (M, c) numbers in a problem file; ``name`` is what messages and results call it.
    ``is_batch`` says that the inputs are a problem file's: a network's own, not images. What is
    large stays in its file (FileRows); only what is selected of it is read, and looked at.
    ``sample_weight`` (M,) are weights of the examples, None if there are none.
    """

    inputs: RawArray | FileRows
    targets: Targets | FileRows
    name: str
    is_batch: bool = False
    sample_weight: Array | None = None

    def __post_init__(self) -> None:
        for array in (self.inputs, self.targets):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)

    @property
    def examples(self) -> int:
        return int(self.inputs.shape[0])


def load_dataset(source: str, split: str) -> Dataset:
    """The images and labels of ``split`` (``train`` or ``test``) of ``source``.

    ``source`` is ``embedded``, ``keras``, or the path (``~`` is expanded) of a Keras-layout
    ``.npz`` file, of a folder with the MNIST IDX files or with the same arrays as .npy files, or
    of a problem file, which has no splits. Raises InputError if the source is missing, damaged,
    or holds anything but finite images with one integer label each.
    """
    if split not in SPLITS:
        raise InputError(f"data.split: {split!r} is unknown; it must be train or test")
    if source == EMBEDDED:
        return _load_embedded(split)
    if source == KERAS:
        return _load_keras(split)
    path = expanded(source)
    if os.path.isdir(path):
        return _load_folder(source, split)
    if not os.path.lexists(path):
        raise InputError(f"{source}: no such file or folder; {_SOURCES}")
    if is_problem_file(source):
        inputs, targets = read_batch(source)
        return Dataset(inputs, targets, source, is_batch=True)
    if path.endswith((".csv", ".mat")):
        if split != "train":
            raise InputError(f"data.split: {split}: {source} has no splits; use data.split: train")
        read = read_csv if path.endswith(".csv") else read_mat
        return _dataset(*read(source), source, source, source)
    if path.endswith(".npy"):
        raise InputError(
            f"{source}: an array of its own has no labels; name its folder, with the images as "
            f"x_{split}.npy and the labels as y_{split}.npy"
        )
    return _load_npz(source, split, source)


def dataset_files(source: str, split: str) -> tuple[str, ...]:
    """The files that ``load_dataset`` reads, as the messages name them; none of the package's own.

    None if Keras has not downloaded its file yet. Raises InputError if there are none.
    """
    if source == EMBEDDED:
        return ()
    if source == KERAS:
        cache = keras_file()
        return (cache,) if os.path.isfile(cache) else ()
    if os.path.isdir(expanded(source)):
        table = csv_in_folder(source, split)
        one = None if table is None else (table,)
        images = tuple(path for path, _ in image_files(source, split))
        return npy_files(source, split) or one or images or find_idx_files(source, split)
    return (source,)


def is_batch_file(source: str) -> bool:
    """Whether ``source`` is a problem file, which is a batch and has no splits."""
    return source not in NAMED_SOURCES and is_problem_file(source)


def has_test_split(source: str) -> bool:
    """Whether ``source`` comes with a test split as well as a training split."""
    if source in NAMED_SOURCES:
        return source == KERAS
    if is_problem_file(source):
        return False
    try:
        if os.path.isdir(expanded(source)):
            return bool(dataset_files(source, "test"))
        if expanded(source).endswith((".csv", ".mat")):
            return False
        return {"x_test", "y_test"} <= set(array_names(source))
    except InputError:
        return False


def select_order(
    dataset: Dataset, batch_size: int | None, offset: int, shuffle: bool, seed: int
) -> range | NDArray[np.intp]:
    """The rows of ``batch_size`` examples from ``offset`` on.

    A batch size of None takes every example from ``offset`` on. With ``shuffle`` the whole set
    is permuted by ``np.random.default_rng(seed)`` first. Raises InputError if the batch does
    not lie within the set.
    """
    examples = dataset.examples
    holds = f"{dataset.name} holds {examples} examples"
    if not 0 <= offset < examples:
        raise InputError(
            f"data.offset: {offset} is out of range; {holds}, so it must be 0 to {examples - 1}"
        )
    left = examples - offset
    size = left if batch_size is None else batch_size
    if not 1 <= size <= left:
        raise InputError(
            f"data.batch_size: {size} is out of range; {holds}, so from offset {offset} on "
            f"it must be 1 to {left}"
        )
    if shuffle and seed < 0:
        raise InputError(f"seed: {seed} is negative; it must be 0 or more")
    if not shuffle:
        return range(offset, offset + size)
    order = np.random.default_rng(seed).permutation(examples)[offset : offset + size]
    return np.asarray(order, dtype=np.intp)


def labels(targets: Targets) -> Targets:
    """A copy of targets: integers as int64, others as they are."""
    return targets.astype(np.int64 if targets.dtype.kind in "iu" else targets.dtype)


def to_inputs(selected: RawArray, dtype: DTypeLike, scale: Scale = None) -> Array:
    """Examples (N, ...) as network inputs (N, d) of the floating-point type ``dtype``.

    All numbers are multiplied by ``scale``; without it unsigned bytes by 1/255, into [0, 1], and
    all others are taken as they are. ``symmetric`` is 2x − 1 of these, ``normalize``
    what ``keras.utils.normalize(images, axis=1)`` is. Raises InputError if a number is beyond
    the range of ``dtype``.
    """
    if isinstance(scale, str):
        plain = to_inputs(selected, dtype)
        return 2 * plain - 1 if scale == SYMMETRIC else _normalized(plain)
    precision = np.dtype(dtype)
    with np.errstate(over="ignore"):
        inputs: Array = selected.reshape(len(selected), -1).astype(precision)
        if scale is not None:
            inputs *= np.array(scale, dtype=precision)
    if scale is None and selected.dtype == np.uint8:
        inputs /= _WHITE
    else:
        require_finite(inputs, "the selected inputs", f"data.source: in {precision} ")
    return inputs


def _normalized(inputs: Array) -> Array:
    """Each column of a square image, or each example that is none, at length 1; 0 stays 0."""
    side = math.isqrt(inputs.shape[1])
    shape = (-1, side, side) if side**2 == inputs.shape[1] else (-1, inputs.shape[1])
    images = inputs.reshape(shape)
    lengths = np.linalg.norm(images, axis=1, keepdims=True)
    return np.asarray(images / np.where(lengths == 0, 1, lengths)).reshape(inputs.shape)


def preparation(dtype: np.dtype[Any], scale: Scale) -> str:
    """How ``to_inputs`` prepares numbers of a type, as in ``uint8 ÷ 255``."""
    if scale is None:
        how = "÷ 255" if dtype == np.uint8 else "as they are"
    elif scale == 1:
        how = "as they are"
    elif isinstance(scale, str):
        how = {SYMMETRIC: "to [−1, 1]", NORMALIZE: "normalized by columns"}[scale]
    else:
        how = f"× {scale:g}"
    return f"{dtype.name} {how}"


def embedded_file() -> str:
    """The path of the embedded sample."""
    return str(_EMBEDDED_FILE)


def keras_file() -> str:
    """Where Keras keeps its MNIST, whether or not it is there."""
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return expanded(os.path.join(home, "datasets", "mnist.npz"))


def _load_embedded(split: str) -> Dataset:
    if split != "train":
        raise InputError(
            f"data.split: {split}: the embedded sample comes all from MNIST's training set; "
            "use data.split: train, or data.source: keras or a path"
        )
    path = embedded_file()
    arrays = read_arrays(path, ("x", "y"), "the installed package must be complete")
    return _dataset(arrays["x"], arrays["y"], EMBEDDED, f"{path}: x", f"{path}: y")


def _load_npz(path: str, split: str, name: str) -> Dataset:
    images, labels = _names(path, split)
    arrays = read_rows(path, (images, labels), _LAYOUTS)
    return _dataset(arrays[images], arrays[labels], name, f"{path}: {images}", f"{path}: {labels}")


def _names(path: str, split: str) -> tuple[str, str]:
    """The names of a split's arrays: Keras's, or others that are usual."""
    names = array_names(path)
    usual = [(f"{x}_{split}", f"{y}_{split}") for x, y in (("x", "y"), ("X", "y"), ("X", "Y"))]
    usual.append((f"{split}_images", f"{split}_labels"))
    if split == "train":
        usual += [("images", "labels"), ("X", "y"), ("x", "y"), ("data", "target")]
        usual += [("data", "labels"), ("features", "labels"), ("arr_0", "arr_1")]
    found = [pair for pair in usual if set(pair) <= set(names)]
    return found[0] if found else usual[0]


def npy_files(folder: str, split: str) -> tuple[str, str] | None:
    """The paths of the images and labels of ``split`` in ``folder``, if they are .npy files."""
    images, labels = (os.path.join(folder, f"{kind}_{split}.npy") for kind in "xy")
    found = all(os.path.isfile(expanded(path)) for path in (images, labels))
    return (images, labels) if found else None


def _load_folder(folder: str, split: str) -> Dataset:
    files = npy_files(folder, split)
    table = csv_in_folder(folder, split)
    if files is None and table is not None:
        return _dataset(*read_csv(table), folder, table, table)
    if files is None:
        of_classes = image_files(folder, split)
        if of_classes:
            return _dataset(*read_images(of_classes), folder, folder, folder)
        return _load_idx(folder, split)
    images, labels = files
    return _dataset(rows_in_file(images, images), rows_in_file(labels, labels), folder, *files)


def _load_idx(folder: str, split: str) -> Dataset:
    images, labels = find_idx_files(folder, split)
    return _dataset(read_idx(images, 3), read_idx(labels, 1), folder, images, labels)


def _load_keras(split: str) -> Dataset:
    cache = keras_file()
    if not os.path.isfile(cache):
        return _download_keras(split)
    try:
        return _load_npz(cache, split, KERAS)
    except InputError as error:
        raise InputError(f"{error}; delete the file and Keras will download it again") from error


def _download_keras(split: str) -> Dataset:
    try:
        # Keras draws its progress bar on standard output, where results go.
        with silenced():
            train, test = plain_tensorflow().keras.datasets.mnist.load_data()
        images, labels = train if split == "train" else test
    # Keras raises a bare Exception if the download fails.
    except Exception as error:
        raise InputError(
            f"data.source: keras: MNIST could not be loaded ({reason(error)}); {_WITHOUT_KERAS}"
        ) from error
    return _dataset(images, labels, KERAS, f"keras: x_{split}", f"keras: y_{split}")


def _dataset(
    images: RawArray | FileRows,
    labels: RawArray | FileRows,
    name: str,
    images_at: str,
    labels_at: str,
) -> Dataset:
    if images.ndim < 2:
        raise InputError(
            f"{images_at} has shape {images.shape}; images must be (M, height, width) or (M, d)"
        )
    # A column of labels, or one-hot rows, which the loss may need as labels.
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.reshape(len(labels))
    if labels.ndim not in (1, 2):
        raise InputError(
            f"{labels_at} has shape {labels.shape}; labels must be (M,), or (M, c) numbers"
        )
    if len(images) != len(labels):
        raise InputError(
            f"{images_at} holds {len(images)} images but {labels_at} holds {len(labels)} labels; "
            "there must be one label for each image"
        )
    if 0 in images.shape:
        raise InputError(
            f"{images_at} is empty, of shape {images.shape}; at least one image is needed"
        )
    if labels.ndim == 1 and labels.dtype.kind not in "iuf":
        raise InputError(f"{labels_at} is of type {labels.dtype}; labels must be numbers")
    if isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu":
        labels = labels.astype(np.int64)
    return Dataset(images.reshape(len(images), math.prod(images.shape[1:])), labels, name)
