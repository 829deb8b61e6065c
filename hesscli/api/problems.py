"""Problems out of what a user has: a configuration, a Keras model, or arrays."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hesscli.config.build import build_problem, with_hidden_activation
from hesscli.config.consistency import require_own_arguments
from hesscli.config.layer import NAME
from hesscli.config.load import Override, config_of, to_document, whole_number
from hesscli.config.load import load_config as load_file
from hesscli.config.named import ACTIVATION
from hesscli.config.schema import Config
from hesscli.problem.data import Dataset
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.names import DTYPES, LOSSES_WITHOUT_TARGETS, REDUCTIONS
from hesscli.problem.network import Loss, Problem, Targets
from hesscli.problem.npz import require_finite
from hesscli.problem.registry import loss_names
from hesscli.problem.targets import fit_targets, smoothed
from hesscli.problem.weights import example_weights, require_weights
from hesscli.studies.agreement import agreed
from hesscli.system.arrays import from_device, is_foreign
from hesscli.system.errors import InputError, reason
from hesscli.system.near import nearest
from hesscli.system.takes import ConfigKeyError, Takes

# A YAML file, what one would hold, a Config, or None for the defaults.
ConfigSource: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Config | None
# A Keras name, {"name": "elu", "alpha": 0.5}, or what the names stand for.
ActivationLike: TypeAlias = str | Mapping[str, Any] | Activation

_GIVEN = "the given arrays"


@runtime_checkable
class KerasModel(Protocol):
    """The part of ``keras.Model`` that is needed; Keras itself is never imported here."""

    name: str

    def save(self, filepath: Any) -> Any: ...


def load_config(
    source: ConfigSource = None,
    *,
    settings: Mapping[str, Any] | None = None,
    activation: ActivationLike | None = None,
    batch_size: int | str | None = None,
    seed: int | None = None,
    dtype: str | None = None,
) -> Config:
    """The configuration of ``source``: a YAML file, its content as a mapping, a Config, or None.

    ``settings`` changes any keys, as ``--set`` does: ``{"data.offset": 10}``. ``activation``
    replaces every hidden activation. Raises InputError, which names the key, the value, and what
    would be right.
    """
    overrides = [
        Override(tuple(whole_number(part) for part in key.split(".")), _plain(value), "settings")
        for key, value in (settings or {}).items()
    ]
    named = {("data", "batch_size"): batch_size, ("seed",): seed, ("dtype",): dtype}
    overrides += [
        Override(path, _plain(value), str(path[-1]))
        for path, value in named.items()
        if value is not None
    ]
    if isinstance(source, Config):
        config = config_of(to_document(source), overrides)
    elif source is None or isinstance(source, Mapping):
        config = config_of(_plain(source or {}), overrides)
    else:
        config = load_file(os.fspath(source), overrides)
    if activation is None:
        return config
    return with_hidden_activation(config, activation_of(activation, "activation"))


def problem_from_config(
    source: ConfigSource = None,
    *,
    settings: Mapping[str, Any] | None = None,
    activation: ActivationLike | None = None,
    batch_size: int | str | None = None,
    seed: int | None = None,
    dtype: str | None = None,
) -> Problem:
    """The problem that ``load_config`` of the same arguments describes.

    Raises InputError if the configuration is wrong or does not fit its data.
    """
    config = load_config(
        source,
        settings=settings,
        activation=activation,
        batch_size=batch_size,
        seed=seed,
        dtype=dtype,
    )
    problem = build_problem(config)
    return agreed(problem)


def problem_from_keras(
    model: str | os.PathLike[str] | KerasModel,
    inputs: ArrayLike | None = None,
    targets: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    loss: str | Loss | None = None,
    settings: Mapping[str, Any] | None = None,
    activation: ActivationLike | None = None,
    dtype: str = "float64",
) -> Problem:
    """The dense layers of a Keras model on a batch.

    ``model`` is a ``.keras`` file or a live ``keras.Model``, whose parameters are copied.
    ``inputs`` (N, …) are what the model itself is called with; ``targets`` are (N,) labels, or (N,
    c) numbers; ``sample_weight`` (N,) multiplies their losses. Without them the batch is that of
    the configuration's ``data``, which ``settings`` changes. ``loss`` None is the one that the
    model was compiled with. A softmax at the model's end under a categorical cross-entropy, or a
    sigmoid under the binary one, is taken off, because the loss has it; the problem's notes say so.
    Raises InputError for a model that is not a chain of dense layers, for a batch that does not fit
    it, and if Keras's own model gives other numbers than the problem.
    """
    live = not isinstance(model, str | os.PathLike)
    if live and not isinstance(model, KerasModel):
        raise InputError(
            f"model: {type(model).__name__}; it must be a .keras file or a keras.Model"
        )
    with _as_file(model) as (path, folder):
        try:
            config = load_config(
                {
                    "model": {"keras": path},
                    **({} if loss is None else {"loss": asdict(_loss(loss))}),
                },
                settings=settings,
                activation=activation,
                dtype=dtype,
            )
            if inputs is None:
                for name, given in (("targets", targets), ("sample_weight", sample_weight)):
                    if given is not None:
                        raise InputError(
                            f"{name}: given without the inputs they belong to; give both"
                        )
                problem = build_problem(config)
            else:
                config = replace(config, data=replace(config.data, batch_size="all", offset=0))
                examples = _examples(inputs, targets, sample_weight, config.loss.name)
                problem = build_problem(config, examples)
            problem = agreed(problem, model if live else None)
        except InputError as error:
            # A live model was never in a file that its owner knows.
            raise InputError(str(error).replace(folder, "")) if live else error from None
    return replace(problem, notes=tuple(note.replace(folder, "") for note in problem.notes))


def problem_from_arrays(
    kernels: Sequence[ArrayLike],
    biases: Sequence[ArrayLike | None] | None,
    activations: ActivationLike | Sequence[ActivationLike],
    inputs: ArrayLike,
    targets: ArrayLike | None = None,
    loss: str | Loss = "sparse_categorical_crossentropy",
    *,
    sample_weight: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    dtype: str = "float64",
) -> Problem:
    """A network out of its arrays, which are copied.

    They may be of any library whose arrays NumPy takes by DLPack, such as CuPy's on a GPU.

    ``kernels`` are (inputs, units), one for each layer; ``biases`` (units,) or None, or None for a
    network without any. ``activations`` names one for each layer, or one for every hidden layer,
    the last being linear then. ``inputs`` is (N, d); ``targets`` are (N,) labels or (N, c) numbers,
    as the loss takes them, or None for a loss that looks at none; ``sample_weight`` (N,) multiplies
    the losses of the examples. ``names`` are the layers', by default dense1, dense2 … Raises
    InputError if something does not fit.
    """
    require_one_of("dtype", dtype, DTYPES)
    precision = np.dtype(dtype)
    if not len(kernels):
        raise InputError("kernels: none given; one for each layer is needed")
    layers = _layers(kernels, biases, activations, names, precision)
    x = _array(inputs, "inputs", precision, 2)
    if x.shape[1] != layers[0].inputs:
        raise InputError(
            f"inputs: of shape {x.shape}; kernels[0] takes {layers[0].inputs} values an example"
        )
    chosen = _loss(loss)
    fitted = fit_targets(
        _targets(targets, len(x), chosen.name),
        chosen.name,
        layers[-1].units,
        precision,
        f"targets: for {layers[-1].name} and loss {chosen.name}",
    )
    given = _weights(sample_weight, len(x))
    weights = example_weights(chosen, given, fitted, layers[-1].units)
    return Problem(
        graph=chain(layers),
        inputs=x,
        targets=smoothed(fitted, chosen),
        loss=chosen,
        sample_weight=None if weights is None else weights.astype(precision),
    )


def _layers(
    kernels: Sequence[ArrayLike],
    biases: Sequence[ArrayLike | None] | None,
    activations: ActivationLike | Sequence[ActivationLike],
    names: Sequence[str] | None,
    dtype: np.dtype[np.floating],
) -> tuple[Layer, ...]:
    count = len(kernels)
    if isinstance(activations, str | Mapping | Activation):
        activations = [*[activations] * (count - 1), "linear"]
    of_layers: dict[str, Sequence[Any]] = {
        "biases": [None] * count if biases is None else biases,
        "activations": activations,
        "names": [f"dense{index + 1}" for index in range(count)] if names is None else names,
    }
    for name, values in of_layers.items():
        if len(values) != count:
            raise InputError(f"{name}: {len(values)}; there are {count} kernels, each needs one")
    if len(set(of_layers["names"])) != count:
        raise InputError(f"names: {', '.join(of_layers['names'])}; they must differ")
    layers: list[Layer] = []
    for index, (kernel, bias, activation, name) in enumerate(
        zip(kernels, *of_layers.values(), strict=True)
    ):
        W = _array(kernel, f"kernels[{index}]", dtype, 2)
        b = None if bias is None else _array(bias, f"biases[{index}]", dtype, 1)
        if b is not None and b.shape != W.shape[1:]:
            raise InputError(
                f"biases[{index}]: of shape {b.shape}; kernels[{index}] is {W.shape}, so it must "
                f"be ({W.shape[1]},)"
            )
        layers.append(
            Layer(
                name=_decoded(NAME, name, f"names[{index}]"),
                kernel=W,
                bias=b,
                activation=activation_of(activation, f"activations[{index}]"),
            )
        )
    for index, (below, above) in enumerate(pairwise(layers), start=1):
        if above.inputs != below.units:
            raise InputError(
                f"kernels[{index}]: of shape {above.kernel.shape}; the layer before has "
                f"{below.units} units, so it must be ({below.units}, units)"
            )
    return tuple(layers)


def _array(values: ArrayLike, where: str, dtype: np.dtype[np.floating], ndim: int) -> Array:
    """A copy, because a Problem makes its arrays read-only."""
    shape = {1: "(units,)", 2: "two-dimensional"}[ndim]
    raw = _numbers(values, where)
    if raw.ndim != ndim or raw.size == 0:
        raise InputError(f"{where}: of shape {raw.shape}; it must be {shape} and not empty")
    with np.errstate(over="ignore"):
        array: Array = np.array(raw, dtype=dtype, order="C")
    require_finite(array, where)
    return array


def _numbers(values: ArrayLike, where: str) -> NDArray[Any]:
    try:
        raw = from_device(values) if is_foreign(values) else np.asarray(values)
    # Of other libraries' arrays those that cannot be had from their device.
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise InputError(f"{where}: no array of numbers ({reason(error)})") from error
    if raw.dtype.kind not in "iuf":
        raise InputError(f"{where}: of type {raw.dtype}; numbers are needed")
    return raw


def _targets(targets: ArrayLike | None, examples: int, loss: str) -> Targets:
    if targets is None:
        if loss not in LOSSES_WITHOUT_TARGETS:
            raise InputError(f"targets: missing; the loss {loss} needs one for each example")
        return np.zeros(examples, dtype=np.int64)
    raw = _numbers(targets, "targets")
    if raw.ndim not in (1, 2) or len(raw) != examples:
        raise InputError(
            f"targets: of shape {raw.shape}; {examples} examples need ({examples},) or "
            f"({examples}, c)"
        )
    if raw.dtype.kind in "iu" and raw.ndim == 1:
        return np.array(raw, dtype=np.int64)
    numbers = np.array(raw, dtype=np.float64)
    require_finite(numbers, "targets")
    return numbers


def _weights(weights: ArrayLike | None, examples: int) -> Array | None:
    if weights is None:
        return None
    return require_weights(_numbers(weights, "sample_weight"), examples, "sample_weight")


def _examples(
    inputs: ArrayLike, targets: ArrayLike | None, weights: ArrayLike | None, loss: str
) -> Dataset:
    raw = _numbers(inputs, "inputs")
    if raw.ndim < 2 or raw.size == 0:
        raise InputError(f"inputs: of shape {raw.shape}; it must be (N, …) and not empty")
    # As floating-point numbers, which nothing scales: integers would be taken for pixels.
    values = np.array(raw, dtype=np.float64).reshape(len(raw), -1)
    require_finite(values, "inputs")
    of_examples = _weights(weights, len(values))
    return Dataset(values, _targets(targets, len(values), loss), _GIVEN, sample_weight=of_examples)


def activation_of(value: ActivationLike, where: str) -> Activation:
    """An activation by any of its names; raises InputError."""
    if isinstance(value, Activation):
        value = {"name": value.name, **dict(value.parameters)}
    activation: Activation = _decoded(ACTIVATION, value, where)
    return activation


def _decoded(takes: Takes, value: Any, where: str) -> Any:
    try:
        return takes.decode(value, (where,))
    except ConfigKeyError as error:
        raise InputError(str(error)) from None


def _loss(value: str | Loss) -> Loss:
    loss = Loss(value) if isinstance(value, str) else value
    require_one_of("loss", loss.name, loss_names())
    require_one_of("loss.reduction", loss.reduction, REDUCTIONS)
    try:
        require_own_arguments(loss)
    except ConfigKeyError as error:
        raise InputError(str(error)) from None
    return loss


def require_one_of(where: str, name: str, names: Sequence[str]) -> None:
    """Raises InputError, with the nearest of ``names``, for a ``name`` that is none of them."""
    if name not in names:
        raise InputError(f"{where}: {name!r} is unknown{nearest(str(name), names)}")


@contextmanager
def _as_file(model: str | os.PathLike[str] | KerasModel) -> Iterator[tuple[str, str]]:
    """A path of the model, and the part of that path which is nobody's business."""
    if isinstance(model, str | os.PathLike):
        yield os.fspath(model), ""
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"{model.name}.keras")
        try:
            model.save(path)
        # Whatever Keras raises on what it cannot describe.
        except Exception as error:
            raise InputError(
                f"model: {model.name}: Keras cannot save it ({reason(error)}); use Keras's own "
                "layers and functions, not functools.partial"
            ) from error
        yield path, folder + os.sep


def _plain(value: Any) -> Any:
    """Python's and NumPy's values as YAML would have given them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
