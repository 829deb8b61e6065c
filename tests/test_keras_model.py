"""Keras models: the network is the one that Keras computes, and what is not supported is named."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import run

from hesscli.config.build import build_problem
from hesscli.config.load import load_config, parse_override
from hesscli.problem.data import load_dataset
from hesscli.problem.graph import Activation
from hesscli.problem.network import Problem
from hesscli.system.errors import InputError
from hesscli.system.tensorflow import load_tensorflow
from hesscli.witnesses.chain_rule.engine import ChainRule

load_tensorflow()
keras = pytest.importorskip("keras")
L = keras.layers

# Keras 3.15 is not quite NumPy 2's when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EXAMPLES = 4


def images() -> tuple[Any, Any]:
    dataset = load_dataset("embedded", "train")
    return dataset.inputs[:64].reshape(-1, 28, 28), dataset.targets[:64]


def saved(model: Any, folder: Path, name: str = "m.keras") -> str:
    path = str(folder / name)
    model.save(path)
    return path


def problem_of(path: str, *assignments: str) -> Problem:
    texts = (f"model.keras={path}", f"data.batch_size={EXAMPLES}", *assignments)
    return build_problem(load_config(None, [parse_override(text) for text in texts]))


def logits(problem: Problem) -> Any:
    return ChainRule(problem).linearized.f


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """784-6-5-10 as tutorials have it, trained for a few steps; its path and its logits' model."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28))
    x = L.Rescaling(1 / 255, offset=-0.1)(L.Flatten()(inputs))
    x = L.Dropout(0.2)(L.Dense(6, activation="tanh")(x))
    x = L.Activation("gelu")(L.Dense(5, use_bias=False, kernel_regularizer="l2")(x))
    last = L.Dense(10, activation="softmax", name="network")
    model = keras.Model(inputs, last(x))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", run_eagerly=True)
    pixels, labels = images()
    for _ in range(3):
        model.train_on_batch(pixels.astype(np.float32), labels)
    path = saved(model, tmp_path_factory.mktemp("keras"), "mnist.keras")
    before = keras.Model(inputs, x)(pixels[:EXAMPLES].astype(np.float32)).numpy()
    return path, before @ last.kernel.numpy() + last.bias.numpy()


