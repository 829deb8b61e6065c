"""Gradients and Jacobians: closed forms, two witnesses on random networks, central differences,
and that a wrong σ′ does not pass.
"""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import run
from drawn import drawn
from hypothesis import assume, given
from networks import make_problem, problems

from hesscli.nodes import calculus
from hesscli.nodes.activations import Derivatives, derivatives
from hesscli.nodes.losses import loss_derivatives
from hesscli.problem.execution import Execution
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.names import LOSSES
from hesscli.problem.network import Loss, Problem
from hesscli.problem.targets import fit_targets
from hesscli.studies.checks import DEFAULT_RTOL
from hesscli.studies.first_derivatives import verify_first
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.errors import NumericalError
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import layout_of
from hesscli.witnesses.rounding.floor import RoundingFloor

DOCUMENTATION = Path(__file__).parent.parent / "docs" / "derivatives.md"


def engines(problem: Problem) -> tuple[ChainRule, Autodiff]:
    return ChainRule(problem), Autodiff(problem)


def with_loss(problem: Problem, loss: str, output: str = "linear") -> Problem:
    last = replace(problem.layers[-1], activation=Activation(output))
    targets = fit_targets(problem.targets, loss, last.units, problem.dtype, "test")
    return replace(
        problem,
        graph=chain((*problem.layers[:-1], last)),
        loss=replace(problem.loss, name=loss),
        targets=targets,
    )


def blocks_of(problem: Problem) -> list[str]:
    """The network, an example's input and every block of one layer, which differs by network."""
    turn = int(1e6 * abs(problem.inputs).sum() % 1000)
    layer = problem.layers[turn % len(problem.layers)]
    names = ["network", f"input[{turn % problem.examples}]", layer.name, f"{layer.name}/kernel"]
    return names if layer.bias is None else [*names, f"{layer.name}/bias"]


def assert_first_derivatives_agree(problem: Problem) -> None:
    with np.errstate(all="ignore"):
        try:
            ours, theirs = engines(problem)
            floor = RoundingFloor(ChainRule(problem))
            floors = {name: floor.gradient(name) for name in blocks_of(problem)}
            J_floors = {
                name: floor.jacobian(name).rows(0, problem.examples * problem.layers[-1].units)
                for name in blocks_of(problem)
            }
        except NumericalError:
            assume(False)
    rtol = DEFAULT_RTOL[problem.dtype.name]
    for name in blocks_of(problem):
        g, reference = ours.gradient(name), theirs.gradient(name)
        assert g.shape == reference.shape == (layout_of(problem, name).size,)
        assert g.dtype == reference.dtype == problem.dtype
        allowed = rtol * np.abs(reference).max() + floors[name]
        assert (np.abs(g - reference) <= allowed).all(), name
        J, J_reference = (engine.jacobian(name) for engine in (ours, theirs))
        rows, reference = (block.rows(0, block.shape[0]) for block in (J, J_reference))
        assert rows.shape == reference.shape == J.shape
        assert rows.dtype == reference.dtype == problem.dtype
        assume(np.isfinite(rows).all() and np.isfinite(J_floors[name]).all())
        allowed = rtol * np.abs(reference).max() + J_floors[name]
        assert (np.abs(rows - reference) <= allowed).all(), name


@drawn(100)
@given(problems("float64"))
def test_both_witnesses_agree_on_the_blocks_of_random_networks_in_float64(
    problem: Problem,
) -> None:
    assert_first_derivatives_agree(problem)


@drawn(100)
@given(problems("float32"))
def test_both_witnesses_agree_on_the_blocks_of_random_networks_in_float32(
    problem: Problem,
) -> None:
    assert_first_derivatives_agree(problem)


def linear_then_square() -> Problem:
    """The network f = (xW)² at x = (1, 2): the example of docs/derivatives.md."""
    layer = Layer("dense", np.array([[1.0, 3.0], [2.0, -1.0]]), None, Activation("square"))
    return Problem(chain((layer,)), np.array([[1.0, 2.0]]), np.zeros(1, int), Loss("sum", "sum"))


@pytest.mark.parametrize("engine", [0, 1], ids=["chain rule", "autodiff"])
def test_the_worked_example_has_its_closed_form(engine: int) -> None:
    # z = (5, 1), f = z², so ∂f_o/∂x_i = 2 z_o W[i,o] and ∂f_o/∂W[i,h] = 2 z_o x_i for h = o.
    witness = engines(linear_then_square())[engine]
    assert witness.jacobian("input[0]").rows(0, 2).tolist() == [[10, 20], [6, -2]]
    assert witness.gradient("input[0]").tolist() == [16, 18]
    assert witness.jacobian("dense/kernel").rows(0, 2).tolist() == [[10, 0, 20, 0], [0, 2, 0, 4]]
    assert witness.gradient("dense/kernel").tolist() == [10, 2, 20, 4]


