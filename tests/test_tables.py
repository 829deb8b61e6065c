"""CSV and MATLAB files, and folders as others write them: the arrays that went in come out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from hesscli.problem.data import dataset_files, has_test_split, load_dataset
from hesscli.system.errors import InputError

GENERATOR = np.random.default_rng(8)
FLOATS = np.round(GENERATOR.standard_normal((6, 3)), 3)
PIXELS = GENERATOR.integers(0, 256, (6, 64))
LABELS = np.array([0, 2, 1, 1, 0, 2])


def written(path: Path, rows: Any, header: str = "") -> str:
    np.savetxt(path, rows, delimiter=",", header=header, comments="", fmt="%.10g")
    return str(path)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("header", ["", "label", "Class"])
def test_a_table_of_numbers(first: bool, header: str, tmp_path: Path) -> None:
    columns = (LABELS[:, None], FLOATS) if first else (FLOATS, LABELS[:, None])
    names = [header, "a", "b", "c"] if first else ["a", "b", "c", header]
    path = written(tmp_path / "t.csv", np.hstack(columns), ",".join(names) if header else "")
    found = load_dataset(path, "train")
    np.testing.assert_array_equal(found.inputs, FLOATS)
    assert found.targets.tolist() == LABELS.tolist() and found.targets.dtype == np.int64


def test_a_table_of_pixels_has_the_label_first(tmp_path: Path) -> None:
    for name in ("mnist_train.csv", "mnist_test.csv"):
        written(tmp_path / name, np.hstack([LABELS[:, None], PIXELS]))
    folder = str(tmp_path)
    for source in (folder, str(tmp_path / "mnist_train.csv")):
        found = load_dataset(source, "train")
        assert found.inputs.dtype == np.uint8
        np.testing.assert_array_equal(found.inputs, PIXELS)
        np.testing.assert_array_equal(found.targets, LABELS)
    assert dataset_files(folder, "test") == (str(tmp_path / "mnist_test.csv"),)
    assert has_test_split(folder)


WRONG: dict[str, tuple[str, str]] = {
    "either column": ("1,2,3\n4,5,6\n", "first column or the last"),
    "words": ("a,b\n1,two\n", "no table of numbers"),
    "one column": ("1\n2\n", "a table of shape"),
    "ragged": ("1,2.5,3.5\n1,2\n", "no table of numbers"),
    "not finite": ("1,nan\n0,2.5\n", "nan"),
    "empty": ("", "table"),
}


@pytest.mark.filterwarnings("ignore:loadtxt:UserWarning")
@pytest.mark.parametrize("case", WRONG)
def test_a_table_that_says_too_little_is_refused(case: str, tmp_path: Path) -> None:
    content, named = WRONG[case]
    path = tmp_path / "t.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=named) as caught:
        load_dataset(str(path), "train")
    assert "\n" not in str(caught.value)


def test_matlab_files(tmp_path: Path) -> None:
    path = str(tmp_path / "m.mat")
    images = PIXELS.reshape(6, 4, 4, 4).astype(np.uint8)
    for content, expected in (
        ({"X": FLOATS, "y": LABELS[:, None]}, FLOATS),
        ({"X": np.moveaxis(images, 0, -1), "y": LABELS}, PIXELS),
    ):
        scipy.io.savemat(path, content)
        found = load_dataset(path, "train")
        np.testing.assert_array_equal(found.inputs, expected)
        np.testing.assert_array_equal(found.targets, LABELS)
    scipy.io.savemat(path, {"X": FLOATS})
    with pytest.raises(InputError, match="0 arrays called label"):
        load_dataset(path, "train")
    Path(path).write_bytes(b"MATLAB 5.0 no")
    with pytest.raises(InputError, match="damaged or no MATLAB file"):
        load_dataset(path, "train")


@pytest.mark.parametrize(
    "names", [("X_train", "y_train"), ("train_images", "train_labels"), ("data", "target")]
)
def test_usual_names_of_arrays(names: tuple[str, str], tmp_path: Path) -> None:
    path = str(tmp_path / "n.npz")
    np.savez(path, **dict(zip(names, (FLOATS, LABELS), strict=True)))
    np.testing.assert_array_equal(load_dataset(path, "train").inputs, FLOATS)


def test_torchvisions_folder(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    header = (2051).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in (2, 2, 2))
    (raw / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    labels = (2049).to_bytes(4, "big") + (2).to_bytes(4, "big") + bytes([7, 3])
    (raw / "train-labels-idx1-ubyte").write_bytes(labels)
    found = load_dataset(str(tmp_path), "train")
    assert found.targets.tolist() == [7, 3]
    np.testing.assert_array_equal(found.inputs, images.reshape(2, 4))
    shutil.rmtree(raw)


def test_integers_that_are_no_bytes_are_taken_as_they_are(tmp_path: Path) -> None:
    from hesscli import problem_from_config

    path = str(tmp_path / "i.npz")
    np.savez(path, x_train=np.array([[-1, 300], [2, 7]]), y_train=[0, 1])
    of = {"data.source": path, "data.batch_size": 2, "model.inputs": 2}
    problem = problem_from_config(settings={**of, "model.layers": [{"units": 2}]})
    assert problem.batch.tolist() == [[-1, 300], [2, 7]]
    assert problem.prepared == "int64 as they are"
