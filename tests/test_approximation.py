"""Fisher, KFAC and their kin against curvlinops and closed forms; distances against dense."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layer_networks import ended, layer, network
from networks import make_problem

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Activation, Array, Layer, Penalty, chain
from hesscli.problem.network import Loss, Problem
from hesscli.studies.approximation import ApproximationOptions, approximate, approximations
from hesscli.studies.approximations import distances
from hesscli.studies.approximations.distances import Images, Target
from hesscli.studies.approximations.factors import sole_node
from hesscli.system.errors import InputError
from hesscli.witnesses.chain_rule.engine import ChainRule

REFERENCE = json.loads((Path(__file__).parent / "reference" / "curvlinops.json").read_text())
CONV = network(
    [
        layer("conv", "conv2d", filters=2, kernel_size=2, activation=Activation("tanh")),
        *ended("conv"),
    ],
    (3, 3, 2),
    examples=3,
)


def made(
    problem: Problem, parameter: str, execution: Execution = HELD, **options: Any
) -> Mapping[str, Any]:
    return approximations(problem, parameter, ApproximationOptions(**options), execution=execution)


def outer(rows: Array) -> Array:
    return rows.T @ rows


@pytest.mark.parametrize("name", ["dense1/kernel", "dense2/kernel"])
def test_curvlinops_finds_the_same(name: str) -> None:
    of = {key: np.array(REFERENCE[key]) for key in ("W1", "b1", "W2", "b2", "X", "y")}
    layers = (
        Layer("dense1", of["W1"], of["b1"], Activation("tanh")),
        Layer("dense2", of["W2"], of["b2"], Activation("linear")),
    )
    found = made(Problem(chain(layers), of["X"], of["y"]), name)
    for method, expected in REFERENCE["blocks"][name].items():
        dense = found[method].to_dense()
        np.testing.assert_allclose(dense, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("problem", "parameter"),
    [(make_problem((3, 4, 2), "tanh"), "dense1"), (CONV, "conv"), (CONV, "conv/kernel")],
)
def test_fisher_matrices_are_those_of_each_example(problem: Problem, parameter: str) -> None:
    found = made(problem, parameter)
    engine = ChainRule(problem)
    G = engine.gauss_newton(parameter).to_dense()
    gradients = [
        ChainRule(problem.part(n, n + 1)).gradient(parameter) for n in range(problem.examples)
    ]
    # Each is c times the gradient of ℓ_n, c = 1/N.
    empirical = outer(np.array(gradients)) * problem.examples
    for name, expected in (("gauss_newton", G), ("empirical", empirical)):
        dense = found[name].to_dense()
        np.testing.assert_allclose(dense, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
        assert found[name].trace() == pytest.approx(np.trace(expected), rel=1e-12)


@pytest.mark.parametrize(
    "loss", ["sparse_categorical_crossentropy", "mean_squared_error", "binary_crossentropy"]
)
def test_the_monte_carlo_fisher_tends_to_gauss_newton(loss: str) -> None:
    problem = make_problem((2, 2), "linear", examples=2)
    if loss != "sparse_categorical_crossentropy":
        targets = np.array([[0.2, 1.0], [0.0, 0.5]])
        problem = replace(problem, targets=targets, loss=Loss(loss))
    found = made(problem, "dense1", samples=20_000)
    G, drawn = found["gauss_newton"].to_dense(), found["monte_carlo"].to_dense()
    # The spread of an entry is about its size by √samples.
    assert np.linalg.norm(G - drawn) < 5 / np.sqrt(20_000) * 2 * np.linalg.norm(G)


def test_the_fisher_of_counts_is_not_gauss_newton() -> None:
    """In a rate f the Fisher information is 1/f, the Hessian y/f²; Keras takes the mean of c."""
    problem = replace(
        make_problem((2, 3), "linear", examples=4),
        targets=np.full((4, 3), 2.0),
        loss=Loss("poisson"),
    )
    softplus = replace(problem.graph.nodes[-1], activation=Activation("softplus"))
    graph = replace(problem.graph, nodes=(*problem.graph.nodes[:-1], softplus))
    found = made(replace(problem, graph=graph), "dense1/kernel", samples=20_000)
    z = problem.batch @ problem.layers[0].kernel + problem.layers[0].bias
    f, slope = np.logaddexp(0, z), 1 / (1 + np.exp(-z))
    information = slope**2 / (f + 1e-7) / 3 / 4
    x = problem.batch
    S = information[:, :, None] * np.eye(3)
    F = sum(np.kron(np.outer(row, row), of) for row, of in zip(x, S, strict=True))
    assert np.abs(found["fisher"].to_dense() - F).max() < 1e-14
    kfac = np.kron(x.T @ x / 4, S.sum(axis=0))
    assert np.abs(found["kfac_fisher"].to_dense() - kfac).max() < 1e-14
    size = np.linalg.norm(F)
    assert np.linalg.norm(found["monte_carlo"].to_dense() - F) < 10 / np.sqrt(20_000) * size
    assert np.linalg.norm(found["gauss_newton"].to_dense() - F) > 0.1 * size


def test_kfac_is_exact_for_one_example_and_for_linear_networks_with_squared_loss() -> None:
    one = make_problem((3, 4, 2), "tanh", examples=1)
    linear = replace(
        make_problem((3, 4, 2), "linear", examples=5),
        targets=np.zeros((5, 2)),
        loss=Loss("mean_squared_error"),
    )
    for problem in (one, linear):
        for name in ("dense1/kernel", "dense1", "dense2"):
            found = made(problem, name)
            G = ChainRule(problem).gauss_newton(name).to_dense()
            for method in ("kfac", "kfra", "ekfac", "best_kronecker"):
                residual = np.linalg.norm(found[method].to_dense() - G)
                assert residual < 1e-13 * np.linalg.norm(G), (name, method)


@pytest.mark.parametrize("problem", [make_problem((3, 4, 2), "tanh", examples=5), CONV])
def test_the_best_kronecker_product_is_the_largest_singular_value(problem: Problem) -> None:
    name = f"{problem.layer_names[0]}/kernel"
    best = made(problem, name)["best_kronecker"]
    rows, units = len(best.A), len(best.B)
    G = ChainRule(problem).gauss_newton(name).to_dense()
    rearranged = G.reshape(rows, units, rows, units).transpose(0, 2, 1, 3).reshape(rows**2, -1)
    _, *rest = np.linalg.svd(rearranged, compute_uv=False)
    residual = np.linalg.norm(best.to_dense() - G)
    assert residual == pytest.approx(np.linalg.norm(rest), rel=1e-6)


def test_distances_without_forming_a_block_are_the_dense_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = make_problem((5, 4, 3), "tanh", examples=6)
    probes = np.zeros((0, 2))
    engine = ChainRule(problem)
    for parameter in ("dense1/kernel", "dense1", "dense2"):
        for block in (engine.hessian(parameter), engine.gauss_newton(parameter)):
            T = block.to_dense()
            with monkeypatch.context() as patched:
                patched.setattr(distances, "DENSE_SIZE", 0)
                target = Target(block, Images(probes), held=True)
                assert target.exact
                assert target.trace == pytest.approx(np.trace(T), rel=1e-12)
                for method, X in made(problem, parameter, rank=3).items():
                    found, dense = target.distance(X), X.to_dense()
                    residual = np.linalg.norm(T - dense) / np.linalg.norm(T)
                    cosine = np.vdot(T, dense) / np.linalg.norm(T) / np.linalg.norm(dense)
                    # Squares lose half of the digits of what is nearly 0.
                    assert found.distance == pytest.approx(
                        residual, abs=1e-12 + 1e-15 / max(residual, 1e-8)
                    ), method
                    assert found.cosine == pytest.approx(cosine, abs=1e-12), method
                    assert X.trace() == pytest.approx(np.trace(dense), rel=1e-12), method


def test_of_a_dense_network_that_is_too_large_the_trace_is_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is the sum of its layers', whose norms would take too long."""
    problem = make_problem((5, 4, 3), "tanh", examples=4)
    T = ChainRule(problem).hessian("network").to_dense()
    monkeypatch.setattr(distances, "DENSE_SIZE", 0)
    monkeypatch.setattr(distances, "_WORK", 0.0)
    for execution in (HELD, Execution(chunk=3)):
        rows = approximate(
            [problem], ApproximationOptions(block="network", rank=0), execution=execution
        ).results
        X = made(problem, "network", execution, rank=0)
        for row, block in zip(rows, X.values(), strict=True):
            assert not row.exact and row.hessian.distance_error is not None
            assert row.trace_ratio_error is None
            assert row.trace_ratio == pytest.approx(block.trace() / np.trace(T), rel=1e-12)


