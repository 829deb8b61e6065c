"""How a Keras model ends, and whether its loss takes logits or probabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hesscli.config.schema import LayerConfig
from hesscli.problem.graph import Activation
from hesscli.problem.keras_layers import SIGMOID, KerasNetwork
from hesscli.problem.layers import SOFTMAX
from hesscli.problem.names import CROSSENTROPIES, LOSS_ARGUMENTS
from hesscli.problem.network import Loss
from hesscli.system.errors import InputError


@dataclass(frozen=True)
class Ending:
    """The layers, whether a softmax follows them, and what was taken off, being in the loss.

    ``of_loss`` is what is said about it.
    """

    layers: tuple[LayerConfig, ...]
    softmax: bool = False
    folded: str | None = None
    of_loss: str = ""


def ending_of(layers: tuple[LayerConfig, ...], keras: KerasNetwork, loss: Loss) -> Ending:
    """How the network ends, under ``loss``.

    A softmax or a sigmoid at the end and the cross-entropy of it are one function of the logits:
    it is taken off there, and stays everywhere else.
    """
    last = layers[-1]
    ends = None
    if keras.softmax:
        ends = SOFTMAX
    elif last.activation.name == keras.layers[-1].activation.name == SIGMOID:
        ends = SIGMOID
    belongs = SIGMOID if loss.name == "binary_crossentropy" else SOFTMAX
    if loss.name in CROSSENTROPIES and loss.from_logits is not True and loss.regularization:
        _require_free(last, keras, belongs)
    of_loss = f"{'compiled with' if is_compiled(keras, loss) else 'under'} the loss "
    of_loss += _described(loss)
    if loss.name in CROSSENTROPIES and loss.from_logits is not True:
        if ends == belongs:
            if ends == SIGMOID:
                last = replace(last, activation=Activation("linear"))
            note = f"{of_loss}; the {ends} at its output was taken off, and is in the loss"
            return Ending((*layers[:-1], last), False, ends, note)
        if loss.from_logits is False:
            raise InputError(
                f"model.keras: {keras.path}: {of_loss} of probabilities, but there is no {belongs} "
                "at its output; with --set loss.from_logits=true it is taken of logits"
            )
    if ends is not None and loss.name in CROSSENTROPIES:
        of_loss += (
            f" of logits, but its output is a {ends}'s; it is differentiated as it is, which is "
            "probably a mistake"
        )
    elif keras.loss is None:
        of_loss = f"saved without a loss; {loss.name} is assumed"
    return Ending(layers, keras.softmax, None, of_loss)


def _require_free(last: LayerConfig, keras: KerasNetwork, ends: str) -> None:
    """Refuses a penalty on the probabilities that a cross-entropy has in it."""
    if last.activity_regularizer is not None and ends in (last.type, last.activation.name):
        raise InputError(
            f"model.keras: {keras.path}: layer {keras.layers[-1].keras_name!r} has an "
            f"activity_regularizer on its {ends}, which is in the loss; "
            "use --without-regularization, or a layer without one there"
        )


def is_compiled(keras: KerasNetwork, loss: Loss) -> bool:
    """Whether ``loss`` is the one that the model was compiled with."""
    compiled = replace(loss, regularization=True, class_weight=None, of_class=None)
    return isinstance(keras.loss, Loss) and compiled == keras.loss


def _described(loss: Loss) -> str:
    """A loss with the arguments that are not Keras's defaults."""
    others = [
        f"{key}={getattr(loss, key):g}"
        for key in LOSS_ARGUMENTS
        if key != "from_logits" and getattr(loss, key) != getattr(Loss(), key)
    ]
    return f"{loss.name}({', '.join(others)})" if others else loss.name
