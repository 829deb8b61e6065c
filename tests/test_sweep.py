"""The sweep: right at every node, and wrong exactly from the node on whose formula is wrong."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from commands import run as run_command
from drawn import drawn
from hypothesis import assume, given
from networks import make_problem, problems

from hesscli.config.build import build_problem
from hesscli.config.load import load_config
from hesscli.nodes import calculus
from hesscli.nodes.activations import Derivatives, derivatives
from hesscli.problem.graph import Activation, chain
from hesscli.problem.names import ACTIVATIONS, LOSSES
from hesscli.problem.network import Loss, Problem
from hesscli.problem.targets import fit_targets
from hesscli.studies import sweep as study
from hesscli.studies.sweep import Sweep, sweep
from hesscli.studies.verdict import Verdict
from hesscli.system.errors import InputError, NumericalError
from hesscli.witnesses.autodiff import engine as autodiff
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.quantities import quantities

ROOT = Path(__file__).parent.parent
SQUARE_NET = str(ROOT / "configs" / "square_net.yaml")
NOTEBOOK = json.loads(
    (Path(__file__).parent / "reference" / "square_net.json").read_text(encoding="utf-8")
)
PRINTED = NOTEBOOK["printed_by_the_notebook"]
PIECEWISE_LINEAR = ("linear", "relu", "leaky_relu", "relu6", "hard_sigmoid")


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    return run_command(["sweep", *arguments], capsys)


def to_printed_digits(value: float) -> str:
    """Eight decimals without the zeros at their end, as NumPy printed them."""
    return f"{value:.8f}".rstrip("0")


def with_loss(problem: Problem, name: str) -> Problem:
    units = problem.widths[-1]
    targets = fit_targets(problem.targets, name, units, problem.dtype, "targets")
    return replace(problem, loss=Loss(name, "sum"), targets=targets)


@pytest.mark.parametrize("witness", ["chain_rule", "autodiff"])
def test_the_notebook_s_network_ends_in_its_gradient_and_hessian_to_all_printed_digits(
    witness: str,
) -> None:
    result = sweep([build_problem(load_config(SQUARE_NET))], with_inputs=True)
    assert result.passed
    assert result.inputs is not None
    (found,) = (getattr(row, witness) for row in result.inputs)
    assert [to_printed_digits(value) for value in found.gradient] == [
        repr(value) for value in PRINTED["gradient"]
    ]
    assert [[to_printed_digits(value) for value in row] for row in found.hessian] == [
        [repr(value) for value in row] for row in PRINTED["hessian"]
    ]


def test_the_notebook_s_digits_are_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(["--config", SQUARE_NET, "--block", "input"], capsys)
    assert code == 0
    last_lines = [line.split() for line in out.splitlines() if line.startswith((" g ", " S x["))]
    expected = [PRINTED["gradient"], *PRINTED["hessian"]]
    assert [line[-3:] for line in last_lines] == [
        [f"{value:.8f}" for value in row] for row in expected
    ]


def test_the_notebook_s_network_stands_in_the_configuration_digit_by_digit() -> None:
    first, second = (problem := build_problem(load_config(SQUARE_NET))).layers
    assert np.array_equal(first.kernel, np.array(NOTEBOOK["W1"]).T)
    assert np.array_equal(second.kernel, np.array(NOTEBOOK["W2"]).T)
    assert np.array_equal(first.bias, NOTEBOOK["b1"])  # type: ignore[arg-type]
    assert np.array_equal(second.bias, NOTEBOOK["b2"])  # type: ignore[arg-type]
    assert np.array_equal(problem.inputs, [NOTEBOOK["x"]])
    generator = np.random.RandomState(0)
    drawn = [generator.rand(*shape) for shape in ((4, 3), (4,), (1, 4), (1,), (3,))]
    given_ = [NOTEBOOK[key] for key in ("W1", "b1", "W2", "b2", "x")]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, given_, strict=True))


@pytest.mark.parametrize("activation", PIECEWISE_LINEAR)
def test_every_curvature_part_of_a_piecewise_linear_network_is_exactly_zero(
    activation: str,
) -> None:
    result = sweep([make_problem((4, 5, 5, 3), activation)])
    assert [row.O_norm for row in result.results] == [0] * 7
    assert all(row.S_norm == row.I_norm for row in result.results if row.kind != "activation")


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - set(PIECEWISE_LINEAR)))
def test_curvature_enters_at_the_hidden_activations_and_nowhere_else(activation: str) -> None:
    result = sweep([make_problem((4, 5, 5, 3), activation)])
    curved = [row.label for row in result.results if row.O_norm != 0]
    assert curved == [f"dense2 {activation}", f"dense1 {activation}"]


def test_nodes_stand_in_the_order_of_the_sweep_with_their_shapes() -> None:
    rows = sweep([make_problem((4, 5, 2), "tanh", examples=3)]).results
    assert [(row.label, row.quantity, row.shape) for row in rows] == [
        ("loss", "f", (3, 2)),
        ("dense2 linear", "z2", (3, 2)),
        ("dense2 dense", "a1", (3, 5)),
        ("dense1 tanh", "z1", (3, 5)),
        ("dense1 dense", "x", (3, 4)),
    ]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_hessian_is_the_sum_of_its_parts_at_every_node(activation: str) -> None:
    problem = make_problem((4, 5, 5, 3), activation)
    engine = ChainRule(problem)
    above: Any = None
    for quantity in quantities(problem):
        terms = engine.node_terms(quantity.value, 0, problem.examples)
        scale = np.abs(terms.S).max()
        assert np.allclose(terms.S, terms.I + terms.O, rtol=0, atol=1e-13 * scale)
        off_diagonal = terms.O * (1 - np.eye(quantity.width))
        assert not off_diagonal.any()
        if quantity.kind == "dense":
            # I = Jᵀ S J of the whole S above, not of its Gauss–Newton part.
            (node,) = problem.graph.readers[quantity.value]
            W = problem.graph.tensors[node.tensors["kernel"]]
            linear = np.einsum("ih,nhl,jl->nij", W, above.S, W)
            assert np.allclose(terms.I, linear, rtol=0, atol=1e-13 * scale)
            assert np.allclose(terms.g, above.g @ W.T, rtol=0, atol=1e-13 * np.abs(terms.g).max())
        above = terms


def test_norms_are_frobenius_norms_over_the_batch_whatever_the_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = make_problem((4, 5, 5, 3), "gelu", examples=6)
    engine = ChainRule(problem)
    whole = sweep([problem])
    for row, quantity in zip(whole.results, quantities(problem), strict=True):
        terms = engine.node_terms(quantity.value, 0, 6)
        for found, array in (
            (row.g_norm, terms.g),
            (row.I_norm, terms.I),
            (row.O_norm, terms.O),
            (row.S_norm, terms.S),
        ):
            assert math.isclose(found, np.sqrt(np.square(array).sum()), rel_tol=1e-13)

    def one_by_one(start: int, stop: int, *_: int) -> Iterator[tuple[int, int]]:
        return ((low, low + 1) for low in range(start, stop))

    monkeypatch.setattr(study, "pieces", one_by_one)
    monkeypatch.setattr(autodiff, "pieces", one_by_one)
    for row, other in zip(whole.results, sweep([problem]).results, strict=True):
        assert math.isclose(row.S_norm, other.S_norm, rel_tol=1e-13)
        assert math.isclose(row.g_norm, other.g_norm, rel_tol=1e-13)
        assert row.S_check.compared == other.S_check.compared
        assert row.S_check.max_abs_entry == pytest.approx(other.S_check.max_abs_entry, rel=1e-13)
        assert other.passed


@pytest.mark.parametrize(("dtype", "size"), [("float64", 1e-200), ("float32", 1e25)])
def test_norms_of_numbers_whose_squares_leave_the_range(dtype: str, size: float) -> None:
    problem = with_loss(make_problem((3, 3), "linear", examples=1, dtype=dtype), "sum")
    layer = replace(problem.layers[0], kernel=(size * np.eye(3)).astype(dtype), bias=None)
    rows = sweep([replace(problem, graph=chain((layer,)))]).results
    # L = Σ f, so that g = size · (1, 1, 1) and S = 0 at the input
    assert rows[-1].g_norm == pytest.approx(math.sqrt(3) * size, rel=1e-7)
    assert rows[-1].S_norm == 0


def test_autodiff_s_side_at_the_output_and_at_the_input_is_known() -> None:
    problem = with_loss(make_problem((3, 4, 2), "tanh", examples=3), "sum_of_squares")
    engine = Autodiff(problem)
    f, *_, x = quantities(problem)
    # L = Σ f²
    g, S = engine.gradient_and_hessian(f, 0, 3)
    a = problem.inputs
    for layer in problem.layers:
        assert layer.bias is not None
        z = a @ layer.kernel + layer.bias
        a = np.tanh(z) if layer.activation.name == "tanh" else z
    assert np.allclose(g, 2 * a, rtol=1e-14, atol=0)
    assert np.array_equal(S, np.tile(2 * np.eye(2), (3, 1, 1)))
    _, S = engine.gradient_and_hessian(x, 1, 3)
    for example in (1, 2):
        block = engine.hessian(f"input[{example}]").to_dense()
        assert np.allclose(S[example - 1], block, rtol=0, atol=1e-13 * np.abs(block).max())


def assert_no_node_fails(problem: Problem) -> None:
    try:
        result = sweep([problem])
    except NumericalError:
        assume(False)
    failed = [row for row in result.results if row.verdict is Verdict.FAIL]
    assert not failed, failed[0]


@drawn(100)
@given(problems("float64"))
def test_no_node_of_random_networks_fails_in_float64(problem: Problem) -> None:
    assert_no_node_fails(problem)


@drawn(30)
@given(problems("float32"))
def test_no_node_of_random_networks_fails_in_float32(problem: Problem) -> None:
    assert_no_node_fails(problem)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu", "mish"])
def test_no_node_of_a_saturated_network_fails(activation: str, loss: str) -> None:
    problem = with_loss(make_problem((4, 5, 5, 3), activation, scale=60.0), loss)
    if loss == "poisson":
        # It takes no negative outputs.
        last = replace(problem.layers[-1], activation=Activation("softplus"))
        problem = replace(problem, graph=chain((*problem.layers[:-1], last)))
    assert sweep([problem]).verdict is not Verdict.FAIL


MUTANTS: dict[str, Callable[[Derivatives], Derivatives]] = {
    "σ″ with the wrong sign": lambda sigma: replace(sigma, second=lambda z: -sigma.second(z)),
    "σ″ dropped": lambda sigma: replace(sigma, second=np.zeros_like),
    "σ″ off by one part in a million": lambda sigma: replace(
        sigma, second=lambda z: (1 + 1e-6) * sigma.second(z)
    ),
    "σ′ off by one part in a million": lambda sigma: replace(
        sigma, first=lambda z: (1 + 1e-6) * sigma.first(z)
    ),
}


@pytest.mark.parametrize("wrong_layer", [0, 1, 2])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_derivative_fails_exactly_from_its_activation_on(
    mutant: str, wrong_layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One hidden layer has sin, whose derivatives the chain rule has wrong; the others have tanh.
    problem = make_problem((3, 4, 4, 4, 2), "tanh")
    layers = list(problem.layers)
    layers[wrong_layer] = replace(layers[wrong_layer], activation=Activation("sin"))
    problem = replace(problem, graph=chain(tuple(layers)))
    assert sweep([problem]).passed

    def mutated(activation: Activation) -> Derivatives:
        sigma = derivatives(activation)
        return MUTANTS[mutant](sigma) if activation.name == "sin" else sigma

    monkeypatch.setattr(calculus, "derivatives", mutated)
    rows = sweep([problem]).results
    failed = [row.label for row in rows if not row.passed]
    labels = [row.label for row in rows]
    assert failed == labels[labels.index(f"dense{wrong_layer + 1} sin") :]


def test_numbers_beyond_the_dtype_are_said_not_passed() -> None:
    with pytest.raises(NumericalError):
        sweep([make_problem((3, 3, 3), "square", scale=1e160)])


def test_a_hessian_that_does_not_fit_the_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hesscli.system.memory.available_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"sweep: .* 5 values needs 4\.0 kB .* 1\.0 kB are free"):
        sweep([make_problem((4, 5, 3), "tanh")])


def test_json_has_the_keys_of_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["-c", SQUARE_NET, "-b", "input", "-f", "json"], capsys)
    report = json.loads(out)
    assert (code, report["schema"], report["status"]) == (0, "hesscli/sweep/1", "pass")
    assert list(report) == [
        "schema",
        "status",
        "environment",
        "problem",
        "invocation",
        "results",
        "inputs",
    ]
    for row in report["results"]:
        assert list(row) == [
            "activation",
            "node",
            "kind",
            "quantity",
            "shape",
            "norms",
            "gradient_check",
            "hessian_check",
            "status",
        ]
        assert list(row["norms"]) == ["gradient", "linear_part", "curvature_part", "hessian"]
    assert [row["kind"] for row in report["results"]] == [
        "loss",
        "activation",
        "dense",
        "activation",
        "dense",
    ]
    (found,) = report["inputs"]
    assert (found["activation"], found["example"]) == ("square", 0)
    assert np.shape(found["autodiff"]["gradient"]) == (3,)
    assert np.shape(found["chain_rule"]["hessian"]) == (3, 3)
    assert json.loads(run(["-c", SQUARE_NET, "-f", "json"], capsys)[1])["inputs"] is None


def test_csv_markdown_and_junit_hold_every_node(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-c", SQUARE_NET, "-a", "relu", "-a", "tanh", "--format"]
    rows = list(csv.DictReader(io.StringIO(run([*arguments, "csv"], capsys)[1])))
    assert [row["activation"] for row in rows] == ["relu"] * 5 + ["tanh"] * 5
    assert float(rows[3]["norms.curvature_part"]) == 0
    assert float(rows[8]["norms.curvature_part"]) > 0
    assert run([*arguments, "markdown"], capsys)[1].count("| PASS |") == 10
    suites = ET.fromstring(run([*arguments, "junit"], capsys)[1])
    assert [suite.get("name") for suite in suites] == ["relu", "tanh"]
    assert [case.get("name") for case in suites[1]][3] == "dense1 tanh"


def test_a_wrong_formula_exits_with_1_and_names_the_first_node(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = MUTANTS["σ″ with the wrong sign"]
    monkeypatch.setattr(calculus, "derivatives", lambda of: wrong(derivatives(of)))
    arguments = ["-c", SQUARE_NET, "-a", "tanh", "--set", "model.layers.1.activation=linear"]
    code, out, err = run(arguments, capsys)
    assert (code, err) == (1, "")
    assert out.count("FAIL") == 3
    text = " ".join(out.split())
    assert "FAIL at dense1 tanh and dense1 dense. The first one, going backwards, is dense1" in text
    assert "∂²L/∂z1[0," in text
    suites = ET.fromstring(run([*arguments, "-f", "junit"], capsys)[1])
    assert suites.get("failures") == "2"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_table_fits_80_columns(activation: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-a", activation, "-n", "3", "-b", "input"]
    arguments += ["--set", "model.layers.0.units=3", "--set", "model.layers.1.units=3"]
    # Small images keep it quick; all but the width of the shape is the same.
    arguments += ["--set", "model.inputs=8", "--set", f"data.inputs={EIGHT}"]
    arguments += ["--set", "data.targets=[0, 3, 9]"]
    code, out, _ = run(arguments, capsys)
    assert code == 0
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "columns 0 to 3" in out and "columns 4 to 7" in out and "input[2]" in out
    lines = [line for line in out.splitlines() if line.startswith(" S x[")]
    # Three examples, eight rows in two halves of four numbers.
    assert len(lines) == 3 * 8 * 2
    assert {len(line.split()) for line in lines} == {6}


EIGHT = str(np.random.default_rng(0).standard_normal((3, 8)).round(3).tolist())


def test_what_is_not_printed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    rows = str([[0.1 * n, 1.0, 2.0] for n in range(6)])
    arguments = ["-c", SQUARE_NET, "--set", f"data.inputs={rows}", "-b", "input"]
    _, out, _ = run(arguments, capsys)
    assert "Of 6 examples the first 4 are printed" in " ".join(out.split())
    assert "input[3]" in out and "input[4]" not in out
    wide = ["--set", "model.inputs=9", "--set", "model.layers.0.kernel=null"]
    wide += ["--set", f"data.inputs={[[0.5] * 9]}"]
    code, out, _ = run([*arguments, *wide], capsys)
    text = " ".join(out.split())
    assert code == 0
    assert "The input has 9 values" in text and "to_dense()" in text
    assert "S x[" not in out


def test_a_block_other_than_input_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["--block", "kernel"], capsys)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and "--block" in err


def test_several_activations_are_one_result() -> None:
    problem = make_problem((3, 4, 2), "tanh")
    result: Sweep = sweep([problem, problem.with_activation(Activation("relu"))], with_inputs=True)
    assert [row.activation for row in result.results] == ["tanh"] * 5 + ["relu"] * 5
    assert result.inputs is not None
    assert [(row.activation, row.example) for row in result.inputs] == [
        (name, example) for name in ("tanh", "relu") for example in range(4)
    ]
