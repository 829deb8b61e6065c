"""The third witness: its numbers lie within its own error bars, and its verdict keeps to them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run as run_command
from drawn import drawn
from hypothesis import assume, given
from hypothesis import strategies as st
from networks import make_problem, problems

from hesscli.nodes import calculus
from hesscli.nodes.activations import Derivatives, derivatives
from hesscli.nodes.losses import LossDerivatives, loss_derivatives
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.names import ACTIVATIONS
from hesscli.problem.network import Loss, Problem
from hesscli.studies import finitechecks
from hesscli.studies.checks import DEFAULT_RTOL
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.errors import NumericalError, UnknownBlockError
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.finite import moved
from hesscli.witnesses.finite.engine import GRADIENT_STEP, FiniteDifferences, FiniteHessian
from hesscli.witnesses.finite.moved import CORNERED
from hesscli.witnesses.rounding.floor import RoundingFloor


def one_layer(W: Array, b: Array | None, activation: str, x: Array, loss: str) -> Problem:
    units = W.shape[1]
    return Problem(
        graph=chain((Layer("dense1", W, b, Activation(activation)),)),
        inputs=x,
        targets=np.zeros((len(x), units)),
        loss=Loss(loss, "sum"),
    )


def finite(problem: Problem, parameter: str) -> FiniteHessian:
    return FiniteDifferences(problem).hessian(parameter)


# The second derivatives of σ(wx + b) by w, at x = 2, from a table.
@pytest.mark.parametrize(
    ("activation", "second"),
    [
        ("exponential", np.exp),
        ("sin", lambda z: -np.sin(z)),
        ("tanh", lambda z: -2 * np.tanh(z) / np.cosh(z) ** 2),
        ("square", lambda z: 2.0),
        ("relu", lambda z: 0.0),
        ("elu", lambda z: np.exp(z) if z < 0 else 0.0),
    ],
)
@pytest.mark.parametrize("z", [-0.7, 0.4])
def test_one_weight_has_the_second_derivative_of_its_activation(
    activation: str, second: Callable[[float], float], z: float
) -> None:
    x, b = 2.0, 0.25
    problem = one_layer(
        np.array([[(z - b) / x]]), np.array([b]), activation, np.array([[x]]), "sum"
    )
    values, errors = finite(problem, "dense1/kernel").rows_with_error(0, 1)
    expected = x * x * second(z)
    assert abs(values[0, 0] - expected) <= errors[0, 0] <= 1e-9
    (form, error) = finite(problem, "dense1/kernel").form_of_values(np.array([3.0]))
    assert abs(form - 9 * expected) <= error <= 1e-4


def test_least_squares_has_the_hessian_of_its_normal_equations() -> None:
    # L = Σ_n 1/c |x_n W − t_n|²:   H = 2/c · XᵀX ⊗ I
    generator = np.random.default_rng(1)
    x, W = generator.standard_normal((6, 3)), generator.standard_normal((3, 2))
    problem = one_layer(W, None, "linear", x, "mean_squared_error")
    values, errors = finite(problem, "dense1/kernel").rows_with_error(0, 6)
    assert (np.abs(values - np.kron(x.T @ x, np.eye(2))) <= errors).all()
    assert errors.max() < 1e-10


def blocks_of(problem: Problem) -> list[str]:
    names = ["input[0]"]
    for layer in problem.layers:
        names += [f"{layer.name}/kernel", layer.name]
        names += [] if layer.bias is None else [f"{layer.name}/bias"]
    return [*names, "network"] if problem.parameter_count <= 60 else names


@drawn(400)
@given(problems(), st.data())
def test_every_entry_lies_within_its_error_bar(problem: Problem, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(blocks_of(problem)))
    exact = ChainRule(problem)
    try:
        floor = RoundingFloor(exact)
        block = finite(problem, name)
    except NumericalError:
        assume(False)
    H = exact.hessian(name).to_dense()
    values, errors = block.rows_with_error(0, len(H))
    groups = block.layout.groups_of(0, len(H))
    allowed = 1e-10 * np.abs(H).max() + floor.entries(name)[np.ix_(groups, groups)]
    assert (np.abs(values - H) <= allowed + errors).all()

    v = np.linspace(-1, 2, len(H))
    allowed_form = 1e-10 * np.abs(H).max() * (v @ v) + floor.quadratic_form(name, v)
    for value, error in (block.form_of_gradients(v), block.form_of_values(v)):
        assert abs(value - v @ H @ v) <= allowed_form + error
    assert block.form_with_error(v)[1] == min(
        block.form_of_gradients(v)[1], block.form_of_values(v)[1]
    )


def test_error_bars_are_narrow_where_there_is_something_to_see() -> None:
    relative = []
    for activation in set(ACTIVATIONS) - CORNERED.keys():
        for seed in range(3):
            problem = make_problem((5, 4, 3), activation, seed=seed)
            for name in ("dense1/kernel", "dense2", "input[1]", "network"):
                values, errors = finite(problem, name).rows_with_error(0, 99)
                relative.append(np.median(errors) / np.abs(values).max())
    assert np.median(relative) < 1e-9
    assert max(relative) < 1e-6


def test_products_rows_and_forms_are_one_matrix(small_problem: Problem) -> None:
    block = finite(small_problem, "network")
    size = block.shape[0]
    H, bars = block.rows_with_error(0, size)
    V = np.random.default_rng(0).standard_normal((size, 3))
    products, errors = block.product_with_error(V)
    assert (np.abs(products - H @ V) <= errors + bars @ np.abs(V)).all()
    assert np.array_equal(block @ V, products)
    assert np.array_equal(block.rows(2, size + 5), H[2:])
    assert np.array_equal(block.to_dense(), H)
    form, error = block.form_with_error(V[:, 0])
    assert block.quadratic_form(V[:, 0]) == form
    assert abs(form - V[:, 0] @ H @ V[:, 0]) <= error + np.abs(V[:, 0]) @ bars @ np.abs(V[:, 0])


@pytest.mark.parametrize("length", [1e-150, 1e-8, 1e8, 1e150])
def test_the_length_of_a_direction_does_not_matter(length: float, small_problem: Problem) -> None:
    block = finite(small_problem, "dense1")
    v = np.linspace(-1, 1, block.shape[0])[:, None]
    values, errors = block.product_with_error(v)
    longer, longer_errors = block.product_with_error(length * v)
    assert np.allclose(longer / length, values, rtol=0, atol=errors.max())
    assert np.allclose(longer_errors / length, errors, rtol=1, atol=errors.max())


def test_a_float32_problem_is_differentiated_in_float64() -> None:
    single = make_problem((3, 4, 2), "tanh", dtype="float32")
    layers = tuple(
        replace(
            layer,
            kernel=layer.kernel.astype(np.float64),
            bias=None if layer.bias is None else layer.bias.astype(np.float64),
        )
        for layer in single.layers
    )
    double = replace(single, graph=chain(layers), inputs=single.inputs.astype(np.float64))
    ours, theirs = (finite(problem, "network").to_dense() for problem in (single, double))
    assert ours.dtype == np.float64
    assert np.array_equal(ours, theirs)


def refuse(*_: object) -> Array:
    raise AssertionError("a derivative that finite differences do not know")


@pytest.mark.parametrize("refused", ["second", "first and second"])
def test_which_derivatives_are_asked_for(
    refused: str, small_problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second one at all; and neither a first nor a second one for the form of values."""
    first_too = refused != "second"

    def given(activation: Activation) -> Derivatives:
        sigma = derivatives(activation)
        return replace(sigma, first=refuse if first_too else sigma.first, second=refuse)

    def of_loss(loss: Loss) -> LossDerivatives:
        known = loss_derivatives(loss)
        gradient = refuse if first_too else known.gradient
        return LossDerivatives(known.value, gradient, refuse, refuse)

    monkeypatch.setattr(calculus, "derivatives", given)
    monkeypatch.setattr(moved, "loss_derivatives", of_loss)
    for name in ("dense1/kernel", "dense2/bias", "dense1", "input[1]", "input", "network"):
        block = finite(small_problem, name)
        block.form_of_values(np.ones(block.shape[0]))
        if not first_too:
            block.form_with_error(np.ones(block.shape[0]))
            block.to_dense()


