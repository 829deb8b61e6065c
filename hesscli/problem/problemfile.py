"""Problem files: one batch and one network's parameters in an ``.npz`` file.

It holds ``inputs`` (N, d), ``targets`` (N,) or (N, c) and, for each layer in order, its tensors:
of a dense one ``<layer>/kernel`` (inputs, units) and ``<layer>/bias`` (units,). Statistics of a
normalization, ``<layer>/moving_mean``, stand next to them. A checkpoint of a training is a
problem file with more arrays, called ``train/…``, that only the training reads. A parameter that
has a regularizer has ``regularizer:<layer>/<role>`` next to it, its (l1, l2). Examples that have
weights have ``sample_weight`` (N,).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import IO
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from numpy.lib import format as npy

from hesscli.problem.graph import Array, Penalty
from hesscli.problem.network import Problem, Targets
from hesscli.problem.npz import RawArray, array_names, read_arrays, read_rows
from hesscli.problem.stored import FileRows
from hesscli.problem.weights import SAMPLE_WEIGHT
from hesscli.system.errors import InputError
from hesscli.system.files import replacing

_LAYOUT = (
    "a problem file holds inputs, targets and, for each layer, <layer>/kernel and <layer>/bias"
)
# Examples that are written at a time.
_WRITTEN = 1024
# What begins so belongs to a training, unless it is a parameter of a layer called train.
_TRAINING = "train/"
# The regularizer of a parameter, (l1, l2), has its name with this before it.
_PENALTY = "regularizer:"
_OF_A_LAYER = ("train/kernel", "train/bias")
_ROLES = (
    *("kernel", "bias", "depthwise_kernel", "pointwise_kernel", "gamma", "beta", "alpha"),
    *("moving_mean", "moving_variance"),
)
_TARGETS = "targets must be (N,) class labels or numbers, or (N, c) numbers"


def is_problem_file(path: str) -> bool:
    """Whether ``path`` is an ``.npz`` file with ``inputs`` and ``targets``.

    Only the names in it are read; a file that cannot be read is not a problem file.
    """
    try:
        return {"inputs", "targets"} <= set(array_names(path))
    except InputError:
        return False


def read_parameters(path: str) -> dict[str, Array]:
    """The parameters by name (``dense1/kernel``), in file order, in their stored precision.

    Kernels have two axes or more, biases one. Whether the layers fit one another or a model
    is not looked at. Raises InputError if the file is unreadable, holds no kernel or a
    parameter that is neither kernel nor bias, or if a shape, a type or a number is wrong.
    """
    names = [name for name in array_names(path) if "/" in name and not _is_beside(name)]
    for name in names:
        layer, _, kind = name.rpartition("/")
        if not layer or kind not in _ROLES:
            raise InputError(f"{path}: unknown parameter {name!r}; {_LAYOUT}")
    if not names:
        raise InputError(f"{path}: no parameters in it; {_LAYOUT}")
    arrays = read_arrays(path, names, _LAYOUT)
    parameters = {name: _floating(array) for name, array in arrays.items()}
    for name in parameters:
        _check_parameter(parameters, name, path)
    return parameters


def read_penalties(path: str) -> dict[str, Penalty]:
    """The regularizers by the names of the parameters and values that have one, (l1, l2) each.

    Raises InputError if the file is unreadable, or one is anything but two numbers.
    """
    names = [name for name in array_names(path) if name.startswith(_PENALTY)]
    found = {}
    for name, array in read_arrays(path, names, _LAYOUT).items():
        if array.shape != (2,):
            raise InputError(f"{path}: {name} has shape {array.shape}; it must be (l1, l2)")
        found[name.removeprefix(_PENALTY)] = Penalty(*map(float, array))
    return found


def read_batch(path: str) -> tuple[Array | FileRows, Targets]:
    """The batch of a problem file as stored: ``inputs`` (N, d), ``targets`` (N,) or (N, c).

    Integer inputs become float64 without being scaled; (N,) integers are class labels. Large
    floating-point inputs that are not compressed stay in the file.
    Raises InputError if the file is unreadable or if a shape, a type or a number is wrong.
    """
    targets = read_arrays(path, ("targets",), _LAYOUT)["targets"]
    inputs = read_rows(path, ("inputs",), _LAYOUT)["inputs"]
    if isinstance(inputs, FileRows) and inputs.dtype.kind != "f":
        inputs = read_arrays(path, ("inputs",), _LAYOUT)["inputs"]
    if inputs.ndim != 2 or 0 in inputs.shape:
        raise InputError(
            f"{path}: inputs has shape {inputs.shape}; it must be (N, d), with one example or more"
        )
    if targets.ndim not in (1, 2):
        raise InputError(f"{path}: targets has shape {targets.shape}; {_TARGETS}")
    if len(targets) != len(inputs):
        raise InputError(
            f"{path}: inputs holds {len(inputs)} examples but targets {len(targets)}; "
            "there must be one target for each example"
        )
    given = inputs if isinstance(inputs, FileRows) else _floating(inputs)
    if targets.ndim == 1 and targets.dtype.kind in "iu":
        return given, targets.astype(np.int64)
    return given, _floating(targets)


def read_training(path: str) -> dict[str, RawArray]:
    """The arrays called ``train/…`` by the rest of their names; none if there are none.

    Raises InputError if the file is unreadable, or an array is anything but finite numbers.
    """
    names = [name for name in array_names(path) if _is_training(name)]
    arrays = read_arrays(path, names, _LAYOUT)
    return {name.removeprefix(_TRAINING): array for name, array in arrays.items()}


def _is_beside(name: str) -> bool:
    return name.startswith(_PENALTY) or _is_training(name)


def _is_training(name: str) -> bool:
    return name.startswith(_TRAINING) and name not in _OF_A_LAYER


def save_problem(
    problem: Problem, path: str, training: Mapping[str, RawArray] = MappingProxyType({})
) -> None:
    """Writes ``problem`` to ``path``, under exactly that name, whole or not at all.

    The arrays of ``training`` are written as ``train/`` and their name. Raises InputError if
    the file cannot be written.
    """
    arrays: dict[str, RawArray] = {
        "targets": problem.targets,
        **problem.graph.tensors,
        **problem.graph.constants,
    }
    penalties = {**problem.penalties, **problem.graph.activities}
    arrays.update({f"{_PENALTY}{name}": np.array((of.l1, of.l2)) for name, of in penalties.items()})
    if problem.sample_weight is not None:
        arrays[SAMPLE_WEIGHT] = problem.sample_weight
    arrays.update({f"{_TRAINING}{name}": array for name, array in training.items()})
    with replacing(path) as stream, ZipFile(stream, "w", ZIP_DEFLATED) as archive:
        with archive.open("inputs.npy", "w", force_zip64=True) as member:
            _write_inputs(problem, member)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(array), allow_pickle=False)


def _write_inputs(problem: Problem, member: IO[bytes]) -> None:
    """The array (N, d), of which no more is held than a few examples that are stored."""
    dtype, shape = problem.dtype, problem.inputs.shape
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_2_0(member, header)
    for start in range(0, shape[0], _WRITTEN):
        member.write(np.ascontiguousarray(problem.inputs[start : start + _WRITTEN]).tobytes())


def _check_parameter(parameters: dict[str, Array], name: str, path: str) -> None:
    layer, _, kind = name.rpartition("/")
    shape = parameters[name].shape
    if kind == "kernel":
        if len(shape) < 2 or 0 in shape:
            raise InputError(
                f"{path}: {name} has shape {shape}; it must be (inputs, units), both at least 1"
            )
    elif 0 in shape or not shape:
        raise InputError(f"{path}: {name} has shape {shape}; every axis must be 1 at least")
    elif kind != "bias":
        return
    elif not {f"{layer}/kernel", f"{layer}/pointwise_kernel"} & set(parameters):
        raise InputError(f"{path}: {name} has no {layer}/kernel next to it; {_LAYOUT}")
    elif f"{layer}/kernel" in parameters and parameters[f"{layer}/kernel"].ndim != 2:
        return
    elif f"{layer}/kernel" in parameters and shape != parameters[f"{layer}/kernel"].shape[1:]:
        raise InputError(
            f"{path}: {name} has shape {shape} and {layer}/kernel "
            f"{parameters[f'{layer}/kernel'].shape}; they must be (units,) and (inputs, units)"
        )


def _floating(array: RawArray) -> Array:
    if array.dtype.kind == "f":
        return array.astype(array.dtype, copy=False)
    return array.astype(np.float64)
