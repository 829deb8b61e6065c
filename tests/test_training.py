"""Training: the steps by hand and by Keras, stability, resuming bit for bit, divergence."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import make_problem

from hesscli.config.load import load_config, parse_override
from hesscli.config.schema import TrainConfig
from hesscli.config.training import TrainingData, build_training_data
from hesscli.problem.graph import Activation, Layer, chain
from hesscli.problem.network import Loss, Problem
from hesscli.problem.problemfile import read_batch, read_parameters, read_training, save_problem
from hesscli.studies.sgd import SGD, Batches
from hesscli.studies.training import Training, train
from hesscli.system.errors import InputError, NumericalError

OPTIONS = TrainConfig(
    learning_rate=0.2, momentum=0.9, batch_size=5, steps=23, every=4, measure_examples=8
)


@pytest.fixture
def data() -> TrainingData:
    """Thirteen examples: batches of five leave three, and an epoch is three steps."""
    return TrainingData(make_problem((9, 8, 3), "tanh", examples=13), None, "")


def regression(examples: int = 12, width: int = 4) -> tuple[Problem, Any, Any, Any]:
    """Least squares without a bias: L = 1/N ‖Xw − y‖², H = 2/N XᵀX."""
    generator = np.random.default_rng(5)
    X = generator.standard_normal((examples, width))
    w, y = generator.standard_normal((width, 1)), generator.standard_normal((examples, 1))
    layer = Layer("dense1", w.copy(), None, Activation("linear"))
    return Problem(chain((layer,)), X.copy(), y.copy(), Loss("mean_squared_error")), X, w, y


def descent(problem: Problem, size: int, rate: float, momentum: float) -> SGD:
    theta = problem.graph.vector()
    batches = Batches(problem.examples, size, 0)
    return SGD(problem, batches, rate, momentum, parameters=theta, velocity=np.zeros_like(theta))


def test_a_step_of_linear_regression_by_hand() -> None:
    problem, X, w, y = regression()
    sgd = descent(problem, 12, 0.1, 0.0)
    loss = sgd.advance()
    assert loss == pytest.approx(np.mean((X @ w - y) ** 2), rel=1e-14)
    expected = w - 0.1 * (2 / 12) * X.T @ (X @ w - y)
    np.testing.assert_allclose(sgd.parameters, expected.ravel(), rtol=1e-13)


def test_momentum_by_hand() -> None:
    """As in Keras: velocity = momentum · velocity − learning_rate · g; w = w + velocity."""
    problem, X, w, y = regression()
    sgd, velocity = descent(problem, 12, 0.05, 0.8), np.zeros_like(w)
    for _ in range(4):
        sgd.advance()
        velocity = 0.8 * velocity - 0.05 * (2 / 12) * X.T @ (X @ w - y)
        w = w + velocity
    np.testing.assert_allclose(sgd.parameters, w.ravel(), rtol=1e-12)
    np.testing.assert_allclose(sgd.velocity, velocity.ravel(), rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_steps_are_those_of_keras(momentum: float) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    problem, X, w, y = regression()
    sgd = descent(problem, 12, 0.05, momentum)
    variable = tensorflow.Variable(w)
    optimizer = tensorflow.keras.optimizers.SGD(learning_rate=0.05, momentum=momentum)
    for _ in range(5):
        sgd.advance()
        gradient = (2 / 12) * X.T @ (X @ variable.numpy() - y)
        optimizer.apply_gradients([(tensorflow.constant(gradient), variable)])
    # Keras holds the learning rate in float32.
    np.testing.assert_allclose(sgd.parameters, variable.numpy().ravel(), rtol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_threshold_parts_what_is_stable_from_what_is_not(momentum: float) -> None:
    """On a quadratic, at 0.99 of the sharpness's threshold descent converges, at 1.01 it grows."""
    problem, X, _, y = regression()
    top = np.linalg.eigvalsh(2 / 12 * X.T @ X)[-1]
    best = np.linalg.lstsq(X, y, rcond=None)[0].ravel()
    distances = {}
    for part in (0.99, 1.01):
        rate = part * (2 + 2 * momentum) / top
        options = TrainConfig(rate, momentum, "all", 600, every=600, measure_examples="all")
        sgd = descent(problem, 12, rate, momentum)
        result = train(TrainingData(problem, None, ""), replace(options, steps=1))
        assert result.stability_ratio(result.measurements[0]) == pytest.approx(part, rel=1e-6)
        begin = np.linalg.norm(sgd.parameters - best)
        for _ in range(600):
            sgd.advance()
        distances[part] = np.linalg.norm(sgd.parameters - best) / begin
    assert distances[0.99] < 0.2 and distances[1.01] > 5


