"""A plugin's functions, whose mistakes become InputErrors that name the file and the line."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hesscli.problem.graph import Array, read_only
from hesscli.system.arrays import is_numpy
from hesscli.system.errors import InputError
from hesscli.system.files import expanded

Function = Callable[..., Any]


@dataclass(frozen=True)
class Guard:
    """What messages name: the plugin's file, and whose function it is."""

    path: str
    what: str

    def arrays(self, function: Function, like: str = "z") -> Callable[..., Array]:
        """A function of arrays, whose result is like its first argument, called ``like``.

        NumPy's functions of a GPU's arrays are those of CuPy.
        """
        return self.shaped(function, lambda first, *_: first.shape, like)

    def shaped(
        self, function: Function, shape_of: Callable[..., tuple[int, ...]], like: str
    ) -> Callable[..., Array]:
        """A NumPy function of arrays, whose result has a shape and the type of the first one."""

        def guarded(*arguments: Array) -> Array:
            return self.array(function, shape_of(*arguments), like, *arguments)

        return guarded

    def array(
        self,
        function: Function,
        shape: tuple[int, ...],
        like: str,
        *arguments: Any,
        **keywords: Any,
    ) -> Array:
        """What a NumPy function returns: an array of this ``shape`` and the first one's type."""
        return self._required(
            self._of_arrays(function, *arguments, **keywords), shape, like, arguments[0]
        )

    def parts(
        self,
        function: Function,
        shape: tuple[int, ...],
        shapes: Mapping[str, tuple[int, ...]],
        *arguments: Any,
        **keywords: Any,
    ) -> tuple[Array, dict[str, Array]]:
        """What a NumPy function returns at x and at θ: an array, and one for each role."""
        found = self._of_arrays(function, *arguments, **keywords)
        if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], Mapping):
            raise InputError(
                f"{self.path}: {self.what}: returns a {type(found).__name__}; it must return two: "
                "an array at x, and a mapping with one at each parameter"
            )
        at_x, at_theta = found
        if set(at_theta) != set(shapes):
            raise InputError(
                f"{self.path}: {self.what}: returns parts at "
                f"{', '.join(map(str, at_theta)) or 'none'}; the parameters are "
                f"{', '.join(shapes) or 'none'}"
            )
        first = arguments[0]
        return self._required(at_x, shape, "x", first), {
            role: self._required(at_theta[role], of, f"x, at {role},", first)
            for role, of in shapes.items()
        }

    def _of_arrays(self, function: Function, *arguments: Any, **keywords: Any) -> Any:
        with np.errstate(all="ignore"):
            return self.called(function, *map(_protected, arguments), **keywords)

    def _required(self, values: Any, shape: tuple[int, ...], like: str, first: Array) -> Array:
        if not (is_numpy(values) if is_numpy(first) else type(values) is type(first)):
            raise InputError(
                f"{self.path}: {self.what}: returns a {type(values).__name__}; it must return "
                f"an array like {like}, such as np.full_like({like}, 1)"
            )
        if values.shape != shape or values.dtype != first.dtype:
            raise InputError(
                f"{self.path}: {self.what}: returns {values.dtype} of shape {values.shape} for "
                f"{like} of {first.dtype} and shape {first.shape}; it must be {first.dtype} of "
                f"shape {shape}"
            )
        array: Array = values
        return array

    def tensors(
        self, function: Function, shape_of: Callable[..., Any], like: str = "z"
    ) -> Function:
        """A TensorFlow function of tensors, whose result has a shape and the first one's type."""

        def guarded(*arguments: Any, **keywords: Any) -> Any:
            values, first = self.called(function, *arguments, **keywords), arguments[0]
            if not type(values).__module__.startswith("tensorflow"):
                raise InputError(
                    f"{self.path}: {self.what}: returns a {type(values).__name__}; it must return "
                    "a tensor, made by TensorFlow's functions"
                )
            shape = shape_of(*arguments, **keywords)
            if values.dtype != first.dtype or not values.shape.is_compatible_with(shape):
                raise InputError(
                    f"{self.path}: {self.what}: returns {values.dtype.name} of shape "
                    f"{values.shape} for {like} of {first.dtype.name} and shape {first.shape}; it "
                    f"must be {first.dtype.name} of shape {shape}"
                )
            return values

        return guarded

    def number_arrays(self, function: Function) -> Function:
        """A function of arrays of mpmath's numbers, whose result is one of them."""

        def guarded(*arguments: Any, **keywords: Any) -> Any:
            values = self.called(function, *arguments, **keywords)
            if not isinstance(values, np.ndarray) or values.dtype != object:
                raise InputError(
                    f"{self.path}: {self.what}: returns a {type(values).__name__}; it must return "
                    "an array of mpmath's numbers"
                )
            return values

        return guarded

    def numbers(self, function: Function) -> Function:
        """A function of mpmath's numbers, whose result is one of them."""

        def guarded(*arguments: Any) -> Any:
            value = self.called(function, *arguments)
            if not type(value).__module__.startswith("mpmath"):
                raise InputError(
                    f"{self.path}: {self.what}: returns a {type(value).__name__}; it must return "
                    "a number of mpmath's, made by its functions"
                )
            return value

        return guarded

    def called(self, function: Function, *arguments: Any, **keywords: Any) -> Any:
        """What it returns; InputError, with the line, of what it raises."""
        try:
            return function(*arguments, **keywords)
        except Exception as error:
            raise InputError(f"{where(self.path, error)}: {self.what}: {what_is(error)}") from error


def _protected(argument: Any) -> Any:
    """A view that a function which works in place cannot change: others are taken there too."""
    if isinstance(argument, Mapping):
        return {role: read_only(array) for role, array in argument.items()}
    return read_only(argument)


def where(path: str, error: BaseException) -> str:
    """The file and, where it is known, the line in it that ``error`` was raised from."""
    file = os.path.abspath(expanded(path))
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        return f"{path}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{path}:{lines[-1]}" if lines else path


def what_is(error: BaseException) -> str:
    """The kind of an error and the first line that it says."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = text.strip().splitlines()[0] if text.strip() else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
