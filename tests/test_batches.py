"""What is selected from an image set, Keras's copy of MNIST, and what is not imported for it."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.error
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import select_batch

from hesscli.problem.data import Dataset, load_dataset, to_inputs
from hesscli.problem.targets import check_labels
from hesscli.system.errors import InputError
from hesscli.system.quiet import silenced

IMAGES = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
LABELS = np.array([3, 1, 4, 1, 5, 9])
SIX = Dataset(IMAGES.reshape(6, 4).copy(), LABELS.copy(), "six.npz")


# Selection


def test_a_batch_is_a_run_of_examples() -> None:
    inputs, targets = select_batch(SIX, 2, 3, False, 0)
    assert np.array_equal(inputs, IMAGES.reshape(6, 4)[3:5])
    assert np.array_equal(targets, LABELS[3:5])


def test_no_batch_size_takes_the_rest() -> None:
    assert np.array_equal(select_batch(SIX, None, 0, False, 0)[1], LABELS)
    assert np.array_equal(select_batch(SIX, None, 4, False, 0)[1], LABELS[4:])


@given(st.data(), st.integers(0, 2**32))
def test_shuffled_batches_partition_the_set(data: st.DataObject, seed: int) -> None:
    """Permuting before offset and size are taken makes neighbouring batches disjoint."""
    cut = data.draw(st.integers(1, 5))
    (first, _), (second, _) = (
        select_batch(SIX, cut, 0, True, seed),
        select_batch(SIX, None, cut, True, seed),
    )
    together = np.concatenate([first, second])
    order = np.random.default_rng(seed).permutation(6)
    assert np.array_equal(together, IMAGES.reshape(6, 4)[order])


@pytest.mark.parametrize(
    ("batch_size", "offset", "wrong"),
    [
        (7, 0, "data.batch_size: 7 is out of range; six.npz holds 6 examples"),
        (4, 3, "data.batch_size: 4 is out of range; six.npz holds 6 examples, so from offset 3 "),
        (0, 0, "data.batch_size: 0 is out of range"),
        (-1, 0, "data.batch_size: -1 is out of range"),
        (1, 6, "data.offset: 6 is out of range; six.npz holds 6 examples, so it must be 0 to 5"),
        (None, 6, "data.offset: 6 is out of range"),
        (None, -1, "data.offset: -1 is out of range"),
    ],
)
def test_a_batch_outside_the_set_is_refused(
    batch_size: int | None, offset: int, wrong: str
) -> None:
    with pytest.raises(InputError, match=re.escape(wrong)):
        select_batch(SIX, batch_size, offset, False, 0)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed: -1"):
        select_batch(SIX, 1, 0, True, -1)


def test_a_set_is_read_only_and_a_batch_is_not_a_view_of_it() -> None:
    with pytest.raises(ValueError, match="read-only"):
        SIX.inputs[0, 0] = 1
    inputs, targets = select_batch(SIX, None, 0, False, 0)
    assert not np.shares_memory(inputs, SIX.inputs)
    assert not np.shares_memory(targets, SIX.targets)


# Numbers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pixels_are_correctly_rounded_255ths(dtype: str) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    inputs = to_inputs(pixels, dtype)
    exact = [np.dtype(dtype).type(p) / np.dtype(dtype).type(255) for p in range(256)]
    assert (inputs.shape, inputs.dtype) == ((4, 64), np.dtype(dtype))
    assert inputs.ravel().tolist() == [float(value) for value in exact]
    assert (inputs.min(), inputs.max()) == (0.0, 1.0)


def test_floating_inputs_are_taken_as_they_are() -> None:
    stored = np.array([[-3.0, 255.0], [0.1, 1e-300]])
    assert np.array_equal(to_inputs(stored, np.float64), stored)
    assert np.array_equal(to_inputs(stored, np.float32), stored.astype(np.float32))


def test_a_number_beyond_the_precision_is_refused() -> None:
    with pytest.raises(InputError, match=r"float32 the selected inputs\[1, 0\] is inf; "):
        to_inputs(np.array([[1.0], [1e39]]), np.float32)


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        ([0, 9, 10], "six.npz: label 10 at index 2; 10 classes have the labels 0 to 9"),
        ([0, -1, 10], "six.npz: label -1 at index 1; "),
        ([0.0, 1.0], "six.npz: labels are of type float64, not integers; "),
        ([True], "six.npz: labels are of type bool, not integers; "),
    ],
)
def test_labels_outside_the_classes_are_refused(labels: list[Any], wrong: str) -> None:
    with pytest.raises(InputError, match=re.escape(wrong)):
        check_labels(np.array(labels), 10, "six.npz")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_labels_inside_the_classes_pass(dtype: type) -> None:
    check_labels(np.arange(10, dtype=dtype), 10, "six.npz")


# Keras's copy


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Keras keeps MNIST, in a home of this test's own, before anything is there."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets" / "mnist.npz"


def keras_that(load_data: Any) -> SimpleNamespace:
    """A stand-in for the tensorflow module whose MNIST is ``load_data``."""
    mnist = SimpleNamespace(load_data=load_data)
    return SimpleNamespace(keras=SimpleNamespace(datasets=SimpleNamespace(mnist=mnist)))


def test_keras_cache_is_read_without_tensorflow(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(cache, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=LABELS[:2])
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert load_dataset("keras", "train").examples == 6
    read = load_dataset("keras", "test")
    assert (read.name, read.examples) == ("keras", 2)


def test_keras_cache_is_found_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / ".keras" / "datasets").mkdir(parents=True)
    np.savez(tmp_path / ".keras" / "datasets" / "mnist.npz", x_train=IMAGES, y_train=LABELS)
    assert load_dataset("keras", "train").examples == 6


def test_a_damaged_keras_cache_names_itself_and_the_way_out(cache: Path) -> None:
    cache.write_bytes(b"half a downl")
    with pytest.raises(InputError, match="delete the file and Keras will") as raised:
        load_dataset("keras", "train")
    assert str(raised.value).startswith(f"{cache}: ")


def test_keras_download_writes_nothing_on_the_terminal(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def chatter() -> Any:
        print("Downloading data from ...")
        subprocess.run(["sh", "-c", "echo from C; echo from C >&2"], check=True)
        return (IMAGES, LABELS), (IMAGES[:2], LABELS[:2])

    monkeypatch.setitem(sys.modules, "tensorflow", keras_that(chatter))
    assert load_dataset("keras", "train").examples == 6
    assert load_dataset("keras", "test").examples == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("raised", "wrong"),
    [
        (
            Exception("URL fetch failure on\nhttps://x: None"),
            "URL fetch failure on https://x: None",
        ),
        (urllib.error.URLError("unreachable"), "unreachable"),
        (ImportError("No module named 'tensorflow'"), "No module named 'tensorflow'"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_failed_keras_download_is_one_line_with_a_way_out(
    cache: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, wrong: str
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setitem(sys.modules, "tensorflow", keras_that(fail))
    with pytest.raises(InputError, match=re.escape(wrong)) as refused:
        load_dataset("keras", "train")
    text = str(refused.value)
    assert "\n" not in text
    assert "data.source: embedded" in text


def test_keras_without_tensorflow_says_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(InputError, match=r"tensorflow.*data\.source: embedded"):
        load_dataset("keras", "train")


# Outside the process


def test_silence_ends_with_the_block(capfd: pytest.CaptureFixture[str]) -> None:
    def fail_loudly() -> None:
        with silenced():
            print("inside")
            raise KeyError

    with pytest.raises(KeyError):
        fail_loudly()
    print("outside")
    assert capfd.readouterr() == ("outside\n", "")


def test_reading_data_imports_no_tensorflow() -> None:
    program = (
        "import sys; from hesscli.problem import data, problemfile; "
        "data.load_dataset('embedded', 'train'); "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_silence_bears_closed_streams() -> None:
    program = (
        "import os, sys; os.close(1); os.close(2); "
        "from hesscli.system.quiet import silenced\n"
        "with silenced(): pass"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