def test_tensorflow_sums_the_derivatives_of_a_vector_over_its_outputs() -> None:
    # The documentation's claim about TensorFlow itself.
    autodiff = Autodiff(linear_then_square())
    tf = autodiff.tf
    x = tf.constant([[1.0, 2.0]], "float64")
    with tf.GradientTape() as tape:
        tape.watch(x)
        f = autodiff.output(x, {})
    assert np.asarray(tape.gradient(f, x)).tolist() == [[16, 18]]
    hessians = tf.function(lambda x: tf.hessians(autodiff.output(x, {}), x), autograph=False)(x)
    assert np.reshape(hessians[0], (2, 2)).tolist() == [[20, -2], [-2, 10]]


def test_the_documentation_says_what_is_computed() -> None:
    results = doctest.testfile(str(DOCUMENTATION), module_relative=False, encoding="utf-8")
    assert (results.failed, results.attempted > 5) == (0, True)


@pytest.mark.parametrize("engine", [0, 1], ids=["chain rule", "autodiff"])
def test_a_linear_network_has_products_of_its_kernels(engine: int) -> None:
    problem = make_problem((3, 4, 2), "linear")
    W, V = (layer.kernel for layer in problem.layers)
    witness = engines(problem)[engine]
    assert np.allclose(witness.jacobian("input[1]").rows(0, 2), (W @ V).T)
    assert np.allclose(witness.jacobian("dense2/bias").rows(0, 8), np.tile(np.eye(2), (4, 1)))
    assert np.allclose(witness.jacobian("dense1/bias").rows(0, 8), np.tile(V.T, (4, 1)))
    x = problem.inputs
    expected = np.einsum("ni,ho->noih", x, V).reshape(8, 12)
    assert np.allclose(witness.jacobian("dense1/kernel").rows(0, 8), expected)


@pytest.mark.parametrize("engine", [0, 1], ids=["chain rule", "autodiff"])
def test_blocks_are_columns_of_the_network_and_pieces_are_rows(engine: int) -> None:
    problem = with_loss(make_problem((3, 4, 2), "tanh"), "mean_squared_error", "sigmoid")
    witness = engines(problem)[engine]
    whole, gradient = witness.jacobian("network"), witness.gradient("network")
    J = whole.rows(0, 8)
    low = 0
    for name in ("dense1/kernel", "dense1/bias", "dense2/kernel", "dense2/bias"):
        part = witness.jacobian(name)
        high = low + part.shape[1]
        assert np.allclose(part.rows(0, 8), J[:, low:high], rtol=1e-13)
        assert np.allclose(witness.gradient(name), gradient[low:high], rtol=1e-12, atol=1e-16)
        low = high
    assert np.allclose(np.concatenate([whole.rows(0, 3), whole.rows(3, 11)]), J, rtol=1e-13)
    assert whole.row_name(5) == "f[2,1]"
    assert witness.jacobian("input[3]").row_name(1) == "f[3,1]"


def test_the_jacobian_turns_the_loss_gradient_into_the_gradient() -> None:
    # ∂L/∂θ = Σ_n Jᵀ ∂L/∂f_n, where plain reverse mode has Σ_n Jᵀ 1.
    problem = make_problem((3, 4, 2), "softplus")
    chain_rule, _ = engines(problem)
    J = chain_rule.jacobian("network").rows(0, 8)
    weights = chain_rule.gradient_at(problem.graph.output).reshape(-1)
    assert np.allclose(J.T @ weights, chain_rule.gradient("network"), rtol=1e-12)
    summed = ChainRule(replace(problem, loss=Loss("sum", "sum")))
    assert np.allclose(J.sum(axis=0), summed.gradient("network"), rtol=1e-12)


def loss_of(problem: Problem) -> float:
    a = problem.inputs
    for layer in problem.layers:
        bias = 0 if layer.bias is None else layer.bias
        a = derivatives(layer.activation).value(a @ layer.kernel + bias)
    each = loss_derivatives(problem.loss).value(a, problem.targets)
    return float(problem.loss.scale(problem.examples) * each.sum())