def test_with_a_sum_the_threshold_is_for_the_measured_sum(data: TrainingData) -> None:
    """The sharpness of a sum grows with its examples; its ratio to the threshold must not."""
    mean = train(data, replace(OPTIONS, steps=1, measure_examples="all"))
    summed = replace(data.problem, loss=Loss(reduction="sum"))
    options = replace(OPTIONS, steps=1, measure_examples="all", learning_rate=0.2 / 5)
    result = train(TrainingData(summed, None, ""), options)
    assert mean.threshold == pytest.approx(3.8 / 0.2)
    assert result.measurements[0].sharpness == pytest.approx(13 * mean.measurements[0].sharpness)
    ratios = [run.stability_ratio(run.measurements[0]) for run in (mean, result)]
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-6)
    # And the steps are the same, up to the last batch of an epoch, which is smaller.
    assert mean.final[0].loss * 13 == pytest.approx(result.final[0].loss)


def test_an_epoch_holds_every_example_once_and_ends_in_a_smaller_batch() -> None:
    batches = Batches(13, 5, seed=3)
    orders = [batches.order(epoch) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(13))
    assert not any((a == b).all() for a, b in itertools.combinations(orders, 2))
    np.testing.assert_array_equal(orders[1], Batches(13, 5, seed=3).order(1))
    assert not (orders[0] == Batches(13, 5, seed=4).order(0)).all()
    assert batches.each_epoch == 3
    assert [batches.epochs(step) for step in (0, 1, 2, 3, 4)] == [0, 5 / 13, 10 / 13, 1, 18 / 13]


def test_the_gradient_of_a_step_is_that_of_the_epochs_next_examples(data: TrainingData) -> None:
    batches, problem = Batches(13, 5, 0), data.problem
    sgd = descent(problem, 5, 0.1, 0.0)
    for step in range(7):
        epoch, batch = divmod(step, 3)
        chosen = batches.order(epoch)[5 * batch : 5 * batch + 5]
        assert len(chosen) == (3 if batch == 2 else 5)
        part = replace(problem, inputs=problem.inputs[chosen], targets=problem.targets[chosen])
        one = descent(part, len(chosen), 0.1, 0.0)
        one.parameters = sgd.parameters
        sgd.advance()
        one.advance()
        np.testing.assert_allclose(sgd.parameters, one.parameters, rtol=1e-12)


def test_measurements_fall_on_every_kth_step_and_on_the_last(data: TrainingData) -> None:
    steps = [row.step for row in train(data, OPTIONS).measurements]
    assert steps == [0, 4, 8, 12, 16, 20, 23]
    steps = [row.step for row in train(data, replace(OPTIONS, steps=8)).measurements]
    assert steps == [0, 4, 8]


def stopping_after(steps: int) -> Callable[[], bool]:
    """False so many times, then True: a Ctrl-C during the step of that number."""
    asked = itertools.count()
    return lambda: next(asked) >= steps


def weights(path: Path) -> bytes:
    parameters = read_parameters(str(path))
    arrays = read_training(str(path))
    parts = [array.tobytes() for array in parameters.values()]
    return b"".join([*parts, *(arrays[name].tobytes() for name in sorted(arrays))])


def numbers(result: Training) -> tuple[Any, ...]:
    return result.measurements, result.final, result.steps, result.completed


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("split", [0, 1, 3, 4, 7, 15, 20, 22])
def test_a_resumed_training_is_the_uninterrupted_one_to_the_last_bit(
    split: int, dtype: str, tmp_path: Path
) -> None:
    """Within an epoch, at its end (3, 15), at a measurement (4, 20), before the first step."""
    problem = make_problem((9, 8, 3), "tanh", examples=13, dtype=dtype)
    data = TrainingData(problem, None, "")
    whole = train(data, OPTIONS, checkpoint=str(tmp_path / "whole.npz"))
    half = str(tmp_path / "half.npz")
    first = train(data, OPTIONS, checkpoint=half, stopped=stopping_after(split))
    assert (first.steps, first.completed) == (split, False)
    second = train(data, OPTIONS, checkpoint=half, resume=half)
    assert second.resumed_at == split
    assert numbers(second) == numbers(whole)
    assert weights(Path(half)) == weights(tmp_path / "whole.npz")


