"""Activations, losses and layers from a file of the user's, which is run.

The file binds some of these: ``ACTIVATIONS`` to a mapping from names to σ, σ′ and σ″, ``LOSSES`` to
one from names to ℓ, its gradient and its Hessian's products, and ``LAYERS`` (ownlayer.py) to one
from names to four methods, and the shapes and initializers of the parameters::

    ACTIVATIONS = {
        "cube": {
            "value": lambda z: z**3,
            "first": lambda z: 3 * z**2,
            "second": lambda z: 6 * z,
            "tensorflow": lambda z: z**3,
        },
    }
    LOSSES = {
        "cubed": {
            "value": lambda f, t: ((f - t) ** 3).sum(axis=1),
            "gradient": lambda f, t: 3 * (f - t) ** 2,
            "hessian_product": lambda f, t, v: 6 * (f - t) * v,
        },
    }
    LAYERS = {
        "gain": {
            "forward": lambda x, theta: theta["gain"] * x,
            "push": lambda x, theta, Rx, V: theta["gain"] * Rx + V["gain"] * x[:, None],
            "pull": lambda x, theta, g: (
                theta["gain"] * g, {"gain": (g * x[:, None]).sum(axis=0)}
            ),
            "bend": lambda x, theta, g, Rx, V: (
                V["gain"] * g[:, None], {"gain": (Rx * g[:, None]).sum(axis=0)}
            ),
            "shapes": lambda shape: {"gain": shape},
            "initializers": {"gain": "ones"},
        },
    }

An activation's functions take and return NumPy arrays of one shape and type, float32 or float64. A
loss's take the outputs f (N, c), the targets t, (N, c) numbers or with ``"targets": "labels"`` (N,)
labels, and v (N, c); they give ℓ (N,), ∂ℓ/∂f (N, c) and (∂²ℓ/∂f²) v (N, c). Each may have a version
for TensorFlow, ``tensorflow``, and one for mpmath, ``mpmath``: of a number z, of the c outputs of
one example and its targets, or of one example and the parameters as arrays of numbers.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from hesscli.nodes import activations, losses, ownlayers
from hesscli.nodes.activations import Derivatives, Elementwise
from hesscli.nodes.guarded import Guard, what_is, where
from hesscli.nodes.losses import LossDerivatives, of_product
from hesscli.nodes.ownlayer import METHODS
from hesscli.nodes.ownlayers import OTHERS, layer
from hesscli.problem import registry
from hesscli.problem.graph import Array
from hesscli.problem.layers import SHARED
from hesscli.problem.layertypes import TYPES
from hesscli.problem.names import ACTIVATION_ALIASES, DTYPES
from hesscli.problem.registry import ACTIVATION, LABELS, LAYER, LOSS, NUMBERS, Versions
from hesscli.system.errors import InputError
from hesscli.system.files import expanded, opened
from hesscli.system.quiet import silenced

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Far beyond any plugin; a larger file is another kind of file.
_MAX_BYTES = 2**24
# ``--activation all`` stands for every activation.
_TAKEN = ("all",)
_VERSIONS = ("tensorflow", "mpmath")
# Where activations are tried: of two dimensions, and within the domain of a logarithm; and losses:
# at outputs that may be probabilities.
_TRIAL = ((0.25, 0.5, 0.75), (1.0, 1.5, 2.0))
_TRIAL_OUTPUTS, _TRIAL_TARGETS = ((0.2, 0.3, 0.5), (0.6, 0.3, 0.1)), ((0.0, 1.0, 0.0),) * 2


@dataclass(frozen=True)
class _Kind:
    """What a file binds ``mapping`` to: records of functions, some of them needed."""

    kind: str
    mapping: str
    needed: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def form(self) -> str:
        functions = ", ".join(f'"{key}": …' for key in self.needed)
        return f'{self.mapping} = {{"name": {{{functions}, "tensorflow": optional}}}}'


_ACTIVATIONS = _Kind(ACTIVATION, "ACTIVATIONS", ("value", "first", "second"))
_LOSSES = _Kind(LOSS, "LOSSES", ("value", "gradient", "hessian_product"), ("targets",))
_LAYERS = _Kind(LAYER, "LAYERS", METHODS, OTHERS)
_KINDS = (_ACTIVATIONS, _LOSSES, _LAYERS)


def load_plugin(path: str) -> tuple[str, ...]:
    """Runs the file ``path`` and registers what it defines; returns the names.

    Raises InputError, and registers nothing, where the file cannot be read or raises, where a
    name is taken, or where a function does not return what it should.
    """
    namespace = _run(path)
    found = {of: namespace.get(of.mapping) for of in _KINDS}
    if not any(isinstance(of, Mapping) and of for of in found.values()):
        raise InputError(
            f"{path}: ACTIVATIONS, LOSSES and LAYERS are all missing or empty; it must bind "
            f"{' or '.join(kind.form for kind in _KINDS)}"
        )
    registering: list[Callable[[], None]] = []
    names: list[str] = []
    for of, records in found.items():
        if records is not None and not isinstance(records, Mapping):
            raise InputError(f"{path}: {of.mapping} is not a mapping; it must be {of.form}")
        for name, record in (records or {}).items():
            _check_record(path, of, name, record)
            registering.append(_MAKE[of.kind](path, name, record))
            names.append(name)
    for register in registering:
        register()
    return tuple(names)


def forget(names: Iterable[str]) -> None:
    """Takes what a plugin defines out again."""
    for name in names:
        activations.forget(name)
        losses.forget(name)
        ownlayers.forget(name)
        for of in _KINDS:
            registry.forget(name, of.kind)


def _run(path: str) -> dict[str, Any]:
    """The names that the file binds."""
    with opened(path, "a Python file is needed") as stream:
        source = stream.read(_MAX_BYTES + 1)
    if len(source) > _MAX_BYTES:
        raise InputError(f"{path}: larger than {_MAX_BYTES // 2**20} MiB; no plugin")
    file = os.path.abspath(expanded(path))
    # What looks up its own module, as a dataclass does, finds it; no import of the user's does.
    module = ModuleType(f"_hesscli_plugin_{len(sys.modules)}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    # A file that imports TensorFlow starts its chatter.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with silenced():
            exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        raise InputError(f"{where(path, error)}: {what_is(error)}") from error
    return module.__dict__


def _check_record(path: str, of: _Kind, name: Any, record: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        article = "an" if of.kind == ACTIVATION else "a"
        raise InputError(
            f"{path}: {name!r} names {article} {of.kind}; it must be letters, digits and _, not "
            "first a digit"
        )
    if name in _taken(of):
        raise InputError(f"{path}: {name!r} exists already; choose another name")
    whose = f"{path}: {of.kind} {name!r}"
    if not isinstance(record, Mapping):
        raise InputError(f"{whose} is not a mapping; it must be {of.form}")
    keys = (*of.needed, *_VERSIONS, *of.others)
    for key in record:
        if key not in keys:
            raise InputError(f"{whose}: {key!r} is unknown; choose {', '.join(keys)}")
    for key in of.needed:
        if not callable(record.get(key)):
            raise InputError(
                f"{whose}: {key} is not given, or is not a function; it must be {of.form}"
            )
    for key in _VERSIONS:
        if record.get(key) is not None and not callable(record[key]):
            raise InputError(f"{whose}: {key} is not a function; leave it out, or give one")


def _taken(of: _Kind) -> tuple[str, ...]:
    if of is _LAYERS:
        return (*TYPES, SHARED)
    if of is _LOSSES:
        return registry.loss_names()
    return (*registry.activation_names(), *ACTIVATION_ALIASES, *_TAKEN)


def _activation(path: str, name: str, record: Mapping[str, Any]) -> Callable[[], None]:
    def guard(key: str) -> Guard:
        return Guard(path, f"activation {name!r}, {key}")

    functions = {key: guard(key).arrays(record[key]) for key in _ACTIVATIONS.needed}
    for key, function in functions.items():
        _try(function, f"{path}: activation {name!r}, {key}")
    tensorflow, mpmath = (record.get(key) for key in _VERSIONS)
    versions = Versions(
        tensorflow and guard("tensorflow").tensors(tensorflow, lambda z: z.shape),
        mpmath and guard("mpmath").numbers(mpmath),
    )

    def register() -> None:
        activations.register(name, Derivatives(**functions))
        registry.register(name, versions)

    return register


def _try(function: Elementwise, whose: str) -> None:
    for dtype in DTYPES:
        z: Array = np.array(_TRIAL, dtype=dtype)
        values = function(z)
        if not np.isfinite(values).all():
            at = float(z[~np.isfinite(values)][0])
            raise InputError(f"{whose}: not finite at z = {at:g} in {dtype}")
        if not np.allclose(function(z[:1, :1]), values[:1, :1], rtol=1e-3):
            raise InputError(
                f"{whose}: its value at one z depends on other elements; it must be elementwise"
            )


def _loss(path: str, name: str, record: Mapping[str, Any]) -> Callable[[], None]:
    def guard(key: str) -> Guard:
        return Guard(path, f"loss {name!r}, {key}")

    targets = record.get("targets", NUMBERS)
    if targets not in (LABELS, NUMBERS):
        raise InputError(
            f"{path}: loss {name!r}: targets is {targets!r}; it must be {LABELS!r} or {NUMBERS!r}"
        )
    value = guard("value").shaped(record["value"], lambda f, *_: f.shape[:1], "f")
    gradient = guard("gradient").arrays(record["gradient"], "f")
    product = guard("hessian_product").arrays(record["hessian_product"], "f")
    derivatives = LossDerivatives(value, gradient, *of_product(product))
    _try_loss(derivatives, targets == LABELS, f"{path}: loss {name!r}")
    tensorflow, mpmath = (record.get(key) for key in _VERSIONS)
    versions = Versions(
        tensorflow and guard("tensorflow").tensors(tensorflow, lambda f, _: f.shape[:1], "f"),
        mpmath and guard("mpmath").numbers(mpmath),
        targets,
    )

    def register() -> None:
        losses.register(name, derivatives)
        registry.register(name, versions, LOSS)

    return register


def _try_loss(loss: LossDerivatives, labels: bool, whose: str) -> None:
    for dtype in DTYPES:
        f: Array = np.array(_TRIAL_OUTPUTS, dtype=dtype)
        t = np.array(_TRIAL_TARGETS, dtype=dtype)
        t = t.argmax(axis=1) if labels else t
        found = {
            "value": loss.value(f, t),
            "gradient": loss.gradient(f, t),
            "hessian_product": loss.hessian(f, t),
        }
        for key, values in found.items():
            if not np.isfinite(values).all():
                raise InputError(f"{whose}, {key}: not finite at f = {f.tolist()} in {dtype}")
        if not np.allclose(loss.value(f[:1], t[:1]), found["value"][:1], rtol=1e-3):
            raise InputError(
                f"{whose}, value: the loss of one example depends on others; it must be (N,), one "
                "number for each example"
            )


_MAKE: Mapping[str, Callable[[str, str, Mapping[str, Any]], Callable[[], None]]] = {
    ACTIVATION: _activation,
    LOSS: _loss,
    LAYER: layer,
}
