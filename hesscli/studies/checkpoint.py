"""Checkpoints: a training at one step as a problem file, from which it goes on bit for bit.

In addition to the parameters and the measuring batch of a problem file it contains

    train/record             JSON as UTF-8 in uint8: version, step, configuration, measurements
    train/velocity           (P,), in the order of the block network
    train/vectors/<block>    the eigenvectors (P,) from which the next measurement starts
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from hesscli.config.schema import TrainConfig
from hesscli.problem.graph import ADD, DENSE, ELEMENTWISE, SOFTMAX, Array, Graph
from hesscli.problem.network import Loss, Problem
from hesscli.problem.npz import RawArray
from hesscli.problem.problemfile import read_parameters, read_training, save_problem
from hesscli.problem.stored import StoredInputs
from hesscli.studies.measurement import LayerCurvature, Measurement
from hesscli.system.errors import InputError
from hesscli.system.pieces import pieces
from hesscli.witnesses.layout import NETWORK, layout_of

_VERSION = 1
_RECORD, _VELOCITY, _VECTORS = "record", "velocity", "vectors/"


@dataclass(frozen=True)
class Moment:
    """All that a training goes on from: after ``step`` steps.

    ``parameters`` and ``velocity`` are (P,), ``vectors`` the eigenvectors of the last measurement
    by block, ``history`` the measurements at multiples of ``train.every``.
    """

    step: int
    parameters: Array
    velocity: Array
    vectors: Mapping[str, Array]
    history: tuple[Measurement, ...]


def _described(graph: Graph) -> Iterator[str]:
    """Each layer or, if there are others than dense ones, each node."""
    if not all(node.kind in (DENSE, ELEMENTWISE, SOFTMAX, ADD) for node in graph.nodes):
        for node in graph.nodes:
            shapes = [graph.tensors[name].shape for name in node.tensors.values()]
            attributes = sorted(node.attributes.items())
            yield f"{node.name}: {node.activation or node.kind} {node.inputs} {shapes} {attributes}"
        return
    for layer in graph.layers:
        bias = "" if layer.bias is None else ", bias"
        yield f"{layer.name}: {layer.inputs}-{layer.units} {layer.activation}{bias}"


def fingerprint(problem: Problem, options: TrainConfig, batch_size: int) -> dict[str, Any]:
    """The facts that decide every number of a training, by the key of the configuration.

    The number of steps is not among it: more of them can be added.
    """
    weights = () if problem.sample_weight is None else (problem.sample_weight,)
    return {
        "model.layers": "; ".join(_described(problem.graph)),
        "loss": _loss_text(problem),
        "dtype": problem.dtype.name,
        "seed": problem.seed,
        "train.learning_rate": options.learning_rate,
        "train.momentum": options.momentum,
        "train.batch_size": batch_size,
        "train.every": options.every,
        "train.measure_examples": options.measure_examples,
        "train.examples": problem.examples,
        "data": _digest(problem.inputs, problem.targets, *weights),
        "initial parameters": _digest(problem.graph.vector()),
    }


def _loss_text(problem: Problem) -> str:
    """The loss with its arguments that are not Keras's defaults, and its penalties."""
    given, usual = asdict(problem.loss), asdict(Loss())
    others = (key for key in given if key not in ("name", "reduction", "regularization"))
    parts = [problem.loss.name, problem.loss.reduction]
    parts += [f"{key} {given[key]}" for key in others if given[key] != usual[key]]
    penalties = {**problem.penalties, **problem.graph.activities}
    parts += [f"{name} l1 {of.l1:g} l2 {of.l2:g}" for name, of in penalties.items()]
    return ", ".join(parts)


