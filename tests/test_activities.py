"""Activity regularizers are part of the loss; the truth is Keras's own model, differentiated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesscli import problem_from_config, problem_from_keras, train, verify
from hesscli.nodes.passes import GAUSS_NEWTON
from hesscli.problem.execution import Execution
from hesscli.problem.graph import Array, Penalty
from hesscli.problem.network import Problem
from hesscli.problem.problemfile import save_problem
from hesscli.studies.evaluation import batch_loss
from hesscli.studies.spectra.subject import SpectrumOptions
from hesscli.studies.spectrum import spectrum as spectrum_study
from hesscli.system.errors import InputError
from hesscli.system.tensorflow import load_tensorflow
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.referee.engine import Referee
from hesscli.witnesses.summed.engine import chain_rule_of
from hesscli.workers.share import ALONE

tf = load_tensorflow()
keras = pytest.importorskip("keras")
L, R = keras.layers, keras.regularizers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((6, 4)), np.array([0, 1, 2, 2, 1, 0])
IMAGES = RNG.standard_normal((6, 5, 5, 1))


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


def dense() -> Any:
    return keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(5, "tanh", activity_regularizer=R.L1L2(0.3, 0.7), kernel_regularizer="l2"),
            L.Dense(4, activity_regularizer=R.L1(0.2), trainable=False),
            L.Activation("softplus", activity_regularizer=R.L2(0.5)),
            L.Dropout(0.5, activity_regularizer=R.L2(0.1)),
            L.ActivityRegularization(l2=0.2),
            L.Dense(3, activity_regularizer="l1"),
        ]
    )


def shared() -> Any:
    layer = L.Dense(4, "tanh", activity_regularizer=R.L1L2(0.1, 0.4))
    x = keras.Input((4,))
    y = layer(x)
    z = L.Concatenate(activity_regularizer="l2")([layer(y), y])
    z = L.Dense(4, "softmax", activity_regularizer=R.L2(3.0))(z)
    return keras.Model(x, L.Dense(3)(L.LayerNormalization(activity_regularizer="l2")(z)))


def convolutional() -> Any:
    return keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            L.Conv2D(2, 3, activation="sigmoid", activity_regularizer=R.L2(0.3)),
            L.MaxPooling2D(2, activity_regularizer=R.L1(0.2)),
            L.Flatten(),
            L.Dense(3, activity_regularizer=R.L2(0.3)),
        ]
    )


MODELS: dict[str, Callable[[], Any]] = {
    "dense": dense,
    "shared": shared,
    "convolutional": convolutional,
}


def compiled(name: str, reduction: str = "sum_over_batch_size") -> tuple[Any, Array]:
    keras.utils.set_random_seed(5)
    model = MODELS[name]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    model.compile(loss=loss)
    return model, IMAGES if name == "convolutional" else X


def keras_loss(model: Any, x: Array) -> Any:
    return model.compute_loss(x, tf.constant(Y), model(tf.constant(x), training=False))


def differentiated(model: Any, x: Array, v: Array) -> tuple[float, Array, Array]:
    """Loss, gradient and H·v in all that is trained, by nested tapes through Keras."""
    variables = [weight.value for weight in model.trainable_weights]
    sizes = np.cumsum([of.shape.num_elements() for of in variables])[:-1]
    along = [
        tf.reshape(part, of.shape) for part, of in zip(np.split(v, sizes), variables, strict=True)
    ]
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            loss = keras_loss(model, x)
        slopes = inner.gradient(loss, variables)
    products = outer.gradient(slopes, variables, along, unconnected_gradients="zero")
    return float(loss), flat(slopes), flat(products)


def flat(tensors: Any) -> Array:
    return np.concatenate([np.reshape(tensor, -1) for tensor in tensors])


@pytest.mark.parametrize(
    ("name", "reduction"), [*((name, "sum_over_batch_size") for name in MODELS), ("dense", "sum")]
)
def test_loss_gradient_and_product_are_those_of_keras(
    name: str, reduction: str, tmp_path: Path
) -> None:
    model, x = compiled(name, reduction)
    path = tmp_path / "model.keras"
    model.save(path)
    v = RNG.standard_normal(
        sum(weight.value.shape.num_elements() for weight in model.trainable_weights)
    )
    loss, gradient, product = differentiated(model, x, v)
    # Keras has the numbers of its regularizers in float32.
    near = {"rtol": 1e-6, "atol": 1e-6 * np.abs(product).max()}
    for source in (model, path):
        problem = problem_from_keras(source, x, Y)
        assert batch_loss(problem, ALONE).total == pytest.approx(loss, rel=1e-6)
        engine = ChainRule(problem)
        np.testing.assert_allclose(engine.gradient("network"), gradient, **near)
        block = engine.hessian("network")
        np.testing.assert_allclose(block.matvec(v), product, **near)
        np.testing.assert_allclose(block.to_dense() @ v, product, **near)
        by_chunks = chain_rule_of(problem, Execution(chunk=4)).hessian("network")
        np.testing.assert_allclose(by_chunks.matvec(v), product, **near)


@pytest.mark.parametrize(
    ("name", "block"), [("dense", "network"), ("dense", "input"), ("convolutional", "layer")]
)
def test_all_witnesses_agree(name: str, block: Any) -> None:
    model, x = compiled(name)
    problem = problem_from_keras(model, x, Y)
    assert verify(problem, block=block, witnesses=("chain_rule", "autodiff", "finite")).passed


def test_gauss_newton_has_the_convex_part() -> None:
    """Of ℓ = Σ f, which is linear, G = 2 l2/N Σ_n Jᵀ J; the rest of H is curvature."""
    problem = problem_from_config(settings=SETTINGS)
    for engine in (ChainRule(problem), Autodiff(problem)):
        for name in ("dense1", "network"):
            G, C = engine.gauss_newton(name).to_dense(), engine.curvature(name).to_dense()
            np.testing.assert_allclose(G, penalty_of_jacobians(problem, name), atol=1e-13)
            np.testing.assert_allclose(G + C, engine.hessian(name).to_dense(), atol=1e-13)


SETTINGS: dict[str, Any] = {
    "model.inputs": 4,
    "model.layers": [
        {"units": 3, "activation": "tanh", "activity_regularizer": {"l1": 0.3, "l2": 0.7}},
        {"units": 2, "activity_regularizer": {"l2": 0.4}},
    ],
    "loss.name": "sum",
    "data.inputs": X.tolist(),
    "data.batch_size": 6,
}


def penalty_of_jacobians(problem: Problem, name: str) -> Array:
    """2 l2/N Σ_n Jᵀ J by the tapes' Jacobians of tanh(x W + b) and of what follows."""
    tensors = {key: tf.constant(value) for key, value in problem.graph.tensors.items()}
    moved = [of for key, of in tensors.items() if name in ("network", key.partition("/")[0])]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(moved)
        y = tf.tanh(tf.constant(X) @ tensors["dense1/kernel"] + tensors["dense1/bias"])
        f = y @ tensors["dense2/kernel"] + tensors["dense2/bias"]
    total: Any = 0
    for value, l2 in ((y, 0.7), (f, 0.4)):
        parts = tape.jacobian(value, moved, unconnected_gradients="zero")
        flat = [np.reshape(part, (value.shape.num_elements(), -1)) for part in parts]
        J = np.concatenate(flat, axis=1)
        total = total + 2 * l2 / len(X) * J.T @ J
    return np.asarray(total)


