"""The parts of G between and within the classes (Papyan 2020): they are G, in every entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from layer_networks import random_network
from networks import make_problem
from scipy.special import softmax

import hesscli
from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.network import Loss, Penalty, Problem
from hesscli.studies import spectrum as spectra
from hesscli.studies.spectra import classes
from hesscli.studies.spectra.classes import PARTS, class_blocks, class_parts
from hesscli.system.errors import InputError
from hesscli.witnesses.autodiff.engine import Autodiff

Run = Callable[..., tuple[int, str, str]]
# Seven examples of three classes, of which one has a single example.
LABELS = np.array([0, 0, 2, 0, 2, 1, 2])


def several(activation: str = "tanh", **more: object) -> Problem:
    problem = make_problem((5, 4, 3), activation, examples=len(LABELS))
    return replace(problem, **{"targets": LABELS, **more})  # type: ignore[arg-type]


def by_definition(problem: Problem, parameter: str) -> dict[str, Array]:
    """Papyan's four sums, term by term, of TensorFlow's Jacobian and outputs."""
    autodiff = Autodiff(problem)
    J = autodiff.jacobian(parameter)
    N, C = problem.examples, problem.outputs
    J_n = J.rows(0, N * C).reshape(N, C, -1)
    p = softmax(np.asarray(autodiff.output(autodiff.batch(None)[0], {})), axis=-1)
    labels = problem.targets if problem.targets.ndim == 1 else problem.targets.argmax(axis=1)
    w = problem.scales[:, None] * p
    g = np.einsum("nkc,ncp->nkp", np.eye(C) - p[:, None], J_n)
    parts = {name: np.zeros((J_n.shape[2],) * 2) for name in PARTS}

    def add(name: str, weight: float, v: Array) -> None:
        parts[name] += weight * np.outer(v, v)

    for y in set(labels.tolist()):
        mine = np.flatnonzero(labels == y)
        others = [k for k in range(C) if k != y]
        w_yk = {k: w[mine, k].sum() for k in others}
        g_yk = {k: w[mine, k] @ g[mine, k] / w_yk[k] for k in others}
        w_y = sum(w_yk.values())
        g_y = sum(w_yk[k] * g_yk[k] for k in others) / w_y
        add("class", w_y, g_y)
        for k in others:
            add("cross", w_yk[k], g_yk[k] - g_y)
        for n, k in product(mine, others):
            add("within", w[n, k], g[n, k] - g_yk[k])
        for n in mine:
            add("own", w[n, y], g[n, y])
    return parts


def near(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


PROBLEMS = {
    "tanh": several(),
    "weights": several(sample_weight=np.arange(1.0, 8.0)),
    "one-hot": several(targets=np.eye(3)[LABELS], loss=Loss("categorical_crossentropy")),
    "sum": several(loss=Loss(reduction="sum")),
    "other layers": random_network(10),
}


@pytest.mark.parametrize("execution", [HELD, Execution(chunk=2)], ids=["held", "chunks"])
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_the_parts_are_papyan_s_and_add_up_to_g(problem: Problem, execution: Execution) -> None:
    reference = Autodiff(problem)
    names = ["network"] if len(problem.layer_names) > 2 else ["network", "dense1/kernel"]
    for parameter in names:
        G, blocks = class_blocks(problem, parameter, execution)
        dense = {name: block.to_dense() for name, block in blocks.items()}
        near(sum(dense.values()), reference.gauss_newton(parameter).to_dense())  # type: ignore[arg-type]
        largest = np.abs(G.to_dense()).max()
        for name, expected in by_definition(problem, parameter).items():
            np.testing.assert_allclose(dense[name], expected, rtol=0, atol=1e-12 * largest)
            trace = np.trace(expected)
            assert blocks[name].trace() == pytest.approx(trace, abs=1e-12 * G.trace())


def test_of_a_linear_layer_and_zero_weights_it_is_a_closed_form() -> None:
    # With W = 0 all p are 1/3. x is 1 or −1 with class 0, and 2 with class 1: g_nk = x (e_k − p).
    x = np.array([[1.0], [-1.0], [2.0]])
    layer = Layer("dense", np.zeros((1, 3)), None, Activation("linear"))
    problem = Problem(chain((layer,)), x, np.array([0, 0, 1]), Loss(reduction="sum"))
    found = class_parts(problem, "dense/kernel", HELD, 0)
    # ‖e_k − p‖² = 2/3. Of class 0 all means are 0 and everything is within: 2 · 2 · 1/3 · 2/3.
    # Of class 1, g_1k = 2 (e_k − p), k = 0, 2; g_1 = 1 − ... = 2 ((e_0 + e_2)/2 − p), of square
    # length 4 · 1/6, with the weight 2/3; about it each g_1k has 4 · 1/2, with the weight 1/3.
    expected = {"class": 4 / 9, "cross": 4 / 3, "within": 8 / 9, "own": 6 * 2 / 9}
    assert found.trace.parts == pytest.approx(expected)
    assert found.trace.value == pytest.approx(sum(expected.values()))
    assert found.passed


@pytest.mark.parametrize("execution", [HELD, Execution(chunk=2)], ids=["held", "chunks"])
def test_of_other_layers_the_traces_come_from_each_example_s_gradients(
    execution: Execution,
) -> None:
    problem = PROBLEMS["other layers"]
    found = class_parts(problem, "network", execution, 0)
    expected = {name: np.trace(X) for name, X in by_definition(problem, "network").items()}
    assert found.trace.parts == pytest.approx(expected, abs=1e-12 * found.trace.value)
    assert found.passed


def test_an_eigenvalue_is_the_sum_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = several()
    dense = np.linalg.eigvalsh(Autodiff(problem).gauss_newton("network").to_dense())[::-1]
    for small in (0, 256):
        monkeypatch.setattr(classes, "_DENSE_SIZE", small)
        found = class_parts(problem, "network", HELD, 5)
        assert len(found.eigenvalues) == 5
        for attributed, value in zip(found.eigenvalues, dense, strict=False):
            assert attributed.value == pytest.approx(value, rel=1e-7)
            assert sum(attributed.parts.values()) == pytest.approx(value, rel=1e-7)


def test_parts_that_are_not_g_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "_own", lambda f, targets, v: 0 * v)
    options = spectra.SpectrumOptions(block="network", classes=True)
    result = spectra.spectrum([several()], options)
    assert not result.passed
    notes = " ".join(hesscli.document(result).tables[-1].notes)
    assert "FAIL network: the parts of the classes do not add up to G" in notes


@pytest.mark.parametrize("loss", ["mean_squared_error", "binary_crossentropy", "sum"])
def test_another_loss_has_no_classes(loss: str) -> None:
    problem = several(targets=np.eye(3)[LABELS], loss=Loss(loss))
    with pytest.raises(InputError, match=rf"--classes: .*; the loss is {loss}"):
        class_parts(problem, "network", HELD, 0)


def test_penalties_are_left_out_and_those_of_values_are_refused() -> None:
    problem = several()
    expected = class_parts(problem, "network", HELD, 0).trace
    penalized = replace(problem, penalties={"dense1/kernel": Penalty(l2=0.5)})
    assert class_parts(penalized, "network", HELD, 0).trace == expected
    graph = replace(problem.graph, activities={"dense1": Penalty(l2=0.5)})
    with pytest.raises(InputError, match=r"--classes: dense1 have an activity_regularizer"):
        class_parts(replace(problem, graph=graph), "network", HELD, 0)


def test_the_command_shows_and_records_them(run: Run, tmp_path: Path) -> None:
    small = ("-n", "6", "--layers", "784-4-10", "-a", "tanh", "-b", "layer", "-l", "dense2")
    code, out, _ = run("spectrum", *small, "--classes", "--top", "2")
    assert code == 0 and "what the classes have of G" in out
    path = tmp_path / "report.json"
    assert run("spectrum", *small, "--classes", "-q", "-o", str(path))[0] == 0
    (row,) = json.loads(path.read_text())["results"]
    found = row["classes"]
    assert set(found["trace"]["parts"]) == set(PARTS)
    assert len(found["eigenvalues"]) == 10
    assert found["trace"]["value"] == pytest.approx(row["gauss_newton"]["trace"]["value"])
    assert run("replay", str(path), "-q")[0] == 0