def test_of_a_dense_network_every_number_is_the_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without forming the network's block, and without probes; the trace as well."""
    problem = make_problem((5, 4, 3, 3), "tanh", examples=2)
    engine = ChainRule(problem)
    T = [of("network").to_dense() for of in (engine.hessian, engine.gauss_newton)]
    found = made(problem, "network", rank=3)
    monkeypatch.setattr(distances, "DENSE_SIZE", 0)
    rows = approximate([problem], ApproximationOptions(block="network", rank=3)).results
    for row, X in zip(rows, found.values(), strict=True):
        dense = X.to_dense()
        assert row.exact and row.trace_ratio_error is None
        assert row.trace_ratio == pytest.approx(np.trace(dense) / np.trace(T[0]), rel=1e-12)
        for of_T, by in zip(T, (row.hessian, row.gauss_newton), strict=True):
            residual = np.linalg.norm(of_T - dense) / np.linalg.norm(of_T)
            cosine = np.vdot(of_T, dense) / np.linalg.norm(of_T) / np.linalg.norm(dense)
            assert by.distance == pytest.approx(residual, abs=1e-12), row.method
            assert by.cosine == pytest.approx(cosine, abs=1e-12), row.method


def test_error_bars_hold_the_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    block = ChainRule(CONV).hessian("conv/kernel")
    X = made(CONV, "conv/kernel")["kfac"]
    exact = Target(block, Images(np.zeros((0, 2))), held=True).distance(X)
    monkeypatch.setattr(distances, "DENSE_SIZE", 0)
    trace = np.trace(block.to_dense())
    inside, traces = [], []
    for seed in range(200):
        probes = np.random.default_rng(seed).standard_normal((block.shape[0], 32))
        target = Target(block, Images(probes), held=True)
        found = target.distance(X)
        inside.append(abs(found.distance - exact.distance) <= found.distance_error)
        traces.append(abs(target.trace - trace) <= target.trace_error)
    # Of 200 seeds, two more than the 1 % that may be outside.
    assert np.mean(inside) >= 0.98
    assert np.mean(traces) >= 0.98


