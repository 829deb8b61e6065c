"""``import hesscli``: what it costs, what it gives, and that it says what the commands say."""

from __future__ import annotations

import base64
import doctest
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_type_hints

import numpy as np
import pytest
from networks import make_problem
from scipy.sparse.linalg import eigsh

import hesscli
from hesscli.cli.main import _run, cli
from hesscli.config.load import config_of, load_config, to_document
from hesscli.config.schema import Config
from hesscli.problem.graph import Activation
from hesscli.problem.names import ACTIVATIONS
from hesscli.problem.network import Problem
from hesscli.report import documents
from hesscli.report.notebook import notebook_html
from hesscli.studies.verification import Verification

ROOT = Path(__file__).parent.parent
TINY = {
    "model": {"inputs": 2, "layers": [{"units": 3, "activation": "tanh"}, {"units": 2}]},
    "data": {"inputs": [[0.5, -1.0], [2.0, 0.25]], "targets": [0, 1]},
}


# Keras turns TensorFlow's variables into arrays in a way that NumPy 2 warns of.
KERAS_WITH_NUMPY = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")


@pytest.fixture
def tiny() -> Problem:
    return hesscli.problem_from_config(TINY)


def arrays_of(problem: Problem) -> tuple[list[Any], list[Any], list[Any]]:
    layers = problem.layers
    return (
        [layer.kernel for layer in layers],
        [layer.bias for layer in layers],
        [layer.activation for layer in layers],
    )


def test_the_import_brings_neither_numpy_nor_tensorflow_and_questions_bring_no_tensorflow() -> None:
    program = (
        "import sys, hesscli\n"
        "assert not {'numpy', 'scipy', 'tensorflow', 'keras', 'yaml', 'rich'} & set(sys.modules)\n"
        "assert hesscli.spectrum and hesscli.problem_from_keras and hesscli.Autodiff\n"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'IPython'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_public_name_is_there_is_documented_and_is_what_a_type_checker_sees() -> None:
    assert set(hesscli.__all__) <= set(dir(hesscli))
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    source = (ROOT / "hesscli" / "__init__.py").read_text(encoding="utf-8")
    seen = source.partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    for name in set(hesscli.__all__) - {"__version__"}:
        value = getattr(hesscli, name)
        assert inspect.getdoc(value), name
        assert re.search(rf"\b{name}\b", seen), f"{name} is unknown to type checkers"
        (home,) = re.findall(rf"from (\S+) import (?:\([^)]*)?[^)\n]*\b{name}\b", seen)
        assert resolve_name(f"{home}:{name}") is value
        if inspect.isfunction(value):
            assert f"`{name}" in page, f"{name} is not in docs/api.md"
    with pytest.raises(AttributeError, match="no attribute 'verfy'"):
        _ = hesscli.verfy  # type: ignore[attr-defined]


def test_every_command_is_a_function() -> None:
    # The others print, look around or read what commands wrote; what they show comes from
    # load_config, version numbers and the functions that the commands call.
    others = {"config", "doctor", "replay", "diff"}
    assert set(cli.commands) - others <= set(hesscli.__all__)


def test_a_type_checker_sees_the_api_and_reports_a_name_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="the dev extra has it")
    program = tmp_path / "program.py"
    program.write_text(
        "import hesscli\n"
        "problem = hesscli.problem_from_config(activation='tanh')\n"
        "reveal_type(problem)\n"
        "reveal_type(hesscli.verify(problem).passed)\n"
        "hesscli.verfy\n"
    )
    # With the project's settings, so that what `make lint` found about the package is used.
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(program)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
    assert 'Revealed type is "hesscli.problem.network.Problem"' in found
    assert 'Revealed type is "bool"' in found or '"builtins.bool"' in found
    assert 'program.py:5: error: Module has no attribute "verfy"' in found


@KERAS_WITH_NUMPY
def test_the_page_says_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = str(ROOT / "docs" / "api.md")
    results = doctest.testfile(page, module_relative=False, encoding="utf-8")
    assert (results.failed, results.attempted > 30) == (0, True)


def test_the_packages_docstring_says_what_happens() -> None:
    results = doctest.testmod(hesscli)
    assert (results.failed, results.attempted) == (0, 4)


def test_a_configuration_is_the_same_from_a_file_a_mapping_and_a_config(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "model: {inputs: 2, layers: [{units: 3, activation: tanh}, {units: 2}]}\n"
        "data: {inputs: [[0.5, -1.0], [2.0, 0.25]], targets: [0, 1]}\n"
    )
    config = load_config(str(path))
    assert hesscli.load_config(path) == config
    assert hesscli.load_config(TINY) == config
    assert hesscli.load_config(config) == config
    assert config_of(to_document(config)) == config
    assert hesscli.load_config() == Config()
    arrays = {"model": TINY["model"], "data": {"inputs": np.array([[0.5, -1], [2, 0.25]])}}
    arrays["data"]["targets"] = np.array([0, 1])
    assert hesscli.load_config(arrays) == config


