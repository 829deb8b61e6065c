"""(H + λI)⁻¹ v against NumPy's dense solution, closed forms, and what is said of bad systems."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layer_networks import ended, layer, network
from networks import make_problem

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.network import Loss, Penalty, Problem
from hesscli.report.documents import document_of
from hesscli.report.formats import render
from hesscli.studies.approximation import ApproximationOptions, approximations
from hesscli.studies.approximations.blocks import Kronecker
from hesscli.studies.solve import Solve, SolveOptions, solve
from hesscli.studies.spectra.spanned import spanned
from hesscli.system.errors import InputError, NumericalError
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.solution import Asked

REFERENCE = json.loads((Path(__file__).parent / "reference" / "curvlinops.json").read_text())
Run = Callable[..., tuple[int, str, str]]
SMALL = make_problem((3, 4, 2), "tanh", examples=5)
# More parameters than a block's own eigenvalues are taken of, and fewer examples.
WIDE = make_problem((34, 30, 3), "tanh", examples=5)
CONV = network(
    [
        layer("conv", "conv2d", filters=2, kernel_size=2, activation=Activation("tanh")),
        *ended("conv"),
    ],
    (3, 3, 2),
    examples=3,
)
LAMBDA = 0.3
PENALTIES = {
    "of one kernel": {"dense1/kernel": Penalty(l2=0.2)},
    "of all alike": {
        name: Penalty(l1=0.1, l2=0.2) for name in SMALL.graph.tensors if name.startswith("dense1")
    },
}


def drawn(size: int) -> Array:
    return np.random.default_rng(1).standard_normal(size)


def expected(block: HessianBlock, v: Array, damping: float = LAMBDA) -> Array:
    return np.linalg.solve(block.to_dense() + damping * np.eye(len(v)), v)


def solved(problem: Problem, block: str = "layer", **options: Any) -> Solve:
    execution = options.pop("execution", HELD)
    asked = {key: options.pop(key) for key in ("method", "rtol", "products") if key in options}
    of = SolveOptions(block, asked=Asked(**asked), **options)
    return solve([problem], of, execution=execution)


def require_close(found: Array, wanted: Array, share: float = 1e-9) -> None:
    assert np.linalg.norm(found - wanted) <= share * np.linalg.norm(wanted)


@pytest.mark.parametrize("method", ["exact", "minres"])
@pytest.mark.parametrize("term", ["hessian", "gauss_newton"])
@pytest.mark.parametrize(
    ("problem", "parameter"),
    [
        (SMALL, "dense1/kernel"),
        (SMALL, "dense1"),
        (SMALL, "dense2/bias"),
        (SMALL, "network"),
        (WIDE, "dense1/kernel"),
        (WIDE, "dense1"),
        (WIDE, "network"),
        (CONV, "conv"),
        (CONV, "network"),
        (replace(SMALL, penalties=PENALTIES["of one kernel"]), "dense1"),
        (replace(SMALL, penalties=PENALTIES["of all alike"]), "dense1"),
        (replace(WIDE, penalties=PENALTIES["of all alike"]), "dense1"),
    ],
)
def test_a_solution_is_numpys(problem: Problem, parameter: str, term: str, method: str) -> None:
    block = getattr(ChainRule(problem), term)(parameter)
    v = drawn(block.shape[0])
    found = spanned(block).solve(v, LAMBDA, method, rtol=1e-11)
    assert found.method == {"exact": "eigenvalues"}.get(method, method)
    require_close(found.x, expected(block, v))
    left = block.to_dense() @ found.x + LAMBDA * found.x - v
    assert found.residual == pytest.approx(np.linalg.norm(left) / np.linalg.norm(v), abs=1e-13)
    assert found.passed
    assert found.form == pytest.approx(found.x @ block.to_dense() @ found.x, rel=1e-9)
    if method == "exact":
        values = np.linalg.eigvalsh(block.to_dense())
        assert found.smallest == pytest.approx(values[0], abs=1e-12)
        assert found.negative == int((values + LAMBDA < 0).sum())


@pytest.mark.parametrize("penalties", [{}, *PENALTIES.values()])
@pytest.mark.parametrize("parameter", ["dense1/kernel", "dense1", "network"])
def test_approximations_are_solved_by_their_structure(parameter: str, penalties: Any) -> None:
    problem = replace(SMALL, penalties=penalties)
    options = {"matrices": ("kfac", "ekfac", "kfra", "best-kronecker", "diagonal", "empirical")}
    block = {"dense1/kernel": "kernel", "dense1": "layer"}.get(parameter, parameter)
    for row in solved(problem, block, damping=LAMBDA, **options).results:
        if row.parameter != parameter:
            continue
        made = approximations(problem, parameter, ApproximationOptions(rank=0))
        name = row.matrix.replace("-", "_")
        X = made.get(name, made.get(f"block_diagonal_{name}"))
        dense = X.to_dense() + (LAMBDA * np.eye(row.size))
        tensors = row.layout.shapes.items()
        of = [penalties.get(tensor, Penalty()).l2 for tensor, _ in tensors]
        added = np.repeat([2 * l2 for l2 in of], [np.prod(shape) for _, shape in tensors])
        v = ChainRule(problem).gradient(parameter)
        require_close(row.solution.x, np.linalg.solve(dense + np.diag(added), v))
        by_factors = len(set(added)) == 1 and row.matrix != "empirical"
        assert row.solution.method == ("factors" if by_factors else "eigenvalues")


@pytest.mark.parametrize("method", ["minres", "cg"])
def test_of_what_is_never_negative_products_are_enough(method: str) -> None:
    F = approximations(CONV, "conv/kernel", ApproximationOptions())["empirical"]
    v = drawn(F.shape[0])
    F.most_eigenvalues = 0
    assert F.solve(v, LAMBDA).method == "cg"
    found = F.solve(v, LAMBDA, method, rtol=1e-12)
    require_close(found.x, expected(F, v))
    assert 0 < found.products < F.shape[0] + 20
    assert found.curvature is not None and found.curvature >= LAMBDA * (1 - 1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("method", ["minres", "cg"])
def test_the_scale_of_a_system_changes_nothing(scale: float, method: str) -> None:
    kfac = approximations(SMALL, "dense1", ApproximationOptions())["kfac"]
    X = Kronecker(kfac.parameter, kfac.layout, kfac.A * scale, kfac.B)
    v = drawn(X.shape[0]) * 1e-20
    require_close(
        X.solve(v, LAMBDA * scale, method, rtol=1e-12).x * scale, expected(kfac, v), share=1e-10
    )


@pytest.mark.parametrize("block", ["kernel", "layer", "network"])
def test_chunks_give_the_same_step(block: str) -> None:
    matrices = ("hessian", "gauss-newton", "kfac", "ekfac")
    of = {"damping": LAMBDA, "matrices": matrices, "rtol": 1e-11}
    whole, parts = (
        solved(SMALL, block, **of, execution=each) for each in (HELD, Execution(chunk=2))
    )
    for one, other in zip(whole.results, parts.results, strict=True):
        require_close(other.solution.x, one.solution.x)
        assert other.step is not None and one.step is not None
        assert other.step.actual == pytest.approx(one.step.actual, rel=1e-9)


@pytest.mark.parametrize("name", ["dense1/kernel", "dense2/kernel"])
@pytest.mark.parametrize("method", ["kfac", "ekfac"])
def test_curvlinops_finds_the_same_inverse(name: str, method: str) -> None:
    of = {key: np.array(REFERENCE[key]) for key in ("W1", "b1", "W2", "b2", "X", "y")}
    layers = (
        Layer("dense1", of["W1"], of["b1"], Activation("tanh")),
        Layer("dense2", of["W2"], of["b2"], Activation("linear")),
    )
    problem = Problem(chain(layers), of["X"], of["y"])
    X = approximations(problem, name, ApproximationOptions())[method]
    inverse = [X.solve(unit, REFERENCE["damping"]).x for unit in np.eye(X.shape[0])]
    theirs = np.array(REFERENCE["inverses"][name][method])
    np.testing.assert_allclose(inverse, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())


def linear() -> Problem:
    """Squared loss of a linear layer, in more examples than parameters."""
    problem = make_problem((3, 2), "linear", examples=9)
    targets = np.random.default_rng(5).standard_normal((9, 2))
    return replace(problem, targets=targets, loss=Loss("mean_squared_error"))


@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton", "kfac", "ekfac"])
@pytest.mark.parametrize("method", ["auto", "minres"])
def test_one_newton_step_of_a_quadratic_loss_is_least_squares(matrix: str, method: str) -> None:
    """KFAC is exact for it as well (Bernacchia et al. 2018)."""
    problem = linear()
    (row,) = solved(problem, damping=0.0, matrices=(matrix,), method=method, rtol=1e-12).results
    A = np.column_stack([problem.batch, np.ones(9)])
    best, *_ = np.linalg.lstsq(A, problem.targets)
    theta = np.concatenate([problem.layers[0].kernel, problem.layers[0].bias[None]])
    require_close(theta.reshape(-1) - row.solution.x, best.reshape(-1))
    before, after = (np.mean((A @ at - problem.targets) ** 2) for at in (theta, best))
    assert row.step.actual == pytest.approx(before - after, rel=1e-9)
    assert row.step.predicted == pytest.approx(before - after, rel=1e-9)
    assert row.step.slope == pytest.approx(-2 * (before - after), rel=1e-9)


def test_the_decrease_is_that_of_the_loss_and_its_model() -> None:
    """The loss at θ + Δ by the problem with other tensors, penalties among it."""
    from hesscli.studies.evaluation import batch_loss
    from hesscli.workers.share import ALONE

    problem = replace(SMALL, penalties=PENALTIES["of one kernel"])
    (row,) = solved(problem, layers=("dense1",), damping=LAMBDA).results
    H, g = (of("dense1") for of in (ChainRule(problem).hessian, ChainRule(problem).gradient))
    step = -row.solution.x
    moved = {
        **problem.graph.tensors,
        "dense1/kernel": problem.graph.tensors["dense1/kernel"] + step[:12].reshape(3, 4),
        "dense1/bias": problem.graph.tensors["dense1/bias"] + step[12:],
    }
    after = replace(problem, graph=problem.graph.with_tensors(moved))
    decrease = batch_loss(problem, ALONE).total - batch_loss(after, ALONE).total
    assert row.step.actual == pytest.approx(decrease, abs=1e-15)
    model = -g @ step - step @ H.to_dense() @ step / 2
    assert row.step.predicted == pytest.approx(model, rel=1e-10)


@pytest.mark.parametrize("method", ["exact", "minres"])
def test_of_a_singular_system_the_shortest_solution_is_given(method: str) -> None:
    G = ChainRule(WIDE).gauss_newton("dense1/kernel")
    v = ChainRule(WIDE).gradient("dense1/kernel")
    found = spanned(G).solve(v, 0.0, method, rtol=1e-10)
    # The gradient lies in the range of G (softmax: p − y does in that of ∂²ℓ/∂f²).
    assert found.passed
    require_close(found.x, np.linalg.pinv(G.to_dense(), hermitian=True) @ v, share=1e-7)
    if method == "exact":
        assert found.null == G.shape[0] - np.linalg.matrix_rank(G.to_dense(), hermitian=True)


def test_a_system_without_a_solution_fails_with_the_least_residual() -> None:
    G = ChainRule(SMALL).gauss_newton("dense2/bias")
    # The sum of the two logits' biases changes nothing.
    found = G.solve(np.array([2.0, 1.0]), 0.0)
    assert (found.null, found.negative, found.passed) == (1, 0, False)
    assert found.residual == pytest.approx(np.sqrt(4.5 / 5), rel=1e-12)
    by_products = G.solve(np.array([2.0, 1.0]), 0.0, "minres")
    assert by_products.residual == pytest.approx(np.sqrt(4.5 / 5), rel=1e-9)
    of_null = G.solve(np.array([1.0, 1.0]), 0.0, "minres")
    assert of_null.residual == pytest.approx(1.0, rel=1e-9)
    np.testing.assert_allclose(G.solve(np.zeros(2), 0.0, "minres").x, 0.0)


def test_what_is_indefinite_is_said_with_the_damping_that_is_enough() -> None:
    for method in ("exact", "minres"):
        first = solved(WIDE, "kernel", layers=("dense1",), damping=0.0, method=method)
        (row,) = first.results
        values = np.linalg.eigvalsh(ChainRule(WIDE).hessian("dense1/kernel").to_dense())
        assert row.indefinite and row.smallest == pytest.approx(values[0], rel=1e-3)
        text = render(document_of(first), "table")
        assert "negative eigenvalues" in text and "a damping above" in " ".join(text.split())
        (damped,) = solved(
            WIDE, "kernel", layers=("dense1",), damping=-1.01 * values[0], method=method
        ).results
        assert not damped.indefinite and damped.step.descends
        assert "negative" not in render(document_of(damped_of(damped, first)), "table")


def test_at_a_saddle_point_the_gradient_is_0_and_the_hessian_says_what_it_is() -> None:
    """With f = W₂ᵀW₁ᵀx at W = 0 and squared loss: H has only ∂²L/∂W₁∂W₂ = −x y, of both signs."""
    one = Layer("dense1", np.zeros((1, 1)), None, Activation("linear"))
    graph = chain((one, replace(one, name="dense2")))
    problem = Problem(graph, np.array([[2.0]]), np.array([[3.0]]), Loss("mean_squared_error"))
    result = solved(problem, "network", damping=1.0)
    (row,) = result.results
    assert row.norm == 0 and row.smallest == pytest.approx(-2 * 2 * 3)
    assert row.solution.negative == 1
    assert "g is 0, but θ is not a minimum" in " ".join(
        render(document_of(result), "table").split()
    )


def damped_of(row: Any, first: Solve) -> Solve:
    return replace(first, results=(row,))


def test_conjugate_gradients_refuse_what_is_indefinite() -> None:
    H = ChainRule(WIDE).hessian("dense1/kernel")
    with pytest.raises(NumericalError, match="not positive definite, which cg needs"):
        H.solve(drawn(H.shape[0]), 0.0, "cg")


@pytest.mark.parametrize("method", ["minres", "cg"])
def test_what_takes_more_steps_than_allowed_fails(method: str) -> None:
    result = solved(
        WIDE, "network", damping=1e-6, matrices=("gauss-newton",), method=method, products=3
    )
    (row,) = result.results
    assert not result.passed and row.solution.residual > row.solution.rtol
    assert "--products" in render(document_of(result), "table")


def test_float32_is_solved_to_what_its_products_allow() -> None:
    problem = make_problem((3, 4, 2), "tanh", dtype="float32", examples=5)
    exact, iterated = (
        solved(problem, "network", damping=LAMBDA, method=m).results[0].solution
        for m in ("auto", "minres")
    )
    assert exact.passed and iterated.passed and exact.rtol == 1e-4
    wanted = expected(ChainRule(SMALL).hessian("network"), ChainRule(SMALL).gradient("network"))
    require_close(exact.x, wanted, share=1e-4)
    require_close(iterated.x, wanted, share=1e-3)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ((np.zeros(11),), r"v: of shape \(11,\); dense1/kernel has 12 parameters.*\(12,\)"),
        ((np.zeros((4, 3)),), r"v: of shape \(4, 3\)"),
        ((np.full(12, np.inf),), "finite"),
        ((["a"] * 12,), "real numbers"),
        ((np.ones(12), -1.0), "damping: -1; it must be 0 or more"),
        ((np.ones(12), np.nan), "damping: nan"),
        ((np.ones(12), np.inf), "damping: inf"),
        ((np.ones(12), 1.0, "mines"), "did you mean 'minres'"),
    ],
)
def test_what_cannot_be_solved_is_refused_by_name(arguments: Any, wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        ChainRule(SMALL).hessian("dense1/kernel").solve(*arguments)


def test_numbers_out_of_their_range_are_refused() -> None:
    H = ChainRule(SMALL).hessian("dense1/kernel")
    for options, name in (({"rtol": 0.0}, "rtol"), ({"products": 0}, "products")):
        with pytest.raises(InputError, match=name):
            H.solve(np.ones(12), 1.0, **options)
    np.testing.assert_array_equal(H.solve(np.ones((3, 4)), 1.0).x, H.solve(np.ones(12), 1.0).x)
    with pytest.raises(InputError, match="exact: dense1/kernel has no factors"):
        ChainRule(WIDE).hessian("dense1/kernel").solve(np.ones(1020), 1.0, "exact")
    with pytest.raises(InputError, match="'kfacs' is unknown; did you mean 'kfac'"):
        SolveOptions(matrices=("kfacs",))
    with pytest.raises(InputError, match="--matrix kfra: conv/kernel has none; it has"):
        solved(CONV, "kernel", layers=("conv",), matrices=("kfra",))


# The command

TINY = ("-n", "4", "-a", "tanh", "--layers", "784-5-4-10")


def test_what_is_saved_solves_the_system(run: Run, tmp_path: Path) -> None:
    x, v, again = (str(tmp_path / name) for name in ("x.npz", "v.npz", "again.npy"))
    assert run("solve", *TINY, "-b", "layer", "--damping", "0.5", "--save", x)[0] == 0
    with np.load(x) as stored:
        assert stored["dense2/kernel"].shape == (5, 4)
        np.savez(v, **{name: 2 * stored[name] for name in stored.files})
    code, out, _ = run(
        "solve", *TINY, "-l", "dense2", "--vector", v, "--damping", "0.5", "--save", again,
        "-f", "json"
    )  # fmt: skip
    (row,) = json.loads(out)["results"]
    assert (code, row["step"], row["status"]) == (0, None, "pass")
    with np.load(v) as stored:
        assert row["vector_norm"] == pytest.approx(np.linalg.norm(stored["dense2/kernel"]))
    assert row["solution_norm"] == pytest.approx(np.linalg.norm(np.load(again)), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (("--vector", "none.npy"), "none.npy: cannot be read"),
        (("--vector", "short.npy", "-l", "dense2"), "--vector: short.npy: of shape (3,)"),
        (("--vector", "short.npy", "--save", "short.npy"), "would write over it"),
        (("--save", "x.txt"), "the suffix must be .npy or .npz"),
        (("--save", "x.npy"), "there are 3 blocks"),
        (("--save", "x.npz", "-m", "kfac", "-m", "hessian"), "one --matrix, not 2"),
        (("--save", "x.npz", "-a", "relu"), "one --activation, not 2"),
        (("--damping", "-1"), "--damping"),
        (("--damping", "nan"), "damping"),
        (("--damping", "inf"), "finite"),
        (("--matrix", "kfca"), "--matrix"),
        (("--rtol", "0"), "--rtol"),
        (("--block", "input"), "--block"),
        (("--method", "exact", "-m", "empirical", "-l", "dense1"), "no factors"),
        (("--method", "cg", "--damping", "0", "-l", "dense1"), "not positive definite"),
    ],
)
def test_a_command_that_cannot_be_is_one_line(
    arguments: tuple[str, ...],
    wrong: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("short.npy", np.ones(3))
    code, out, err = run("solve", *TINY, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert wrong in err
    assert not Path("x.npz").exists()


def test_a_system_without_a_solution_is_no_pass(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.ones(10))
    of = ("-b", "bias", "-l", "dense3", "--damping", "0", "--vector", str(path))
    code, out, _ = run("solve", *TINY, *of)
    assert code == 1
    assert "singular up to rounding, and no x solves it" in " ".join(out.split())


def test_progress_is_told_product_by_product() -> None:
    told: list[tuple[str, int, int]] = []
    options = SolveOptions("network", asked=Asked("minres"), damping=LAMBDA)
    solve([SMALL], options, progress=lambda *of: told.append(of))
    done = [count for _, count, _ in told]
    assert told[0][0] == "tanh network hessian" and len(done) > 5
    assert done == sorted(done) and done[-1] < told[-1][2]
