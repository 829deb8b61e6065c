"""A trained Keras model as layers, read without Keras and without running it.

A ``.keras`` file is a zip of ``config.json``, which describes the layers (keras_layers.py), and
``model.weights.h5``, their numbers. An HDF5 file, by whatever name, has the description in its
attributes and the numbers by the names of the layers. All are read as data.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from hesscli.problem.graph import Array
from hesscli.problem.keras_formats import is_json, require_keras_format, weights_beside
from hesscli.problem.keras_layers import KerasLayer, KerasNetwork, described
from hesscli.problem.keras_losses import is_keras_own, registered_name
from hesscli.problem.layers import NORMALIZATION
from hesscli.problem.npz import (
    DAMAGE,
    MAX_ARRAY_BYTES,
    opened_member,
    packed_size,
    require_finite,
    require_unpackable,
)
from hesscli.system.errors import InputError, reason
from hesscli.system.files import opened

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
# As many as the widest type that numbers are stored in has.
_NUMBER_BYTES = 8
# A Normalization divides by a deviation of keras.config.epsilon() at least.
_LEAST_VARIANCE = 1e-14
# Far beyond the description of any chain of dense layers.
_MAX_CONFIG_BYTES = 2**24
_NEEDED = "a model that Keras saved as .keras or .h5 is needed"
# Of an HDF5 file, and its attributes that describe the model.
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ATTRIBUTES = ("model_config", "training_config")
# Which Keras saved a model: an attribute, or in a file next to the description.
_VERSION, _METADATA, _BEFORE_KERAS_3 = "keras_version", "metadata.json", ("1.", "2.")
# The keys of a layer's tensors in an open store, for messages that begin with the text.
_KeysOf = Callable[[Any, KerasLayer, str], list[str]]


def read_network(path: str, names: Mapping[str, str] | None = None) -> KerasNetwork:
    """The layers of the model ``path``, from its description alone.

    ``names`` are the plugins' by those that Keras has registered, if they differ.

    Raises InputError if the file is missing or damaged, is not a chain of layers, or contains a
    layer that is not supported, which is named.
    """
    require_keras_format(path)
    if _begins(path, _SIGNATURE):
        return _read_hdf5_network(path, names or {})
    if is_json(path):
        where = path
        with opened(path, _NEEDED) as stream:
            document = stream.read(_MAX_CONFIG_BYTES)
    else:
        where = f"{path}: {_CONFIG}"
        with _opened(path) as archive:
            document = _read_member(archive, _CONFIG, _MAX_CONFIG_BYTES, path)
            has_version = _METADATA in archive.namelist()
            beside = (
                _read_member(archive, _METADATA, _MAX_CONFIG_BYTES, path) if has_version else b"{}"
            )
    try:
        found = json.loads(document)
        found = (
            _owned(found)
            if is_json(path)
            else {**found, _VERSION: json.loads(beside).get(_VERSION)}
        )
        return _described(found, path, names or {})
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{where} does not describe a model as Keras 3 does ({reason(error)}); {_NEEDED}"
        ) from error


def model_files(path: str) -> tuple[str, ...]:
    """The files that a model is in: its description, and its numbers where they are elsewhere."""
    return (path, weights_beside(path)) if is_json(path) else (path,)


def read_numbers(network: KerasNetwork) -> dict[str, Array]:
    """The tensors and statistics of all layers by name (``dense/kernel``), as stored.

    Raises InputError if they are missing, damaged, of another shape or not finite.
    """
    import h5py

    numbers: dict[str, Array] = {}
    with _weights(network.path) as (source, size, where, keys_of):
        # HDF5 unpacks, and gives what was never written as zeros.
        shapes = [shape for of in network.layers for shape in of.shapes.values()]
        declared = _NUMBER_BYTES * sum(map(math.prod, shapes))
        require_unpackable(declared, size, where)
        try:
            with h5py.File(source, "r") as store:
                for layer in network.layers:
                    if not layer.shapes:
                        continue
                    keys = keys_of(store, layer, where)
                    for (role, shape), key in zip(layer.shapes.items(), keys, strict=True):
                        stored = _stored(store, key, shape, where)
                        if layer.spec.type == NORMALIZATION and role == "moving_variance":
                            stored = np.maximum(stored, _LEAST_VARIANCE)
                        numbers[f"{layer.name}/{role}"] = stored
        # What h5py raises on bytes that are not its own.
        except (OSError, LookupError, RuntimeError, TypeError, ValueError, MemoryError) as error:
            raise InputError(f"{where} is damaged ({reason(error)}); {_NEEDED}") from error
    return numbers


@contextmanager
def _weights(path: str) -> Iterator[tuple[BinaryIO, int, str, _KeysOf]]:
    """The HDF5 file with the numbers, its size, what messages call it, and how keys are found."""
    beside = weights_beside(path) if is_json(path) else path
    if _begins(beside, _SIGNATURE):
        with opened(beside, _NEEDED) as stream:
            yield stream, os.fstat(stream.fileno()).st_size, beside, _keys_of_hdf5
        return
    if is_json(path):
        raise InputError(f"{beside}: no HDF5 file; the weights that belong to {path} are needed")
    with _opened(path) as archive:
        content = _read_member(archive, _WEIGHTS, MAX_ARRAY_BYTES, path)
    yield io.BytesIO(content), len(content), f"{path}: {_WEIGHTS}", _keys_by_group


def _begins(path: str, signature: bytes) -> bool:
    with opened(path, _NEEDED) as stream:
        return stream.read(len(signature)) == signature


def _read_hdf5_network(path: str, names: Mapping[str, str]) -> KerasNetwork:
    """The layers in the attributes ``model_config`` and ``training_config``."""
    import h5py

    try:
        with opened(path, _NEEDED) as stream, h5py.File(stream, "r") as store:
            model, training = (
                json.loads(_attribute(store, key, path) or "null") for key in _ATTRIBUTES
            )
            version = _attribute(store, _VERSION, path)
        if model is None:
            raise InputError(f"{path}: no model_config in it, only numbers; {_NEEDED}")
        # The classes of Keras 2, and of HDF5 files of Keras 3, are named without their modules.
        document = {**_owned(model), "compile_config": _owned(training), _VERSION: version}
        return _described(document, path, names)
    # What h5py and json raise on what is not their own.
    except (OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({reason(error)}); {_NEEDED}") from error


def _described(document: Mapping[str, Any], path: str, names: Mapping[str, str]) -> KerasNetwork:
    """The layers; refused if Keras, which evaluates the model later, would import others'."""
    network = described(document, path, names)
    for found in _foreign(document["config"], network.plugins):
        raise InputError(f"{path}: {found} in it is not Keras's own; {_NEEDED}")
    version = str(document.get(_VERSION) or "")
    for layer in network.layers:
        if layer.activation.name == "hard_sigmoid" and version.startswith(_BEFORE_KERAS_3):
            raise InputError(
                f"{path}: layer {layer.keras_name!r} has the hard_sigmoid of Keras {version}, "
                "0.2 z + 0.5 between 0 and 1, which Keras 3 takes for z/6 + 0.5; define the former "
                "as a plugin's activation, or save the model with Keras 3 if the latter is meant"
            )
    return network