def test_a_trained_model_is_verified_in_every_entry_and_the_output_says_what_was_taken_off(
    trained: tuple[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = trained
    arguments = ["verify", "--model", path, "-n", str(EXAMPLES)]
    code, out, err = run(arguments, capsys)
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert (
        "compiled with the loss sparse_categorical_crossentropy; the softmax at its output was "
        "taken off, and is in the loss" in text
    )
    assert "the regularizers of dense_1 are part of the loss" in text
    assert "inputs uint8 as they are, then its Rescaling (0.00392157·x − 0.1)" in text
    code, out, _ = run([*arguments, "--format", "json", "--check", "form"], capsys)
    report = json.loads(out)
    assert code == 0
    assert [row["layer"] for row in report["results"]] == ["dense", "dense_1", "network_1"]
    assert [row["size"] for row in report["results"]] == [784 * 6, 30, 50]
    assert len(report["problem"]["notes"]) == 2
    assert report["problem"]["parameters"] == 784 * 6 + 6 + 30 + 50 + 10


def test_the_network_has_keras_own_logits_for_raw_pixels(trained: tuple[str, Any]) -> None:
    path, expected = trained
    problem = problem_of(path)
    assert [layer.bias is None for layer in problem.layers] == [False, True, False]
    np.testing.assert_allclose(logits(problem), expected, rtol=0, atol=3e-6)


def test_a_model_without_rescaling_gets_pixels_from_0_to_1(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    hidden = [
        L.Dense(4, activation=L.LeakyReLU(negative_slope=0.1)),
        L.Dense(4),
        L.Dropout(0.5),
        L.ReLU(negative_slope=0.25),
        L.Dense(4),
        L.ReLU(),
        L.Dense(4, activation="linear"),
        L.ELU(alpha=0.5),
        L.Dense(4, activation="swish"),
        L.Dense(4, activation="leaky_relu", dtype="float64"),
    ]
    model = keras.Sequential([keras.Input((28, 28, 1)), L.Flatten(), *hidden, L.Dense(10)])
    problem = problem_of(saved(model, tmp_path))
    assert [str(layer.activation) for layer in problem.layers] == [
        "leaky_relu(negative_slope=0.1)",
        "leaky_relu(negative_slope=0.25)",
        "relu",
        "elu(alpha=0.5)",
        "silu",
        "leaky_relu",
        "linear",
    ]
    pixels = images()[0][:EXAMPLES, :, :, None].astype(np.float32) / 255
    np.testing.assert_allclose(logits(problem), model(pixels).numpy(), rtol=0, atol=3e-6)
    assert [note.split(".keras: ")[1] for note in problem.notes] == [
        "saved without a loss; sparse_categorical_crossentropy is assumed",
    ]


def test_a_sigmoid_is_taken_off_for_binary_crossentropy_only(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((784,)), L.Dense(10, activation="sigmoid")])
    path = saved(model, tmp_path)
    assert problem_of(path).layers[-1].activation.name == "sigmoid"
    problem = problem_of(path, "loss.name=binary_crossentropy")
    assert problem.layers[-1].activation.name == "linear"
    assert problem.notes[-1] == (
        f"{path}: under the loss binary_crossentropy; the sigmoid at its output was taken off, and "
        "is in the loss"
    )


def test_a_softmax_layer_behind_an_activation_leaves_the_activation(tmp_path: Path) -> None:
    layers = [keras.Input((784,)), L.Dense(10, activation="tanh"), L.Softmax()]
    problem = problem_of(saved(keras.Sequential(layers), tmp_path))
    assert problem.layers[-1].activation.name == "tanh"
    assert "the softmax at its output was taken off" in problem.notes[-1]
    kept = problem_of(saved(keras.Sequential(layers), tmp_path), "loss.name=mean_squared_error")
    assert [node.kind for node in kept.graph.nodes] == ["dense", "elementwise", "softmax"]
    hidden = [L.Dense(4, "tanh"), L.Dense(10), L.Softmax()]
    two = problem_of(
        saved(keras.Sequential([keras.Input((784,)), *hidden]), tmp_path),
        "loss.name=mean_squared_error",
    )
    assert two.hidden_activation == "tanh"
    assert kept.with_activation(Activation("relu")).layers[-1].activation.name == "tanh"


def chain(*layers: Any, shape: tuple[int, ...] = (784,)) -> Callable[[], Any]:
    return lambda: keras.Sequential([keras.Input(shape), *(layer() for layer in layers)])


def branched() -> Any:
    inputs = keras.Input((784,))
    return keras.Model(inputs, [L.Dense(3, name="a")(inputs), L.Dense(4, name="b")(inputs)])


def attending() -> Any:
    inputs = keras.Input((5, 2))
    inner = L.MultiHeadAttention(1, 2, name="attention")(inputs, inputs)
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(inner)))


def training() -> Any:
    inputs = keras.Input((784,))
    return keras.Model(inputs, L.Dense(3)(L.BatchNormalization(name="norm")(inputs, training=True)))


def half_rescaled() -> Any:
    inputs = keras.Input((784,))
    rescaled = L.Dense(3)(L.Rescaling(2.0)(inputs))
    return keras.Model(inputs, L.Add()([rescaled, L.Dense(3)(inputs)]))


