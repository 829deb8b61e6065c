"""What Keras needs to load a model that names what plugins define: their TensorFlow functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from hesscli.problem.layers import Arguments
from hesscli.problem.layertypes import TYPES
from hesscli.problem.registry import LAYER, plugin_names, tensorflow_function

_UNUSED = re.compile(r"(?!activity).*_(initializer|constraint|regularizer)")


def custom_objects(keras: ModuleType, plugins: Mapping[str, str]) -> dict[str, Any]:
    """A function or a class of Keras's for each name that Keras has registered.

    ``plugins`` are the plugins' names by these; each has a TensorFlow function.
    """
    return {
        registered: _layer(keras, registered, name)
        if name in plugin_names(LAYER)
        else tensorflow_function(name)
        for registered, name in plugins.items()
    }


def _layer(keras: ModuleType, registered: str, name: str) -> type:
    """The layer ``name`` as a class of Keras's, with weights in the plugin's order."""
    type_, function = TYPES[name], tensorflow_function(name, LAYER)
    assert function is not None  # without one there is no twin
    call: Callable[..., Any] = function

    def init(self: Any, **config: Any) -> None:
        arguments = {key: config.pop(key) for key in type_.arguments if key in config}
        regularizers = {role: config.pop(f"{role}_regularizer", None) for role in type_.roles}
        plain = {key: value for key, value in config.items() if not _UNUSED.fullmatch(key)}
        keras.layers.Layer.__init__(self, **plain)
        self.arguments, self.regularizers = arguments, regularizers

    def build(self: Any, shape: tuple[int | None, ...]) -> None:
        made = type_.make(Arguments(self.arguments), [tuple(int(n or 0) for n in shape[1:])])
        self.attributes = {k: v for k, v in made.parts[0].attributes.items() if k != "layer"}
        self.own = {
            role: self.add_weight(
                name=role, shape=of, regularizer=keras.regularizers.get(self.regularizers[role])
            )
            for role, of in made.tensors.items()
        }

    def called(self: Any, x: Any) -> Any:
        theta = {role: weight.value for role, weight in self.own.items()}
        return call(x, theta, **self.attributes)

    def get_config(self: Any) -> dict[str, Any]:
        regularizers = {f"{role}_regularizer": of for role, of in self.regularizers.items()}
        return {**keras.layers.Layer.get_config(self), **self.arguments, **regularizers}

    body = {"__init__": init, "build": build, "call": called, "get_config": get_config}
    return type(registered.rpartition(">")[2], (keras.layers.Layer,), body)