def test_chunks_give_the_same_as_all_examples_at_once() -> None:
    problem = make_problem((3, 4, 2), "tanh", examples=7)
    for parameter in ("dense1", "network"):
        whole, parts = made(problem, parameter), made(problem, parameter, Execution(chunk=3))
        for method, X in parts.items():
            # Over a dataset the best product is iterated to four digits.
            digits = 1e-3 if method == "best_kronecker" else 1e-12
            dense = whole[method].to_dense()
            assert np.linalg.norm(X.to_dense() - dense) < digits * np.linalg.norm(dense), method


def test_penalties_are_in_both() -> None:
    problem = make_problem((3, 4, 2), "tanh")
    penalized = replace(problem, penalties={"dense1/kernel": Penalty(l2=0.5)})
    (row,) = (
        row
        for row in approximate([penalized], ApproximationOptions(layers=("dense1",))).results
        if row.method == "kfac"
    )
    H = ChainRule(problem).hessian("dense1/kernel").to_dense() + np.eye(12)
    X = made(problem, "dense1/kernel")["kfac"].to_dense() + np.eye(12)
    assert row.hessian.distance == pytest.approx(
        np.linalg.norm(H - X) / np.linalg.norm(H), rel=1e-12
    )
    assert row.trace_ratio == pytest.approx(np.trace(X) / np.trace(H), rel=1e-12)


def test_what_has_no_factors_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="below has no Kronecker factors"):
        mixed = network([layer("below", "batch_normalization"), *ended("below")], (4,))
        approximate([mixed], ApproximationOptions(block="network"))
    focal = replace(
        make_problem((3, 2), "linear", scale=5.0),
        targets=np.array([[1.0, 0.0]] * 4),
        loss=Loss("categorical_focal_crossentropy"),
    )
    for name in ("input", "input[0]"):
        with pytest.raises(InputError, match="name a layer"):
            approximations(CONV, name, ApproximationOptions())
    with pytest.raises(InputError, match="categorical_focal_crossentropy"):
        approximate([focal], ApproximationOptions())
    assert sole_node(CONV, "conv") is not None


def test_every_format_shows_it(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    small = ("-n", "4", "-a", "tanh", "-l", "dense3", "--rank", "2")
    code, _, _ = run("approximate", *small, "-o", str(path), "--plot", str(tmp_path / "a.svg"))
    document = json.loads(path.read_text())
    assert (code, document["status"], document["schema"]) == (0, "pass", "hesscli/approximate/1")
    of = {row["method"]: row for row in document["results"]}
    assert of["Gauss–Newton"]["exact"]
    code, out, _ = run("approximate", *small)
    assert code == 0 and "no Kronecker product keeps more than" in " ".join(out.split())
