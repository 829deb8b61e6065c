"""The tensors and statistics of a network by name: drawn, given, stored or Keras's."""

from __future__ import annotations

import numpy as np

from hesscli.config.schema import ModelConfig
from hesscli.problem.graph import Array
from hesscli.problem.initializers import Initializer
from hesscli.problem.keras_layers import KerasNetwork
from hesscli.problem.keras_model import read_numbers
from hesscli.problem.layertypes import TYPES
from hesscli.problem.npz import require_finite
from hesscli.problem.problemfile import read_parameters
from hesscli.system.errors import InputError
from hesscli.system.memory import (
    require_memory,
)


def parameters_of(
    model: ModelConfig, keras: KerasNetwork | None, seed: int, dtype: np.dtype[np.floating]
) -> dict[str, Array]:
    """All tensors and statistics by name."""
    if keras is not None:
        return _keras_parameters(keras, dtype)
    if model.weights is None:
        return drawn_parameters(model, seed, dtype)
    return _stored_parameters(model, model.weights, dtype)


def _keras_parameters(keras: KerasNetwork, dtype: np.dtype[np.floating]) -> dict[str, Array]:
    try:
        return {
            name: _converted(values, dtype, f"{keras.path}: {name}")
            for name, values in read_numbers(keras).items()
        }
    except InputError as error:
        raise InputError(f"model.keras: {error}") from error


def _converted(values: Array, dtype: np.dtype[np.floating], where: str) -> Array:
    with np.errstate(over="ignore"):
        converted = values.astype(dtype)
    require_finite(converted, f"{where} in {dtype}")
    return converted


def _shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    plan = model.plan()
    return {**plan.tensors, **plan.constants}


# What tensors that are neither kernel nor bias are without an initializer.
_DEFAULTS = {"gamma": "ones", "beta": "zeros", "alpha": "zeros"}


_STATISTICS = {"moving_mean": "zeros", "moving_variance": "ones"}


def drawn_parameters(
    model: ModelConfig, seed: int, dtype: np.dtype[np.floating]
) -> dict[str, Array]:
    shapes = _shapes(model)
    # Drawn in float64, then rounded to the dtype.
    needed = 8 * sum(int(np.prod(shape, dtype=object)) for shape in shapes.values())
    require_memory(needed, "model.layers: the parameters need", "use fewer units")
    parameters: dict[str, Array] = {}
    for index, layer in enumerate(model.layers):
        roles = [name.rpartition("/")[2] for name in shapes if name.startswith(f"{layer.name}/")]
        # One stream of random numbers a tensor: adding a layer leaves the others as they are.
        others = [role for role in roles if role not in ("kernel", "bias")]
        keys: dict[str, tuple[int, ...]] = {"kernel": (2 * index,), "bias": (2 * index + 1,)}
        keys |= {role: (2 * index, place) for place, role in enumerate(others)}
        for role in roles:
            name = f"{layer.name}/{role}"
            initializer, origin = _initializer_of(model, index, role)
            given = getattr(layer, role, None) if role in ("kernel", "bias") else None
            with np.errstate(over="ignore"):
                if given is None:
                    stream = np.random.SeedSequence(seed, spawn_key=keys[role])
                    generator = np.random.default_rng(stream)
                    values = initializer.draw(shapes[name], generator).astype(dtype)
                else:
                    origin = f"model.layers.{index}.{role}"
                    values = np.array(given).astype(dtype)
            require_finite(values, f"{origin}: {name} in {dtype}")
            parameters[name] = values
    return parameters


def _initializer_of(model: ModelConfig, index: int, role: str) -> tuple[Initializer, str]:
    """The initializer of a layer's tensor, and the key that names it."""
    layer, path = model.layers[index], f"model.layers.{index}"
    own = dict(layer.initializers).get(role)
    if own is not None:
        return own, f"{path}.{role}_initializer"
    usual = TYPES[layer.type].initializers if layer.type in TYPES else {}
    if role in usual and not (role.endswith("kernel") and layer.initializer is not None):
        return usual[role], path
    if role in _STATISTICS:
        return Initializer(_STATISTICS[role]), path
    if role.endswith("kernel"):
        if layer.initializer is not None:
            return layer.initializer, f"{path}.initializer"
        return model.initializer, "model.initializer"
    if role == "bias":
        return model.bias_initializer, "model.bias_initializer"
    return Initializer(_DEFAULTS[role]), path


def _stored_parameters(
    model: ModelConfig, path: str, dtype: np.dtype[np.floating]
) -> dict[str, Array]:
    try:
        stored = read_parameters(path)
    except InputError as error:
        raise InputError(f"model.weights: {error}") from error
    shapes = _shapes(model)
    for name, shape in shapes.items():
        if name not in stored:
            raise InputError(
                f"model.weights: {path}: no {name} in it (it holds {', '.join(stored)}); "
                "model.layers and model.bias must match the file"
            )
        if stored[name].shape != shape:
            raise InputError(
                f"model.weights: {path}: {name} has shape {stored[name].shape}; "
                f"model.layers asks for {shape}"
            )
    unused = [name for name in stored if name not in shapes]
    if unused:
        raise InputError(
            f"model.weights: {path}: {', '.join(unused)} would not be used; "
            "model.layers and model.bias must match the file"
        )
    parameters: dict[str, Array] = {}
    for name in shapes:
        parameters[name] = _converted(stored[name], dtype, f"model.weights: {path}: {name}")
    return parameters