def _foreign(serialized: Any, plugins: Collection[str]) -> Iterator[str]:
    """The names of objects that are neither Keras's own nor plugins', wherever they stand."""
    if isinstance(serialized, list):
        for inner in serialized:
            yield from _foreign(inner, plugins)
    elif isinstance(serialized, Mapping):
        # Keras's tensors and arrays name no module, and import none.
        if (
            {"class_name", "module"} <= set(serialized)
            and not is_keras_own(serialized)
            and registered_name(serialized) not in plugins
        ):
            yield f"{serialized['module']}.{serialized['class_name']}"
        for inner in serialized.values():
            yield from _foreign(inner, plugins)


def _attribute(store: Any, key: str, path: str) -> str | None:
    if key not in store.attrs:
        return None
    if store.attrs.get_id(key).get_storage_size() > _MAX_CONFIG_BYTES:
        raise InputError(f"{path}: {key} is larger than {_MAX_CONFIG_BYTES / 2**20:g} MiB")
    text = store.attrs[key]
    return text.decode("utf-8") if isinstance(text, bytes) else str(text)


def _owned(serialized: Any) -> Any:
    """Objects that name no module, as Keras's own; what a user registered has a ``>`` in it."""
    if isinstance(serialized, list):
        return [_owned(inner) for inner in serialized]
    if not isinstance(serialized, dict):
        return serialized
    found = {key: _owned(inner) for key, inner in serialized.items()}
    if "module" not in found and ">" not in str(found.get("class_name", ">")):
        found["module"] = "keras"
    return found