def moved(problem: Problem, layer: int, tensor: str, place: int, step: float) -> Problem:
    of = problem.layers[layer]
    value = getattr(of, tensor).copy()
    value.flat[place] += step
    layers = list(problem.layers)
    layers[layer] = replace(of, **{tensor: value})
    return replace(problem, graph=chain(tuple(layers)))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_the_slope_of_the_loss(loss: str) -> None:
    problem = with_loss(make_problem((3, 4, 2), "tanh"), loss, "softplus")
    step = 1e-6
    for layer, tensor in ((0, "kernel"), (0, "bias"), (1, "kernel")):
        name = f"dense{layer + 1}/{tensor}"
        gradient = engines(problem)[0].gradient(name)
        slopes = [
            (
                loss_of(moved(problem, layer, tensor, place, step))
                - loss_of(moved(problem, layer, tensor, place, -step))
            )
            / (2 * step)
            for place in range(gradient.size)
        ]
        assert np.allclose(gradient, slopes, rtol=1e-7, atol=1e-9), name


WRONG_FIRST: dict[str, Callable[[Derivatives], Callable[[Array], Array]]] = {
    "dropped": lambda sigma: np.ones_like,
    "σ for σ′": lambda sigma: sigma.value,
    "off by one part in a million": lambda sigma: lambda z: (1 + 1e-6) * sigma.first(z),
}


