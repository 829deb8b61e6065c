"""Activations from a file of the user's, which is run.

The file binds ``ACTIVATIONS`` to a mapping from names to σ, σ′, σ″ and, where there is one, a
TensorFlow function of σ::

    ACTIVATIONS = {
        "cube": {
            "value": lambda z: z**3,
            "first": lambda z: 3 * z**2,
            "second": lambda z: 6 * z,
            "tensorflow": lambda z: z**3,
        },
    }

The first three take and return NumPy arrays of one shape and type, float32 or float64.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from hesscli.nodes import activations
from hesscli.nodes.activations import Derivatives, Elementwise
from hesscli.problem import registry
from hesscli.problem.graph import Array
from hesscli.problem.names import ACTIVATION_ALIASES, DTYPES
from hesscli.problem.registry import Versions
from hesscli.system.errors import InputError
from hesscli.system.files import expanded, opened
from hesscli.system.quiet import silenced

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Far beyond any plugin; a larger file is another kind of file.
_MAX_BYTES = 2**24
# ``--activation all`` stands for every activation.
_TAKEN = ("all",)
_DERIVATIVES = ("value", "first", "second")
_KEYS = (*_DERIVATIVES, "tensorflow", "mpmath")
_NEEDED = (
    'it must bind ACTIVATIONS = {"name": {"value": σ, "first": σ′, "second": σ″, "tensorflow": '
    "optional}}"
)
# Where the functions are tried: of two dimensions, and within the domain of a logarithm.
_TRIAL = ((0.25, 0.5, 0.75), (1.0, 1.5, 2.0))


def load_plugin(path: str) -> tuple[str, ...]:
    """Runs the file ``path`` and registers its activations; returns their names.

    Raises InputError, and registers nothing, where the file cannot be read or raises, where a
    name is taken, or where a function does not return a finite array like its argument.
    """
    namespace = _run(path)
    found = namespace.get("ACTIVATIONS")
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{path}: no ACTIVATIONS in it, or none of them; {_NEEDED}")
    loaded = {name: _record(path, name, record) for name, record in found.items()}
    for name, (derivatives, versions) in loaded.items():
        activations.register(name, derivatives)
        registry.register(name, versions)
    return tuple(loaded)


def forget(names: Iterable[str]) -> None:
    """Takes activations out again."""
    for name in names:
        activations.forget(name)
        registry.forget(name)


def _run(path: str) -> dict[str, Any]:
    """The names that the file binds."""
    with opened(path, "a Python file is needed") as stream:
        source = stream.read(_MAX_BYTES + 1)
    if len(source) > _MAX_BYTES:
        raise InputError(f"{path}: larger than {_MAX_BYTES // 2**20} MiB; no plugin")
    file = os.path.abspath(expanded(path))
    # What looks up its own module, as a dataclass does, finds it; no import of the user's does.
    module = ModuleType(f"_hesscli_plugin_{len(registry.plugin_names())}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    # A file that imports TensorFlow starts its chatter.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with silenced():
            exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        raise InputError(f"{_where(path, error)}: {_what(error)}") from error
    return module.__dict__


def _record(path: str, name: Any, record: Any) -> tuple[Derivatives, Versions]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{path}: {name!r} names an activation; it must be letters, digits and _, not first a "
            "digit"
        )
    if name in (*registry.activation_names(), *ACTIVATION_ALIASES, *_TAKEN):
        raise InputError(f"{path}: {name!r} exists already; choose another name")
    where = f"{path}: activation {name!r}"
    if not isinstance(record, Mapping):
        raise InputError(f"{where} is no mapping; {_NEEDED}")
    for key in record:
        if key not in _KEYS:
            raise InputError(f"{where}: {key!r} is unknown; choose {', '.join(_KEYS)}")
    for key in _DERIVATIVES:
        if not callable(record.get(key)):
            raise InputError(f"{where}: {key} is not given, or no function; {_NEEDED}")
    others = {key: record.get(key) for key in ("tensorflow", "mpmath")}
    for key, other in others.items():
        if other is not None and not callable(other):
            raise InputError(f"{where}: {key} is no function; leave it out, or give one")
    tensorflow, mpmath = others.values()
    functions = {
        key: _guarded(record[key], path, f"activation {name!r}, {key}") for key in _DERIVATIVES
    }
    for key, function in functions.items():
        _try(function, f"{where}, {key}")
    return Derivatives(**functions), Versions(
        tensorflow and _guarded_tensor(tensorflow, path, name),
        mpmath and _guarded_number(mpmath, path, name),
    )


def _try(function: Elementwise, where: str) -> None:
    for dtype in DTYPES:
        z: Array = np.array(_TRIAL, dtype=dtype)
        values = function(z)
        if not np.isfinite(values).all():
            at = float(z[~np.isfinite(values)][0])
            raise InputError(f"{where}: not finite at z = {at:g} in {dtype}")
        if not np.allclose(function(z[:1, :1]), values[:1, :1], rtol=1e-3):
            raise InputError(
                f"{where}: its value at one z depends on the others; it must be elementwise"
            )


def _guarded(function: Callable[[Any], Any], path: str, what: str) -> Elementwise:
    """``function`` with its mistakes as InputErrors."""

    def guarded(z: Array) -> Array:
        argument = z.view()
        # A function that works in place would change what the other derivatives are taken at.
        argument.flags.writeable = False
        try:
            with np.errstate(all="ignore"):
                values = function(argument)
        except Exception as error:
            raise InputError(f"{_where(path, error)}: {what}: {_what(error)}") from error
        if not isinstance(values, np.ndarray):
            raise InputError(
                f"{path}: {what}: returns a {type(values).__name__}; it must return an array like "
                "z, such as np.full_like(z, 1)"
            )
        if values.shape != z.shape or values.dtype != z.dtype:
            raise InputError(
                f"{path}: {what}: returns {values.dtype} of shape {values.shape} for z of "
                f"{z.dtype} and shape {z.shape}; the two must be the same"
            )
        return values

    return guarded


def _guarded_tensor(function: Callable[[Any], Any], path: str, name: str) -> Callable[[Any], Any]:
    what = f"activation {name!r}, tensorflow"

    def guarded(z: Any) -> Any:
        try:
            values = function(z)
        except Exception as error:
            raise InputError(f"{_where(path, error)}: {what}: {_what(error)}") from error
        if not type(values).__module__.startswith("tensorflow"):
            raise InputError(
                f"{path}: {what}: returns a {type(values).__name__}; it must return a tensor, "
                "made by TensorFlow's functions"
            )
        if values.dtype != z.dtype or not values.shape.is_compatible_with(z.shape):
            raise InputError(
                f"{path}: {what}: returns {values.dtype.name} of shape {values.shape} for z of "
                f"{z.dtype.name} and shape {z.shape}; the two must be the same"
            )
        return values

    return guarded


def _guarded_number(function: Callable[[Any], Any], path: str, name: str) -> Callable[[Any], Any]:
    what = f"activation {name!r}, mpmath"

    def guarded(z: Any) -> Any:
        try:
            value = function(z)
        except Exception as error:
            raise InputError(f"{_where(path, error)}: {what}: {_what(error)}") from error
        if not isinstance(value, type(z)):
            raise InputError(
                f"{path}: {what}: returns a {type(value).__name__}; it must return a number of "
                "mpmath's, made by its functions"
            )
        return value

    return guarded


def _where(path: str, error: BaseException) -> str:
    """The file and, where it is known, the line in it that ``error`` was raised from."""
    file = os.path.abspath(expanded(path))
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        return f"{path}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{path}:{lines[-1]}" if lines else path


def _what(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = text.strip().splitlines()[0] if text.strip() else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
