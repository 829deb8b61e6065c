"""The layers of a plugin: what its file says of each, as a type of layer and its calculus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import numpy as np

from hesscli.nodes import ownlayer
from hesscli.nodes.guarded import Function, Guard
from hesscli.nodes.node import Wanted
from hesscli.nodes.ownlayer import METHODS, Methods, OwnLayer, Shape
from hesscli.problem import initializers, registry
from hesscli.problem.graph import OWN_LAYER, Array
from hesscli.problem.initializers import Initializer
from hesscli.problem.layers import Arguments, LayerError, LayerType, Made, Part
from hesscli.problem.names import DTYPES
from hesscli.problem.registry import LAYER, Versions
from hesscli.system.errors import InputError

# Beside the four methods and the versions for other witnesses.
OTHERS = ("arguments", "shapes", "initializers", "input_shape")
# What an argument may be, by its default.
_ARGUMENTS = (bool, int, float, str, tuple)
_EXAMPLES, _DIRECTIONS = 2, 3


class _Description:
    """What a file says of a layer, checked; raises InputError where it is wrong."""

    def __init__(self, path: str, name: str, record: Mapping[str, Any]) -> None:
        self.path, self.name = path, name
        self.whose = f"{path}: layer {name!r}"
        self.arguments = self._mapping(record, "arguments")
        for key, value in self.arguments.items():
            if not str(key).isidentifier() or not isinstance(value, _ARGUMENTS):
                raise InputError(
                    f"{self.whose}: arguments: {key!r}: {value!r}; it must be a name and a default "
                    "that is a number, text, true or false, or a tuple"
                )
        self.initializers = {
            role: self._initializer(str(role), given)
            for role, given in self._mapping(record, "initializers").items()
        }
        shapes = record.get("shapes")
        if self.initializers and not callable(shapes):
            raise InputError(
                f"{self.whose}: shapes is not given, or is not a function; it must take the shape "
                "of an example, and return that of each parameter by its name in initializers"
            )
        self._shapes_of = _taking(shapes if callable(shapes) else lambda _: {})
        self.input_shape: Shape = tuple(record.get("input_shape", (4,)))
        if not self.input_shape or not all(map(_is_size, self.input_shape)):
            raise InputError(f"{self.whose}: input_shape is {self.input_shape}; as in (4,)")
        self.methods = Methods(
            {method: _taking(record[method]) for method in METHODS},
            {method: self.guard(method) for method in METHODS},
        )

    def guard(self, key: str) -> Guard:
        return Guard(self.path, f"layer {self.name!r}, {key}")

    def _mapping(self, record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        found = record.get(key, {})
        if not isinstance(found, Mapping):
            raise InputError(
                f"{self.whose}: {key} is a {type(found).__name__}; a mapping is needed"
            )
        return found

    def _initializer(self, role: str, given: Any) -> Initializer:
        named = {"name": given} if isinstance(given, str) else given
        known = isinstance(named, Mapping) and named.get("name") in initializers.NAMES
        parameters = {key: of for key, of in named.items() if key != "name"} if known else {}
        if (
            not known
            or not role.isidentifier()
            or not set(parameters) <= set(initializers.parameter_defaults(named["name"]))
        ):
            raise InputError(
                f"{self.whose}: initializers: {role!r}: {given!r}; it must be a name and one of "
                f"Keras's initializers: {', '.join(initializers.NAMES)}"
            )
        numbers = ((str(key), float(value)) for key, value in parameters.items())
        return Initializer(named["name"], tuple(numbers))

    def shapes(self, shape: Shape, arguments: Mapping[str, Any]) -> dict[str, Shape]:
        """Those of the parameters by role, for examples of a shape."""
        found = self.guard("shapes").called(self._shapes_of, shape, **arguments)
        right = isinstance(found, Mapping) and list(found) == list(self.initializers)
        shapes = {role: tuple(of) for role, of in found.items()} if right else {}
        if not right or not all(_is_size(n) for of in shapes.values() for n in of):
            roles = ", ".join(self.initializers) or "none"
            raise InputError(
                f"{self.whose}, shapes: returns {found!r} for {shape}; it must be a shape of whole "
                f"numbers, 1 or more, for each of {roles}, in this order"
            )
        for role, initializer in self.initializers.items():
            if initializer.name in initializers.MATRIX_ONLY and len(shapes[role]) < 2:
                raise InputError(
                    f"{self.whose}: {initializer.name!r} needs a matrix; {role} is none"
                )
        return shapes

    def output(
        self, shape: Shape, shapes: Mapping[str, Shape], arguments: Mapping[str, Any]
    ) -> Shape:
        """The shape of y, which two examples tell."""
        y = self.guard("forward").called(
            self.methods.functions["forward"],
            *_filled(shape, shapes, np.dtype("float32")),
            **arguments,
        )
        if not isinstance(y, np.ndarray) or y.ndim < 2 or len(y) != _EXAMPLES:
            what = f"shape {y.shape}" if isinstance(y, np.ndarray) else type(y).__name__
            raise InputError(
                f"{self.whose}, forward: returns {what} for x of shape {(_EXAMPLES, *shape)}; it "
                "must be an array with the examples first"
            )
        return tuple(y.shape[1:])

    def made(self, of: Arguments, shapes: Sequence[Shape]) -> Made:
        arguments = {key: _argument(of, key, default) for key, default in self.arguments.items()}
        tensors = self.shapes(shapes[0], arguments)
        out = self.output(shapes[0], tensors, arguments)
        roles = {role: role for role in tensors}
        return Made((Part(OWN_LAYER, out, {"layer": self.name, **arguments}, roles),), tensors)


def layer(path: str, name: str, record: Mapping[str, Any]) -> Callable[[], None]:
    """What registers a layer, once it has been tried; raises InputError where it is wrong."""
    of = _Description(path, name, record)
    tensorflow, mpmath = (record.get(key) for key in ("tensorflow", "mpmath"))

    def out(x: Any, _: Mapping[str, Any], **arguments: Any) -> tuple[int | None, ...]:
        shape = tuple(x.shape[1:])
        return x.shape[0], *of.output(shape, of.shapes(shape, arguments), arguments)

    versions = Versions(
        tensorflow and of.guard("tensorflow").tensors(_taking(tensorflow), out, "x"),
        mpmath and of.guard("mpmath").number_arrays(_taking(mpmath)),
        shape=of.input_shape,
    )
    keys, roles = tuple(map(str, of.arguments)), tuple(of.initializers)
    type_ = LayerType(of.made, name, keys, roles, initializers=of.initializers)
    _try(of)

    def register() -> None:
        ownlayer.register(name, of.methods)
        registry.register_layer(name, versions, type_)

    return register


def forget(name: str) -> None:
    """Takes a layer out again."""
    ownlayer.forget(name)
    registry.forget(name, LAYER)


def _try(of: _Description) -> None:
    """Calls the four methods in each type: do they return what they should?"""
    (part,) = (made := of.made(Arguments({}), [of.input_shape])).parts
    for dtype in map(np.dtype, DTYPES):
        x, theta = _filled(of.input_shape, made.tensors, dtype)
        arguments = {key: value for key, value in part.attributes.items() if key != "layer"}
        calculus = OwnLayer(part.shape, of.methods, arguments)
        y, at = calculus.forward([x], theta)
        if not np.isfinite(y).all():
            raise InputError(f"{of.whose}, forward: not finite at x from 0.25 to 2 in {dtype}")
        if not np.allclose(calculus.forward([x[:1]], theta)[0], y[:1], rtol=1e-3):
            raise InputError(
                f"{of.whose}, forward: the output of one example depends on others; each "
                "must be computed by itself"
            )
        Rx = np.ones((len(x), _DIRECTIONS, *of.input_shape), dtype)
        V = {role: np.ones((_DIRECTIONS, *tensor.shape), dtype) for role, tensor in theta.items()}
        moved = calculus.push(at, [Rx], V)
        pulled = calculus.pull(at, moved, Wanted((True,), frozenset(theta)))
        calculus.bend(calculus.curved(at, y), [Rx], V, pulled)


def _filled(
    shape: Shape, shapes: Mapping[str, Shape], dtype: np.dtype[np.floating]
) -> tuple[Array, dict[str, Array]]:
    """Examples and parameters of moderate positive numbers."""

    def of(shape: Shape) -> Array:
        return np.linspace(0.25, 2, int(np.prod(shape)), dtype=dtype).reshape(shape)

    return of((_EXAMPLES, *shape)), {role: of(own) for role, own in shapes.items()}


def _argument(of: Arguments, key: str, default: Any) -> Any:
    value = of.given.get(key)
    value = default if value is None else tuple(value) if isinstance(value, list) else value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise LayerError(key, f"{value!r}; it must be of the kind of its default, {default!r}")
    return value


def _is_size(n: Any) -> bool:
    return isinstance(n, int | np.integer) and not isinstance(n, bool) and bool(n >= 1)


def _taking(function: Function) -> Function:
    """``function``, with those of the layer's arguments alone that it names."""
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):
        # Of what is written in C nothing may be known.
        return function
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return function
    names = {parameter.name for parameter in parameters}

    def taking(*given: Any, **arguments: Any) -> Any:
        return function(*given, **{key: of for key, of in arguments.items() if key in names})

    return taking