def test_settings_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    line = "config -a gelu -n 7 --seed 3 --dtype float32 --set data.offset=5"
    assert _run(line.split()) == 0
    printed = config_of(yaml.safe_load(capsys.readouterr().out))
    settings = {"data.offset": np.int64(5)}
    assert printed == hesscli.load_config(
        settings=settings, activation="gelu", batch_size=7, seed=3, dtype="float32"
    )


def test_a_problem_of_arrays_is_that_of_the_configuration(tiny: Problem) -> None:
    kernels, biases, activations = arrays_of(tiny)
    x = np.array(tiny.inputs)
    same = hesscli.problem_from_arrays(kernels, biases, activations, x, [0, 1])
    for block in ("dense1", "dense2/kernel", "network"):
        ours = hesscli.ChainRule(same).hessian(block).to_dense()
        assert np.array_equal(ours, hesscli.ChainRule(tiny).hessian(block).to_dense())
    x[:] = 0
    assert x.flags.writeable
    assert same.inputs.any(), "the caller's array was taken, not copied"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernels": []}, "kernels: none given"),
        ({"kernels": [np.ones((2, 3)), np.ones((2, 2))]}, "kernels[1]: of shape (2, 2); the layer"),
        ({"kernels": [np.ones((2, 3)), np.full((3, 2), np.nan)]}, "kernels[1]"),
        ({"kernels": [np.ones((2, 3)), "x"]}, "kernels[1]: of type <U1; numbers are needed"),
        ({"kernels": [np.ones((2, 3)), [[1, 2], [3]]]}, "kernels[1]: no array of numbers"),
        ({"biases": [None, np.ones(3)]}, "biases[1]: of shape (3,); kernels[1] is (3, 2), so it"),
        ({"biases": [None]}, "biases: 1; there are 2 kernels"),
        ({"activations": ["relu"]}, "activations: 1; there are 2 kernels"),
        ({"activations": "rleu"}, "activations[0]: 'rleu' is unknown; did you mean 'relu'?"),
        ({"inputs": np.ones((2, 5))}, "inputs: of shape (2, 5); kernels[0] takes 2 values"),
        ({"inputs": np.ones(2)}, "inputs: of shape (2,); it must be two-dimensional"),
        ({"targets": [0, 1, 1]}, "targets: of shape (3,); 2 examples need (2,)"),
        ({"targets": [0, 7]}, "label 7 at index 1"),
        ({"targets": None}, "targets: missing; the loss sparse_categorical_crossentropy"),
        ({"loss": "mse"}, "loss: 'mse' is unknown"),
        ({"names": ["a", "a"]}, "names: a, a; they must differ"),
        ({"names": ["a", "input"]}, "names[1]: 'input' names a block"),
        ({"dtype": "float16"}, "dtype: 'float16' is unknown; did you mean 'float"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change: dict[str, Any], said: str) -> None:
    right: dict[str, Any] = {
        "kernels": [np.ones((2, 3)), np.ones((3, 2))],
        "biases": None,
        "activations": "relu",
        "inputs": np.ones((2, 2)),
        "targets": [0, 1],
    }
    hesscli.problem_from_arrays(**right)
    with pytest.raises(hesscli.InputError) as raised:
        hesscli.problem_from_arrays(**{**right, **change})
    assert said in str(raised.value)


