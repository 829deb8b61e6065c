"""Plugins: a user's activation is verified as ours are, and a user's mistake is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import run

from hesscli.nodes.plugins import forget, load_plugin
from hesscli.problem import names, registry
from hesscli.problem.graph import Activation, Layer, chain
from hesscli.problem.network import Loss, Problem
from hesscli.problem.problemfile import save_problem
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.finite.engine import FiniteDifferences

ROOT = Path(__file__).parent.parent
CUBE = ROOT / "docs" / "examples" / "cube.py"
WITH_TENSORFLOW = ", 'tensorflow': lambda z: z**3"
SMALL = "model: {layers: [{units: 5}, {units: 4}, {units: 10}]}\ndata: {batch_size: 3}\n"


@pytest.fixture
def cube() -> Iterator[None]:
    names = load_plugin(str(CUBE))
    yield
    forget(names)


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return str(path)


def plugin(folder: Path, text: str) -> str:
    path = folder / "plugin.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def cube_plugin(folder: Path, second: str = "6 * z", more: str = WITH_TENSORFLOW) -> str:
    return plugin(
        folder,
        "import numpy as np\nACTIVATIONS = {'cube': {'value': lambda z: z**3,\n"
        f" 'first': lambda z: 3 * z**2,\n 'second': lambda z: {second}{more}}}}}\n",
    )


def scalar_problem() -> Problem:
    """L = (w x)³ at w = 1 and x = 2: ∂²L/∂x² = 6 w³ x = 12 and ∂²L/∂w² = 6 w x³ = 48."""
    return Problem(
        graph=chain((Layer("dense1", np.array([[1.0]]), None, Activation("cube")),)),
        inputs=np.array([[2.0]]),
        targets=np.array([0]),
        loss=Loss("sum"),
    )


def test_finite_differences_find_12_within_their_error_bar(cube: None) -> None:
    values, errors = FiniteDifferences(scalar_problem()).hessian("input[0]").rows_with_error(0, 1)
    assert abs(values.item() - 12) <= errors.item() < 1e-6


@pytest.mark.parametrize("engine", [ChainRule, Autodiff])
def test_the_second_derivative_of_the_cube_at_2_is_12(
    engine: type[ChainRule] | type[Autodiff], cube: None
) -> None:
    witness = engine(scalar_problem())
    assert witness.hessian("input[0]").to_dense() == [[12.0]]
    assert witness.hessian("dense1/kernel").to_dense() == [[48.0]]
    assert witness.gauss_newton("input[0]").to_dense() == [[0.0]]


def test_the_command_finds_12_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "scalar.npz")
    save_problem(scalar_problem(), file)
    configuration = tmp_path / "scalar.yaml"
    configuration.write_text(
        f"model: {{inputs: 1, bias: false, weights: {file},\n"
        "  layers: [{units: 1, activation: cube}]}\n"
        f"loss: {{name: sum}}\ndata: {{source: {file}}}\n",
        encoding="utf-8",
    )
    arguments = ["verify", "--plugin", str(CUBE), "-c", str(configuration), "--block", "input"]
    code, out, _ = run([*arguments, "--format", "json"], capsys)
    (row,) = json.loads(out)["results"]
    assert (code, row["check"]["max_abs_entry"], row["activation"]) == (0, 12.0, "cube")
    # vᵀHv at v = x = 2
    assert row["quadratic_form"]["autodiff"] == row["quadratic_form"]["chain_rule"] == 48.0


def test_a_right_plugin_passes_in_every_entry(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Whichever of the two options comes first.
    arguments = ["verify", "-a", "cube", "--plugin", str(CUBE), "-c", small, "--format", "json"]
    code, out, err = run(arguments, capsys)
    assert (code, err) == (0, "")
    results = json.loads(out)["results"]
    assert {row["layer"]: row["status"] for row in results} == dict.fromkeys(
        ("dense1", "dense2", "dense3"), "pass"
    )
    # x³ bends: what is verified is more than the Gauss–Newton term.
    assert abs(results[0]["quadratic_form"]["curvature"]) > 0.1


def test_a_wrong_second_derivative_fails_with_layers_entry_and_size(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cube_plugin(tmp_path, second="6.0001 * z")
    code, out, _ = run(["verify", "--plugin", path, "-a", "cube", "-c", small], capsys)
    text = " ".join(out.split())
    assert code == 1
    assert "cube: FAIL on dense1 and dense2, PASS on dense3" in text
    # 6.0001 is 1.7e-5 too much.
    assert "Worst is ∂²L/∂dense" in text
    assert "1.7e-05 of the largest entry; allowed is 1e-10." in text


def test_a_plugin_lasts_as_long_as_its_command(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["config", "-c", small, "--plugin", str(CUBE)]
    for extra in ([], ["--batch-size"]):
        run([*arguments, *extra], capsys)
        assert registry.plugin_names() == ()
        assert registry.activation_names() == names.ACTIVATIONS
    code, out, _ = run([*arguments, "--set", "model.layers.0.activation=cube"], capsys)
    assert code == 0
    assert "- {name: dense1, units: 5, activation: cube}" in out
    code, _, err = run(["verify", "-c", small, "-a", "cube"], capsys)
    assert (code, "'cube' is unknown" in err) == (2, True)


def test_all_includes_the_plugins(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(["config", "-c", small, "-a", "all", "--plugin", str(CUBE)], capsys)
    assert (code, ", cube;" in err) == (2, True)


def test_a_configuration_runs_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in (f"plugin: {CUBE}\n", f"model: {{plugin: {CUBE}}}\n"):
        file = tmp_path / "c.yaml"
        file.write_text(text, encoding="utf-8")
        code, _, err = run(["verify", "-c", str(file)], capsys)
        assert code == 2
        assert "plugin: unknown key" in err


def test_without_a_tensorflow_function_finite_differences_take_autodiff_s_place(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cube_plugin(tmp_path, more="")
    arguments = ["verify", "--plugin", path, "-a", "cube", "-c", small, "--format", "json"]
    code, out, _ = run(arguments, capsys)
    report = json.loads(out)
    assert (code, report["witnesses"]) == (0, ["chain_rule", "finite"])
    assert "finite differences for autodiff" in report["problem"]["notes"][-1]
    wrong = cube_plugin(tmp_path, second="5 * z", more="")
    assert run([*arguments[:2], wrong, *arguments[3:]], capsys)[0] == 1


@pytest.mark.parametrize("check", ["form", "entries"])
def test_doubled_derivatives_fail_without_a_tensorflow_function(
    check: str, small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """σ′ and σ″ of 2 z³ with the value z³: the chain rule is consistent, and of another loss."""
    doubled = plugin(
        tmp_path,
        "ACTIVATIONS = {'cube': {'value': lambda z: z**3,\n"
        " 'first': lambda z: 6 * z**2, 'second': lambda z: 12 * z}}\n",
    )
    arguments = ["verify", "-a", "cube", "-c", small, "--set", "loss.name=sum", "--check", check]
    (tmp_path / "right").mkdir()
    right = cube_plugin(tmp_path / "right", more="")
    code, out, _ = run([*arguments, "--plugin", right, "--format", "json"], capsys)
    assert (code, json.loads(out)["status"]) == (0, "pass")
    code, out, _ = run([*arguments, "--plugin", doubled, "--format", "json"], capsys)
    verdicts = {row["layer"]: row["status"] for row in json.loads(out)["results"]}
    assert (code, verdicts) == (1, {"dense1": "fail", "dense2": "fail", "dense3": "pass"})
    code, out, _ = run([*arguments, "--plugin", doubled], capsys)
    assert code == 1
    text = " ".join(out.split())
    assert "FAIL on dense1 and dense2" in text
    assert "not the slope of the loss" in text


def test_where_only_autodiff_can_answer_a_missing_tensorflow_function_is_one_line(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cube_plugin(tmp_path, more="")
    code, _, err = run(["compare", "--plugin", path, "-a", "cube", "-c", small], capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "activation 'cube' has no TensorFlow function" in err


MISTAKES = {
    "syntax": ("x = (\n", "plugin.py:1: SyntaxError: "),
    "exception": ("x = 1\ny = x / 0\n", "plugin.py:2: ZeroDivisionError: division by zero"),
    "exit": ("import sys\nsys.exit('enough')\n", "plugin.py:2: SystemExit: enough"),
    "nothing": ("x = 1\n", "plugin.py: ACTIVATIONS, LOSSES and LAYERS are all missing"),
    "empty": (
        "ACTIVATIONS = {}\n",
        "plugin.py: ACTIVATIONS, LOSSES and LAYERS are all missing",
    ),
    "null byte": ("x = '\0'\n", "null bytes"),
    "not a mapping": ("ACTIVATIONS = {'a': abs}\n", "plugin.py: activation 'a' is not a mapping"),
    "taken": ("ACTIVATIONS = {'tanh': {}}\n", "plugin.py: 'tanh' exists already"),
    "alias": ("ACTIVATIONS = {'swish': {}}\n", "plugin.py: 'swish' exists already"),
    "all": ("ACTIVATIONS = {'all': {}}\n", "plugin.py: 'all' exists already"),
    "name": ("ACTIVATIONS = {'a b': {}}\n", "plugin.py: 'a b' names an activation; it must be"),
    "key": ("ACTIVATIONS = {'a': {'third': abs}}\n", "activation 'a': 'third' is unknown; choose"),
    "missing": ("ACTIVATIONS = {'a': {'value': abs}}\n", "activation 'a': first is not given"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_file_that_is_wrong_is_refused_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = MISTAKES[case]
    code, out, err = run(["config", "--plugin", plugin(tmp_path, text)], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"hesscli: --plugin: {tmp_path}/plugin.py")
    assert message in err


WRONG_SECOND = {
    "a number": ("6.0", "plugin.py: activation 'cube', second: returns a float; it must return"),
    "another shape": ("z[0]", "second: returns float32 of shape (3,) for z of float32 and shape"),
    "another type": ("np.float64(6) * z", "second: returns float64 of shape (2, 3) for z of float"),
    "not finite": ("z / (z - 0.5)", "second: not finite at z = 0.5 in "),
    "not elementwise": ("z - z.mean()", "second: its value at one z depends on other elements"),
    "in place": ("np.multiply(z, 6, out=z)", "plugin.py:4: activation 'cube', second: ValueError"),
    "an exception": ("z + missing", "plugin.py:4: activation 'cube', second: NameError: name "),
}


@pytest.mark.parametrize("case", WRONG_SECOND)
def test_a_function_that_is_wrong_is_refused_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second, message = WRONG_SECOND[case]
    code, out, err = run(["config", "--plugin", cube_plugin(tmp_path, second)], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


WRONG_TENSORFLOW = {
    "an exception": ("z + missing", "plugin.py:4: activation 'cube', tensorflow: NameError: name"),
    "NumPy": ("np.ones((3, 5))", "activation 'cube', tensorflow: returns a ndarray; it must"),
    "another shape": ("z[0]", "activation 'cube', tensorflow: returns float64 of shape "),
}


@pytest.mark.parametrize("case", WRONG_TENSORFLOW)
def test_a_tensorflow_function_that_is_wrong_is_refused_in_one_line(
    case: str, small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    function, message = WRONG_TENSORFLOW[case]
    path = cube_plugin(tmp_path, more=f", 'tensorflow': lambda z: {function}")
    code, out, err = run(["verify", "--plugin", path, "-a", "cube", "-c", small], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_function_that_fails_only_in_the_network_is_refused_in_one_line(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cube_plugin(tmp_path, second="6 * z if z.shape[1] == 3 else [][1]")
    code, _, err = run(["verify", "--plugin", path, "-a", "cube", "-c", small], capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{path}:4: activation 'cube', second: IndexError: list index out of range" in err


def test_missing_files_folders_and_double_names_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        ([str(tmp_path / "none.py")], "none.py: cannot be read (No such file or directory)"),
        ([str(tmp_path)], "not a regular file; a Python file is needed"),
        ([str(CUBE), str(CUBE)], "'cube' exists already; choose another name"),
    ):
        options = [part for path in arguments for part in ("--plugin", path)]
        code, _, err = run(["config", *options], capsys)
        assert (code, err.count("\n"), message in err) == (2, 1, True)
        assert registry.plugin_names() == ()


def test_what_a_file_prints_and_tensorflow_says_stays_out_of_the_result(
    small: str, tmp_path: Path
) -> None:
    text = CUBE.read_text(encoding="utf-8")
    path = plugin(tmp_path, f"import tensorflow as tf\nprint('hello')\n{text}")
    arguments = ["verify", "--plugin", path, "-a", "cube", "-c", small, "--check", "form"]
    done = subprocess.run(
        [sys.executable, "-m", "hesscli", *arguments, "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["status"] == "pass"


def test_the_readme_shows_the_example() -> None:
    example = CUBE.read_text(encoding="utf-8").partition('"""\n\n')[2]
    assert example in (ROOT / "README.md").read_text(encoding="utf-8")
