"""Class and sample weights are part of the loss everywhere, as in Keras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import make_problem

from hesscli import InputError, problem_from_arrays, problem_from_config, problem_from_keras, verify
from hesscli.api.questions import spectrum
from hesscli.config.build import build_problem
from hesscli.config.load import config_of
from hesscli.problem.execution import Execution
from hesscli.problem.network import Loss, Problem
from hesscli.problem.problemfile import save_problem
from hesscli.studies.evaluation import batch_loss
from hesscli.studies.sgd import SGD, Batches
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.finite.engine import FiniteDifferences
from hesscli.witnesses.referee.engine import Referee
from hesscli.witnesses.summed.engine import chain_rule_of
from hesscli.workers.share import ALONE

WEIGHTS = np.array([0.5, 2.0, 0.0, 7.0, 1.25])
BY_CLASS = {0: 0.25, 2: 3.0}
GENERATOR = np.random.default_rng(8)
X, LABELS = GENERATOR.standard_normal((7, 5)), np.array([0, 1, 2, 2, 0, 1, 2])


@pytest.fixture
def problem() -> Problem:
    made = make_problem((3, 4, 2), "tanh", examples=5)
    return replace(made, sample_weight=WEIGHTS)


def by_hand(problem: Problem, block: str) -> Any:
    """Σ_n w_n/N H_n, with the Hessian H_n of each example alone, without any weight."""
    plain = replace(problem, sample_weight=None)
    each = [Autodiff(plain.chosen(slice(n, n + 1))).hessian(block).to_dense() for n in range(5)]
    return np.einsum("n,nij->ij", WEIGHTS / 5, each)


@pytest.mark.parametrize("block", ["dense1/kernel", "dense2", "network"])
def test_every_witness_has_them(problem: Problem, block: str) -> None:
    expected = by_hand(problem, block)
    v = GENERATOR.standard_normal(len(expected))
    for engine in (
        ChainRule(problem),
        Autodiff(problem),
        chain_rule_of(problem, Execution(chunk=2)),
    ):
        found = engine.hessian(block)
        np.testing.assert_allclose(found @ np.eye(len(v)), expected, rtol=0, atol=1e-14)
        np.testing.assert_allclose(found.rows(0, 3), expected[:3], rtol=0, atol=1e-14)
        assert found.quadratic_form(v) == pytest.approx(v @ expected @ v, rel=1e-12)
    value, bar = FiniteDifferences(problem).hessian(block).form_with_error(v)
    assert abs(value - v @ expected @ v) <= bar <= 1e-6 * abs(value)
    exact = Referee(problem).form(block, v)
    assert exact is not None and exact.value == pytest.approx(v @ expected @ v, rel=1e-12)


def test_inputs_of_one_example_and_the_spectrum_have_them(problem: Problem) -> None:
    plain = replace(problem, sample_weight=None)
    for n, weight in enumerate(WEIGHTS):
        for engine in (ChainRule, Autodiff):
            expected = weight * engine(plain).hessian(f"input[{n}]").to_dense()
            found = engine(problem).hessian(f"input[{n}]").to_dense()
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
    row = spectrum(problem, block="network").results[0]
    expected = np.linalg.eigvalsh(by_hand(problem, "network"))
    assert row.passed
    np.testing.assert_allclose(row.hessian.eigenvalues, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("check", ["entries", "probes", "form"])
def test_verify_passes_with_all_witnesses(problem: Problem, check: str) -> None:
    result = verify(problem, check=check, witnesses=("chain_rule", "autodiff", "finite"))
    assert result.passed


def test_a_witness_without_them_fails(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    from hesscli.witnesses.autodiff import network

    judged = network.Judged

    def unweighted(targets: Any, scales: Any, of_activity: Any) -> Any:
        return judged(targets, 0 * scales + 1 / 5, of_activity)

    monkeypatch.setattr(network, "Judged", unweighted)
    assert not verify(problem, check="form").passed


def model_of(loss: Any = "sparse_categorical_crossentropy") -> Any:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((5,)),
        keras.layers.Dense(4, activation="tanh", dtype="float64"),
        keras.layers.Dense(3, activation="softmax", dtype="float64"),
    ]
    model = keras.Sequential(layers)
    # A learning rate that floating-point numbers of every size hold exactly.
    model.compile(loss=loss, optimizer=keras.optimizers.SGD(0.5))
    return model


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("one_hot", [False, True])
def test_keras_says_what_the_loss_is_and_makes_the_same_step(one_hot: bool) -> None:
    """By ``evaluate``, and by ``train_on_batch`` with class weights, which ``evaluate`` has not.

    Keras computes its weights, and the loss that it shows, in float32.
    """
    name = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    targets: Any = np.eye(3)[LABELS] if one_hot else LABELS
    weights = GENERATOR.uniform(0, 4, 7)
    # One is compiled by its name, the other as an object with an argument.
    keras = pytest.importorskip("keras")
    model = model_of(keras.losses.CategoricalCrossentropy(label_smoothing=0.1) if one_hot else name)
    weighted = problem_from_keras(model, X, targets, sample_weight=weights)
    expected = model.evaluate(X, targets, sample_weight=weights, batch_size=7, verbose=0)
    assert batch_loss(weighted, ALONE).total == pytest.approx(expected, rel=1e-6)

    settings = {"loss.class_weight": BY_CLASS}
    by_class = problem_from_keras(model, X, targets, settings=settings)
    assert any("loss.class_weight" in note for note in by_class.notes)
    theta = by_class.graph.vector()
    sgd = SGD(by_class, Batches(7, 7, 0), 0.5, 0.0, parameters=theta, velocity=0 * theta)
    ours = sgd.advance()
    expected = model.train_on_batch(X, targets, class_weight=BY_CLASS)
    assert ours == pytest.approx(float(np.ravel(expected)[0]), rel=1e-6)
    after = np.concatenate([np.ravel(of) for of in model.get_weights()])
    np.testing.assert_allclose(sgd.parameters, after, rtol=0, atol=1e-7)


def test_a_class_weight_is_the_sample_weight_of_its_examples() -> None:
    """Of labels, one-hot rows before they are smoothed, and one output that is 0 or 1."""
    kernel, single = GENERATOR.standard_normal((5, 3)), GENERATOR.standard_normal((5, 1))
    of_classes = np.array([0.25, 1, 3, 3, 0.25, 1, 3])
    cases: list[tuple[Any, Any, str, float]] = [
        (kernel, LABELS, "sparse_categorical_crossentropy", 0.0),
        (kernel, np.eye(3)[LABELS], "categorical_crossentropy", 0.2),
        (single, LABELS % 2, "binary_crossentropy", 0.0),
    ]
    for W, targets, name, smoothing in cases:
        loss = Loss(name, label_smoothing=smoothing, class_weight=BY_CLASS)
        problem = problem_from_arrays([W], None, "linear", X, targets, loss)
        expected = of_classes if W is kernel else np.where(LABELS % 2, 1.0, 0.25)
        np.testing.assert_array_equal(problem.sample_weight, expected)


def configured(source: Path, **settings: Any) -> Problem:
    layers = [{"units": 3, "activation": "tanh"}, {"units": 3}]
    given = {"model.inputs": 5, "model.layers": layers, "data.batch_size": "all", **settings}
    return problem_from_config(settings={**given, "data.source": str(source)})


def test_they_come_from_an_array_beside_the_data(tmp_path: Path) -> None:
    weights = GENERATOR.uniform(0, 4, 7)
    np.savez(tmp_path / "own.npz", x_train=X, y_train=LABELS, w=weights[:, None])
    for name, array in (("x_train", X), ("y_train", LABELS), ("w", weights)):
        np.save(tmp_path / f"{name}.npy", array)
    for source in (tmp_path / "own.npz", tmp_path):
        problem = configured(source, **{"data.sample_weight": "w", "data.shuffle": True})
        order = np.random.default_rng(0).permutation(7)
        np.testing.assert_array_equal(problem.sample_weight, weights[order])
        assert any("data.sample_weight" in note for note in problem.notes)
        assert configured(source).sample_weight is None
    # A problem file has them without a key.
    save_problem(problem, str(tmp_path / "saved.npz"))
    again = configured(tmp_path / "saved.npz", **{"model.weights": str(tmp_path / "saved.npz")})
    np.testing.assert_array_equal(again.sample_weight, problem.sample_weight)
    expected = ChainRule(problem).gradient("network")
    np.testing.assert_array_equal(ChainRule(again).gradient("network"), expected)
    with pytest.raises(InputError, match=r"loss\.class_weight"):
        configured(tmp_path / "saved.npz", **{"loss.class_weight": {1: 2}})


def test_each_of_several_workers_has_those_of_its_examples(tmp_path: Path) -> None:
    weights = GENERATOR.uniform(0, 4, 7)
    np.savez(tmp_path / "own.npz", x_train=X, y_train=LABELS, w=weights)
    data = {"source": str(tmp_path / "own.npz"), "batch_size": "all", "sample_weight": "w"}
    model = {"inputs": 5, "layers": [{"units": 3}]}
    config = config_of({"model": model, "data": data})

    class Second:
        index, count, here = 1, 2, 1

    part = build_problem(config, workers=Second())  # type: ignore[arg-type]
    np.testing.assert_array_equal(part.sample_weight, weights[-part.examples :])
    np.testing.assert_allclose(part.scales, weights[-part.examples :] / 7, rtol=1e-15)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data.sample_weight": "v"}, "no array 'v'"),
        ({"data.sample_weight": "short"}, r"\(6,\).*7 examples need"),
        ({"data.sample_weight": "below"}, "-1 at index 2"),
        ({"data.sample_weight": [1.0, 2.0]}, r"name of an array"),
        ({"data.sample_weight": "w", "loss.class_weight": {1: 2}}, "give one of them"),
        ({"loss.class_weight": {3: 2}}, "3 is not a class"),
        ({"loss.class_weight": {"a": 2}}, "'a' is not a class"),
        ({"loss.class_weight": {1: -2}}, "0 or more"),
        ({"loss.class_weight": 5}, "class: weight"),
        ({"loss.class_weight": {1: 2}, "loss.name": "sum"}, "no targets"),
    ],
)
def test_what_does_not_fit_is_named(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    below = np.array([1, 1, -1, 1, 1, 1, 1])
    arrays = {"w": np.ones(7), "short": np.ones(6), "below": below}
    np.savez(tmp_path / "own.npz", x_train=X, y_train=LABELS, **arrays)
    with pytest.raises(InputError, match=said) as caught:
        configured(tmp_path / "own.npz", **settings)
    assert "\n" not in str(caught.value)
    assert any(key.partition(".")[2] in str(caught.value) for key in settings)


def test_a_source_without_other_arrays_is_named() -> None:
    with pytest.raises(InputError, match="embedded holds no other arrays"):
        problem_from_config(settings={"data.sample_weight": "w"})


def test_examples_in_the_configuration_have_them_beside(tmp_path: Path) -> None:
    data = {"inputs": X[:2].tolist(), "targets": [0, 1], "sample_weight": [2, 0.5]}
    model = {"inputs": 5, "layers": [{"units": 2}]}
    problem = build_problem(config_of({"model": model, "data": data}))
    np.testing.assert_array_equal(problem.sample_weight, [2, 0.5])
