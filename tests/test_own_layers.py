"""A plugin's layers: tried method by method, used in networks, and a user's mistake is one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_plugin import plugin, run

from hesscli.config.build import build_problem
from hesscli.config.load import load_config, to_yaml
from hesscli.nodes.plugins import forget, load_plugin
from hesscli.problem.layertypes import TYPES
from hesscli.problem.network import Problem
from hesscli.studies.layer_trial import problem_with
from hesscli.studies.trial import try_plugins
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.errors import InputError
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.referee.engine import Referee

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
GLU, RMS = EXAMPLES / "glu.py", EXAMPLES / "rms.py"
NETWORK = """
model:
  inputs: 5
  layers:
    - {name: below, units: 4}
    - {type: glu, units: 3, kernel_regularizer: {l2: 0.1}}
    - {type: rms, epsilon: 0.01, gamma_initializer: random_normal}
    - {name: above, units: 3}
data:
  inputs: [[0.3, -0.2, 0.5, 1.0, -1.5], [1.3, 0.2, -0.5, 0.4, 0.6]]
  targets: [0, 2]
"""


@pytest.fixture
def layers() -> Iterator[None]:
    names = [name for path in (GLU, RMS) for name in load_plugin(str(path))]
    yield
    forget(names)
    assert not {"glu", "rms"} & set(TYPES)


def problem_of(folder: Path, dtype: str = "float64") -> Problem:
    file = folder / "own.yaml"
    file.write_text(f"{NETWORK}dtype: {dtype}\n", encoding="utf-8")
    return build_problem(load_config(str(file)))


def test_the_examples_pass_method_by_method(layers: None) -> None:
    found = try_plugins(0).results
    assert {row.verdict for row in found} == {Verdict.PASS}
    methods = ["y", "Jᵀ g", "J (Rx, V)", "bend in x", "bend in θ"]
    assert [(row.name, row.method) for row in found] == [
        (name, method) for name in ("glu", "rms") for method in methods
    ]
    # All but nothing are compared: of differences no more than 1e-9 would be right.
    assert all(row.check and row.check.relative_residual < 1e-14 for row in found)


# A formula of an example with a mistake in it, and the row that fails.
WRONG = {
    "a cotangent": (GLU, "theta, s * g, a * slope * g)", "theta, s * g, s * slope * g)", "Jᵀ g"),
    "a move": (GLU, "s * Ra + a * slope * Rb", "s * Ra + a * s * Rb", "J (Rx, V)"),
    "how the gate bends": (GLU, "+ (g * a * curve)[:, None] * Rb", "", "bend in x"),
    "a direction in a kernel": (
        GLU,
        'at_x + np.einsum("nu,kiu->nki", g_b, V["gate_kernel"])',
        "at_x",
        "bend in x",
    ),
    "a direction in x": (
        GLU,
        'at_theta["gate_kernel"] += np.einsum("nki,nu->kiu", Rx, g_b)',
        "",
        "bend in θ",
    ),
    "how the mean bends": (RMS, " + normal * mean(moved * h)", "", "bend in x"),
    "a direction in gamma": (
        RMS,
        'at_x + projected(normal, i, V["gamma"] * g)',
        "at_x",
        "bend in x",
    ),
    "gamma": (RMS, '{"gamma": (moved * g).sum(axis=0)}', '{"gamma": 0 * V["gamma"]}', "bend in θ"),
    "the value": (RMS, "(i * x)[:, None], i[", "(1.1 * i * x)[:, None], i[", "y"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_fails_in_its_method(mistake: str, tmp_path: Path) -> None:
    """By finite differences; of a value that is not TensorFlow's, by TensorFlow."""
    path, right, wrong, method = WRONG[mistake]
    text = path.read_text(encoding="utf-8")
    assert text.count(right) == 1
    text = text.replace(right, wrong)
    if method != "y":
        text = text.replace('"tensorflow": in_tensorflow,', "")
    names = load_plugin(plugin(tmp_path, text))
    try:
        rows = try_plugins(0).results
    finally:
        forget(names)
    failed = [row.method for row in rows if row.verdict is Verdict.FAIL]
    # How the gate bends is wrong wherever b moves.
    assert failed == (["bend in x", "bend in θ"] if "gate bends" in mistake else [method])


def test_a_fail_names_layer_method_entry_and_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = RMS.read_text(encoding="utf-8").replace(" + normal * mean(moved * h)", "")
    path = plugin(tmp_path, text)
    code, out, _ = run(["verify", "--plugin", path, "--probe-seed", "0"], capsys)
    assert code == 1
    words = " ".join(out.split())
    assert (
        "layer rms: FAIL of bend (bend in x) in 3-4-4, 5 examples: ∂²L/∂dense-below/kern" in words
    )