def test_a_checkpoint_on_the_way_is_as_good_and_more_steps_can_be_added(
    data: TrainingData, tmp_path: Path
) -> None:
    """The last measurement of 9 steps is not on every fourth: 23 steps do not have it."""
    path = str(tmp_path / "run.npz")
    train(data, replace(OPTIONS, steps=9), checkpoint=path)
    went_on = train(data, OPTIONS, resume=path)
    assert numbers(went_on) == numbers(train(data, OPTIONS))
    seen: list[int] = []

    def watch(step: int, *_: Any) -> None:
        if step == 13:
            seen.append(train(data, OPTIONS, resume=path).resumed_at)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, replace(OPTIONS, checkpoint_every=6), checkpoint=path, watch=watch)
    assert seen == [12]


def test_a_checkpoint_is_a_problem_file_with_the_measuring_batch(
    data: TrainingData, tmp_path: Path
) -> None:
    path = str(tmp_path / "run.npz")
    train(data, OPTIONS, checkpoint=path)
    assert list(read_parameters(path)) == [
        "dense1/kernel", "dense1/bias", "dense2/kernel", "dense2/bias",
    ]  # fmt: skip
    inputs, targets = read_batch(path)
    np.testing.assert_array_equal(inputs, data.problem.inputs[:8])
    np.testing.assert_array_equal(targets, data.problem.targets[:8])
    assert set(read_training(path)) == {
        "record", "velocity", "vectors/dense1", "vectors/dense2", "vectors/network",
    }  # fmt: skip


def test_a_layer_called_train_keeps_its_parameters(tmp_path: Path) -> None:
    problem = make_problem((3, 4, 2), "tanh")
    layers = (replace(problem.layers[0], name="train"), problem.layers[1])
    path = str(tmp_path / "run.npz")
    save_problem(replace(problem, graph=chain(layers)), path, {"velocity": np.ones(3)})
    assert list(read_parameters(path))[:2] == ["train/kernel", "train/bias"]
    assert list(read_training(path)) == ["velocity"]


def other(activation: str = "tanh", **changes: Any) -> Problem:
    return make_problem((9, 8, 3), activation, **{"examples": 13, **changes})


OTHERS = {
    "train.learning_rate is 0.2 in it and 0.1 here": {"learning_rate": 0.1},
    "train.momentum is 0.9 in it and 0.0 here": {"momentum": 0.0},
    "train.batch_size is 5 in it and 4 here": {"batch_size": 4},
    "train.every is 4 in it and 5 here": {"every": 5},
    "train.measure_examples is 8 in it and 7 here": {"measure_examples": 7},
}


@pytest.mark.parametrize("line", OTHERS)
def test_another_configuration_is_refused_by_its_key(
    line: str, data: TrainingData, tmp_path: Path
) -> None:
    path = str(tmp_path / "run.npz")
    train(data, OPTIONS, checkpoint=path)
    with pytest.raises(InputError, match=f"run.npz: {line}; go on with"):
        train(data, replace(OPTIONS, **OTHERS[line]), resume=path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("model.layers is .*tanh.* in it and .*relu.* here", other("relu")),
        ("initial parameters differ", other(seed=1)),
        ("data differs", other(seed=1)),
        ("dtype is float64 in it and float32 here", other(dtype="float32")),
        ("train.examples is 13 in it and 6 here", other(examples=6)),
    ],
)
def test_another_problem_is_refused(
    line: str, problem: Problem, data: TrainingData, tmp_path: Path
) -> None:
    path = str(tmp_path / "run.npz")
    train(data, OPTIONS, checkpoint=path)
    with pytest.raises(InputError, match=line):
        train(TrainingData(problem, None, ""), replace(OPTIONS, batch_size=4), resume=path)


def test_fewer_steps_than_are_done_are_refused(data: TrainingData, tmp_path: Path) -> None:
    path = str(tmp_path / "run.npz")
    train(data, OPTIONS, checkpoint=path)
    with pytest.raises(InputError, match=r"23 steps are done in it; train\.steps is 22"):
        train(data, replace(OPTIONS, steps=22), resume=path)