def wrong_slopes(factor: float, mutated: str) -> Callable[[Activation], Derivatives]:
    """σ′ and σ″ of one activation times a factor: derivatives of another function than σ."""

    def of(activation: Activation) -> Derivatives:
        sigma = derivatives(activation)
        if activation.name != mutated:
            return sigma
        return replace(
            sigma,
            first=lambda z: factor * sigma.first(z),
            second=lambda z: factor * sigma.second(z),
        )

    return of


@pytest.mark.parametrize("factor", [0.0, -2.0, 2.0, 1 + 1e-5])
def test_a_gradient_that_is_not_the_slope_of_the_loss_is_of_no_use(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem((4, 3, 5, 3), "tanh")
    right = {
        name: (block.rows_with_error(0, 99), block.form_with_error(np.ones(block.shape[0])))
        for name in ("dense1/kernel", "dense3/kernel", "network")
        for block in (finite(problem, name),)
    }
    monkeypatch.setattr(calculus, "derivatives", wrong_slopes(factor, "tanh"))
    for name, ((rows, _), (form, _)) in right.items():
        block = finite(problem, name)
        _, errors = block.rows_with_error(0, 99)
        wrong = finitechecks.contradiction(block, 1e-10)
        if name == "dense3/kernel":
            # Nothing that is pulled goes through tanh.
            assert wrong is None
            assert np.isfinite(errors).all()
            continue
        assert wrong is not None
        assert wrong.method == finitechecks.SLOPES
        # Of the network the last layer's gradient is right; of what is below nothing is known.
        below = slice(0, 4 * 3 + 3 + 3 * 5 + 5)
        assert np.isinf(errors[:, below]).all()
        # Loss values are what they were.
        value, error = block.form_with_error(np.ones(block.shape[0]))
        assert (value, error) == block.form_of_values(np.ones(block.shape[0]))
        assert abs(value - form) <= error < np.abs(rows).max()


def test_where_loss_values_cannot_see_the_slope_nothing_is_claimed() -> None:
    """What moves the loss by less than its last digit is confirmed by nothing."""
    whole = make_problem((3, 4, 2), "tanh")
    below, above = whole.layers
    small = replace(above, kernel=1e-20 * above.kernel)
    problem = replace(whole, graph=chain((below, small)))
    _, errors = finite(problem, "dense1/kernel").rows_with_error(0, 99)
    assert np.isinf(errors).all()
    assert finitechecks.contradiction(finite(problem, "dense1/kernel"), 1e-10) is None
    _, errors = finite(problem, "dense2/bias").rows_with_error(0, 99)
    assert errors.max() < 1e-9


def test_the_block_of_all_inputs_is_each_example_s_own(small_problem: Problem) -> None:
    block = finite(small_problem, "input")
    examples, width = small_problem.batch.shape
    assert block.shape == (examples * width,) * 2
    values, errors = block.rows_with_error(0, examples * width)
    H = ChainRule(small_problem).hessian("input").to_dense()
    assert (np.abs(values - H) <= errors).all()
    of_examples = values.reshape(examples, width, examples, width)
    for n in range(examples):
        own, _ = finite(small_problem, f"input[{n}]").rows_with_error(0, width)
        assert np.allclose(of_examples[n, :, n], own, rtol=0, atol=errors.max())
        others = [m for m in range(examples) if m != n]
        assert not of_examples[n][:, others].any()


@pytest.mark.parametrize("parameter", ["dense9/kernel", "dense1/weights", "input[4]", ""])
def test_an_unknown_block_is_an_unknown_block_error(parameter: str, small_problem: Problem) -> None:
    with pytest.raises(UnknownBlockError):
        FiniteDifferences(small_problem).hessian(parameter)


CORNERS = [(name, at) for name, places in CORNERED.items() for at in places]


@pytest.mark.parametrize(("activation", "corner"), CORNERS)
def test_on_a_corner_nothing_is_learnt(activation: str, corner: float) -> None:
    # elu's difference quotients agree with one another there, and softsign's with σ″(0) = 0.
    kernel, x = np.array([[corner / 2]]), np.array([[2.0]])
    problem = one_layer(kernel, None, activation, x, "sum_of_squares")
    block = finite(problem, "dense1/kernel")
    assert np.isinf(block.rows_with_error(0, 1)[1]).all()
    assert np.isinf(block.form_with_error(np.ones(1))[1])


@pytest.mark.parametrize(("activation", "corner"), CORNERS)
@pytest.mark.parametrize("distance", [1e-3, -1e-3, 1e-9, -1e-9, 1e-15])
def test_beside_a_corner_the_truth_lies_within_the_error_bar(
    activation: str, corner: float, distance: float
) -> None:
    x, z = np.array([[2.0]]), np.array([corner + distance])
    problem = one_layer(z[:, None] / 2, None, activation, x, "sum_of_squares")
    sigma = derivatives(Activation(activation))
    # (σ²)″ x² = 2 (σ′² + σσ″) x²
    truth = 8 * (sigma.first(z) ** 2 + sigma.value(z) * sigma.second(z))[0]
    (value,), (error,) = finite(problem, "dense1/kernel").rows_with_error(0, 1)
    assert abs(value[0] - truth) <= error[0] + 1e-12 * abs(truth)
    # At some distance the step is small enough to say so and large enough to say something.
    assert error[0] < 1e-8 or abs(distance) < 1e-3


@pytest.mark.parametrize("largest", [9.26e-321, 1e-300])
def test_a_kernel_at_the_end_of_the_range_leaves_no_step_and_no_wrong_answer(
    largest: float,
) -> None:
    """A step no longer than such a kernel has lost its digits: the truth was outside the bar."""
    whole = make_problem((1, 8, 6), "sin", scale=1e-20)
    below, above = whole.layers
    kernel = above.kernel * (largest / np.abs(above.kernel).max())
    problem = replace(whole, graph=chain((below, replace(above, kernel=kernel))))
    H = ChainRule(problem).hessian("network").to_dense()
    values, errors = FiniteDifferences(problem).hessian("network").rows_with_error(0, len(H))
    assert (np.abs(values - H) <= errors + 1e-14 * np.abs(H).max()).all()
    # Of the other parameters something is learnt all the same.
    assert np.isfinite(errors).any()


def two_units(b1: float, b2: float) -> Problem:
    """z₂ = (w + b₁)² + b₂ at w = 0, and L = relu(z₂)."""
    layers = (
        Layer("dense1", np.zeros((1, 1)), np.array([b1]), Activation("square")),
        Layer("dense2", np.ones((1, 1)), np.array([b2]), Activation("relu")),
    )
    return Problem(chain(layers), np.ones((1, 1)), np.zeros((1, 1)), Loss("sum"))


def test_a_corner_that_does_not_come_nearer_to_first_order_is_kept_away_from() -> None:
    # z₂ = (tw)² − 1e-8 is positive beyond t = 1e-4; below that the loss is constant.
    (values,), (errors,) = finite(two_units(0.0, -1e-8), "dense1/kernel").rows_with_error(0, 1)
    assert abs(values[0]) <= errors[0]


def test_a_corner_that_only_the_step_itself_meets_is_noticed() -> None:
    # One step up z₂ is what it was, and one step down it has crossed its zero.
    b1 = -GRADIENT_STEP / 2
    b2 = -b1 * b1 - GRADIENT_STEP**2
    _, (errors,) = finite(two_units(b1, b2), "dense1/kernel").rows_with_error(0, 1)
    assert np.isinf(errors[0])


def test_what_overflows_within_a_step_is_no_number_but_an_infinite_bar() -> None:
    problem = one_layer(np.full((1, 1), 709.7827), None, "exponential", np.ones((1, 1)), "sum")
    (value,), (error,) = finite(problem, "dense1/kernel").rows_with_error(0, 1)
    assert np.isfinite(value[0])
    assert np.isinf(error[0])
    beyond = one_layer(np.full((1, 1), 710.0), None, "exponential", np.ones((1, 1)), "sum")
    with pytest.raises(NumericalError, match=r"dense1/kernel.*range of float64"):
        finite(beyond, "dense1/kernel")


# -- verify ------------------------------------------------------------------------------------


@drawn(100)
@given(problems(), st.sampled_from(("kernel", "bias", "input")))
def test_a_right_chain_rule_never_fails(problem: Problem, block: str) -> None:
    assume(block != "bias" or problem.layers[0].bias is not None)
    try:
        result = verify([problem], CheckOptions(block=block), witnesses=("chain_rule", "finite"))
    except NumericalError:
        assume(False)
    for row in result.results:
        assert row.verdict is not Verdict.FAIL
        # What passes was compared, and most of what was looked at was.
        check = row.check
        if row.passed and row.pairs[0].ruling is None:
            assert 0 < check.compared >= check.undecided
            assert check.error_bar <= 1.001 * finitechecks.DECISIVE * check.max_abs_entry


@pytest.fixture
def configuration(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(
        "model: {layers: [{units: 2, activation: tanh}, {units: 4, activation: tanh}, "
        "{units: 10}]}\ndata: {batch_size: 3}\n",
        encoding="utf-8",
    )
    return str(path)


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    return run_command(["verify", *arguments], capsys)


def report(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, Any], dict[str, str]]:
    code, out, _ = run([*arguments, "--format", "json"], capsys)
    data = json.loads(out)
    return code, data, {row["layer"]: row["status"] for row in data["results"]}


@pytest.mark.parametrize("limit", [finitechecks.ENTRIES_LIMIT, 20], ids=["entries", "products"])
@pytest.mark.parametrize("check", ["form", "entries"])
@pytest.mark.parametrize("factor", [0.0, -1.0, 1 + 1e-5])
def test_a_wrong_second_derivative_is_beyond_the_error_bars(
    factor: float,
    check: str,
    limit: int,
    configuration: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from hesscli.studies import witnesses

    def mutated(activation: Activation) -> Derivatives:
        sigma = derivatives(activation)
        if activation.name != "tanh":
            return sigma
        return replace(sigma, second=lambda z: factor * sigma.second(z))

    monkeypatch.setattr(witnesses, "ENTRIES_LIMIT", limit)
    arguments = ["-c", configuration, "--witnesses", "chain_rule,finite", "--check", check]
    code, data, verdicts = report(arguments, capsys)
    assert (code, data["status"]) == (0, "pass")
    monkeypatch.setattr(calculus, "derivatives", mutated)
    code, data, verdicts = report(arguments, capsys)
    assert (code, data["status"]) == (1, "fail")
    assert verdicts == {"dense1": "fail", "dense2": "fail", "dense3": "pass"}
    if check == "entries":
        method = "entries" if limit > 20 else "products"
        assert data["results"][0]["check"]["method"] == method


def test_three_witnesses_have_a_column_and_a_key_each(
    configuration: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-c", configuration, "--witnesses", "finite,chain_rule,autodiff"]
    code, data, _ = report(arguments, capsys)
    assert code == 0
    assert data["witnesses"] == ["chain_rule", "autodiff", "finite"]
    for row in data["results"]:
        form = row["quadratic_form"]
        assert form["residual"] == form["autodiff"] - form["chain_rule"]
        assert abs(form["finite"] - form["autodiff"]) <= 1e-10 + form["finite_error"]
        assert row["finite_check"]["reference"] == "autodiff"
        assert row["finite_check"]["error_bar"] < 1e-6 * row["finite_check"]["max_abs_entry"]
    code, out, _ = run(arguments, capsys)
    assert max(len(line) for line in out.splitlines()) <= 80
    columns = next(line for line in out.splitlines() if line.startswith(" layer"))
    for column in ("autodiff", "chain rule", "finite", "± finite"):
        assert column in columns
    assert "finite differences agree with autodiff" in " ".join(out.split())


@pytest.mark.parametrize(
    ("witnesses", "absent", "candidate"),
    [("chain_rule,finite", "autodiff", "chain_rule"), ("finite,autodiff", "chain_rule", "finite")],
)
def test_an_absent_witness_is_null(
    witnesses: str,
    absent: str,
    candidate: str,
    configuration: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for block in ("kernel", "input", "network"):
        arguments = ["-c", configuration, "--witnesses", witnesses, "--block", block]
        code, data, _ = report(arguments, capsys)
        assert code == 0
        for row in data["results"]:
            form = row["quadratic_form"]
            assert [key for key, value in form.items() if value is None] == [absent]
            assert row["finite_check"]["candidate"] == candidate


def test_without_finite_differences_their_keys_are_null(
    configuration: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, data, _ = report(["-c", configuration], capsys)
    for row in data["results"]:
        assert row["quadratic_form"]["finite"] is row["quadratic_form"]["finite_error"] is None
        assert row["finite_check"] is None


@pytest.mark.parametrize("check", ["form", "entries"])
@pytest.mark.parametrize("format_name", ["table", "json", "junit", "csv", "markdown"])
def test_what_is_undecided_is_no_pass(
    check: str, format_name: str, configuration: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # With all weights zero every relu stands on its corner.
    arguments = ["-c", configuration, "--witnesses", "chain_rule,finite", "--check", check]
    arguments += ["-a", "relu", "--set", "model.initializer=zeros", "-l", "dense1"]
    code, out, _ = run([*arguments, "--format", format_name], capsys)
    assert code == 1
    assert "undecided" in out.lower()
    assert "PASS" not in out


def test_gauss_newton_terms_need_the_chain_rule(
    configuration: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-c", configuration, "--terms", "gauss-newton", "--witnesses"]
    code, _, verdicts = report([*arguments, "chain_rule,finite"], capsys)
    assert (code, verdicts["dense1"], verdicts["dense3"]) == (1, "fail", "pass")
    code, out, err = run([*arguments, "autodiff,finite"], capsys)
    assert (code, out) == (2, "")
    assert "add it to --witnesses" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chain_rule,finit", "did you mean finite?"),
        ("chain-rule,finite", "did you mean chain_rule?"),
        ("autodiff,zzz", "choose from chain_rule, autodiff, finite"),
        ("finite", "two or three"),
        ("finite,finite", "two or three"),
        ("", "choose from"),
    ],
)
def test_bad_witnesses_are_one_line_and_exit_2(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(["--witnesses", text], capsys)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_tensorflow_stays_away_without_autodiff(configuration: str) -> None:
    program = (
        "import sys\n"
        "from hesscli.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as exit_:\n    code = exit_.code\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    arguments = ["verify", "-c", configuration, "--witnesses", "chain_rule,finite"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "PASS" in done.stdout


def test_default_tolerances_are_those_of_the_problem(
    configuration: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-c", configuration, "--dtype", "float32", "--witnesses", "chain_rule,finite"]
    code, data, _ = report(arguments, capsys)
    assert code == 0
    assert {row["check"]["rtol"] for row in data["results"]} == {DEFAULT_RTOL["float32"]}


def test_where_nothing_moves_to_first_order_a_step_that_went_too_far_is_noticed() -> None:
    """With z = b², b = 0, times 1e15, a step of 1e-3 saturates the sigmoid (seed 71754)."""
    problem = Problem(
        chain(
            (
                Layer("dense1", np.ones((1, 1)), np.zeros(1), Activation("square")),
                Layer("dense2", np.array([[1e15]]), None, Activation("sigmoid")),
            )
        ),
        np.zeros((1, 1)),
        np.zeros((1, 1)),
        Loss("sum"),
    )
    values, errors = FiniteDifferences(problem).hessian("dense1/bias").rows_with_error(0, 1)
    # L = s(1e15 b²), whose second derivative at 0 is 2e15 s′(0)
    assert abs(values[0, 0] - 5e14) <= errors[0, 0]
