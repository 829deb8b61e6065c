"""``model.keras``: a Keras model's layers in the place of the configuration's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from hesscli.config.schema import Config, LayerConfig, ModelConfig
from hesscli.problem.graph import INPUT
from hesscli.problem.keras_layers import KerasLayer, KerasNetwork
from hesscli.problem.keras_model import read_network
from hesscli.problem.layers import ACTIVITY, DENSE
from hesscli.problem.registry import loss_names
from hesscli.system.errors import InputError


def network_of(path: str, registered_names: Sequence[str]) -> KerasNetwork:
    """The layers of the model ``path``; raises InputError, which names the key."""
    names = dict(pair.rsplit("=", 1) for pair in registered_names)
    try:
        network = read_network(path, names)
    except InputError as error:
        raise InputError(f"model.keras: {error}") from error
    for registered in names:
        if registered not in network.plugins:
            raise InputError(
                f"model.registered_names: {registered!r} is none of {path}; of plugins it has "
                f"{', '.join(network.plugins) or 'none'}"
            )
    return network


def with_keras_layers(config: Config, given: Collection[str], of_loss: Collection[str]) -> Config:
    """``config`` with the Keras model's inputs, layers and compiled loss.

    But for the keys of ``model`` that are ``given`` by the user, and for those ``of_loss``: if
    the loss's name is among them, nothing is left of the compiled one. Without a Keras model,
    ``config`` itself. Raises InputError for a model compiled with a loss that has no counterpart
    here.
    """
    if config.model.keras is None:
        return config
    network = network_of(config.model.keras, config.model.registered_names)
    model = config.model
    if "inputs" not in given:
        model = replace(model, inputs=_inputs(network))
    if "bias" not in given:
        model = replace(model, bias=network.has_bias)
    if "layers" not in given:
        model = replace(model, layers=_layers(network))
    if "name" not in of_loss:
        if isinstance(network.loss, str):
            raise InputError(
                f"model.keras: {network.path}: compiled with the loss {network.loss}, which is not "
                f"supported; choose one with --set loss.name=NAME: {', '.join(loss_names())}"
            )
        own = {key: getattr(config.loss, key) for key in of_loss}
        config = replace(config, loss=replace(network.loss or config.loss, **own))
    return replace(config, model=model)


def check_keras_layers(model: ModelConfig) -> None:
    """Raises InputError if ``model`` says something else than its Keras model.

    Activations may differ: they are the user's to replace.
    """
    if model.keras is None:
        if model.registered_names:
            raise InputError("model.registered_names: without model.keras; leave them out")
        return
    if model.weights is not None:
        raise InputError(
            f"model.keras: {model.keras}: the parameters come from the model, so model.weights "
            "must be null"
        )
    network = network_of(model.keras, model.registered_names)
    for key, configured, own in (
        ("inputs", str(model.inputs), str(_inputs(network))),
        ("bias", str(model.bias).lower(), str(network.has_bias).lower()),
        ("layers", _listing(model.layers), _listing(_layers(network))),
    ):
        if configured != own:
            raise InputError(
                f"model.{key}: {configured}; model.keras: {model.keras} has {own}; leave "
                f"model.{key} out, or make it the same"
            )


def _inputs(network: KerasNetwork) -> int | tuple[int, ...]:
    shape = network.input_shape
    return shape[0] if len(shape) == 1 else shape


def _layers(network: KerasNetwork) -> tuple[LayerConfig, ...]:
    before = [INPUT, *(layer.name for layer in network.layers)]
    return tuple(
        _layer(layer, name, network.has_bias)
        for layer, name in zip(network.layers, before, strict=False)
    )


def _layer(layer: KerasLayer, before: str, has_bias: bool) -> LayerConfig:
    spec, penalties = layer.spec, dict(layer.penalties)
    arguments = {key: _plain(value) for key, value in spec.arguments.items()}
    own = arguments.pop("use_bias", has_bias)
    return LayerConfig(
        layer.name,
        arguments.pop("units") if spec.type == DENSE else 0,
        layer.activation,
        kernel_regularizer=penalties.pop("kernel", None),
        bias_regularizer=penalties.pop("bias", None),
        activity_regularizer=penalties.pop(ACTIVITY, None),
        type=spec.type,
        inputs=None if spec.inputs == (before,) else spec.inputs,
        use_bias=None if own == has_bias else own,
        arguments=tuple(arguments.items()),
        regularizers=tuple(penalties.items()),
        trainable=layer.trainable or not layer.shapes,
    )


def _plain(value: Any) -> Any:
    """Lists, as Keras has them, as tuples."""
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _listing(layers: Sequence[LayerConfig]) -> str:
    return ", ".join(
        f"{layer.name} ({f'{layer.units} units' if layer.type == DENSE else layer.type})"
        for layer in layers
    )
