"""The weights of the examples' losses: Keras's ``sample_weight`` and ``class_weight``."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import ArrayLike

from hesscli.problem.graph import Array
from hesscli.problem.network import Loss, Targets
from hesscli.problem.npz import RawArray, array_names, read_arrays, rows_in_file
from hesscli.system.errors import InputError
from hesscli.system.files import expanded

# What a problem file calls them.
SAMPLE_WEIGHT = "sample_weight"
_LAYOUT = "data.sample_weight names an array with one number for each example"


def stored_weights(source: str, name: str | None) -> RawArray | None:
    """The array ``name`` of an ``.npz`` file, or of the file ``name.npy`` in a folder.

    None for no name, unless it is a problem file's that has some. Raises InputError if there
    is no such array, or the source can have none.
    """
    is_npz = expanded(source).endswith(".npz")
    if name is None:
        has_some = is_npz and {"inputs", "targets", SAMPLE_WEIGHT} <= set(array_names(source))
        name = SAMPLE_WEIGHT if has_some else None
    if name is None:
        return None
    if is_npz:
        return read_arrays(source, (name,), _LAYOUT)[name]
    of = weights_file(source, name)
    if of is not None:
        return np.asarray(rows_in_file(of, of)[:])
    raise InputError(
        f"data.sample_weight: {name}: {source} holds no other arrays than inputs and labels; use "
        "an .npz file, or a folder with the weights as .npy"
    )


def weights_file(source: str, name: object) -> str | None:
    """The file of its own in which the weights ``name`` of a folder are."""
    is_folder = isinstance(name, str) and os.path.isdir(expanded(source))
    return os.path.join(source, f"{name}.npy") if is_folder else None


def require_weights(given: ArrayLike, examples: int, where: str) -> Array:
    """Weights (N,) in double precision; raises InputError unless all are finite and 0 or more."""
    weights = np.asarray(given, dtype=np.float64)
    if weights.shape == (examples, 1):
        weights = weights[:, 0]
    if weights.shape != (examples,):
        raise InputError(
            f"{where}: of shape {weights.shape}; {examples} examples need ({examples},) weights"
        )
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        n = int(wrong[0])
        raise InputError(f"{where}: {weights[n]:g} at index {n}; weights must be 0 or more")
    return weights


def example_weights(
    loss: Loss, given: Array | None, targets: Targets, outputs: int
) -> Array | None:
    """The weights (N,): those ``given``, or those of the classes of ``targets``.

    With ``of_class`` those of the other classes are 0. ``targets`` are labels, one-hot rows whose
    class is the largest number, or one number that is rounded; a class without a weight has 1.
    Raises InputError for ``class_weight`` together with weights that are given, as Keras does.
    Source: keras.src.trainers.data_adapters.data_adapter_utils.class_weight_to_sample_weights.
    """
    by_class, only = loss.class_weight, loss.of_class
    if by_class is None and only is None:
        return given
    if by_class is not None and given is not None:
        raise InputError(
            "loss.class_weight: the examples have weights of their own (data.sample_weight); "
            "give one of them, as in Keras"
        )
    numbers = targets.reshape(len(targets), -1)
    classes = numbers.argmax(axis=1) if numbers.shape[1] > 1 else np.round(numbers[:, 0])
    asked = {"class_weight": by_class or (), "of_class": () if only is None else (only,)}
    for key, named in asked.items():
        beyond = [of for of in named if 1 < outputs <= of]
        if beyond:
            raise InputError(
                f"loss.{key}: {beyond[0]} is not a class; {outputs} outputs have the classes 0 "
                f"to {outputs - 1}"
            )
    weights = given
    if by_class is not None:
        weights = np.array([by_class.get(int(of), 1.0) for of in classes], dtype=np.float64)
    if only is not None:
        weights = np.equal(classes, only) * (np.ones(len(classes)) if weights is None else weights)
    return weights
