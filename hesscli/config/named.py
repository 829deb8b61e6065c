"""Activations and initializers: a name, or ``{name: …, parameter: …}``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hesscli.problem import initializers, registry
from hesscli.problem.graph import Activation
from hesscli.problem.initializers import Initializer
from hesscli.problem.names import ACTIVATION_ALIASES
from hesscli.system.takes import Choice, ConfigKeyError, Number, Path, Takes, mapping_with


@dataclass(frozen=True)
class Named(Takes):
    """A name with the parameters that it has, given to ``kind`` as its arguments."""

    kind: Callable[[str, tuple[tuple[str, float], ...]], Any]
    names: Callable[[], Sequence[str]] = field(kw_only=True)
    parameters: Callable[[str], Mapping[str, float]] = field(kw_only=True)
    aliases: Mapping[str, str] = field(kw_only=True, default_factory=dict)

    def decoded(self, value: Any, path: Path) -> Any:
        if isinstance(value, Mapping):
            given, name_path = value, (*path, "name")
        else:
            given, name_path = {"name": value}, path
        choice = Choice((*self.names(), *self.aliases))
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
    """An initializer; not ``of_any_rank`` are those that Keras defines for matrices alone."""

    of_any_rank: bool = field(kw_only=True, default=False)

    def decoded(self, value: Any, path: Path) -> Initializer:
        found: Initializer = super().decoded(value, path)
        values = {**initializers.parameter_defaults(found.name), **dict(found.parameters)}
        if "minval" in values and not 0 <= values["maxval"] - values["minval"] < math.inf:
            text = f"minval {values['minval']:g} and maxval {values['maxval']:g}"
            raise ConfigKeyError(path, f"{text}; maxval must be above minval, by a finite amount")
        if self.of_any_rank and found.name in initializers.MATRIX_ONLY:
            raise ConfigKeyError(path, f"{found.name!r} needs a matrix; choose another for biases")
        return found


ACTIVATION = Named(
    Activation,
    says="an activation",
    names=registry.activation_names,
    parameters=registry.parameter_defaults,
    aliases=ACTIVATION_ALIASES,
)
INITIALIZER = _Initializer(
    Initializer,
    says="an initializer",
    names=lambda: initializers.NAMES,
    parameters=initializers.parameter_defaults,
)
BIAS_INITIALIZER = _Initializer(
    Initializer,
    says="an initializer, but orthogonal",
    names=lambda: initializers.NAMES,
    parameters=initializers.parameter_defaults,
    of_any_rank=True,
)