@pytest.mark.parametrize("of", ["gradient", "jacobian"])
@pytest.mark.parametrize("mutation", WRONG_FIRST)
def test_a_wrong_first_derivative_fails_below_it(
    mutation: str, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mutated(activation: Activation) -> Derivatives:
        sigma = derivatives(activation)
        if activation.name != "tanh":
            return sigma
        return replace(sigma, first=WRONG_FIRST[mutation](sigma))

    problem = make_problem((3, 4, 4, 2), "tanh")
    right = verify_first([problem], of, CheckOptions())  # type: ignore[arg-type]
    assert [row.passed for row in right.results] == [True, True, True]
    monkeypatch.setattr(calculus, "derivatives", mutated)
    wrong = verify_first([problem], of, CheckOptions())  # type: ignore[arg-type]
    assert [row.passed for row in wrong.results] == [False, False, True]


@pytest.mark.parametrize("of", ["gradient", "jacobian"])
@pytest.mark.parametrize("block", ["kernel", "bias", "layer", "input", "network"])
@pytest.mark.parametrize(("activation", "dtype"), [("tanh", "float64"), ("sigmoid", "float32")])
def test_a_saturated_network_passes(activation: str, dtype: str, block: str, of: str) -> None:
    scale = {"float64": 60.0, "float32": 25.0}[dtype]
    problem = make_problem((4, 5, 5, 3), activation, scale=scale, dtype=dtype)
    assert verify_first([problem], of, CheckOptions(block=block)).passed  # type: ignore[arg-type]


@pytest.mark.parametrize("of", ["gradient", "jacobian"])
def test_in_a_network_that_is_not_saturated_the_floor_decides_nothing(of: str) -> None:
    problem = make_problem((6, 7, 7, 4), "tanh", examples=8)
    floors = RoundingFloor(ChainRule(problem))
    for row in verify_first([problem], of, CheckOptions()).results:  # type: ignore[arg-type]
        name = f"{row.layer}/kernel"
        floor = floors.gradient(name) if of == "gradient" else floors.jacobian(name).rows(0, 32)
        assert floor.max() < 0.1 * row.check.rtol * row.check.max_abs_entry


def test_not_a_number_is_never_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def mutated(activation: Activation) -> Derivatives:
        return replace(derivatives(activation), first=lambda z: np.full_like(z, np.nan))

    monkeypatch.setattr(calculus, "derivatives", mutated)
    with pytest.raises(NumericalError, match="dense"):
        verify_first([make_problem((3, 4, 2), "tanh")], "jacobian", CheckOptions())


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    path = tmp_path / "small.yaml"
    path.write_text(
        "model: {layers: [{units: 3, activation: tanh}, {units: 10}]}\ndata: {batch_size: 3}\n",
        encoding="utf-8",
    )
    return ["verify", "--config", str(path)]


@pytest.mark.parametrize(
    ("of", "block", "shapes"),
    [
        ("gradient", "layer", [[2355], [40]]),
        ("gradient", "input", [[3, 784]]),
        ("jacobian", "bias", [[30, 3], [30, 10]]),
        ("jacobian", "input", [[3, 10, 784]]),
    ],
)
def test_json_has_the_shape_and_the_verdict(
    of: str,
    block: str,
    shapes: list[list[int]],
    small: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run([*small, "--of", of, "--block", block, "--format", "json"], capsys)
    report = json.loads(out)
    assert (code, report["schema"], report["status"]) == (0, f"hesscli/verify-{of}/1", "pass")
    assert [row["shape"] for row in report["results"]] == shapes
    for row in report["results"]:
        assert row["check"]["compared"] == np.prod(row["shape"])
        assert row["norm"]["autodiff"] == pytest.approx(row["norm"]["chain_rule"], rel=1e-12)


@pytest.mark.parametrize("of", ["gradient", "jacobian"])
@pytest.mark.parametrize("format_name", ["table", "csv", "markdown", "junit"])
def test_every_format_is_written(
    of: str, format_name: str, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run([*small, "--of", of, "--format", format_name], capsys)
    assert (code, err) == (0, "")
    assert "dense2" in out
    if format_name == "table":
        assert max(len(line) for line in out.splitlines()) <= 80


def test_a_failure_names_the_entry_and_exits_with_1(
    small: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = WRONG_FIRST["dropped"]
    monkeypatch.setattr(
        calculus,
        "derivatives",
        lambda of: replace(derivatives(of), first=wrong(derivatives(of))),
    )
    code, out, _ = run([*small, "--of", "jacobian"], capsys)
    assert code == 1
    assert "FAIL on dense1, PASS on dense2" in " ".join(out.split())
    assert "∂f[" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--of", "gradient", "--terms", "gauss-newton"], "only the Hessian has a Gauss-Newton"),
        (["--of", "jacobian", "--terms", "gauss-newton"], "only the Hessian has a Gauss-Newton"),
        (["--of", "jacobian", "--check", "form"], "first derivatives are compared in every entry"),
        (["--of", "hessians"], "hessians"),
        (["--of", "gradient", "--block", "input", "--layer", "dense1"], "no layers"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], said: str, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run([*small, *arguments], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_jacobian_beyond_half_the_range_of_float32_is_found_without_a_warning() -> None:
    """tanh′ at z = 2e38, where 2z overflows: random agreement found the warning (seed 682)."""
    layers = (
        Layer("dense1", np.full((1, 2), 2e38, dtype=np.float32), None, Activation("tanh")),
        Layer("dense2", np.ones((2, 1), dtype=np.float32), None, Activation("linear")),
    )
    one = np.ones((1, 1), dtype=np.float32)
    problem = Problem(chain(layers), one, one, Loss("mean_squared_error"))
    J = ChainRule(problem).jacobian("dense1/kernel").rows(0, 1)
    assert np.array_equal(J, np.zeros((1, 2)))


@pytest.mark.parametrize("block", ["kernel", "input"])
@pytest.mark.parametrize("of", ["gradient", "jacobian"])
def test_errors_beyond_the_range_are_said_without_a_warning(of: str, block: str) -> None:
    """Where z is 2e200 the error counts with z²: random agreement found it (seed 20557)."""
    layers = (
        Layer("dense1", np.full((1, 2), 1e100), None, Activation("square")),
        Layer("dense2", np.ones((2, 2)), None, Activation("linear")),
    )
    problem = Problem(chain(layers), np.ones((1, 1)), np.zeros((1, 2)), Loss("sum"))
    # The witnesses agree, so nobody asks for what cannot be said.
    assert verify_first([problem], of, CheckOptions(block=block)).passed  # type: ignore[arg-type]
    floor = RoundingFloor(ChainRule(problem))
    name = "dense1/kernel" if block == "kernel" else "input[0]"
    with pytest.raises(NumericalError, match="rounding error"):
        _ = floor.gradient(name) if of == "gradient" else floor.jacobian(name).rows(0, 2)


@pytest.mark.parametrize(("block", "chunk"), [("kernel", None), ("kernel", 1), ("input", None)])
def test_a_gradient_beyond_the_range_is_said_without_a_warning(
    block: str, chunk: int | None
) -> None:
    """∂L/∂W₂ = 2aᵀaW₂ = 4e40 in float32: found by random agreement (seed 51142)."""
    layers = (
        Layer("dense1", np.full((1, 1), 1e20, dtype=np.float32), None, Activation("linear")),
        Layer("dense2", np.full((1, 1), 1, dtype=np.float32), None, Activation("linear")),
    )
    one = np.ones((2, 1), dtype=np.float32)
    problem = Problem(chain(layers), one, one, Loss("sum_of_squares"))
    options, in_chunks = CheckOptions(block=block), Execution(chunk)
    with pytest.raises(NumericalError, match=r"∂L/∂.*not finite in float32"):
        verify_first([problem], "gradient", options, execution=in_chunks)