def test_what_is_no_checkpoint_is_refused(data: TrainingData, tmp_path: Path) -> None:
    path = str(tmp_path / "run.npz")
    save_problem(data.problem, path)
    with pytest.raises(InputError, match="no checkpoint; a file that train"):
        train(data, OPTIONS, resume=path)
    train(data, OPTIONS, checkpoint=path)
    with np.load(path) as stored:
        good = dict(stored)
    text = good["train/record"].tobytes()
    wrong = {
        "train/record": [
            np.frombuffer(text[:-5], np.uint8),
            np.frombuffer(b"[]", np.uint8),
            np.frombuffer(text.replace(b'"step": 23', b'"step": -1'), np.uint8),
            np.frombuffer(text.replace(b'"sharpness"', b'"sharp"'), np.uint8),
            good["train/record"].astype(float),
        ],
        "train/velocity": [np.zeros(3), good["train/velocity"].astype(np.float32)],
        "train/vectors/network": [np.zeros((2, 2))],
        "dense1/kernel": [np.zeros((9, 7))],
    }
    for name, arrays in wrong.items():
        for array in arrays:
            np.savez(path, **{**good, name: array})
            with pytest.raises(InputError, match=r"run\.npz"):
                train(data, OPTIONS, resume=path)
    np.savez(path, **{**good, "train/velocity": np.array([{}], dtype=object)})
    with pytest.raises(InputError, match="never unpickled"):
        train(data, OPTIONS, resume=path)
    newer = text.replace(b'"version": 1', b'"version": 2')
    np.savez(path, **{**good, "train/record": np.frombuffer(newer, np.uint8)})
    with pytest.raises(InputError, match="version 2; this hesscli reads version 1"):
        train(data, OPTIONS, resume=path)


def test_a_training_that_diverges_says_where_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    """Least squares at twice the threshold: the distance doubles with every step, to overflow."""
    problem, X, *_ = regression()
    rate = 3 / np.linalg.eigvalsh(2 / 12 * X.T @ X)[-1]
    path = str(tmp_path / "run.npz")
    options = TrainConfig(rate, 0.0, "all", 10**6, every=10**6, checkpoint_every=100)
    with pytest.raises(NumericalError, match=r"after step (\d+) the training diverged") as error:
        train(TrainingData(problem, None, ""), options, checkpoint=path)
    text = str(error.value)
    assert "use a smaller train.learning_rate than" in text and "momentum" not in text
    held = int(text.rsplit(" ", 1)[1])
    assert held % 100 == 0 and f"{path} holds step {held}" in text
    # What is kept can be gone on from, to just before the end that it is going to have.
    went_on = train(TrainingData(problem, None, ""), replace(options, steps=held), resume=path)
    assert np.isfinite(went_on.final[0].loss)


def test_an_infinite_step_is_a_divergence_too(data: TrainingData) -> None:
    options = replace(OPTIONS, learning_rate=1e308, momentum=0.5, every=50)
    with pytest.raises(NumericalError, match=r"smaller train.learning_rate than 1e\+308 or train"):
        train(data, options)


def embedded(*assignments: str) -> TrainingData:
    return build_training_data(load_config(None, [parse_override(text) for text in assignments]))


def test_the_loss_on_mnist_falls() -> None:
    data = embedded("dtype=float32", "train.examples=1000")
    result = train(data, TrainConfig(steps=150, every=75, measure_examples=64))
    losses = [row.loss for row in result.measurements]
    # Ten classes that nothing is known of: about log 10.
    assert losses[0] == pytest.approx(np.log(10), rel=0.2)
    assert losses[0] > losses[1] > losses[2]
    training, held_out = result.final
    assert (training.examples, held_out.examples, held_out.name) == (1000, 4000, "held out")
    assert training.accuracy > 0.85 and held_out.accuracy > 0.8


def test_the_training_examples_are_the_first_from_the_offset_on() -> None:
    everything = embedded().problem
    data = embedded(
        "train.examples=10", "data.offset=20", "train.batch_size=10", "data.batch_size=1"
    )
    np.testing.assert_array_equal(data.problem.inputs, everything.inputs[20:30])
    assert data.held_out is not None and data.held_out.examples == 4970
    assert embedded().held_out is None


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("train.examples=5001", "train.examples: 5001; embedded has 5000 from data.offset 0 on"),
        ("train.batch_size=5001", "train.batch_size: 5001; there are 5000 examples"),
    ],
)
def test_more_examples_than_there_are_are_refused(assignment: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        embedded(assignment)


def test_a_test_split_is_what_is_held_out(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 256, (30, 6), dtype=np.uint8), np.arange(30) % 3
    path = tmp_path / "set.npz"
    np.savez(path, x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    small = ("model.inputs=6", "model.layers=[{units: 3}]", f"data.source={path}")
    data = embedded(*small, "train.batch_size=4")
    assert data.held_out is not None and data.held_out_name == "test split"
    np.testing.assert_array_equal(data.held_out.inputs, x[20:] / 255)
    np.savez(path, x_train=x[:20], y_train=y[:20])
    assert embedded(*small, "train.batch_size=4").held_out is None