class Dense(keras.layers.Dense):  # type: ignore[misc,name-defined]
    """A class of the user's that only looks like Keras's."""


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "code": (
        chain(lambda: L.Lambda(lambda x: x, name="code"), lambda: L.Dense(10)),
        "layer 'code' is a Lambda, which holds Python code",
    ),
    "custom": (chain(lambda: Dense(10, name="mine")), "layer 'mine' is a Dense; supported are "),
    "recurrent": (
        chain(lambda: L.SimpleRNN(4, name="recurrent"), lambda: L.Dense(10), shape=(5, 2)),
        "layer 'recurrent' is a SimpleRNN; supported are ",
    ),
    "attention": (
        attending,
        "layer 'attention' is a MultiHeadAttention; supported are ",
    ),
    "softmax axis": (
        chain(lambda: L.Dense(10), lambda: L.Softmax(axis=0, name="soft")),
        r"layer 'soft': axis 0; it must be an axis, 1 to 1 or -1 to -1",
    ),
    "training": (training, "layer 'norm' is called with training=True"),
    "interpolation": (
        chain(lambda: L.UpSampling2D(interpolation="bilinear", name="up"), shape=(2, 2, 1)),
        "layer 'up': interpolation 'bilinear' is not supported; supported is nearest",
    ),
    "unknown activation": (
        chain(lambda: L.Dense(10, activation="tanh_shrink", name="six")),
        "layer 'six' has activation 'tanh_shrink'; supported are linear, relu, ",
    ),
    "clipped relu": (
        chain(lambda: L.Dense(10), lambda: L.ReLU(max_value=4, name="clip")),
        "layer 'clip' is a ReLU with max_value \\(not 6\\) or threshold",
    ),
    "rescaling inside": (
        chain(lambda: L.Dense(10), lambda: L.Rescaling(2.0, name="late")),
        "layer 'late' is a Rescaling after other layers; it must come first",
    ),
    "rescaling of each": (
        chain(lambda: L.Rescaling([0.5] * 784, name="each"), lambda: L.Dense(10)),
        "layer 'each' has a scale or offset that is not one finite number",
    ),
    "half precision": (
        chain(lambda: L.Dense(10, dtype="mixed_float16", name="half")),
        "layer 'half' computes in mixed_float16; supported are float32 and float64",
    ),
    "no parameters": (chain(L.Flatten), "no layer with parameters in it"),
    "two outputs": (branched, "the model has 2 outputs; one is needed"),
    "raw and rescaled": (half_rescaled, "a layer reads the inputs before a Rescaling"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported_is_refused_by_name(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    path = saved(make(), tmp_path)
    with pytest.raises(InputError, match=f"^--set: model.keras: .*m.keras: {message}"):
        problem_of(path)


def rewritten(path: str, changes: dict[str, bytes | None]) -> None:
    """The archive with some members' content replaced, or taken out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, **changes}.items():
            if content is not None:
                archive.writestr(name, content)


DAMAGED: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no configuration": ({"config.json": None}, "no config.json in it"),
    "no weights": ({"model.weights.h5": None}, "no model.weights.h5 in it"),
    "not JSON": ({"config.json": b"{"}, "config.json does not describe a model"),
    "other JSON": ({"config.json": b"[1]"}, "config.json does not describe a model"),
    "nested JSON": ({"config.json": b"[" * 100_000}, "config.json does not describe a model"),
    "not HDF5": ({"model.weights.h5": b"x" * 1000}, "model.weights.h5 is damaged"),
    "empty HDF5": ({"model.weights.h5": b""}, "model.weights.h5 is damaged"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, message = DAMAGED[case]
    path = saved(chain(lambda: L.Dense(10))(), tmp_path)
    rewritten(path, changes)
    code, out, err = run(["verify", "--model", path], capsys)
    assert (code, out) == (2, "")
    assert err.startswith("hesscli: ")
    assert f"{path}: {message}" in err
    assert err.count("\n") == 1


def test_other_files_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.keras"
    text.write_text("not a zip", encoding="utf-8")
    for path, message in (
        (str(text), "damaged or not a .keras file"),
        (str(tmp_path / "none.keras"), "cannot be read (No such file or directory)"),
        (str(tmp_path), "a folder"),
    ):
        code, _, err = run(["verify", "--model", path], capsys)
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(f"hesscli: --model: model.keras: {path}: {message}")


def test_weights_of_another_shape_or_layer_or_of_infinite_size_are_refused(tmp_path: Path) -> None:
    path = saved(chain(lambda: L.Dense(10, name="out"))(), tmp_path)
    for name, units, message in (
        ("out", 9, r"dense/vars/0 has shape \(784, 9\) of float32; .* asks for \(784, 10\)"),
        ("in", 10, "dense/vars belongs to 'in', but config.json names 'out'"),
    ):
        other = saved(chain(partial(L.Dense, units, name=name))(), tmp_path, "other.keras")
        with zipfile.ZipFile(other) as archive:
            rewritten(path, {"model.weights.h5": archive.read("model.weights.h5")})
        with pytest.raises(InputError, match=message):
            problem_of(path)
    model = chain(lambda: L.Dense(10))()
    model.layers[0].kernel.assign(np.full((784, 10), np.inf))
    with pytest.raises(InputError, match=r"layers/dense/vars/0\[0, 0\] is inf"):
        problem_of(saved(model, tmp_path))


def test_the_configuration_holds_the_models_layers_and_reads_back(
    trained: tuple[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = trained
    code, text, _ = run(["config", "--model", path, "--activation", "sin"], capsys)
    assert code == 0
    layer = yaml.safe_load(text)["model"]["layers"][1]
    assert layer.pop("kernel_regularizer")["l2"] == pytest.approx(0.01)
    # Keras numbers the models of a process.
    assert layer.pop("name").startswith("dense")
    own = {"units": 5, "activation": "sin", "use_bias": False}
    assert layer == own
    file = tmp_path / "back.yaml"
    file.write_text(text, encoding="utf-8")
    assert run(["config", "--config", str(file)], capsys) == (0, text, "")
    code, out, _ = run(
        ["verify", "-c", str(file), "-n", "2", "--check", "form", "--layer", "network_1"], capsys
    )
    assert code == 0
    assert "sin: PASS on network_1" in out


def test_overrides_reach_the_models_layers_in_any_order(trained: tuple[str, Any]) -> None:
    path, _ = trained
    first = "model.layers.0.activation=sin"
    for assignments in (
        (first, f"model.keras={path}"),
        (f"model={{keras: {path}}}", first),
        (f"model.keras={path}", "model={bias: true}", first),
    ):
        config = load_config(None, [parse_override(text) for text in assignments])
        assert config.model.keras == path
        assert [(layer.units, layer.activation.name) for layer in config.model.layers] == [
            (6, "sin"),
            (5, "gelu"),
            (10, "linear"),
        ]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("layers: [{units: 3}]", "model.layers: dense1 (3 units); model.keras: "),
        ("inputs: 3", "model.inputs: 3; model.keras: "),
        ("bias: false", "model.bias: false; model.keras: "),
        ("weights: some.npz", "model.keras: "),
    ],
)
def test_a_configuration_that_says_otherwise_is_refused(
    section: str,
    message: str,
    trained: tuple[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"model:\n  keras: {trained[0]}\n  {section}\n", encoding="utf-8")
    code, _, err = run(["verify", "-c", str(file)], capsys)
    assert code == 2
    assert err.startswith(f"hesscli: {file}:2: {message}")


def test_a_problem_file_is_not_rescaled_again(
    trained: tuple[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, expected = trained
    file = str(tmp_path / "saved.npz")
    arguments = ["verify", "--model", path, "-n", str(EXAMPLES), "--check", "form"]
    assert run([*arguments, "--save-problem", file], capsys)[0] == 0
    problem = problem_of(path, f"data.source={file}")
    np.testing.assert_allclose(logits(problem), expected, rtol=0, atol=3e-6)
    assert any("is not applied" in note for note in problem.notes)
