"""The names of activations, plugins' among them, and the plugins' TensorFlow functions.

No formula stands here, because autodiff reads it: their NumPy derivatives are registered with
``hesscli.nodes.activations``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hesscli.problem.names import ACTIVATION_PARAMETERS, ACTIVATIONS

# A TensorFlow function by name; None for an activation that came without one.
_tensorflow: dict[str, Callable[[Any], Any] | None] = {}


def activation_names() -> tuple[str, ...]:
    """The names of all activations: our own, then those from plugins."""
    return (*ACTIVATIONS, *_tensorflow)


def parameter_defaults(name: str) -> Mapping[str, float]:
    """The parameters of the activation called ``name`` with Keras's default values."""
    return ACTIVATION_PARAMETERS.get(name, {})


def plugin_names() -> tuple[str, ...]:
    """The names of the activations that plugins have registered, in their order."""
    return tuple(_tensorflow)


def tensorflow_function(name: str) -> Callable[[Any], Any] | None:
    """The TensorFlow function of a plugin's activation; None where there is none."""
    return _tensorflow.get(name)


def lacks_tensorflow(name: str) -> bool:
    """Whether ``name`` is a plugin's activation that came without a TensorFlow function."""
    return name in _tensorflow and _tensorflow[name] is None


def register(name: str, tensorflow: Callable[[Any], Any] | None) -> None:
    """Makes the name of an activation known."""
    _tensorflow[name] = tensorflow


def forget(name: str) -> None:
    """Takes an activation out again."""
    _tensorflow.pop(name, None)
