"""CSV and MATLAB files, and folders as others write them: the arrays that went in come out."""

from __future__ import annotations

import re
import shutil
import sys
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


def drawn_images(folder: Path, *, color: bool = False) -> dict[str, Any]:
    """Three images in each of two classes, by their paths; ``b`` is written before ``a``."""
    pillow = pytest.importorskip("PIL.Image")
    generator, shape = np.random.default_rng(5), (4, 5, 3) if color else (4, 5)
    found = {}
    for name in ("b", "a"):
        (folder / name).mkdir(parents=True)
        for index in range(3):
            pixels = generator.integers(0, 256, shape, dtype=np.uint8)
            path = folder / name / f"{index}.png"
            pillow.fromarray(pixels).save(path)
            found[str(path)] = pixels
    return found


@pytest.mark.parametrize("color", [False, True])
def test_a_folder_of_images_for_each_class(color: bool, tmp_path: Path) -> None:
    images = drawn_images(tmp_path, color=color)
    (tmp_path / "readme.txt").write_text("no class")
    dataset = load_dataset(str(tmp_path), "train")
    assert dataset.targets.tolist() == [0, 0, 0, 1, 1, 1]
    expected = np.stack([images[path].reshape(-1) for path in sorted(images)])
    np.testing.assert_array_equal(dataset.inputs[:], expected)
    assert dataset.inputs.dtype == np.uint8
    assert dataset_files(str(tmp_path), "train") == tuple(sorted(images))
    # Without folders called train and test there is no test split.
    assert not has_test_split(str(tmp_path))


def test_images_are_read_as_keras_reads_them(tmp_path: Path) -> None:
    drawn_images(tmp_path)
    keras = pytest.importorskip("keras")
    (theirs,) = keras.utils.image_dataset_from_directory(
        tmp_path, color_mode="grayscale", image_size=(4, 5), shuffle=False, verbose=False
    )
    dataset = load_dataset(str(tmp_path), "train")
    np.testing.assert_array_equal(dataset.inputs[:], np.reshape(theirs[0], (6, 20)))
    np.testing.assert_array_equal(dataset.targets, theirs[1])


def test_folders_called_train_and_test_are_the_splits(tmp_path: Path) -> None:
    drawn_images(tmp_path / "train")
    held_out = drawn_images(tmp_path / "test")
    assert has_test_split(str(tmp_path))
    assert dataset_files(str(tmp_path), "test") == tuple(sorted(held_out))


@pytest.mark.parametrize("wrong", ["size", "kind", "damaged", "missing"])
def test_an_image_that_does_not_fit_is_named(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_images(tmp_path)
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / "b" / "1.png"
    if wrong == "size":
        pillow.new("L", (9, 9)).save(path)
    elif wrong == "kind":
        pillow.new("P", (5, 4)).save(path)
    elif wrong == "damaged":
        path.write_bytes(path.read_bytes()[:50])
    else:
        monkeypatch.setitem(sys.modules, "PIL", None)
        path = tmp_path / "a" / "0.png"
    said = {"size": r"\(9, 9\)", "kind": "kind P", "damaged": "truncated", "missing": "pip install"}
    with pytest.raises(InputError, match=f"{re.escape(str(path))}.*{said[wrong]}"):
        load_dataset(str(tmp_path), "train")


def test_integers_that_are_no_bytes_are_taken_as_they_are(tmp_path: Path) -> None:
    from hesscli import problem_from_config

    path = str(tmp_path / "i.npz")
    np.savez(path, x_train=np.array([[-1, 300], [2, 7]]), y_train=[0, 1])
    of = {"data.source": path, "data.batch_size": 2, "model.inputs": 2}
    problem = problem_from_config(settings={**of, "model.layers": [{"units": 2}]})
    assert problem.batch.tolist() == [[-1, 300], [2, 7]]
    assert problem.prepared == "int64 as they are"
