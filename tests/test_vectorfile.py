"""A vector in a block's parameters, written to a file and read back."""

import re

import numpy as np
import pytest

from hesscli.problem.vectorfile import read_vector, require_vector_path, write_vector
from hesscli.system.errors import InputError

SHAPES = {"dense1/kernel": (3, 2), "dense1/bias": (2,)}
KERNEL = {"dense1/kernel": (3, 2)}
V = np.arange(8.0) - 3.5


@pytest.mark.parametrize("suffix", ["npy", "npz", "NPZ"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_vector_that_is_written_is_read_back(suffix, dtype, tmp_path):
    path = str(tmp_path / f"v.{suffix}")
    write_vector(path, V.astype(dtype), SHAPES)
    found = read_vector(path, "--vector", SHAPES)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, V)


def test_an_npz_file_has_an_array_for_each_tensor(tmp_path):
    path = str(tmp_path / "v.npz")
    write_vector(path, V, SHAPES)
    with np.load(path) as stored:
        np.testing.assert_array_equal(stored["dense1/kernel"], V[:6].reshape(3, 2))
        np.testing.assert_array_equal(stored["dense1/bias"], V[6:])


def test_what_an_npz_file_holds_beside_the_tensors_is_left_alone(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, **{"dense1/bias": V[6:], "dense1/kernel": V[:6].reshape(3, 2), "inputs": V})
    np.testing.assert_array_equal(read_vector(str(path), "--vector", SHAPES), V)


@pytest.mark.parametrize("shape", [(6,), (3, 2)])
@pytest.mark.parametrize("save", [np.save, lambda path, array: np.savez(path, v=array)])
def test_a_single_array_is_the_whole_vector(shape, save, tmp_path):
    path = tmp_path / ("v.npy" if save is np.save else "v.npz")
    save(path, np.arange(6).reshape(shape))
    np.testing.assert_array_equal(read_vector(str(path), "--vector", KERNEL), np.arange(6.0))


def test_a_file_of_another_shape_is_refused_with_the_shape(tmp_path):
    path = tmp_path / "v.npy"
    np.save(path, np.zeros((2, 3)))
    with pytest.raises(
        InputError, match=re.escape("--vector: ") + r".*\(2, 3\).*\(6,\) or \(3, 2\)"
    ):
        read_vector(str(path), "--vector", KERNEL)
    np.save(path, np.zeros(7))
    with pytest.raises(InputError, match=r"\(7,\).*\(8,\)"):
        read_vector(str(path), "--vector", SHAPES)
    np.savez(tmp_path / "v.npz", **{"dense1/kernel": np.zeros((2, 3)), "dense1/bias": np.zeros(2)})
    with pytest.raises(InputError, match=r"dense1/kernel has the shape \(2, 3\).*\(3, 2\)"):
        read_vector(str(tmp_path / "v.npz"), "--vector", SHAPES)


@pytest.mark.parametrize(
    ("array", "wrong"),
    [
        (np.full(6, np.nan), "finite"),
        (np.full(6, 1j), "complex"),
        (np.full(6, None), "objects"),
        (np.full(6, "1"), "type"),
    ],
)
def test_what_are_no_real_finite_numbers_is_refused(array, wrong, tmp_path):
    path = tmp_path / "v.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(InputError, match=wrong):
        read_vector(str(path), "--vector", KERNEL)


def test_a_missing_a_damaged_and_an_ambiguous_file_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.npy: cannot be read"):
        read_vector(str(tmp_path / "none.npy"), "--vector", KERNEL)
    for name in ("v.npy", "v.npz"):
        (tmp_path / name).write_bytes(b"no array")
        with pytest.raises(InputError, match="damaged"):
            read_vector(str(tmp_path / name), "--vector", KERNEL)
    np.savez(tmp_path / "two.npz", a=V, b=V)
    with pytest.raises(InputError, match="no array 'dense1/kernel' among the 2"):
        read_vector(str(tmp_path / "two.npz"), "--vector", SHAPES)
    with pytest.raises(InputError, match=r"suffix must be \.npy or \.npz"):
        read_vector(str(tmp_path / "v.txt"), "--vector", SHAPES)


def test_a_path_that_cannot_be_written_is_refused_beforehand(tmp_path):
    with pytest.raises(InputError, match=r"--save .*\.npy or \.npz"):
        require_vector_path(str(tmp_path / "v.csv"), "--save")
    with pytest.raises(InputError, match="cannot be written"):
        require_vector_path(str(tmp_path / "none" / "v.npy"), "--save")
    require_vector_path(str(tmp_path / "v.npy"), "--save")