def test_the_referee_has_them() -> None:
    problem = problem_from_config(settings=SETTINGS)
    H = ChainRule(problem).hessian("network").to_dense()
    referee = Referee(problem)
    for row, column in ((0, 0), (1, 14), (16, 20)):
        exact = referee.entry("network", row, column)
        assert exact is not None and exact.value == pytest.approx(H[row, column], rel=1e-12)


def test_the_spectrum_has_them() -> None:
    problem = problem_from_config(settings=SETTINGS)
    for block, name in (("kernel", "dense1/kernel"), ("network", "network")):
        for chunk in (None, 4):
            execution = Execution(chunk=chunk)
            options = SpectrumOptions(block=block)
            row = spectrum_study([problem], options, execution=execution).results[0]
            G = ChainRule(problem).products(name, GAUSS_NEWTON) @ np.eye(row.size)
            assert row.passed
            largest = np.linalg.eigvalsh(G)[-1]
            assert row.gauss_newton.largest.value == pytest.approx(largest, rel=1e-10)


def test_a_step_of_training_is_keras_own() -> None:
    model, x = compiled("convolutional")
    problem = problem_from_keras(model, x, Y)
    model.compile(keras.optimizers.SGD(0.05), model.loss)
    losses = [float(model.train_on_batch(x, Y)) for _ in range(2)]
    result = train(problem, steps=1, every=1, batch_size="all", learning_rate=0.05)
    measured = [moment.loss for moment in result.measurements]
    np.testing.assert_allclose(measured, losses, rtol=1e-5)


def test_a_problem_file_holds_them_and_they_can_be_left_out(tmp_path: Path) -> None:
    problem, path = problem_from_config(settings=SETTINGS), str(tmp_path / "p.npz")
    save_problem(problem, path)
    layers = [{"units": 3, "activation": "tanh"}, {"units": 2}]
    again = {"data.source": path, "model.weights": path, "model.inputs": 4, "loss.name": "sum"}
    again |= {"model.layers": layers}
    read = problem_from_config(settings=again).graph.activities
    assert read == {"dense1/activation": Penalty(0.3, 0.7), "dense2": Penalty(0.0, 0.4)}
    without = problem_from_config(settings={**again, "loss.regularization": False})
    assert without.graph.activities == {}
    assert any("of dense1, dense2 are left out" in note for note in without.notes)


def test_a_penalty_on_what_is_in_the_loss_is_refused_by_name() -> None:
    for ending, loss in (("softmax", "sparse_categorical_crossentropy"),):
        last = L.Dense(3, ending, activity_regularizer="l2", name="last")
        model = keras.Sequential([keras.Input((4,)), last])
        model.compile(loss=loss)
        with pytest.raises(InputError, match=r"'last' has an activity_regularizer on its"):
            problem_from_keras(model, X, Y)