def _keys_of_hdf5(store: Any, layer: KerasLayer, where: str) -> list[str]:
    """By groups in what ``save_weights`` of Keras 3 writes, by names in all that is older."""
    by_name = "model_weights" in store or "layers" not in store
    return (_keys_by_name if by_name else _keys_by_group)(store, layer, where)


def _keys_by_name(store: Any, layer: KerasLayer, where: str) -> list[str]:
    """Where an HDF5 model stores a layer's tensors: by names that end in ``dense/kernel``."""
    keys = []
    for role in layer.shapes:
        own = layer.spec.type == NORMALIZATION
        name = f"{layer.keras_name}/{role.removeprefix('moving_') if own else role}"
        found = _places(store, where).get(name, [])
        if len(found) != 1:
            raise InputError(
                f"{where}: {len(found)} arrays are called {name}; one is needed; {_NEEDED}"
            )
        keys += found
    return keys


def _places(store: Any, where: str) -> dict[str, list[str]]:
    """Where arrays are stored, by the last two parts of their names."""
    found: dict[str, list[str]] = {}
    above = "model_weights/" if "model_weights" in store else ""
    top = _followed(store, "model_weights", where) if above else store
    for layer in top:
        group = _followed(top, layer, where)
        for name in group.attrs.get("weight_names", ()):
            text = name.decode("utf-8") if isinstance(name, bytes) else str(name)
            short = "/".join(text.removesuffix(":0").split("/")[-2:])
            found.setdefault(short, []).append(f"{above}{layer}/{text}")
    return found


def _keys_by_group(store: Any, layer: KerasLayer, where: str) -> list[str]:
    """Where a ``.keras`` file stores a layer's tensors: one after the other."""
    # Newer versions of Keras write the layer's name next to its numbers.
    attributes = _followed(store, layer.group, f"{where}: {layer.group}").attrs
    name = None
    if "name" in attributes and attributes.get_id("name").shape == ():
        name = attributes["name"]
    if name is not None and name != layer.keras_name:
        raise InputError(
            f"{where}: {layer.group} belongs to {name!r}, but {_CONFIG} names "
            f"{layer.keras_name!r}; {_NEEDED}"
        )
    return [f"{layer.group}/{index}" for index in range(len(layer.shapes))]


def _followed(store: Any, key: str, where: str) -> Any:
    """The item stored as ``key`` in this very file; raises InputError if there is none."""
    import h5py

    item = store
    for part in key.split("/"):
        # Soft and external links lead elsewhere, even to another file.
        if not isinstance(item, h5py.Group) or type(item.get(part, getlink=True)) is not (
            h5py.HardLink
        ):
            raise InputError(f"{where}: nothing is stored there; {_NEEDED}")
        item = item[part]
    return item


def _stored(store: Any, key: str, shape: tuple[int, ...], where: str) -> Array:
    import h5py

    where = f"{where}: {key}"
    item = _followed(store, key, where)
    if not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
        raise InputError(f"{where}: no array of numbers; {_NEEDED}")
    if item.shape != shape or item.dtype.kind != "f":
        raise InputError(
            f"{where} has shape {item.shape} of {item.dtype}; {_CONFIG} asks for {shape} of "
            "floating-point numbers"
        )
    array: Array = item[()]
    require_finite(array, where)
    return array


@contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    try:
        with opened(path, _NEEDED) as stream, zipfile.ZipFile(stream) as archive:
            yield archive
    except DAMAGE as error:
        raise InputError(
            f"{path}: damaged or not a .keras file ({reason(error)}); {_NEEDED}"
        ) from error


def _read_member(archive: zipfile.ZipFile, name: str, most: int, path: str) -> bytes:
    if name not in archive.namelist():
        raise InputError(f"{path}: no {name} in it; {_NEEDED}")
    info = archive.getinfo(name)
    if info.file_size > most:
        raise InputError(f"{path}: {name} is larger than {most / 2**20:g} MiB; {_NEEDED}")
    require_unpackable(info.file_size, packed_size(archive), f"{path}: {name}")
    with opened_member(archive, info, f"{path}: {name}") as member:
        return member.read()
