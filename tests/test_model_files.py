"""A model is read from whatever Keras saves; what runs code when it is read is refused."""

from __future__ import annotations

import json
import pickle
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hesscli import InputError, problem_from_keras
from hesscli.config.inputs import files_read
from hesscli.config.load import load_config, parse_override
from hesscli.system.tensorflow import load_tensorflow

load_tensorflow()
keras = pytest.importorskip("keras")
L = keras.layers
# Keras 3.15 is not quite NumPy 2's when it saves; .h5 is what it calls legacy.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

X = np.random.default_rng(3).standard_normal((4, 5))
Y = np.array([0, 1, 2, 1])


def model_of(*layers: Any) -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((5,)), *layers, L.Dense(3, activation="softmax")])


def logits(model: Any) -> Any:
    return np.asarray(keras.Model(model.inputs, model.layers[-1].output)(X))


@pytest.mark.parametrize("ending", [".weights.h5", "_weights.h5"])
def test_a_description_with_its_weights_beside_it(ending: str, tmp_path: Path) -> None:
    model = model_of(L.Dense(4, "tanh"))
    path = tmp_path / "m.json"
    path.write_text(model.to_json(), encoding="utf-8")
    with pytest.raises(InputError, match="save_weights"):
        problem_from_keras(path, X, Y)
    model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "m.weights.h5").rename(tmp_path / f"m{ending}")
    # Keras loads no weights by another name.
    if ending == ".weights.h5":
        problem = problem_from_keras(path, X, Y)
        expected = model.get_weights()
        for found, own in zip(problem.graph.tensors.values(), expected, strict=True):
            np.testing.assert_array_equal(found, own)
    config = load_config(None, [parse_override(f"model.keras={path}")])
    read = [name for key, name in files_read(config) if key == "model.keras"]
    assert read == [str(path), str(tmp_path / f"m{ending}")]


def test_what_runs_code_is_refused_with_what_converts_it(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"a": 1}))
    for name, remedy in (("saved", "tf_keras"), ("m.pkl", "pickle.load")):
        with pytest.raises(InputError, match=remedy) as caught:
            problem_from_keras(tmp_path / name, X, Y)
        assert "\n" not in str(caught.value) and "convert it" in str(caught.value)


def test_an_initializer_of_somebody_elses_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    model_of(L.Dense(4)).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members["config.json"])
    foreign = {"module": "os", "class_name": "system", "config": {}, "registered_name": None}
    document["config"]["layers"][1]["config"]["kernel_initializer"] = foreign
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "config.json": json.dumps(document).encode()}.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match=r"os\.system in it is not Keras's own"):
        problem_from_keras(path, X, Y)


def test_older_names_of_functions(tmp_path: Path) -> None:
    model = model_of(L.Dense(4, "linear"))
    path = tmp_path / "m.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        text = file.attrs["model_config"].replace('"softmax"', '"softmax_v2"')
        file.attrs["model_config"] = text.replace('"linear"', '"identity"')
    problem = problem_from_keras(path, X, Y)
    assert problem.hidden_activation == "linear"
    assert any("softmax" in note for note in problem.notes)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_the_hard_sigmoid_of_keras_2_is_another_function(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    model_of(L.Dense(4, "hard_sigmoid", name="gate")).save(path)
    assert problem_from_keras(path, X, Y).hidden_activation == "hard_sigmoid"
    if suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["keras_version"] = "2.15.0"
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        members["metadata.json"] = b'{"keras_version": "2.15.0"}'
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    with pytest.raises(InputError, match=r"'gate' has the hard_sigmoid of Keras 2\.15\.0"):
        problem_from_keras(path, X, Y)


REFUSED: dict[str, tuple[Any, str]] = {
    "partial": (lambda: L.Dense(4, partial(keras.activations.elu, alpha=0.3)), "functools.partial"),
    "lambda": (lambda: L.Dense(4, lambda z: z * z), "a function of Python's own"),
    "Lambda": (lambda: L.Lambda(lambda z: 2 * z, name="twice"), "layer 'twice' is a Lambda"),
    "activity": (lambda: L.Dense(4, activity_regularizer=abs), "activity_regularizer"),
    "regularizer": (lambda: L.Dense(4, kernel_regularizer=abs), "kernel_regularizer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_layer_of_keras_own_is_refused_in_one_line(case: str) -> None:
    make, named = REFUSED[case]
    with pytest.raises(InputError, match=named) as caught:
        problem_from_keras(model_of(make()), X, Y)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_what_does_nothing_at_inference_is_nothing() -> None:
    idle = [L.GaussianNoise(0.1), L.AlphaDropout(0.2), L.GaussianDropout(0.3), L.Dropout(0.5)]
    assert len(problem_from_keras(model_of(L.Dense(4, "tanh"), *idle), X, Y).layers) == 2
