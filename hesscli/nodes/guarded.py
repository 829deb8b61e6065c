"""A plugin's functions, whose mistakes become InputErrors that name the file and the line."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hesscli.problem.graph import Array
from hesscli.system.errors import InputError
from hesscli.system.files import expanded

Function = Callable[..., Any]


@dataclass(frozen=True)
class Guard:
    """What messages name: the plugin's file, and whose function it is."""

    path: str
    what: str

    def arrays(self, function: Function, like: str = "z") -> Callable[..., Array]:
        """A NumPy function of arrays, whose result is like its first argument, called ``like``."""
        return self.shaped(function, lambda first, *_: first.shape, like)

    def shaped(
        self, function: Function, shape_of: Callable[..., tuple[int, ...]], like: str
    ) -> Callable[..., Array]:
        """A NumPy function of arrays, whose result has a shape and the type of the first one."""

        def guarded(*arguments: Array) -> Array:
            # A function that works in place would change what the others are taken at.
            views = [argument.view() for argument in arguments]
            for view in views:
                view.flags.writeable = False
            with np.errstate(all="ignore"):
                values = self._called(function, *views)
            if not isinstance(values, np.ndarray):
                raise InputError(
                    f"{self.path}: {self.what}: returns a {type(values).__name__}; it must return "
                    f"an array like {like}, such as np.full_like({like}, 1)"
                )
            shape, dtype = shape_of(*arguments), arguments[0].dtype
            if values.shape != shape or values.dtype != dtype:
                raise InputError(
                    f"{self.path}: {self.what}: returns {values.dtype} of shape {values.shape} for "
                    f"{like} of {dtype} and shape {arguments[0].shape}; it must be {dtype} of "
                    f"shape {shape}"
                )
            return values

        return guarded

    def tensors(
        self, function: Function, shape_of: Callable[..., Any], like: str = "z"
    ) -> Function:
        """A TensorFlow function of tensors, whose result has a shape and the first one's type."""

        def guarded(*arguments: Any) -> Any:
            values, first = self._called(function, *arguments), arguments[0]
            if not type(values).__module__.startswith("tensorflow"):
                raise InputError(
                    f"{self.path}: {self.what}: returns a {type(values).__name__}; it must return "
                    "a tensor, made by TensorFlow's functions"
                )
            shape = shape_of(*arguments)
            if values.dtype != first.dtype or not values.shape.is_compatible_with(shape):
                raise InputError(
                    f"{self.path}: {self.what}: returns {values.dtype.name} of shape "
                    f"{values.shape} for {like} of {first.dtype.name} and shape {first.shape}; it "
                    f"must be {first.dtype.name} of shape {shape}"
                )
            return values

        return guarded

    def numbers(self, function: Function) -> Function:
        """A function of mpmath's numbers, whose result is one of them."""

        def guarded(*arguments: Any) -> Any:
            value = self._called(function, *arguments)
            if not type(value).__module__.startswith("mpmath"):
                raise InputError(
                    f"{self.path}: {self.what}: returns a {type(value).__name__}; it must return "
                    "a number of mpmath's, made by its functions"
                )
            return value

        return guarded

    def _called(self, function: Function, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise InputError(f"{where(self.path, error)}: {self.what}: {what_is(error)}") from error


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
