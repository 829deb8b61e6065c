"""Targets as each loss needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from hesscli.problem.names import FOCAL, OUTPUT
from hesscli.problem.network import Loss, Targets
from hesscli.problem.registry import LABELS, targets_of
from hesscli.system.errors import InputError

# How far class probabilities may be from summing to one; they are then divided by their sum.
_SUM_SLACK = 1e-5

Dtype = np.dtype[np.floating]
Fit = Callable[[Targets, int, Dtype, str], Targets]


def fit_targets(targets: Targets, loss: str, units: int, dtype: Dtype, where: str) -> Targets:
    """``targets``, (N,) labels or (N, c) numbers, as ``loss`` compares them with the outputs.

    Sparse categorical cross-entropy gets (N,) labels, and so does a plugin's loss of labels; the
    other losses (N, units) numbers of ``dtype``: labels become one-hot rows there, or one number
    each if there is one unit.
    ``where`` begins the messages. Raises InputError if they do not fit.
    """
    fit = _FITS.get(loss)
    if fit is None:
        fit = _labels if targets_of(loss) == LABELS else _numbers
    return fit(targets, units, dtype, where)


def smoothed(targets: Targets, loss: Loss) -> Targets:
    """Targets t under label smoothing s: (1 − s) t + s/c, under a binary loss (1 − s) t + s/2.

    Source: keras.losses.CategoricalCrossentropy and BinaryCrossentropy.
    """
    s = loss.label_smoothing
    if s == 0:
        return targets
    evenly = 1 / 2 if loss.name == "binary_crossentropy" else 1 / targets.shape[1]
    return np.asarray(targets * (1 - s) + s * evenly, dtype=targets.dtype)


def check_labels(targets: Targets, classes: int, where: str) -> None:
    """Raises InputError unless ``targets`` (N,) are integers in 0 to ``classes`` - 1."""
    allowed = f"{classes} classes have the labels 0 to {classes - 1}"
    if targets.dtype.kind not in "iu":
        raise InputError(f"{where}: labels are of type {targets.dtype}, not integers; {allowed}")
    wrong = np.flatnonzero((targets < 0) | (targets >= classes))
    if wrong.size:
        index = int(wrong[0])
        raise InputError(f"{where}: label {targets[index]} at index {index}; {allowed}")


def _labels(targets: Targets, units: int, _: Dtype, where: str) -> Targets:
    if targets.ndim == 2:
        _check_width(targets, units, where)
        hot = np.equal(targets, 1)
        if not (np.equal(hot.sum(axis=1), 1).all() and np.equal(targets[~hot], 0).all()):
            raise InputError(
                f"{where}: targets of shape {targets.shape} are not one-hot; "
                "use loss categorical_crossentropy, or integer labels"
            )
        return np.asarray(hot.argmax(axis=1))
    labels = _whole(targets)
    check_labels(labels, units, where)
    return labels


def _whole(targets: Targets) -> Targets:
    """Labels that are stored as floating-point numbers as integers; others as they are."""
    if targets.dtype.kind != "f" or not (np.abs(targets) < 2**53).all():
        return targets
    whole = np.equal(targets, np.round(targets)).all()
    return targets.astype(np.int64) if whole else targets


def _numbers(targets: Targets, units: int, dtype: Dtype, where: str) -> Targets:
    if targets.ndim == 1 and units == 1:
        return targets[:, None].astype(dtype)
    if targets.ndim == 1:
        return _one_hot(targets, units, dtype, where)
    _check_width(targets, units, where)
    return targets.astype(dtype)


def _one_hot(targets: Targets, units: int, dtype: Dtype, where: str) -> Targets:
    labels = _whole(targets)
    check_labels(labels, units, where)
    return np.eye(units, dtype=dtype)[labels]


def _from_0(most: float, words: str, *arguments: Any) -> Targets:
    """Numbers from 0 to ``most``, which ``words`` describe; ``arguments`` are those of a Fit."""
    numbers, where = _numbers(*arguments), arguments[-1]
    outside = np.argwhere((numbers < 0) | (numbers > most))
    if outside.size:
        n, h = outside[0].tolist()
        raise InputError(f"{where}: target {numbers[n, h]} at [{n}, {h}]; it must be {words}")
    return numbers


_probabilities: Fit = partial(_from_0, 1, "0 to 1")
_counts: Fit = partial(_from_0, np.inf, "0 or more")


def _distributions(targets: Targets, units: int, dtype: Dtype, where: str) -> Targets:
    if targets.ndim == 1:
        return _one_hot(targets, units, dtype, where)
    numbers = _probabilities(targets, units, dtype, where)
    sums = numbers.sum(axis=1, keepdims=True)
    wrong = np.flatnonzero(np.abs(sums - 1) > _SUM_SLACK)
    if wrong.size:
        n = int(wrong[0])
        raise InputError(f"{where}: targets[{n}] sum to {sums[n, 0]:g}; they must sum to 1")
    return np.asarray(numbers / sums, dtype=dtype)


def _check_width(targets: Targets, units: int, where: str) -> None:
    if targets.shape[1] != units:
        raise InputError(
            f"{where}: targets of shape {targets.shape}; the last layer has {units} units, so they "
            f"must be (N, {units})"
        )


def _as_they_are(targets: Targets, _units: int, _dtype: Dtype, _where: str) -> Targets:
    return targets


_FITS: Mapping[str, Fit] = MappingProxyType(
    {
        "sparse_categorical_crossentropy": _labels,
        "categorical_crossentropy": _distributions,
        "binary_crossentropy": _probabilities,
        FOCAL: _distributions,
        "mean_squared_error": _numbers,
        "mean_absolute_error": _numbers,
        "huber": _numbers,
        "log_cosh": _numbers,
        "kl_divergence": _probabilities,
        "poisson": _counts,
        "sum_of_squares": _as_they_are,
        "sum": _as_they_are,
        OUTPUT: _as_they_are,
    }
)
