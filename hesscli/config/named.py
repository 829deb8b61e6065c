"""Activations and initializers: a name, or ``{name: …, parameter: …}``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hesscli.problem import initializers, registry
from hesscli.problem.graph import Activation
from hesscli.problem.initializers import Initializer
from hesscli.problem.names import ACTIVATION_ALIASES
from hesscli.system.takes import Choice, ConfigKeyError, Number, Path, Takes, mapping_with


@dataclass(frozen=True)
class Named(Takes):
    """A name with the parameters that it has, given to ``kind`` as its arguments."""

    kind: Callable[[str, tuple[tuple[str, float], ...]], Any] = Activation
    names: Callable[[], Sequence[str]] = registry.activation_names
    parameters: Callable[[str], Mapping[str, float]] = registry.parameter_defaults
    aliases: Mapping[str, str] = field(default_factory=lambda: ACTIVATION_ALIASES)

    def decoded(self, value: Any, path: Path) -> Any:
        if isinstance(value, Mapping):
            given, name_path = value, (*path, "name")
        else:
            given, name_path = {"name": value}, path
        choice = Choice(names=lambda: (*self.names(), *self.aliases))
        name = choice.decode(given.get("name"), name_path)
        name = self.aliases.get(name, name)
        mapping = mapping_with(given, path, ["name", *self.parameters(name)])
        numbers = {key: inner for key, inner in mapping.items() if key != "name"}
        decoded = ((key, Number().decode(of, (*path, key))) for key, of in numbers.items())
        return self.kind(name, tuple(decoded))

    def encode(self, value: Any) -> Any:
        name, parameters = value.name, dict(value.parameters)
        return {"name": name, **parameters} if parameters else name


@dataclass(frozen=True)
class _Initializer(Named):
    """An initializer; of a bias, it must not be one that needs a matrix."""

    of_bias: bool = False

    def decoded(self, value: Any, path: Path) -> Initializer:
        found: Initializer = super().decoded(value, path)
        values = {**initializers.parameter_defaults(found.name), **dict(found.parameters)}
        if "minval" in values and not 0 <= values["maxval"] - values["minval"] < math.inf:
            text = f"minval {values['minval']:g} and maxval {values['maxval']:g}"
            raise ConfigKeyError(path, f"{text}; maxval must be above minval, by a finite amount")
        if self.of_bias and found.name in initializers.MATRIX_ONLY:
            raise ConfigKeyError(path, f"{found.name!r} needs a matrix; choose another for biases")
        return found


ACTIVATION = Named("an activation")
INITIALIZER = _Initializer(
    "an initializer",
    kind=Initializer,
    names=lambda: initializers.NAMES,
    parameters=initializers.parameter_defaults,
    aliases={},
)
BIAS_INITIALIZER = replace(INITIALIZER, words="an initializer, but orthogonal", of_bias=True)
