"""Every result says what the loss of the batch is, how it classifies, and what the inputs are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesscli import entry, problem_from_config, problem_from_keras, spectrum, verify
from hesscli.problem.execution import Execution
from hesscli.problem.network import Problem
from hesscli.report.documents import document_of
from hesscli.studies.evaluation import evaluated
from hesscli.system.tensorflow import load_tensorflow

load_tensorflow()
keras = pytest.importorskip("keras")
# Keras 3.15 is not quite NumPy 2's when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FIELD = Path(__file__).parent / "field"
TRUTH: dict[str, Any] = json.loads((FIELD / "truth.json").read_text(encoding="utf-8"))
DATA: dict[str, Any] = {"data.source": str(FIELD / "data.npz"), "data.batch_size": 16}


@pytest.mark.parametrize("name", ["dense_softmax.keras", "l2.keras", "sigmoid_bce.keras"])
def test_the_loss_is_the_outside_programs(name: str) -> None:
    problem = problem_from_keras(FIELD / name, settings=DATA)
    for execution in (Execution(), Execution(chunk=5)):
        (loss,) = evaluated([problem], execution).losses
        assert loss.total == pytest.approx(TRUTH[name]["loss"], rel=1e-7)
        assert (loss.penalty > 0) == (name == "l2.keras")


def test_the_accuracy_is_keras_own() -> None:
    model = keras.models.load_model(FIELD / "dense_softmax.keras", compile=False)
    with np.load(FIELD / "data.npz") as data:
        x, y = data["x_train"][:16] / 255, data["y_train"][:16]
    predicted = np.asarray(model(x.reshape(16, *model.input_shape[1:]))).argmax(axis=1)
    problem = problem_from_keras(FIELD / "dense_softmax.keras", settings=DATA)
    (loss,) = evaluated([problem], Execution()).losses
    assert loss.accuracy == np.mean(predicted == y)
    regression = problem_from_keras(FIELD / "linear_mse.keras", settings=DATA)
    assert evaluated([regression], Execution()).losses[0].accuracy is None


def test_every_result_begins_with_it() -> None:
    problem = problem_from_config(settings={"model.layers": [{"units": 10}]})
    for result in (
        verify(problem, check="form"),
        spectrum(problem, block="bias"),
        entry(problem, "dense1/bias[0]", "dense1/bias[1]"),
    ):
        document = document_of(result)
        assert " · accuracy " in document.heading and "inputs uint8 ÷ 255" in document.heading
        (loss,) = document.data["problem"]["losses"]
        assert loss["data"] > 0 and loss["penalty"] == 0
        assert document.data["problem"]["largest_input"] == 1


def test_a_deep_network_is_said_in_one_line() -> None:
    config = Path(__file__).parents[1] / "configs" / "resnet_small.yaml"
    problem = problem_from_config(config, batch_size=1)
    heading, *_ = document_of(spectrum(problem, layers=["logits"])).heading.splitlines()
    assert heading.startswith("784 → 5 conv, 4 batch_normalization, 1 dense → 10 · ")


def nearest_mean(scale: Any) -> Problem:
    """A classifier by the nearest mean of each class, of inputs as ``scale`` prepares them."""
    of = {"data.source": "embedded", "data.batch_size": 500}
    shape = {"model.layers": [{"units": 10}]}
    given = problem_from_config(settings={**of, **shape, "data.scale": scale})
    means = np.stack([given.batch[given.targets == digit].mean(axis=0) for digit in range(10)])
    model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)])
    model.set_weights([means.T, -np.square(means).sum(axis=1) / 2])
    model.compile(keras.optimizers.SGD(), keras.losses.SparseCategoricalCrossentropy(True))
    return problem_from_keras(model, settings=of)


@pytest.mark.parametrize("scale", [1, "symmetric", "normalize"])
def test_another_preparation_that_gives_far_more_is_mentioned(scale: Any) -> None:
    problem = nearest_mean(scale)
    hints = evaluated([problem], Execution()).notes[len(problem.notes) :]
    if scale == 1:
        (hint,) = hints
        assert "no better than chance" in hint and "data.scale: 1" in hint
    right = replace(problem, inputs=problem.original.prepared_otherwise[str(scale)][:])
    (loss,) = evaluated([right], Execution()).losses
    assert loss.accuracy is not None and loss.accuracy > 0.7
    assert len(evaluated([right], Execution()).notes) == len(problem.notes)


def test_preparations_are_keras_own() -> None:
    def inputs(scale: Any) -> Any:
        return problem_from_config(settings={"data.batch_size": 3, "data.scale": scale}).batch

    pixels = inputs(1)
    normalized = keras.utils.normalize(pixels.reshape(3, 28, 28), axis=1)
    np.testing.assert_allclose(inputs("normalize"), normalized.reshape(3, 784), rtol=1e-14)
    np.testing.assert_allclose(inputs("symmetric"), pixels / 127.5 - 1, rtol=1e-14, atol=1e-15)
