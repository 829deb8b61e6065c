"""One entry of the Hessian: it is the entry of the dense block, and the name is its own."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import run
from drawn import drawn
from hypothesis import assume, given
from hypothesis import strategies as st
from networks import make_problem, problems

from hesscli.nodes import calculus
from hesscli.nodes.activations import Derivatives, derivatives
from hesscli.problem.graph import Activation, Layer, chain
from hesscli.problem.network import Loss, Problem
from hesscli.studies.entry import entry
from hesscli.studies.verdict import Verdict
from hesscli.system.errors import InputError, NumericalError
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import layout_of, tensor_of

TERMS = ("hessian", "gauss_newton", "curvature")


def values(problem: Problem, first: str, second: str) -> dict[str, tuple[float, float]]:
    (row,) = entry([problem], first, second).results
    assert row.passed
    return {term.term: (term.autodiff, term.chain_rule) for term in row.terms}


def test_two_weights_in_a_row_have_their_closed_form() -> None:
    # L = Σ (tanh(x w) v)²: with t = tanh(z), L_w = 2 v² t t′ x, L_v = 2 t² v, so
    # L_wv = 4 v t t′ x,   L_vv = 2 t²,   L_ww = 2 v² x² (t′² + t t″).
    x, w, v = 1.5, 0.4, -0.7
    problem = Problem(
        chain(
            (
                Layer("one", np.array([[w]]), None, Activation("tanh")),
                Layer("two", np.array([[v]]), None, Activation("linear")),
            )
        ),
        np.array([[x]]),
        np.zeros(1, int),
        Loss("sum_of_squares", "sum"),
    )
    t = np.tanh(x * w)
    slope, bend = 1 - t * t, -2 * t * (1 - t * t)
    w_name, v_name = "one/kernel[0,0]", "two/kernel[0,0]"
    mixed, pure, upper = (
        values(problem, w_name, v_name),
        values(problem, w_name, w_name),
        values(problem, v_name, v_name),
    )
    assert mixed["hessian"] == pytest.approx((4 * v * t * slope * x,) * 2, rel=1e-14)
    assert mixed["gauss_newton"] == pytest.approx((2 * v * t * slope * x,) * 2, rel=1e-14)
    gauss_newton = 2 * v * v * x * x * slope * slope
    curvature = 2 * v * v * x * x * t * bend
    assert pure["gauss_newton"] == pytest.approx((gauss_newton,) * 2, rel=1e-14)
    assert pure["curvature"] == pytest.approx((curvature,) * 2, rel=1e-13)
    assert pure["hessian"] == pytest.approx((gauss_newton + curvature,) * 2, rel=1e-13)
    assert upper["hessian"] == pytest.approx((2 * t * t,) * 2, rel=1e-14)
    assert upper["curvature"] == (0, 0)


def test_entries_are_those_of_the_dense_network_block() -> None:
    problem = make_problem((3, 4, 2), "tanh")
    layout = layout_of(problem, "network")
    generator = np.random.default_rng(0)
    for term in TERMS:
        dense = getattr(ChainRule(problem), term)("network").to_dense()
        for row, column in generator.integers(0, layout.size, (12, 2)):
            found = values(problem, layout.name_of(row), layout.name_of(column))[term]
            assert found == pytest.approx((dense[row, column],) * 2, rel=1e-10, abs=1e-15)


@drawn(60)
@given(problems(), st.data())
def test_any_entry_of_a_random_network_is_right(problem: Problem, data: st.DataObject) -> None:
    """PASS, or UNDECIDED after the referee about terms of 1e-119, which autodiff rounds to 0."""
    layout = layout_of(problem, "network")
    first, second = (layout.name_of(data.draw(st.integers(0, layout.size - 1))) for _ in range(2))
    try:
        (found,) = entry([problem], first, second).results
        for term in found.terms:
            is_lost = found.ruling is not None and term.check.max_abs_entry < 1e-100
            assert term.check.verdict in (Verdict.PASS, *([Verdict.UNDECIDED] if is_lost else []))
    except NumericalError:
        assume(False)


def test_the_block_is_the_smallest_that_holds_both_names() -> None:
    problem = make_problem((3, 4, 2), "tanh")
    for first, second, block in (
        ("dense1/kernel[0,0]", "dense1/kernel[2,3]", "dense1/kernel"),
        ("dense1/kernel[0,0]", "dense1/bias[3]", "dense1"),
        ("dense2/bias[1]", "dense1/bias[3]", "network"),
        ("input[1][0]", "input[1][2]", "input[1]"),
        ("input[1][0]", "input[0][2]", "input"),
    ):
        result = entry([problem], first, second)
        assert result.passed
        assert result.results[0].block == block
        assert (result.first, result.second) == (first, second)


def test_inputs_of_one_example_have_its_block_and_of_two_are_zero() -> None:
    problem = make_problem((3, 4, 2), "tanh")
    dense = Autodiff(problem).hessian("input[2]").to_dense()
    found = values(problem, "input[2][0]", "input[2][1]")["hessian"]
    assert found == pytest.approx((dense[0, 1],) * 2, rel=1e-12)
    result = entry([problem], "input[2][0]", "input[1][0]")
    assert result.separate_examples
    assert {(t.autodiff, t.chain_rule) for t in result.results[0].terms} == {(0.0, 0.0)}
    # The zero is among entries that are none.
    assert result.results[0].terms[0].check.max_abs_entry >= abs(dense[0, 0])


@pytest.mark.parametrize("engine", [ChainRule, Autodiff])
@pytest.mark.parametrize("term", TERMS)
def test_the_block_of_all_inputs_has_those_of_each_on_its_diagonal(
    engine: type[ChainRule] | type[Autodiff], term: str
) -> None:
    problem = make_problem((3, 4, 2), "tanh", examples=2)
    blocks = getattr(engine(problem), term)
    expected = np.zeros((6, 6))
    for n in range(2):
        expected[3 * n : 3 * n + 3, 3 * n : 3 * n + 3] = blocks(f"input[{n}]").to_dense()
    assert np.allclose(blocks("input").to_dense(), expected, rtol=1e-13, atol=1e-16)


@drawn(50)
@given(problems())
def test_index_of_is_the_inverse_of_name_of(problem: Problem) -> None:
    for block in ("network", "input", "input[0]", problem.layer_names[0]):
        layout = layout_of(problem, block)
        names = [layout.name_of(index) for index in range(layout.size)]
        assert len(set(names)) == layout.size
        assert [layout.index_of(name) for name in names] == list(range(layout.size))


def test_blanks_in_a_name_are_not_minded() -> None:
    layout = layout_of(make_problem((3, 4, 2), "tanh"), "network")
    assert layout.name_of(layout.index_of(" dense1/kernel[2, 3] ")) == "dense1/kernel[2,3]"
    with pytest.raises(KeyError):
        layout.index_of("dense3/kernel[0,0]")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dense1/kernl[0,0]", "'dense1/kernl' is unknown; did you mean dense1/kernel?"),
        ("dens2/bias[0]", "did you mean dense2/bias?"),
        ("q[0]", "choose dense1/kernel, dense1/bias, dense2/kernel, dense2/bias"),
        ("dense1[0]", "'dense1' is unknown"),
        ("dense1/kernel", "names no single parameter"),
        ("dense1/kernel[]", "names no single parameter"),
        ("dense1/kernel[0.5,1]", "names no single parameter"),
        ("", "names no single parameter"),
        ("input[4][0]", "there is no example 4; the batch has 4, input[0] to input[3]"),
        ("input[4]", "'input' is unknown"),
    ],
)
def test_a_name_of_nothing_is_refused(name: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        tensor_of(make_problem((3, 4, 2), "tanh"), name)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dense1/kernel[3,0]", "has the shape (3, 4); its last entry is dense1/kernel[2,3]"),
        ("dense1/kernel[0,4]", "has the shape (3, 4)"),
        ("dense1/kernel[0,-1]", "has the shape (3, 4)"),
        ("dense1/kernel[0]", "has the shape (3, 4)"),
        ("dense1/bias[4]", "has the shape (4,); its last entry is dense1/bias[3]"),
        ("dense1/bias[0,0]", "has the shape (4,)"),
        ("input[0][3]", "has the shape (3,); its last entry is input[0][2]"),
    ],
)
def test_a_place_that_is_not_there_is_refused_with_the_shape(name: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        entry([make_problem((3, 4, 2), "tanh")], name, name)
    assert said in str(error.value)


def test_a_wrong_second_derivative_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def mutated(activation: Activation) -> Derivatives:
        sigma = derivatives(activation)
        return replace(sigma, second=lambda z: (1 + 1e-6) * sigma.second(z))

    problem = make_problem((3, 4, 2), "tanh")
    name = "dense1/kernel[0,0]"
    assert entry([problem], name, name).passed
    monkeypatch.setattr(calculus, "derivatives", mutated)
    (row,) = entry([problem], name, name).results
    assert {t.term: t.check.passed for t in row.terms} == {
        "hessian": False,
        "gauss_newton": True,
        "curvature": False,
    }


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    path = tmp_path / "small.yaml"
    path.write_text(
        "model: {layers: [{units: 3, activation: tanh}, {units: 10}]}\ndata: {batch_size: 3}\n",
        encoding="utf-8",
    )
    return ["entry", "--config", str(path)]


def test_one_name_is_the_pure_second_derivative(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = "dense1/kernel[300,2]"
    once, twice = run([*small, name], capsys), run([*small, name, name], capsys)
    assert once == twice
    assert once[0] == 0
    assert "tanh: ∂²L/∂dense1/kernel[300,2]²" in once[1]


def test_the_table_is_no_wider_than_a_terminal(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run([*small, "dense1/kernel[300,2]", "dense2/bias[7]", "-a", "all"], capsys)
    assert (code, err) == (0, "")
    assert max(len(line) for line in out.splitlines()) <= 80


def test_json_and_csv_have_a_result_for_each_term(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["dense1/kernel[300,2]", "dense2/bias[7]", "-a", "tanh", "-a", "sin"]
    code, out, _ = run([*small, *names, "--format", "json"], capsys)
    report = json.loads(out)
    assert (code, report["schema"], report["status"]) == (0, "hesscli/entry/1", "pass")
    assert [report["first"], report["second"]] == names[:2]
    assert [(row["activation"], row["term"]) for row in report["results"]] == [
        (activation, term) for activation in ("tanh", "sin") for term in TERMS
    ]
    for row in report["results"]:
        assert row["residual"] == row["autodiff"] - row["chain_rule"]
        assert row["check"]["worst_entry"] == names[:2]
    _, out, _ = run([*small, *names, "--format", "csv"], capsys)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [float(row["chain_rule"]) for row in rows] == [
        row["chain_rule"] for row in report["results"]
    ]


def test_a_failure_exits_with_1_and_says_where(
    small: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        calculus, "derivatives", lambda of: replace(derivatives(of), second=np.ones_like)
    )
    code, out, err = run([*small, "dense1/bias[1]"], capsys)
    assert (code, err) == (1, "")
    assert "FAIL: Hessian: ∂²L/∂dense1/bias[1]" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dense1/kernel[784,0]"], "has the shape (784, 3)"),
        (["dense1/bias[0]", "dense9/bias[0]"], "did you mean dense"),
        (["dense1/bias[0]", "input[0][5]"], "one is an input and one a parameter"),
        (["dense1/bias"], "names no single parameter"),
        (["dense1/bias[0]", ""], "names no single parameter"),
        ([], "NAME"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], said: str, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run([*small, *arguments], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
