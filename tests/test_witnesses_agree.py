"""The two witnesses agree on every entry of every term, and differ where a formula is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from networks import problems

from hesscli.engines.autodiff import Autodiff
from hesscli.engines.block import HessianBlock
from hesscli.engines.chainrule import ChainRule
from hesscli.engines.rounding import RoundingFloor
from hesscli.problem.errors import NumericalError
from hesscli.problem.network import Array, Problem
from hesscli.studies.checks import DEFAULT_RTOL

# Fixed seeds: a failure can be had again.
THOROUGH = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
TERMS = ("hessian", "gauss_newton", "curvature")


def entries(block: HessianBlock) -> Array:
    return block.matmat(np.eye(block.shape[0], dtype=block.dtype))


def assert_every_entry_agrees(problem: Problem) -> None:
    chain_rule = ChainRule(problem)
    try:
        floor = RoundingFloor(chain_rule)
    except NumericalError:
        assume(False)
    autodiff = Autodiff(problem)
    for layer in problem.layers:
        parameter = f"{layer.name}/kernel"
        largest = np.abs(entries(autodiff.hessian(parameter))).max()
        rounding = np.tile(floor.entries(layer.name), (layer.inputs, layer.inputs))
        tolerance = DEFAULT_RTOL[problem.dtype.name] * largest + rounding
        for term in TERMS:
            ours = entries(getattr(chain_rule, term)(parameter))
            theirs = entries(getattr(autodiff, term)(parameter))
            assert np.isfinite(ours).all()
            assert (np.abs(theirs - ours) <= tolerance).all(), (term, parameter)


@settings(THOROUGH, max_examples=400)
@given(problems("float64"))
def test_every_entry_of_every_term_agrees_in_float64(problem: Problem) -> None:
    assert_every_entry_agrees(problem)


@settings(THOROUGH, max_examples=200)
@given(problems("float32"))
def test_every_entry_of_every_term_agrees_in_float32(problem: Problem) -> None:
    assert_every_entry_agrees(problem)


@settings(THOROUGH, max_examples=25)
@given(problems())
def test_rows_are_the_rows_of_the_matrix_whatever_the_pieces(problem: Problem) -> None:
    chain_rule = ChainRule(problem)
    floor = RoundingFloor(chain_rule)
    for engine in (chain_rule, Autodiff(problem)):
        for layer in problem.layers:
            block = engine.hessian(f"{layer.name}/kernel")
            matrix = entries(block)
            # Autodiff rounds an entry and its mirror image differently.
            allowed = 1e-12 * np.abs(matrix).max() + floor.entries(layer.name).max()
            middle = block.shape[0] // 2
            rows = np.concatenate([block.rows(0, middle), block.rows(middle, block.shape[0] + 5)])
            assert np.allclose(rows, matrix, rtol=0, atol=allowed)
            assert np.allclose(block.to_dense(), matrix, rtol=0, atol=allowed)


@settings(THOROUGH, max_examples=50)
@given(problems())
def test_a_block_is_a_symmetric_scipy_operator(problem: Problem) -> None:
    generator = np.random.default_rng(0)
    for term in TERMS:
        for layer in problem.layers:
            block = getattr(ChainRule(problem), term)(f"{layer.name}/kernel")
            matrix = entries(block)
            v, V = (
                generator.standard_normal(len(matrix)),
                generator.standard_normal((len(matrix), 3)),
            )
            scale = np.abs(matrix).max() * len(matrix)
            close = {"rtol": 0, "atol": 1e-13 * scale + 1e-300}
            assert np.allclose(matrix, matrix.T, **close)
            assert np.allclose(block @ v, matrix @ v, **close)
            assert np.allclose(block.T @ V, matrix @ V, **close)
            assert np.isclose(
                block.quadratic_form(v.reshape(layer.kernel.shape)),
                v @ matrix @ v,
                rtol=0,
                atol=1e-12 * scale * (v @ v) + 1e-300,
            )


@pytest.mark.parametrize("engine", [ChainRule, Autodiff])
@pytest.mark.parametrize("parameter", ["dense9/kernel", "dense1/weights", "dense1"])
def test_an_unknown_parameter_is_a_key_error(
    engine: type[ChainRule] | type[Autodiff], parameter: str, small_problem: Problem
) -> None:
    with pytest.raises(KeyError):
        engine(small_problem).hessian(parameter)
