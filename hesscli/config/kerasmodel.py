"""``model.keras``: a Keras model's layers in the place of the configuration's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from hesscli.config.schema import Config, LayerConfig, ModelConfig
from hesscli.problem.keras_layers import KerasNetwork
from hesscli.problem.keras_model import read_network
from hesscli.problem.registry import loss_names
from hesscli.system.errors import InputError


def network_of(path: str) -> KerasNetwork:
    """The layers of the model ``path``; raises InputError, which names the key."""
    try:
        return read_network(path)
    except InputError as error:
        raise InputError(f"model.keras: {error}") from error


def with_keras_layers(config: Config, given: Collection[str], of_loss: Collection[str]) -> Config:
    """``config`` with the Keras model's inputs, layers and compiled loss.

    But for the keys of ``model`` that are ``given`` by the user, and for those ``of_loss``: where
    the loss's name is among them, nothing is left of the compiled one. Without a Keras model,
    ``config`` itself. Raises InputError for a model compiled with a loss that has no counterpart
    here.
    """
    if config.model.keras is None:
        return config
    network = network_of(config.model.keras)
    model = config.model
    if "inputs" not in given:
        model = replace(model, inputs=network.inputs)
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
    """Raises InputError where ``model`` says something else than its Keras model.

    Activations may differ: they are the user's to replace.
    """
    if model.keras is None:
        return
    if model.weights is not None:
        raise InputError(
            f"model.keras: {model.keras}: the parameters come from the model, so model.weights "
            "must be null"
        )
    network = network_of(model.keras)
    for key, configured, own in (
        ("inputs", str(model.inputs), str(network.inputs)),
        ("bias", str(model.bias).lower(), str(network.has_bias).lower()),
        ("layers", _listing(model.layers), _listing(_layers(network))),
    ):
        if configured != own:
            raise InputError(
                f"model.{key}: {configured}; model.keras: {model.keras} has {own}; leave "
                f"model.{key} out, or make it the same"
            )


def _layers(network: KerasNetwork) -> tuple[LayerConfig, ...]:
    return tuple(
        LayerConfig(
            layer.name,
            layer.units,
            layer.activation,
            kernel_regularizer=layer.penalties.get("kernel"),
            bias_regularizer=layer.penalties.get("bias"),
            trainable=layer.trainable,
        )
        for layer in network.layers
    )


def _listing(layers: Sequence[LayerConfig]) -> str:
    return ", ".join(f"{layer.name} ({layer.units} units)" for layer in layers)
