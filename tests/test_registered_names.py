"""Keras files that name a user's own activation and layer: a plugin says what they are."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_own_layers import EXAMPLES, GLU
from test_plugin import CUBE, plugin, run

import hesscli
from hesscli.nodes.passes import forward
from hesscli.nodes.plugins import forget, load_plugin

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
INPUTS = np.random.default_rng(0).standard_normal((4, 5))
LABELS = [0, 1, 2, 0]
NAMES = {"model.registered_names": ["tests>GatedUnit=glu"]}


@pytest.fixture(scope="module")
def model() -> Any:
    """A model with a user's function and class, which Keras has registered."""
    import keras

    @keras.saving.register_keras_serializable("tests")
    def cube(z: Any) -> Any:
        return z**3

    @keras.saving.register_keras_serializable("tests")
    class GatedUnit(keras.layers.Layer):  # type: ignore[misc, unused-ignore]
        def __init__(self, units: int, **others: Any) -> None:
            super().__init__(**others)
            self.units = units

        def build(self, shape: Any) -> None:
            for part in ("", "gate_"):
                kernel = self.add_weight(shape=(shape[-1], self.units), name=f"{part}kernel")
                setattr(self, f"{part}kernel", kernel)
                bias = self.add_weight(shape=(self.units,), name=f"{part}bias")
                setattr(self, f"{part}bias", bias)

        def call(self, x: Any) -> Any:
            gate = keras.ops.sigmoid(x @ self.gate_kernel + self.gate_bias)
            return (x @ self.kernel + self.bias) * gate

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "units": self.units}

    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [
            keras.layers.Input((5,)),
            keras.layers.Dense(4, activation=cube),
            GatedUnit(3),
            GatedUnit(6, name="second"),
            keras.layers.Dense(3),
        ]
    )
    made.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


@pytest.fixture(scope="module")
def file(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registered") / "model.keras"
    saved(model, path)
    return path


def saved(model: Any, path: Path) -> None:
    with warnings.catch_warnings():
        # Keras's arrays are not quite NumPy 2's.
        warnings.simplefilter("ignore")
        model.save(path)


@pytest.fixture
def plugins() -> Iterator[None]:
    names = [name for path in (CUBE, GLU) for name in load_plugin(str(path))]
    yield
    forget(names)


@pytest.mark.parametrize("kind", ["keras", "h5", "live"])
def test_it_opens_and_is_keras_s_own_function(
    kind: str, model: Any, file: Path, plugins: None, tmp_path: Path
) -> None:
    """What is saved has passed through the user's own code in ``model`` alone."""
    source = file
    if kind == "h5":
        source = tmp_path / "model.h5"
        saved(model, source)
    problem = hesscli.problem_from_keras(
        model if kind == "live" else source, INPUTS, LABELS, settings=NAMES
    )
    f = forward(problem.graph, problem.batch, ()).f
    np.testing.assert_allclose(f, np.asarray(model(INPUTS)), rtol=1e-5)
    assert problem.graph.by_name["second"].attributes == {"layer": "glu", "units": 6}
    assert any("tests>GatedUnit is the plugin's glu" in note for note in problem.notes)


def test_the_command_opens_it_with_its_option(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["config", "--model", str(file), "--plugin", str(CUBE), "--plugin", str(GLU)]
    right = ["--registered-name", "tests>GatedUnit=glu"]
    code, out, _ = run([*arguments, *right], capsys)
    assert code == 0
    assert "- {name: second, type: glu, units: 6}" in out
    for more, message in (
        ([], "--registered-name tests>GatedUnit=NAME"),
        ([*right, "--registered-name", "Unit=glu"], "'Unit' is none of "),
        (["--registered-name", "tests>GatedUnit=gated"], "an activation or a layer of a plugin"),
    ):
        code, _, err = run([*arguments, *more], capsys)
        assert (code, err.count("\n"), message in err) == (2, 1, True)
    code, _, err = run(["config", "--model", str(file)], capsys)
    assert (code, "'tests>cube'; supported are " in err) == (2, True)


def test_what_the_plugin_does_not_ask_for_is_refused(
    file: Path, plugins: None, tmp_path: Path
) -> None:
    """A layer that says ``activation`` may be another function than the plugin's."""
    changed = tmp_path / "changed.keras"
    with zipfile.ZipFile(file) as read, zipfile.ZipFile(changed, "w") as written:
        for name in read.namelist():
            content = read.read(name)
            if name == "config.json":
                document = json.loads(content)
                document["config"]["layers"][2]["config"]["activation"] = "gelu"
                content = json.dumps(document).encode()
            written.writestr(name, content)
    with pytest.raises(hesscli.InputError, match=r"has activation 'gelu', and the plugin's layer"):
        hesscli.problem_from_keras(changed, INPUTS, LABELS, settings=NAMES)


def test_another_function_by_that_name_is_not_the_model(file: Path, tmp_path: Path) -> None:
    """Keras evaluates the plugin's TensorFlow function: a value that differs is refused."""
    text = (EXAMPLES / "glu.py").read_text(encoding="utf-8").replace("return a * s", "return a")
    names = [*load_plugin(str(CUBE)), *load_plugin(plugin(tmp_path, text))]
    try:
        with pytest.raises(hesscli.InputError, match="gives other numbers in Keras's own model"):
            hesscli.problem_from_keras(file, INPUTS, LABELS, settings=NAMES)
    finally:
        forget(names)


def test_without_a_tensorflow_function_a_note_says_that_keras_is_not_asked(
    file: Path, tmp_path: Path
) -> None:
    text = GLU.read_text(encoding="utf-8").replace('"tensorflow": in_tensorflow,', "")
    names = [*load_plugin(str(CUBE)), *load_plugin(plugin(tmp_path, text))]
    try:
        problem = hesscli.problem_from_keras(file, INPUTS, LABELS, settings=NAMES)
    finally:
        forget(names)
    assert any("not evaluated: glu without TensorFlow" in note for note in problem.notes)
