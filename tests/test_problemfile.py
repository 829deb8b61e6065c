"""Problem files: what is saved is read back bit for bit, and a bad file is one line of text."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import select_batch

from hesscli.problem.data import load_dataset, to_inputs
from hesscli.problem.graph import Activation, Layer, chain
from hesscli.problem.network import Problem
from hesscli.problem.problemfile import (
    is_problem_file,
    read_batch,
    read_parameters,
    save_problem,
)
from hesscli.system.errors import InputError

GENERATOR = np.random.default_rng(0)
ARRAYS: dict[str, Any] = {
    "inputs": GENERATOR.normal(size=(5, 3)) * 300,
    "targets": np.array([0, 1, 1, 0, 1]),
    "second/kernel": GENERATOR.normal(size=(3, 4)),
    "second/bias": GENERATOR.normal(size=4),
    "first/kernel": GENERATOR.normal(size=(4, 2)),
    "first/bias": GENERATOR.normal(size=2),
}


def problem(dtype: str = "float64", bias: bool = True) -> Problem:
    tensors = {name: array.astype(dtype) for name, array in ARRAYS.items() if name != "targets"}
    layers = tuple(
        Layer(
            name,
            np.asfortranarray(tensors[f"{name}/kernel"]),
            tensors[f"{name}/bias"] if bias else None,
            Activation("tanh"),
        )
        for name in ("second", "first")
    )
    return Problem(chain(layers), tensors["inputs"], ARRAYS["targets"].copy())


def write(path: Path, **replaced: Any) -> str:
    arrays = {**ARRAYS, **replaced}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


# Reading


def test_parameters_come_in_file_order_as_stored(tmp_path: Path) -> None:
    path = write(tmp_path / "p.npz", **{"first/bias": np.float32([1, 2]), "note": np.zeros(1)})
    parameters = read_parameters(path)
    assert list(parameters) == ["second/kernel", "second/bias", "first/kernel", "first/bias"]
    assert np.array_equal(parameters["second/kernel"], ARRAYS["second/kernel"])
    assert parameters["first/bias"].dtype == np.float32


def test_layers_may_lack_a_bias(tmp_path: Path) -> None:
    path = write(tmp_path / "p.npz", **{"second/bias": None})
    assert "second/bias" not in read_parameters(path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_as_a_data_source_inputs_are_taken_as_they_are(tmp_path: Path, split: str) -> None:
    path = write(tmp_path / "p.npz")
    inputs, targets = select_batch(load_dataset(path, split), None, 0, False, 0)
    assert np.array_equal(to_inputs(inputs, np.float64), ARRAYS["inputs"])
    assert np.array_equal(targets, ARRAYS["targets"])


def test_integer_inputs_are_numbers_and_are_not_scaled(tmp_path: Path) -> None:
    pixels = np.arange(15, dtype=np.uint8).reshape(5, 3)
    inputs, _ = select_batch(
        load_dataset(write(tmp_path / "p.npz", inputs=pixels), "train"), None, 0, False, 0
    )
    assert np.array_equal(to_inputs(inputs, np.float64), pixels)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("inputs", "targets", "a/kernel"), True),
        (("inputs", "targets"), True),
        (("inputs", "a/kernel"), False),
        (("x_train", "y_train"), False),
    ],
)
def test_a_problem_file_is_known_by_its_names(
    tmp_path: Path, names: tuple[str, ...], expected: bool
) -> None:
    path = tmp_path / "p.bin"
    with path.open("wb") as stream:
        np.savez(stream, **dict.fromkeys(names, np.zeros(1)))
    assert is_problem_file(str(path)) is expected


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"{}"])
def test_what_cannot_be_read_is_no_problem_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.npz").write_bytes(content)
    for path in ("p.npz", "missing.npz", ""):
        assert is_problem_file(str(tmp_path / path)) is False


# Refusals

BAD_PARAMETERS = [
    ({"first/kernel": np.full((4, 2), np.nan)}, "first/kernel[0, 0] is nan"),
    ({"first/kernel": np.array([[{}]])}, "first/kernel holds Python objects"),
    ({"first/kernel": np.zeros(4)}, "it must be (inputs, units)"),
    ({"first/kernel": np.zeros((0, 2))}, "it must be (inputs, units)"),
    ({"first/kernel": None}, "first/bias has no first/kernel next to it"),
    ({"first/bias": np.zeros(3)}, "first/bias has shape (3,) and first/kernel (4, 2)"),
    ({"first/bias": np.zeros((1, 2))}, "first/bias has shape (1, 2)"),
    ({"first/bias": np.array([0.0, np.inf])}, "first/bias[1] is inf"),
    ({"first/scale": np.zeros(3)}, "unknown parameter 'first/scale'"),
    ({"/kernel": np.zeros((2, 2))}, "unknown parameter '/kernel'"),
    ({name: None for name in ARRAYS if "/" in name}, "no parameters in it"),
]
BAD_BATCHES = [
    ({"inputs": None}, "no array 'inputs' in it"),
    ({"targets": None}, "no array 'targets' in it"),
    ({"inputs": np.full((5, 3), np.inf)}, "inputs[0, 0] is inf"),
    ({"inputs": np.zeros((5, 3, 1))}, "it must be (N, d)"),
    ({"inputs": np.zeros((0, 3))}, "it must be (N, d)"),
    ({"inputs": np.zeros((4, 3))}, "inputs holds 4 examples but targets 5"),
    ({"targets": np.zeros((5, 2, 1), int)}, "targets has shape (5, 2, 1)"),
    ({"targets": np.array(["a"] * 5)}, "is of type <U1"),
]


@pytest.mark.parametrize(
    ("read", "arrays", "wrong"),
    [(read_parameters, *case) for case in BAD_PARAMETERS]
    + [(read_batch, *case) for case in BAD_BATCHES],
)
def test_bad_problem_files_are_refused(
    tmp_path: Path, read: Any, arrays: dict[str, Any], wrong: str
) -> None:
    path = write(tmp_path / "p.npz", **arrays)
    with pytest.raises(InputError, match=re.escape(wrong)) as raised:
        read(path)
    assert re.fullmatch(re.escape(path) + ": .+; .+", str(raised.value))


@pytest.mark.parametrize("read", [read_parameters, read_batch])
def test_unreadable_files_are_refused(tmp_path: Path, read: Any) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\); "):
        read(str(tmp_path / "missing.npz"))
    with pytest.raises(InputError, match="not a regular file; "):
        read(str(tmp_path))


# Writing


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
def test_what_is_saved_is_read_back_exactly(tmp_path: Path, dtype: str, bias: bool) -> None:
    saved = problem(dtype, bias)
    path = str(tmp_path / "name without suffix")
    save_problem(saved, path)
    assert os.listdir(tmp_path) == ["name without suffix"]
    inputs, targets = read_batch(path)
    assert np.array_equal(inputs, saved.inputs) and inputs.dtype == saved.dtype
    assert np.array_equal(targets, saved.targets)
    expected = {f"{layer.name}/kernel": layer.kernel for layer in saved.layers}
    expected |= {f"{layer.name}/bias": layer.bias for layer in saved.layers if bias}
    parameters = read_parameters(path)
    assert parameters.keys() == expected.keys()
    for name, array in parameters.items():
        assert np.array_equal(array, expected[name]) and array.dtype == dtype


def test_a_saved_file_replaces_the_old_one_with_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    path.write_text("old")
    (tmp_path / "link.npz").symlink_to(path)
    save_problem(problem(), str(tmp_path / "link.npz"))
    assert is_problem_file(str(path)) and (tmp_path / "link.npz").is_symlink()
    (tmp_path / "usual").write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_a_failed_save_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.npz"
    path.write_text("old")

    def full(stream: Any, *_: Any, **__: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); "):
        save_problem(problem(), str(path))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("p.npz", "old")]


@pytest.mark.parametrize("name", ["missing/p.npz", "", "x" * 300])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    path = f"{tmp_path}/{name}"
    with pytest.raises(InputError, match=re.escape(path)):
        save_problem(problem(), path)
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_not_replaced_by_a_file() -> None:
    with pytest.raises(InputError, match="not a regular file; "):
        save_problem(problem(), os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
