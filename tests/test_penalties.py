"""Regularizers are part of the loss in every command; the truth is Keras, or the dense matrix."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run

from hesscli import init, problem_from_config, train, verify
from hesscli.problem.execution import Execution
from hesscli.problem.network import Problem
from hesscli.problem.problemfile import save_problem
from hesscli.studies.spectra.subject import SpectrumOptions
from hesscli.studies.spectrum import spectrum as spectrum_study
from hesscli.system.tensorflow import load_tensorflow
from hesscli.witnesses.chain_rule.engine import ChainRule

SETTINGS: dict[str, Any] = {
    "model.inputs": 3,
    "model.layers": [
        {"units": 4, "activation": "tanh", "kernel_regularizer": {"l2": 0.3}},
        {"units": 2, "kernel_regularizer": {"l1": 0.1, "l2": 0.2}, "bias_regularizer": {"l2": 1}},
    ],
    "data.inputs": [[0.5, -1.0, 0.2], [2.0, 0.1, 0.0], [-0.3, 0.4, 1.0]],
    "data.targets": [0, 1, 1],
    "data.batch_size": 3,
}


@pytest.fixture
def problem() -> Problem:
    return problem_from_config(settings=SETTINGS)


def dense(problem: Problem, name: str) -> Any:
    """H without penalties by the chain rule, plus Keras's l2 θ² differentiated twice."""
    H = ChainRule(replace(problem, penalties={})).hessian(name).to_dense()
    l2 = {"dense1/kernel": 0.3, "dense2/kernel": 0.2, "dense2/bias": 1.0}
    tensors = problem.graph.tensors
    names = tensors if name == "network" else [t for t in tensors if t.startswith(name)]
    return H + np.diag(
        np.concatenate([np.full(tensors[t].size, 2 * l2.get(t, 0.0)) for t in names])
    )


@pytest.mark.parametrize(("block", "name"), [("kernel", "dense1/kernel"), ("network", "network")])
def test_the_spectrum_has_them(problem: Problem, block: Any, name: str) -> None:
    expected = np.linalg.eigvalsh(dense(problem, name))
    for execution in (Execution(), Execution(chunk=2)):
        result = spectrum_study([problem], SpectrumOptions(block=block), execution=execution)
        row = result.results[0]
        assert row.passed
        np.testing.assert_allclose(row.hessian.eigenvalues, expected, rtol=0, atol=1e-13)
        assert row.hessian.trace.value == pytest.approx(expected.sum())


def test_estimated_spectra_have_them(problem: Problem) -> None:
    expected = np.linalg.eigvalsh(dense(problem, "network"))
    options = SpectrumOptions(block="network", exact_limit=1, top=3, density=True)
    row = spectrum_study([problem], options).results[0]
    assert row.passed and not row.exact
    assert row.hessian.largest.value == pytest.approx(expected[-1], rel=1e-6)


def test_init_has_them() -> None:
    given = {**SETTINGS, "seed": 0}
    rows = init(given_mapping(given), initializers=["configured"], seeds=1, block="layer").results
    for row in rows:
        H = dense(problem_from_config(settings=given), row.layer)
        assert row.frobenius.mean == pytest.approx(np.linalg.norm(H), rel=1e-10)
        assert row.spectral.mean == pytest.approx(np.linalg.norm(H, 2), rel=1e-9)


def given_mapping(settings: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return nested


def test_a_step_of_training_is_keras_own(problem: Problem) -> None:
    load_tensorflow()
    keras = pytest.importorskip("keras")
    L, R = keras.layers, keras.regularizers
    keras.config.set_floatx("float64")
    try:
        model = keras.Sequential(
            [
                keras.Input((3,)),
                L.Dense(4, "tanh", kernel_regularizer=R.L2(0.3)),
                L.Dense(2, kernel_regularizer=R.L1L2(0.1, 0.2), bias_regularizer=R.L2(1.0)),
            ]
        )
        for variable, value in zip(model.weights, problem.graph.tensors.values(), strict=True):
            variable.assign(value)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.05), loss)
        x, y = np.array(problem.inputs), problem.targets
        losses = [float(model.train_on_batch(x, y)) for _ in range(3)]
    finally:
        keras.config.set_floatx("float32")
    result = train(problem, steps=2, every=1, batch_size="all", learning_rate=0.05)
    # Keras keeps its constants and its learning rate in float32.
    measured = [moment.loss for moment in result.measurements]
    np.testing.assert_allclose(measured, losses, rtol=1e-6)
    assert result.final[0].loss == pytest.approx(losses[-1], rel=1e-6)
    first = result.measurements[0]
    H = dense(problem, "network")
    assert first.sharpness == pytest.approx(np.linalg.eigvalsh(H)[-1], rel=1e-4)
    assert first.trace == pytest.approx(np.trace(H))


def test_a_problem_file_holds_them(problem: Problem, tmp_path: Path) -> None:
    path = str(tmp_path / "p.npz")
    save_problem(problem, path)
    layers = [{"units": 4, "activation": "tanh"}, {"units": 2}]
    again = {"data.source": path, "model.weights": path, "model.inputs": 3, "model.layers": layers}
    assert problem_from_config(settings=again).penalties == problem.penalties
    without = problem_from_config(settings={**again, "loss.regularization": False})
    assert without.penalties == {}
    assert any("left out" in note for note in without.notes)


def test_without_regularization_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"{key}={json.dumps(value)}" for key, value in SETTINGS.items()]
    arguments = [part for text in settings for part in ("--set", text)]
    command = ["verify", "--check", "form", *arguments, "--without-regularization"]
    code, text, _ = run(command, capsys)
    assert code == 0
    assert "regularizers of dense1, dense2 are left out" in text and "penalty" not in text


def test_all_witnesses_have_them(problem: Problem) -> None:
    witnesses = ("chain_rule", "autodiff", "finite")
    assert verify(problem, block="network", witnesses=witnesses).passed