@KERAS_WITH_NUMPY
def test_a_keras_model_at_hand_has_the_hessian_of_its_own_loss(tmp_path: Path) -> None:
    """Against TensorFlow's nested tapes through the model itself, its Rescaling included."""
    tf = hesscli.Autodiff(make_problem((2, 2), "tanh")).tf
    keras = tf.keras
    model = keras.Sequential(
        [
            keras.Input((2, 2)),
            keras.layers.Flatten(),
            keras.layers.Rescaling(0.5, offset=-1.0),
            keras.layers.Dense(3, "tanh"),
            keras.layers.Dense(2),
        ],
        name="mine",
    )
    x = np.random.default_rng(0).integers(0, 4, (3, 2, 2))
    labels = np.array([0, 1, 1])
    W = model.layers[-2].kernel.value
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            f = model(tf.cast(x, "float32"))
            losses = keras.losses.sparse_categorical_crossentropy(labels, f, from_logits=True)
            loss = tf.reduce_mean(losses)
        g = inner.gradient(loss, W)
    expected = np.reshape(outer.jacobian(g, W), (12, 12))
    problem = hesscli.problem_from_keras(model, x, labels)
    name = f"{problem.layer_names[0]}/kernel"
    H = hesscli.ChainRule(problem).hessian(name).to_dense()
    assert np.allclose(H, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3
    assert problem.prepared == "float64 as they are, then its Rescaling (0.5·x − 1)"
    assert not [note for note in problem.notes if "/" in note.split(":")[0]]
    model.save(tmp_path / "mine.keras")
    stored = hesscli.problem_from_keras(tmp_path / "mine.keras", x, labels)
    assert np.array_equal(stored.inputs, problem.inputs)
    assert np.array_equal(stored.layers[0].kernel, problem.layers[0].kernel)
    with pytest.raises(hesscli.InputError, match=r"^model\.keras: mine\.keras: layer 'gru"):
        hesscli.problem_from_keras(
            keras.Sequential([keras.Input((4, 1)), keras.layers.GRU(2)], name="mine")
        )
    with pytest.raises(hesscli.InputError, match="model: int; it must be"):
        hesscli.problem_from_keras(3)  # type: ignore[arg-type]


def test_a_program_that_uses_tensorflow_already_keeps_it_as_it_is() -> None:
    """Its threads can no longer be set once it runs."""
    program = (
        "import tensorflow as tf\n"
        "tf.config.threading.set_intra_op_parallelism_threads(2)\n"
        "tf.constant(0)\n"
        "import hesscli\n"
        "problem = hesscli.problem_from_config(batch_size=2)\n"
        "assert hesscli.verify(problem, check='form', layers='dense3').passed\n"
        "assert tf.config.threading.get_intra_op_parallelism_threads() == 2\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-1000:]


def test_scipy_takes_a_block_as_it_is(tiny: Problem) -> None:
    H = hesscli.ChainRule(tiny).hessian("network")
    found = eigsh(H, k=3, which="LA", return_eigenvectors=False)
    assert np.allclose(found, np.linalg.eigvalsh(H.to_dense())[-3:])


def test_an_unknown_block_can_be_caught_either_way(tiny: Problem) -> None:
    for engine in (hesscli.ChainRule, hesscli.FiniteDifferences):
        for kind in (KeyError, hesscli.InputError):
            with pytest.raises(kind) as raised:
                engine(tiny).hessian("dense9")
            assert str(raised.value).startswith("'dense9' is not a block; use <layer>/kernel")


SAME: list[tuple[str, Callable[[Problem], object]]] = [
    ("verify -a relu -a tanh --check entries", lambda p: hesscli.verify(p, ["relu", "tanh"])),
    ("verify --check form", lambda p: hesscli.verify(p, check="form")),
    ("verify --of jacobian -b layer", lambda p: hesscli.verify_first(p, "jacobian", block="layer")),
    ("compare -l dense1", lambda p: hesscli.compare(p, layers=["dense1"])),
    ("sweep --block input", lambda p: hesscli.sweep(p, inputs=True)),
    ("entry dense1/kernel[0,1]", lambda p: hesscli.entry(p, "dense1/kernel[0,1]")),
    ("approximate -b layer", lambda p: hesscli.approximate(p, block="layer")),
    ("solve -m gauss-newton", lambda p: hesscli.solve(p, matrices="gauss-newton")),
    ("spectrum --top 2", lambda p: hesscli.spectrum(p, top=2)),
    ("init --stddev 0.1 --seeds 2", lambda p: hesscli.init(TINY, stddevs=[0.1], seeds=2)),
    ("init --tune --target 0.3", lambda p: hesscli.tune(TINY, target=0.3)),
    (
        "train --steps 3 --batch-size 2",
        lambda p: hesscli.train(TINY, steps=3, batch_size=2),
    ),
]


@pytest.fixture(autouse=True)
def one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command and the function draw the same seed."""
    for module in ("hesscli.cli.options", "hesscli.api.questions"):
        monkeypatch.setattr(f"{module}.fresh_seed", lambda: 7)


@pytest.mark.parametrize(("line", "ask"), SAME, ids=[line for line, _ in SAME])
def test_the_api_says_what_the_command_says(
    line: str,
    ask: Callable[[Problem], object],
    tiny: Problem,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "tiny.yaml"
    from hesscli.config.load import to_yaml

    path.write_text(to_yaml(hesscli.load_config(TINY)))
    for format_name in ("table", "json"):
        assert _run((*line.split(), "--config", str(path), "--format", format_name)) == 0
        out, err = capsys.readouterr()
        assert err == ""
        rendered = hesscli.render(ask(tiny), format_name)
        if format_name == "json":
            # How to run a command again is what the command adds.
            said = json.loads(out)
            del said["invocation"]
            assert json.loads(rendered) == said
        else:
            assert rendered == out


BEYOND_ITS_MEMORY = {
    "model": TINY["model"],
    "data": {
        "inputs": np.linspace(-1, 1, 40).reshape(20, 2).tolist(),
        "targets": [0, 1] * 10,
        "batch_size": "all",
        "memory": "20kB",
    },
}
CHUNKED: list[tuple[str, Callable[[Problem], object]]] = [
    ("verify --check form", lambda p: hesscli.verify(p, check="form")),
    ("verify --of gradient", lambda p: hesscli.verify_first(p)),
    ("compare --check form", lambda p: hesscli.compare(p, check="form")),
    ("sweep", lambda p: hesscli.sweep(p)),
    ("entry dense1/bias[1]", lambda p: hesscli.entry(p, "dense1/bias[1]")),
    ("spectrum", lambda p: hesscli.spectrum(p)),
]


@pytest.mark.parametrize(("line", "ask"), CHUNKED, ids=[line for line, _ in CHUNKED])
def test_the_api_takes_as_many_examples_at_a_time_as_the_command(
    line: str, ask: Callable[[Problem], object], capsys: pytest.CaptureFixture[str]
) -> None:
    problem = hesscli.problem_from_config(BEYOND_ITS_MEMORY)
    assert _run((*line.split(), *_as_options(BEYOND_ITS_MEMORY), "--format", "json")) == 0
    said = json.loads(capsys.readouterr().out)
    del said["invocation"]
    assert 1 <= said["problem"]["chunk"] < 20
    assert json.loads(hesscli.render(ask(problem), "json")) == said


def test_a_training_by_the_api_measures_no_more_than_it_may_hold() -> None:
    problem = hesscli.problem_from_config(BEYOND_ITS_MEMORY)
    options = {"batch_size": 4, "steps": 2}
    by_configuration = hesscli.train(BEYOND_ITS_MEMORY, measure_examples=1, **options)
    by_problem = hesscli.train(problem, measure_examples=1, **options)
    assert by_problem.problem.chunk == by_configuration.problem.chunk
    assert by_problem.problem.chunk is not None
    for source in (problem, BEYOND_ITS_MEMORY):
        with pytest.raises(hesscli.InputError, match=r"train\.measure_examples: all.*data\.memory"):
            hesscli.train(source, measure_examples="all", **options)


def _as_options(settings: Mapping[str, Any]) -> Iterator[str]:
    for key, value in settings.items():
        yield from ("--set", f"{key}={json.dumps(value)}")


def test_every_report_takes_the_result_that_it_is_registered_for() -> None:
    for result, builder in documents._BUILDERS.items():
        function = resolve_name(f"hesscli.report.{builder}")
        assert get_type_hints(function)["result"] is resolve_name(result)
    reports = (ROOT / "hesscli" / "report").glob("*.py")
    written = [
        name
        for path in reports
        for name in re.findall(r"^def (\w+_document)\(result", path.read_text(), re.MULTILINE)
    ]
    registered = [builder.partition(":")[2] for builder in documents._BUILDERS.values()]
    assert sorted(written) == sorted(registered)
    with pytest.raises(TypeError, match="int is not the result of a study"):
        hesscli.render(3)


def test_a_notebook_shows_tables_and_plots(tiny: Problem) -> None:
    result = hesscli.verify(tiny, ["relu", "tanh"])
    shown = result._repr_mimebundle_()  # type: ignore[attr-defined]
    assert shown["text/plain"] == hesscli.render(result)
    page = shown["text/html"]
    assert page.count("<table>") == 2
    assert re.findall(r"<td [^>]*color: #1a8a3c[^>]*>PASS</td>", page)
    ((kind, image),) = re.findall(r'src="data:image/([a-z+]+);base64,([^"]+)"', page)
    signature = {"svg+xml": b"<?xml", "png": b"\x89PNG"}[kind]
    assert base64.b64decode(image).startswith(signature)
    assert len(page) < 200_000
    assert "<style" not in page
    assert "<script" not in page


def test_text_is_text_in_a_notebook_as_well(
    tiny: Problem, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rich, where it finds itself in Jupyter, displays instead of writing."""
    result = hesscli.verify(tiny, check="form")
    texts = {name: hesscli.render(result, name) for name in ("table", "html")}
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert {name: hesscli.render(result, name) for name in texts} == texts
    assert "PASS" in texts["table"]
    assert capsys.readouterr().out == ""


def test_a_notebook_without_matplotlib_shows_the_tables(tiny: Problem, no_matplotlib: None) -> None:
    page = notebook_html(hesscli.document(hesscli.verify(tiny, check="form")))
    assert "<table>" in page
    assert "pip install" in page
    assert "<img" not in page


def test_what_a_result_says_is_escaped_for_a_page(tiny: Problem) -> None:
    noted = replace(tiny, notes=("<b>bold & bad</b>",))
    page = notebook_html(hesscli.document(hesscli.verify(noted, check="form")))
    assert "&lt;b&gt;bold &amp; bad&lt;/b&gt;" in page


def test_a_failed_check_is_red_and_false(tiny: Problem) -> None:
    result = hesscli.verify(tiny, "tanh", terms="gauss-newton")
    assert isinstance(result, Verification)
    assert not result.passed
    assert "color: #d63b3b" in notebook_html(hesscli.document(result))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda p: hesscli.verify(p, check="frm"), "check: 'frm' is unknown; did you mean 'form'?"),
        (lambda p: hesscli.verify(p, block="kernels"), "block: 'kernels' is unknown; did you"),
        (lambda p: hesscli.verify(p, layers="dense9"), "layers: 'dense9' is unknown"),
        (lambda p: hesscli.verify(p, terms="G"), "terms: 'G' is unknown"),
        (lambda p: hesscli.verify(p, witnesses=["autodiff"]), "witnesses: two or three of"),
        (lambda p: hesscli.verify(p, rtol=-1), "rtol: -1; it must be 0 or more"),
        (lambda p: hesscli.verify(p, probes=0), "probes: 0; it must be 1 to"),
        (lambda p: hesscli.verify("tanh"), "problem: str; make one with"),
        (lambda p: hesscli.verify_first(p, "hessian"), "of: 'hessian' is unknown"),
        (lambda p: hesscli.spectrum(p, block="input"), "block: 'input' is unknown"),
        (lambda p: hesscli.init(initializers=["he"]), "initializers: 'he' is unknown"),
        (lambda p: hesscli.init(seeds=0, stddevs=[1]), "seeds: 0; it must be 1 to"),
        (lambda p: hesscli.tune(target=-1), "target: -1; it must be above 0"),
        (lambda p: hesscli.tune(target=float("inf")), "target: inf; it must be above 0"),
        (lambda p: hesscli.init(stddevs=[-1]), "stddevs: -1; it must be above 0"),
        (lambda p: hesscli.init(stddevs=["x"]), "stddevs: 'x'; it must be a number"),
        (lambda p: hesscli.spectrum(p, top=-1), "top: -1; it must be 0 or more"),
        (lambda p: hesscli.spectrum(p, probes=1), "probes: 1; it must be 2 to"),
        (lambda p: hesscli.spectrum(p, steps=2.5), "steps: 2.5; it must be a whole number"),
        (lambda p: hesscli.train(p, step=3), "train.step: unknown key; did you mean 'steps'?"),
        (lambda p: hesscli.train(p, batch_size=3), "batch_size: 3; there are 2 examples"),
        (lambda p: hesscli.export(p, "dense1", "H.npy", term="G"), "term: 'G' is unknown"),
        (lambda p: hesscli.render(hesscli.sweep(p), "xml"), "format 'xml' is unknown"),
        (lambda p: hesscli.save(hesscli.sweep(p), "x.yaml"), "the suffix '.yaml' names no format"),
        (lambda p: hesscli.load_config(settings={"seed": -1}), "settings: seed: -1; it must be"),
        (lambda p: hesscli.load_config({"seeds": 1}), "seeds: unknown key; did you mean 'seed'?"),
        (
            lambda p: hesscli.problem_from_config({"model": {"keras": "no.keras"}}),
            "model.keras: no.keras: cannot be read",
        ),
    ],
)
def test_wrong_options_are_input_errors(
    call: Callable[[Any], object], said: str, tiny: Problem
) -> None:
    with pytest.raises(hesscli.InputError) as raised:
        call(tiny)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_activations_are_names_mappings_or_objects_each_once(tiny: Problem) -> None:
    elu = {"name": "elu", "alpha": 0.5}
    result = hesscli.verify(tiny, [elu, "swish", Activation("silu")], check="form")
    assert {row.activation for row in result.results} == {"elu(alpha=0.5)", "silu"}
    everything = hesscli.verify(tiny, "all", check="form", layers="dense1")
    assert len(everything.results) == len(ACTIVATIONS)
