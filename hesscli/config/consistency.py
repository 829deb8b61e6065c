"""Whether the values of a configuration, each right by itself, fit one another."""

from __future__ import annotations

from collections.abc import Mapping

from hesscli.config.schema import Config, DataConfig, LayerConfig, ModelConfig
from hesscli.problem.layers import LayerError
from hesscli.problem.names import LOSS_ARGUMENTS, LOSSES_WITHOUT_TARGETS
from hesscli.problem.network import Loss
from hesscli.system.takes import ConfigKeyError, Path


def require_consistent(config: Config) -> None:
    """Raises ConfigKeyError if parameters or a batch in the configuration do not fit."""
    try:
        plan = config.model.plan()
    except LayerError as error:
        key = () if error.key is None else (error.key,)
        raise ConfigKeyError(("model", "layers", error.place, *key), str(error)) from None
    for index, layer in enumerate(config.model.layers):
        shapes = plan.shapes_of(layer.name)
        _check_layer(layer, shapes, config.model, ("model", "layers", index))
    require_own_arguments(config.loss)
    _check_batch(config.data, config.model.width, config.loss.name)


def _check_layer(
    layer: LayerConfig, shapes: Mapping[str, tuple[int, ...]], model: ModelConfig, path: Path
) -> None:
    if layer.kernel is not None:
        found, needed = (len(layer.kernel), len(layer.kernel[0])), shapes["kernel"]
        if found != needed:
            raise ConfigKeyError(
                (*path, "kernel"), f"of shape {found}; it must be (inputs, units), here {needed}"
            )
    if layer.bias is not None:
        if not model.bias:
            raise ConfigKeyError(
                (*path, "bias"), "given, but model.bias is false; leave it out, or make that true"
            )
        if len(layer.bias) != layer.units:
            raise ConfigKeyError(
                (*path, "bias"), f"{len(layer.bias)} numbers; {layer.units} units need as many"
            )
    if layer.kernel is not None and layer.initializer is not None:
        raise ConfigKeyError(
            (*path, "initializer"), "the layer's kernel is given as well; give one of them"
        )
    for key in ("kernel", "bias"):
        if model.weights is not None and getattr(layer, key) is not None:
            raise ConfigKeyError((*path, key), "model.weights is given as well; give one of them")


def require_own_arguments(loss: Loss) -> None:
    """Raises ConfigKeyError for an argument that is none of the loss's own."""
    for key, others in LOSS_ARGUMENTS.items():
        if getattr(loss, key) != getattr(Loss(), key) and loss.name not in others:
            raise ConfigKeyError(
                ("loss", key),
                f"{getattr(loss, key)}; only {' and '.join(others)} can have it, and loss.name is "
                f"{loss.name}",
            )
    for key in ("class_weight", "of_class"):
        if getattr(loss, key) is not None and loss.name in LOSSES_WITHOUT_TARGETS:
            raise ConfigKeyError(
                ("loss", key), f"the loss {loss.name} has no targets, and so no classes"
            )


def _check_batch(data: DataConfig, width: int, loss: str) -> None:
    in_source = data.inputs is None
    if data.sample_weight is not None and isinstance(data.sample_weight, str) != in_source:
        raise ConfigKeyError(
            ("data", "sample_weight"),
            "it must be the name of an array in data.source"
            if in_source
            else "it must be a list with a number for each row of data.inputs",
        )
    if data.inputs is None:
        if data.targets is not None:
            raise ConfigKeyError(
                ("data", "targets"), "there are no data.inputs that they belong to; give both"
            )
        return
    if len(data.inputs[0]) != width:
        raise ConfigKeyError(
            ("data", "inputs"),
            f"rows of {len(data.inputs[0])} numbers; model.inputs is {width}, and both must be "
            "the same",
        )
    if data.targets is None:
        if loss not in LOSSES_WITHOUT_TARGETS:
            raise ConfigKeyError(
                ("data", "targets"),
                f"missing; the loss {loss} needs one for each row of data.inputs",
            )
    elif len(data.targets) != len(data.inputs):
        raise ConfigKeyError(
            ("data", "targets"),
            f"{len(data.targets)} targets; data.inputs has {len(data.inputs)} rows, and each "
            "needs one",
        )
