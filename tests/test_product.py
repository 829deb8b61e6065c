"""hesscli product: H·v and its terms, of a vector in a file or a random one, by two witnesses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import make_problem

import hesscli
from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.network import Loss, Penalty, Problem
from hesscli.studies.product import ProductOptions, product
from hesscli.studies.verdict import Verdict
from hesscli.system.errors import InputError
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("execution", [HELD, Execution(chunk=3)], ids=["held", "chunks"])
def test_products_are_those_with_tensorflow_s_matrices(execution: Execution) -> None:
    penalties = {"dense1/kernel": Penalty(l2=0.3)}
    problem = replace(make_problem((5, 4, 3), "tanh"), penalties=penalties)
    autodiff = Autodiff(problem)
    for block, layers in (("network", ()), ("layer", ("dense2",)), ("kernel", ())):
        options = ProductOptions(block, layers, seed=3)
        result = product([problem], options, execution=execution)
        assert result.passed and not result.given
        for row in result.results:
            name = row.layer if block != "kernel" else f"{row.layer}/kernel"
            T = getattr(autodiff, row.term)(name).to_dense()
            v = np.random.default_rng(3).standard_normal(row.size)
            expected = T @ v
            np.testing.assert_allclose(
                row.product, expected, rtol=0, atol=1e-13 * max(1, np.abs(expected).max())
            )
            assert row.autodiff_norm == pytest.approx(np.linalg.norm(expected), abs=1e-13)
            assert row.chain_rule_norm == pytest.approx(np.linalg.norm(expected), abs=1e-13)
            assert row.chain_rule_form == pytest.approx(v @ expected, abs=1e-12)
            assert row.check.compared == row.size


def test_of_a_linear_layer_with_squared_loss_it_is_a_closed_form() -> None:
    # L = Σ_n ‖x_n W‖², so H·V = G·V = 2 XᵀX V and C·V = 0.
    X, W = np.array([[1.0, 2.0], [3.0, 4.0]]), np.ones((2, 3))
    layer = Layer("dense", W, None, Activation("linear"))
    problem = Problem(chain((layer,)), X, np.zeros(2, int), Loss("sum_of_squares", "sum"))
    V = np.arange(6.0).reshape(2, 3)
    result = hesscli.product(problem, vector=V)
    assert [row.term for row in result.results] == ["hessian", "gauss_newton", "curvature"]
    for row, expected in zip(result.results, (2, 2, 0), strict=True):
        assert row.product.reshape(2, 3).tolist() == (expected * X.T @ X @ V).tolist()
    assert result.passed


def test_a_wrong_term_fails_and_its_worst_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChainRule, "hessian", ChainRule.gauss_newton)
    result = product([make_problem((5, 4, 3), "tanh")], ProductOptions("layer", ("dense1",)))
    H, G, C = (row.check for row in result.results)
    assert (H.verdict, G.verdict, C.verdict) == (Verdict.FAIL, Verdict.PASS, Verdict.PASS)
    assert H.worst is not None and H.worst[0] == "H·v" and H.worst[1].startswith("dense1/")
    assert "dense1" in str(result) and "FAIL on dense1: " in str(result)


def test_a_product_is_saved_and_read_again(run: Run) -> None:
    small = ("-a", "tanh", "-n", "4", "--layers", "784-5-4-10")
    asked = ("product", *small, "-b", "layer")
    assert run(*asked, "--save", "Hv.npz", "-q")[0] == 0
    with np.load("Hv.npz") as saved:
        assert set(saved.files) == {
            f"dense{k}/{tensor}" for k in (1, 2, 3) for tensor in ("kernel", "bias")
        }
        Hv = np.concatenate([saved["dense2/kernel"].reshape(-1), saved["dense2/bias"]])
    one = (*asked, "-l", "dense2")
    for term in ("hessian", "gauss-newton", "curvature"):
        out = run(*one, "--vector", "Hv.npz", "--term", term, "--save", f"{term}.npy", "-f", "json")
        assert out[0] == 0
        document = json.loads(out[1])
        assert document["vector"] == {"given": True, "seed": None}
    layers = [{"units": units} for units in (5, 4, 10)]
    problem = hesscli.problem_from_config(
        {"model": {"inputs": 784, "layers": layers}}, activation="tanh", batch_size=4
    )
    H = ChainRule(problem).hessian("dense2")
    v = np.random.default_rng(0).standard_normal(H.shape[0])
    near(Hv, H @ v)
    near(np.load("hessian.npy"), H @ (H @ v))
    near(np.load("gauss-newton.npy") + np.load("curvature.npy"), np.load("hessian.npy"))


def near(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (("--vector", "missing.npy"), "missing.npy: cannot be read"),
        (("--vector", "short.npy"), "must be (310,)"),
        (("--vector", "short.txt"), "the suffix must be .npy or .npz"),
        (("--vector", "short.npy", "--save", "short.npy"), "would write over it"),
        (("--save", "Hv.h5"), "the suffix must be .npy or .npz"),
        (("--save", "Hv.npz", "-a", "tanh", "-a", "relu"), "of one --activation, not 2"),
        (("--layer", "dense7"), "'dense7' is unknown"),
    ],
)
def test_what_cannot_be_multiplied_or_saved_is_refused(
    options: tuple[str, ...], wrong: str, run: Run
) -> None:
    np.save("short.npy", np.ones(3))
    Path("short.txt").write_text("1 2 3")
    code, out, err = run("product", "-b", "layer", "-l", "dense3", "-n", "2", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert wrong in err
    assert not Path("Hv.npz").exists()


def test_a_vector_that_does_not_fit_is_refused_from_python() -> None:
    with pytest.raises(InputError, match=r"of shape \(3,\); dense1/kernel has 20"):
        hesscli.product(make_problem((5, 4, 3), "tanh"), vector=np.ones(3))
