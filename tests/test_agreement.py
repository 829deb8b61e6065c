"""Keras's own model must give what the problem gives: a PASS is about that model or about none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesscli import InputError, problem_from_keras, verify
from hesscli.nodes import losses
from hesscli.problem import keras_layers
from hesscli.problem.graph import Activation
from hesscli.problem.network import Loss
from hesscli.studies.evaluation import batch_loss
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.autodiff.keras_model import KerasHessian
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.twin import KerasTwin
from hesscli.workers.share import ALONE

keras = pytest.importorskip("keras")
# Keras 3.15 is not quite NumPy 2's when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

GENERATOR = np.random.default_rng(4)
X = GENERATOR.standard_normal((7, 5))
LABELS = GENERATOR.integers(0, 3, 7)


def relu(z: Any) -> Any:
    """A user's own function, which Keras serializes by its name alone."""
    return keras.ops.maximum(z, -0.01)


def model_of(activation: Any, loss: Any = "sparse_categorical_crossentropy", **last: Any) -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, activation="tanh", name="first"),
            layers.Dense(6, activation=activation, name="second"),
            layers.Dense(3, activation="softmax", name="last", **last),
        ]
    )
    model.compile(loss=loss)
    return model


def test_a_function_that_is_merely_called_relu_is_refused_by_its_layer() -> None:
    problem_from_keras(model_of("relu"), X, LABELS)
    with pytest.raises(InputError, match="layer 'second'") as caught:
        problem_from_keras(model_of(relu), X, LABELS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_that_is_read_wrongly_is_named(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(keras.layers.ELU(alpha=0.5))
    problem_from_keras(model, X, LABELS, dtype=dtype)
    monkeypatch.setattr(keras_layers, "_elu", lambda _: Activation("elu"))
    with pytest.raises(InputError, match="layer 'second'"):
        problem_from_keras(model, X, LABELS, dtype=dtype)


def test_a_loss_that_is_read_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("tanh", keras.losses.Huber(delta=0.1))
    problem_from_keras(model, X, LABELS)
    monkeypatch.setattr(keras_layers, "compiled_loss", lambda _: Loss("huber", delta=0.2))
    with pytest.raises(InputError, match="the loss is"):
        problem_from_keras(model, X, LABELS)


def test_a_gradient_that_is_not_the_models_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("tanh", "mse")
    problem_from_keras(model, X, LABELS)
    right = losses._LOSSES["mean_squared_error"]

    def wrong(loss: Loss) -> losses.LossDerivatives:
        return replace(right(loss), gradient=lambda f, t: f - t)

    monkeypatch.setattr(losses, "_LOSSES", {"mean_squared_error": wrong})
    with pytest.raises(InputError, match="gradient in first/kernel"):
        problem_from_keras(model, X, LABELS)


def test_other_activations_and_losses_are_the_users_to_choose() -> None:
    model = model_of("tanh", kernel_regularizer="l2")
    for settings in ({"loss.regularization": False}, {"loss.reduction": "sum"}):
        problem_from_keras(model, X, LABELS, settings=settings)
    for loss in ("mean_squared_error", "sum", "kl_divergence"):
        problem_from_keras(model, X, LABELS, loss=loss)
    problem_from_keras(model, X, LABELS, activation="softplus")


@pytest.mark.parametrize("from_logits", [False, True])
def test_the_focal_loss_is_keras_own(from_logits: bool) -> None:
    """Value and gradient are held against Keras's inside; the name alone is read as well."""
    of_keras = keras.losses.CategoricalFocalCrossentropy
    arguments = {"alpha": 0.6, "gamma": 3.0, "label_smoothing": 0.1, "from_logits": from_logits}
    model = model_of("tanh", of_keras(**arguments))
    if from_logits:
        model.layers[-1].activation = keras.activations.linear
    problem = problem_from_keras(model, X, LABELS)
    given = (problem.loss.name, problem.loss.alpha, problem.loss.gamma)
    assert given == ("categorical_focal_crossentropy", 0.6, 3.0)
    expected = of_keras(**arguments)(np.eye(3)[LABELS], model(X))
    assert batch_loss(problem, ALONE).total == pytest.approx(float(expected), rel=1e-6)
    assert problem_from_keras(model_of("tanh", given[0]), X, LABELS).loss.gamma == 2.0
    weighted = of_keras(alpha=[0.1, 0.2, 0.3])
    with pytest.raises(InputError, match=r"CategoricalFocalCrossentropy with alpha \[0.1"):
        problem_from_keras(model_of("tanh", weighted), X, LABELS)


@pytest.mark.parametrize(
    ("activation", "ours"),
    [
        ("relu6", "relu6"),
        ("hard_sigmoid", "hard_sigmoid"),
        ("celu", "elu"),
        (keras.layers.ReLU(max_value=6), "relu6"),
        ("log_softmax", "linear"),
    ],
)
def test_further_names_are_keras_own_functions(activation: Any, ours: str) -> None:
    model = model_of(activation)
    model.set_weights([4 * weight for weight in model.get_weights()])
    problem = problem_from_keras(model, X, LABELS)
    found = {str(node.activation) for node in problem.graph.nodes if node.layer == "second"}
    assert ours in found - {"None"} or activation == "log_softmax"
    kinds = [node.kind for node in problem.graph.nodes]
    assert ("log_softmax" in kinds) == (activation == "log_softmax")
    assert verify(problem, check="form").passed


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_normalization_is_adapted_as_it_was(suffix: str, tmp_path: Path) -> None:
    x = np.concatenate([X, np.zeros((7, 1))], axis=1)
    keras.utils.set_random_seed(0)
    normalization = keras.layers.Normalization()
    normalization.adapt(3 * x + 1)
    layers = [keras.Input((6,)), normalization, keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential(layers)
    model.compile(loss="sparse_categorical_crossentropy")
    path = tmp_path / f"model{suffix}"
    model.save(path)
    for given in (model, path):
        problem = problem_from_keras(given, x, LABELS)
        # A column that is constant is divided by keras.config.epsilon().
        (of,) = [node for node in problem.graph.nodes if node.constants]
        assert of.constants["moving_variance"][-1] == pytest.approx(1e-14)
        assert verify(problem, check="form").passed
    fixed = keras.layers.Normalization(mean=0.5, variance=2.0)
    with pytest.raises(InputError, match="mean given in the configuration"):
        problem_from_keras(keras.Sequential([layers[0], fixed, layers[2]]), x, LABELS)


def test_several_pieces_of_a_batch_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesscli.studies.agreement._PIECE_BYTES", 100)
    for reduction in ("sum", "sum_over_batch_size"):
        loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
        problem_from_keras(model_of("relu", loss, kernel_regularizer="l1"), X, LABELS)


def test_what_is_saturated_or_at_a_minimum_is_no_other_function() -> None:
    model = model_of("tanh", "mse")
    model.set_weights([50 * weight for weight in model.get_weights()])
    problem_from_keras(model, X, LABELS)
    own = np.asarray(model(X))
    for dtype in ("float32", "float64"):
        problem_from_keras(model, X, own.astype(np.float64), dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_autodiffs_products_are_of_keras_own_model(dtype: str) -> None:
    """With penalties and weights, in every block of parameters; rows stay our functions'."""
    model = model_of("sigmoid", kernel_regularizer=keras.regularizers.L2(0.25))
    weights = GENERATOR.uniform(0, 2, 7)
    problem = problem_from_keras(model, X, LABELS, sample_weight=weights, dtype=dtype)
    for block in ("first/kernel", "last", "network"):
        H = Autodiff(problem).hessian(block)
        assert isinstance(H, KerasHessian)
        assert "Keras's own model" in problem.notes[-1]
        expected = ChainRule(problem).hessian(block).to_dense()
        close = {"rtol": 0, "atol": 1e-13 if dtype == "float64" else 1e-5}
        np.testing.assert_allclose(H @ np.eye(len(expected), dtype=dtype), expected, **close)
        np.testing.assert_allclose(H.rows(0, 2), expected[:2], **close)
    for check in ("form", "probes"):
        assert verify(problem, check=check, block="network").passed


def test_keras_own_model_is_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its products, not our functions', decide what probes and forms say."""
    problem = problem_from_keras(model_of("tanh"), X, LABELS)
    right = KerasTwin.product

    def wrong(self: KerasTwin, *arguments: Any) -> dict[str, Any]:
        return {path: 1.001 * of for path, of in right(self, *arguments).items()}

    monkeypatch.setattr(KerasTwin, "product", wrong)
    # With the entries goes a form.
    for check in ("form", "probes", "entries"):
        assert not verify(problem, check=check).passed


def test_what_is_another_function_is_not_keras_to_differentiate() -> None:
    """Other activations, losses or inputs than the model's, and Keras's functions of few digits."""
    problem = problem_from_keras(model_of("tanh"), X, LABELS)
    others = [
        problem.with_activation(Activation("sigmoid")),
        replace(problem, loss=replace(problem.loss, reduction="sum")),
        replace(problem, inputs=problem.batch + 1),
        problem.part(0, 3),
        problem_from_keras(model_of("gelu"), X, LABELS),
        problem_from_keras(model_of("tanh"), X, LABELS, activation="softplus"),
    ]
    for other in others:
        assert not isinstance(Autodiff(other).hessian("network"), KerasHessian)
        assert verify(other, check="form").passed