def save_checkpoint(
    path: str, measured: Problem, moment: Moment, configuration: Mapping[str, Any]
) -> None:
    """Writes ``moment`` to ``path``, whole or not at all; ``measured`` has the measuring batch.

    Raises InputError if the file cannot be written.
    """
    record = {
        "version": _VERSION,
        "step": moment.step,
        "configuration": configuration,
        "measurements": [asdict(measurement) for measurement in moment.history],
    }
    text = json.dumps(record, allow_nan=False).encode("utf-8")
    arrays: dict[str, RawArray] = {
        _RECORD: np.frombuffer(text, dtype=np.uint8),
        _VELOCITY: moment.velocity,
        **{f"{_VECTORS}{block}": vector for block, vector in moment.vectors.items()},
    }
    graph = measured.graph.with_vector(moment.parameters)
    save_problem(replace(measured, graph=graph), path, arrays)


def load_checkpoint(path: str, problem: Problem, configuration: Mapping[str, Any]) -> Moment:
    """The moment in ``path``, of a training of ``problem`` with the same ``configuration``.

    Raises InputError if the file is not a checkpoint, is damaged, or has another configuration:
    then with the keys that differ.
    """
    arrays = read_training(path)
    if _RECORD not in arrays or _VELOCITY not in arrays:
        raise InputError(f"{path}: no checkpoint; a file that train --checkpoint wrote is needed")
    record = _record(path, arrays[_RECORD])
    _require_same(path, record["configuration"], configuration)
    parameters = read_parameters(path)
    vector = np.concatenate([array.reshape(-1) for array in parameters.values()])
    P, dtype = problem.parameter_count, problem.dtype
    blocks = {NETWORK: P, **{name: layout_of(problem, name).size for name in problem.layer_names}}
    vectors = {name: arrays.get(f"{_VECTORS}{name}") for name in blocks}
    sizes = [(vector, P), (arrays[_VELOCITY], P)]
    sizes += [(vectors[name], size) for name, size in blocks.items()]  # type: ignore[misc]
    for array, size in sizes:
        if array is None or array.shape != (size,) or array.dtype != dtype:
            raise InputError(_damaged(path))
    return Moment(
        step=record["step"],
        parameters=vector,
        velocity=arrays[_VELOCITY],
        vectors={name: np.asarray(array) for name, array in vectors.items()},
        history=record["measurements"],
    )


def _record(path: str, encoded: RawArray) -> dict[str, Any]:
    try:
        record = json.loads(encoded.astype(np.uint8, casting="safe").tobytes())
        step, version = record["step"], record["version"]
        measurements = tuple(_measurement(values) for values in record["measurements"])
        configuration = dict(record["configuration"])
    # Whatever is wrong in bytes that are not ours.
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(_damaged(path)) from error
    if version != _VERSION:
        raise InputError(
            f"{path}: a checkpoint of version {version!r}; this hesscli reads version {_VERSION}"
        )
    if type(step) is not int or step < 0:
        raise InputError(_damaged(path))
    return {"step": step, "configuration": configuration, "measurements": measurements}


def _measurement(values: Mapping[str, Any]) -> Measurement:
    layers = tuple(LayerCurvature(**layer) for layer in values["layers"])
    return Measurement(**{**values, "layers": layers})


def _require_same(path: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    differences = []
    for key, value in ours.items():
        if theirs.get(key) != value:
            # Nobody reads a digest.
            is_digest = key in ("data", "initial parameters")
            differences.append(
                f"{key} differ" + ("s" if key == "data" else "")
                if is_digest
                else f"{key} is {theirs.get(key)} in it and {value} here"
            )
    if differences:
        raise InputError(
            f"{path}: {'; '.join(differences)}; go on with the configuration that it was begun with"
        )


def _damaged(path: str) -> str:
    return f"{path}: a damaged checkpoint; one as train --checkpoint writes it is needed"


def _digest(*arrays: RawArray | StoredInputs) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        # Stored examples are read a few at a time.
        for low, high in pieces(0, len(array), array.dtype.itemsize * math.prod(array.shape[1:])):
            digest.update(np.ascontiguousarray(array[low:high]).data)
    return digest.hexdigest()
