"""Targets: labels and numbers become what each loss compares with, or one line of text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hesscli.problem.names import LOSSES
from hesscli.problem.targets import fit_targets
from hesscli.system.errors import InputError

LABELS = np.array([2, 0, 1])
ONE_HOT = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
SOFT = np.array([[0.2, 0.3, 0.5], [1, 0, 0], [0.1, 0.1, 0.8]])
NUMBERS = np.array([[0.2, -3.0, 5.0], [1, 0, 0], [7, 8, 9]])
DOUBLE = np.dtype(np.float64)


@pytest.mark.parametrize(
    ("loss", "given", "expected"),
    [
        ("sparse_categorical_crossentropy", LABELS, LABELS),
        ("sparse_categorical_crossentropy", ONE_HOT, LABELS),
        ("categorical_crossentropy", LABELS, ONE_HOT),
        ("categorical_crossentropy", SOFT, SOFT),
        ("binary_crossentropy", LABELS, ONE_HOT),
        ("binary_crossentropy", SOFT, SOFT),
        ("mean_squared_error", LABELS, ONE_HOT),
        ("mean_squared_error", NUMBERS, NUMBERS),
        ("sum_of_squares", NUMBERS, NUMBERS),
        ("sum", LABELS, LABELS),
    ],
)
def test_targets_are_what_the_loss_compares_with(
    loss: str, given: np.ndarray, expected: np.ndarray
) -> None:
    fitted = fit_targets(given, loss, 3, DOUBLE, "here")
    assert np.allclose(fitted, expected, rtol=0, atol=1e-16)
    assert (fitted.dtype.kind == "f") == (expected.dtype.kind == "f")


@pytest.mark.parametrize("loss", ["binary_crossentropy", "mean_squared_error"])
def test_one_unit_compares_with_the_label_itself(loss: str) -> None:
    assert fit_targets(np.array([1, 0]), loss, 1, DOUBLE, "here").tolist() == [[1.0], [0.0]]


def test_probabilities_that_sum_to_one_but_for_rounding_are_divided_by_their_sum() -> None:
    thirds = np.full((1, 3), np.float32(1) / 3).astype(np.float64)
    fitted = fit_targets(thirds, "categorical_crossentropy", 3, DOUBLE, "here")
    assert abs(fitted.sum() - 1) < 1e-15


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"sum", "sum_of_squares"}))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_come_in_the_dtype_of_the_problem(loss: str, dtype: str) -> None:
    fitted = fit_targets(LABELS, loss, 3, np.dtype(dtype), "here")
    assert fitted.dtype in (np.dtype(dtype), LABELS.dtype)


@pytest.mark.parametrize(
    ("loss", "given", "said"),
    [
        ("sparse_categorical_crossentropy", np.array([0, 3]), "label 3 at index 1"),
        ("sparse_categorical_crossentropy", np.array([-1, 0]), "label -1 at index 0"),
        ("sparse_categorical_crossentropy", np.full(2, 0.5), "labels are of type float64"),
        ("sparse_categorical_crossentropy", SOFT, "not one-hot"),
        ("sparse_categorical_crossentropy", np.zeros((2, 0)), "must be (N, 3)"),
        ("sparse_categorical_crossentropy", np.ones((2, 3)), "not one-hot"),
        ("categorical_crossentropy", np.array([0, 7]), "label 7 at index 1"),
        ("categorical_crossentropy", 2 * ONE_HOT, "it must be 0 to 1"),
        ("categorical_crossentropy", np.full((1, 3), 0.5), "sum to 1.5; they must sum to 1"),
        ("categorical_crossentropy", ONE_HOT[:, :2], "must be (N, 3)"),
        ("binary_crossentropy", NUMBERS, "target -3.0 at [0, 1]; it must be 0 to 1"),
        ("mean_squared_error", NUMBERS[:, :1], "must be (N, 3)"),
    ],
)
def test_targets_that_do_not_fit_are_one_line(loss: str, given: Any, said: str) -> None:
    with pytest.raises(InputError) as raised:
        fit_targets(given, loss, 3, DOUBLE, "here")
    text = str(raised.value)
    assert text.startswith("here: ")
    assert said in text
    assert "\n" not in text
