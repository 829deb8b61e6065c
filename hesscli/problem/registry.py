"""The names of what plugins define, and the versions of it that other witnesses differentiate.

No formula stands here, because autodiff reads it: NumPy's derivatives are registered with
``hesscli.nodes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hesscli.problem.names import ACTIVATION_PARAMETERS, ACTIVATIONS, LOSSES

if TYPE_CHECKING:
    from hesscli.problem.layers import LayerType

# The kinds of what a plugin defines.
ACTIVATION, LOSS, LAYER = "activation", "loss", "layer"
# What a loss compares the outputs with: (N,) labels, or (N, c) numbers.
LABELS, NUMBERS = "labels", "numbers"


@dataclass(frozen=True)
class Versions:
    """A plugin's function for other witnesses; None for what it came without.

    ``targets`` are those of a loss, ``shape`` the one of an example that a layer is tried with.
    """

    tensorflow: Callable[..., Any] | None = None
    mpmath: Callable[..., Any] | None = None
    targets: str = NUMBERS
    shape: tuple[int, ...] = ()


_NONE = Versions()
_registered: dict[str, dict[str, Versions]] = {ACTIVATION: {}, LOSS: {}, LAYER: {}}
_layer_types: dict[str, LayerType] = {}


def activation_names() -> tuple[str, ...]:
    """The names of all activations: our own, then those from plugins."""
    return (*ACTIVATIONS, *plugin_names())


def loss_names() -> tuple[str, ...]:
    """The names of all losses: our own, then those from plugins."""
    return (*LOSSES, *plugin_names(LOSS))


def parameter_defaults(name: str) -> Mapping[str, float]:
    """The parameters of the activation called ``name`` with Keras's default values."""
    return ACTIVATION_PARAMETERS.get(name, {})


def plugin_names(kind: str = ACTIVATION) -> tuple[str, ...]:
    """The names of a kind that plugins have registered, in their order."""
    return tuple(_registered[kind])


def tensorflow_function(name: str, kind: str = ACTIVATION) -> Callable[..., Any] | None:
    """The TensorFlow function of what a plugin defines; None if there is none."""
    return _registered[kind].get(name, _NONE).tensorflow


def mpmath_function(name: str, kind: str = ACTIVATION) -> Callable[..., Any] | None:
    """The mpmath function of what a plugin defines; None if there is none."""
    return _registered[kind].get(name, _NONE).mpmath


def targets_of(loss: str) -> str:
    """The kind of targets that a plugin's loss takes: LABELS or NUMBERS."""
    return _registered[LOSS][loss].targets


def shape_of(layer: str) -> tuple[int, ...]:
    """The shape of an example that a plugin's layer is tried with."""
    return _registered[LAYER][layer].shape


def layer_types() -> Mapping[str, LayerType]:
    """The types of layers that plugins have registered, as they are at any time."""
    return MappingProxyType(_layer_types)


def plugin_for(registered: object, kind: str, names: Mapping[str, str]) -> str | None:
    """The plugin's name of what Keras calls ``registered``, as in ``package>name``.

    By ``names``, or else the part behind the package; None if no plugin has defined it.
    """
    text = str(registered)
    name = names.get(text, text.rpartition(">")[2])
    return name if name in _registered[kind] else None


def lacks_tensorflow(name: str, kind: str = ACTIVATION) -> bool:
    """Whether ``name`` is a plugin's that came without a TensorFlow function."""
    return name in _registered[kind] and _registered[kind][name].tensorflow is None


def is_untold(name: str) -> bool:
    """Whether autodiff, and Keras, cannot do what a plugin calls so."""
    return lacks_tensorflow(name) or lacks_tensorflow(name, LAYER)


def register(name: str, versions: Versions, kind: str = ACTIVATION) -> None:
    """Makes the name of what a plugin defines known."""
    _registered[kind][name] = versions


def register_layer(name: str, versions: Versions, type_: LayerType) -> None:
    """Makes a type of layer known."""
    register(name, versions, LAYER)
    _layer_types[name] = type_


def forget(name: str, kind: str = ACTIVATION) -> None:
    """Takes it out again."""
    _registered[kind].pop(name, None)
    if kind == LAYER:
        _layer_types.pop(name, None)
