"""The loss that a Keras model was compiled with, as its ``config.json`` holds it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hesscli.problem.names import CROSSENTROPIES, LOSS_ARGUMENTS, LOSSES
from hesscli.problem.network import Loss

# Keras's classes, and its short names of functions.
_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "SparseCategoricalCrossentropy": "sparse_categorical_crossentropy",
        "CategoricalCrossentropy": "categorical_crossentropy",
        "BinaryCrossentropy": "binary_crossentropy",
        "CategoricalFocalCrossentropy": "categorical_focal_crossentropy",
        "MeanSquaredError": "mean_squared_error",
        "MeanAbsoluteError": "mean_absolute_error",
        "Huber": "huber",
        "LogCosh": "log_cosh",
        "KLDivergence": "kl_divergence",
        "Poisson": "poisson",
    }
)
_SHORT: Mapping[str, str] = MappingProxyType(
    {
        "mse": "mean_squared_error",
        "mae": "mean_absolute_error",
        "bce": "binary_crossentropy",
        "kld": "kl_divergence",
        "logcosh": "log_cosh",
        "huber_loss": "huber",
    }
)
_REDUCTIONS: Mapping[str, str] = MappingProxyType(
    {"sum_over_batch_size": "mean", "mean": "mean", "auto": "mean", "sum": "sum"}
)
_REDUCED: Mapping[str, str] = MappingProxyType({"mean": "sum_over_batch_size", "sum": "sum"})
# What is left of a loss's configuration if it is as always.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {"ignore_class": (None,), "axis": (-1,), "dtype": (None, "float32")}
)


def is_keras_own(serialized: Mapping[str, Any]) -> bool:
    """Whether an object is Keras's, and no class of the user's that has the same name."""
    module = serialized.get("module")
    own = isinstance(module, str) and (module == "keras" or module.startswith("keras."))
    return own and serialized.get("registered_name") in (None, serialized["class_name"])


def registered_name(serialized: Mapping[str, Any]) -> str:
    """The name under which Keras has registered an object; of a function its own name."""
    if serialized["class_name"] == "function":
        return str(serialized.get("config"))
    return str(serialized.get("registered_name") or serialized["class_name"])


class UnknownLossError(ValueError):
    """For a compiled loss that has no counterpart here; its text says which it is."""


def serialized_loss(document: Mapping[str, Any]) -> Any:
    """The loss as a ``config.json`` holds it, a name or an object; None if there is none."""
    given = (document.get("compile_config") or {}).get("loss")
    if isinstance(given, list) and len(given) == 1:
        (given,) = given
    if isinstance(given, Mapping) and len(given) == 1 and "class_name" not in given:
        (given,) = given.values()
    return given


def serialized(loss: Loss, from_logits: bool) -> Mapping[str, Any] | None:
    """``loss`` as Keras describes an object of its own; None of one that Keras does not have."""
    kind = next((kind for kind, name in _CLASSES.items() if name == loss.name), None)
    if kind is None:
        return None
    config = {key: getattr(loss, key) for key, of in LOSS_ARGUMENTS.items() if loss.name in of}
    if "from_logits" in config:
        config["from_logits"] = from_logits
    config["reduction"] = _REDUCED[loss.reduction]
    return {"class_name": kind, "config": config, "module": "keras.losses"}


def compiled_loss(document: Mapping[str, Any]) -> Loss | None:
    """The loss in a ``config.json``, None if the model was saved without one.

    Raises UnknownLossError for one that has no counterpart here.
    """
    compiled = document.get("compile_config") or {}
    given = serialized_loss(document)
    if given is None:
        return None
    if compiled.get("loss_weights") not in (None, 1, 1.0, [1], [1.0]):
        raise UnknownLossError("a weighted one (loss_weights)")
    if isinstance(given, str):
        return _of_function(given)
    if not isinstance(given, Mapping):
        raise UnknownLossError("one for each of several outputs")
    return _of_object(given)


def _of_function(name: str) -> Loss:
    plain = _SHORT.get(name.lower(), name.lower())
    plain = _CLASSES.get(name, plain)
    if plain not in LOSSES:
        raise UnknownLossError(name)
    return Loss(plain, from_logits=False if plain in CROSSENTROPIES else None)


def _of_object(given: Mapping[str, Any]) -> Loss:
    kind, config = str(given["class_name"]), given.get("config")
    if not is_keras_own(given):
        raise UnknownLossError(f"{kind}, which is not one of Keras's own losses")
    if kind == "function" and isinstance(config, str):
        return _of_function(config)
    if kind not in _CLASSES or not isinstance(config, Mapping):
        raise UnknownLossError(kind)
    loss = _of_function(kind)
    arguments: dict[str, Any] = {}
    for key, value in config.items():
        if key == "name" or value in _NEUTRAL.get(key, ()):
            continue
        if key == "reduction" and value in _REDUCTIONS:
            arguments[key] = _REDUCTIONS[value]
        elif key == "from_logits" and isinstance(value, bool) and loss.from_logits is not None:
            arguments[key] = value
        elif loss.name in LOSS_ARGUMENTS.get(key, ()) and type(value) in (int, float):
            arguments[key] = float(value)
        else:
            raise UnknownLossError(f"{kind} with {key} {value!r}")
    return Loss(**{"name": loss.name, "from_logits": loss.from_logits, **arguments})