def test_noise_in_a_method_is_no_pass(tmp_path: Path) -> None:
    """A difference with a step of 1e-11 that has the right limit, 0: its noise is 1e-5."""
    noise = "1e-3 * ((np.sqrt(x + 3 + 1e-11) - np.sqrt(x + 3)) / 1e-11 - 0.5 / np.sqrt(x + 3))"
    text = RMS.read_text(encoding="utf-8").replace(
        "    return at_x, ", f"    at_x = at_x + ({noise})[:, None]\n    return at_x, "
    )
    names = load_plugin(plugin(tmp_path, text))
    try:
        assert try_plugins(0).verdict is not Verdict.PASS
    finally:
        forget(names)


def test_in_a_network_the_floor_of_a_layer_on_trial_excuses_nothing(layers: None) -> None:
    problem = problem_with("rms", 0, 2, np.asarray)
    (row,) = verify([problem], CheckOptions(block="network", rtol=1e-17)).results
    assert row.check.verdict is Verdict.UNDECIDED
    assert row.check.open_by_rounding


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_layers_in_a_network_have_tensorflows_hessian(
    dtype: str, layers: None, tmp_path: Path
) -> None:
    problem = problem_of(tmp_path, dtype)
    assert verify([problem], CheckOptions(block="network")).passed


def test_the_referee_finds_an_entry_between_two_layers(layers: None, tmp_path: Path) -> None:
    problem = problem_of(tmp_path)
    # below/kernel[0,0] and the last number of above/bias
    H = ChainRule(problem).hessian("network").rows(0, 1)
    exact = Referee(problem).entry("network", 0, H.shape[1] - 1)
    assert exact is not None
    assert H[0, -1] == pytest.approx(exact.value, rel=1e-12)


def test_a_configuration_says_arguments_initializers_and_regularizers(
    layers: None, tmp_path: Path
) -> None:
    problem = problem_of(tmp_path)
    graph = problem.graph
    assert graph.by_name["glu_2"].attributes == {"layer": "glu", "units": 3}
    assert graph.by_name["rms_3"].attributes == {"layer": "rms", "epsilon": 0.01}
    assert not graph.tensors["glu_2/gate_bias"].any()
    assert graph.tensors["glu_2/kernel"].shape == (4, 3)
    assert np.unique(graph.tensors["rms_3/gamma"]).size == 3
    assert list(problem.penalties) == ["glu_2/kernel"]
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(load_config(str(tmp_path / "own.yaml"))), encoding="utf-8")
    assert build_problem(load_config(str(again))).graph.by_name["glu_2"].shape == (3,)


def test_a_wrong_argument_is_one_line(layers: None, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    for given, message in (
        ("units: much", "units: 'much'; it must be of the kind of its default, 3"),
        ("width: 3", "width: unknown key"),
        ("units: 0", "shapes: returns"),
    ):
        file.write_text(NETWORK.replace("units: 3, kernel_reg", f"{given}, kernel_reg"))
        with pytest.raises(InputError, match=re.escape(message)):
            build_problem(load_config(str(file)))


MISTAKES = {
    "no shapes": (
        '"shapes": shapes,',
        "",
        "shapes is not given, or is not a function",
    ),
    "other roles": ('"gate_bias": (units,)', '"gate": (units,)', "for each of kernel, bias, gate"),
    "no size": ('"bias": (units,)', '"bias": ("units",)', "must be a shape of whole numbers"),
    "no initializer": ('"glorot_uniform"', '"glorot"', "one of Keras's initializers: zeros, ones"),
    "no matrix": ('"zeros"', '"orthogonal"', "'orthogonal' needs a matrix; bias is none"),
    "one part": (
        "return at_x, at_theta\n",
        "return at_x\n",
        "returns a ndarray; it must return two",
    ),
    "no part": ('"bias": g_a.sum(axis=0),', "", "returns parts at kernel, gate_kernel, gate_bias"),
    "a shape": ("return a * s", "return (a * s).T", "forward: returns shape (3, 2) for x of shape"),
    "all examples": ("return a * s", "return a * s.mean(axis=0)", "depends on others"),
    "an argument": ('"units": 3}', '"units": [3]}', "arguments: 'units': [3]; it must be a name"),
    "an exception": ("return a * s", "return a * t", "glu', forward: NameError"),
    "a type": (
        "return s * Ra +",
        "return 1.0 * np.float64(1) * s.astype(float) * Ra +",
        "it must be float32",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_layer_that_is_wrong_is_refused_in_one_line(mistake: str, tmp_path: Path) -> None:
    right, wrong, message = MISTAKES[mistake]
    text = GLU.read_text(encoding="utf-8")
    assert right in text
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        load_plugin(plugin(tmp_path, text.replace(right, wrong)))
    assert "\n" not in str(raised.value)
    assert "glu" not in TYPES
