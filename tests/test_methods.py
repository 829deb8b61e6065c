"""Diagonal, trace, hvp, gradient and Jacobian, of blocks and of engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from layer_networks import random_network
from networks import make_problem

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Array
from hesscli.problem.network import Penalty, Problem
from hesscli.system.errors import InputError
from hesscli.witnesses import block
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.summed.engine import autodiff_of, chain_rule_of


def penalized() -> Problem:
    penalties = {"dense1/kernel": Penalty(l1=0.1, l2=0.3), "dense2/bias": Penalty(l2=0.2)}
    return replace(make_problem((5, 4, 3), "tanh"), penalties=penalties)


PROBLEMS = {
    "dense layers": make_problem((5, 4, 3), "gelu"),
    "penalties": penalized(),
    "other layers": random_network(10),
}


def near(found: object, expected: object) -> None:
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)


@cache
def tensorflow_s(problem: str, parameter: str) -> Mapping[str, Array]:
    """The matrix of each term; C is what of H is not G."""
    engine = Autodiff(PROBLEMS[problem])
    H, G = (of(parameter).to_dense() for of in (engine.hessian, engine.gauss_newton))
    return {"hessian": H, "gauss_newton": G, "curvature": H - G}


@pytest.mark.parametrize("execution", [HELD, Execution(chunk=1)], ids=["held", "chunks"])
@pytest.mark.parametrize("case", PROBLEMS)
def test_diagonal_trace_and_hvp_are_those_of_tensorflow_s_matrix(
    case: str, execution: Execution
) -> None:
    problem = PROBLEMS[case]
    engine = chain_rule_of(problem, execution)
    names = ["network", problem.layer_names[-1], next(iter(problem.graph.tensors))]
    names += ["input"] if execution is HELD and len(problem.layer_names) == 2 else []
    for name in names:
        for term, dense in tensorflow_s(case, name).items():
            H: HessianBlock = getattr(engine, term)(name)
            if np.abs(dense).max() == 0:
                continue
            v = np.random.default_rng(0).standard_normal(len(dense))
            near(H.diagonal(), np.diagonal(dense))
            assert H.trace() == pytest.approx(
                np.trace(dense), abs=1e-12 * np.abs(np.diagonal(dense)).sum()
            )
            near(H.hvp(v), dense @ v)


def test_hvp_is_of_the_shape_of_its_vector() -> None:
    H = ChainRule(PROBLEMS["dense layers"]).hessian("dense1/kernel")
    V = np.random.default_rng(1).standard_normal((5, 4))
    assert H.hvp(V).shape == (5, 4)
    np.testing.assert_array_equal(H.hvp(V).reshape(-1), H @ V.reshape(-1))
    with pytest.raises(InputError, match=r"of shape \(19,\); dense1/kernel has 20"):
        H.hvp(np.ones(19))


def test_a_diagonal_is_found_by_rows_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a block without structure no more rows are held than fit into a piece."""
    H = ChainRule(PROBLEMS["other layers"]).hessian("network")
    expected, asked = np.diagonal(H.to_dense()), []
    rows = H.rows

    def noted(start: int, stop: int) -> Array:
        asked.append(stop - start)
        return rows(start, stop)

    monkeypatch.setattr(H, "rows", noted)
    monkeypatch.setattr(block, "_PIECE_BYTES", 5 * H.row_bytes)
    near(H.diagonal(), expected)
    assert max(asked) == 5 and sum(asked) == len(expected)


@pytest.mark.parametrize("of", [chain_rule_of, autodiff_of])
def test_gradient_and_jacobian_in_chunks_are_the_whole_ones(of) -> None:  # type: ignore[no-untyped-def]
    problem = penalized()
    whole, parts = of(problem, HELD), of(problem, Execution(chunk=3))
    for name in ("network", "dense1", "dense2/bias"):
        near(parts.gradient(name), whole.gradient(name))
        J, expected = parts.jacobian(name), whole.jacobian(name)
        assert J.shape == expected.shape
        near(J.rows(0, J.shape[0]), expected.rows(0, J.shape[0]))
        # Within a chunk, over its end, and backwards.
        for start, stop in ((8, 11), (4, 8), (0, 1)):
            near(J.rows(start, stop), expected.rows(start, stop))


@pytest.mark.parametrize("of", [chain_rule_of, autodiff_of])
@pytest.mark.parametrize("name", ["input", "input[0]"])
def test_inputs_in_chunks_are_refused(of, name: str) -> None:  # type: ignore[no-untyped-def]
    """Every chunk has an example 0: their sum would be nobody's."""
    engine = of(make_problem((5, 4, 3), "tanh"), Execution(chunk=2))
    for question in (engine.hessian, engine.gauss_newton, engine.gradient, engine.jacobian):
        with pytest.raises(InputError, match=r"a block of its own; use at most 2"):
            question(name)
