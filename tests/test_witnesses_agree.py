"""The witnesses agree on every entry of every term of every block, on random networks.

Finite differences, which have the Hessian alone, agree within their own error bars.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
from drawn import drawn
from hypothesis import assume, given
from hypothesis import strategies as st
from networks import problems

from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.checks import DEFAULT_RTOL
from hesscli.system.errors import NumericalError
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.block import Engine, HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.finite.engine import FiniteDifferences
from hesscli.witnesses.rounding.floor import RoundingFloor

TERMS = ("hessian", "gauss_newton", "curvature")


def entries(block: HessianBlock) -> Array:
    return block.matmat(np.eye(block.shape[0], dtype=block.dtype))


def block_names(problem: Problem) -> list[str]:
    names = [f"input[{example}]" for example in range(problem.examples)]
    for layer in problem.layers:
        names += [layer.name, f"{layer.name}/kernel"]
        if layer.bias is not None:
            names.append(f"{layer.name}/bias")
    return names


def floor_of(chain_rule: ChainRule) -> RoundingFloor:
    """The rounding floor; networks that leave the range of the type are drawn again."""
    try:
        chain_rule.linearized.reach(tuple(chain_rule.problem.graph.tensors), ["input"])
        return RoundingFloor(chain_rule)
    except NumericalError:
        assume(False)
        raise


def tolerance(floor: RoundingFloor, reference: HessianBlock, largest: float) -> Array:
    groups = reference.layout.groups_of(0, reference.shape[0])
    try:
        rounding = floor.entries(reference.parameter)[groups][:, groups]
    except NumericalError:
        # Errors that leave the range of float64 say nothing.
        assume(False)
        raise
    return np.asarray(DEFAULT_RTOL[reference.dtype.name] * largest + rounding)


def assert_every_entry_agrees(problem: Problem, some_block: int) -> None:
    chain_rule = ChainRule(problem)
    floor, autodiff = floor_of(chain_rule), Autodiff(problem)
    finite = FiniteDifferences(problem)
    names = block_names(problem)
    # The network's block holds all the layers'; one of the others takes its own way as well.
    for name in ("network", names[some_block % len(names)]):
        theirs = {term: entries(getattr(autodiff, term)(name)) for term in TERMS[:2]}
        # Where autodiff leaves the range of float32 the tool says so; there is nothing to compare.
        assume(all(np.isfinite(matrix).all() for matrix in theirs.values()))
        theirs["curvature"] = theirs["hessian"] - theirs["gauss_newton"]
        largest = max(float(np.abs(matrix).max()) for matrix in theirs.values())
        # The floor takes a while, and is hardly ever needed.
        allowed = cache(partial(tolerance, floor, autodiff.hessian(name), largest))
        rtol = DEFAULT_RTOL[problem.dtype.name] * largest
        for term in TERMS:
            ours = entries(getattr(chain_rule, term)(name))
            assert np.isfinite(ours).all()
            residual = np.abs(theirs[term] - ours)
            assert (residual <= rtol).all() or (residual <= allowed()).all(), (term, name)
        values, errors = finite.hessian(name).rows_with_error(0, len(ours))
        residual = np.abs(theirs["hessian"] - values)
        within = (residual <= rtol + errors).all() or (residual <= allowed() + errors).all()
        assert within, name


@drawn(400)
@given(problems("float64"), st.integers(0, 20))
def test_every_entry_of_every_term_agrees_in_float64(problem: Problem, some_block: int) -> None:
    assert_every_entry_agrees(problem, some_block)


@drawn(200)
@given(problems("float32"), st.integers(0, 20))
def test_every_entry_of_every_term_agrees_in_float32(problem: Problem, some_block: int) -> None:
    assert_every_entry_agrees(problem, some_block)


@pytest.mark.usefixtures("rows_are_traced")
@drawn(25)
@given(problems(), st.integers(0, 20))
def test_rows_are_the_rows_of_the_matrix_whatever_the_pieces(
    problem: Problem, some_block: int
) -> None:
    chain_rule = ChainRule(problem)
    floor = floor_of(chain_rule)
    names = block_names(problem)
    engines: tuple[Engine, ...] = (chain_rule, Autodiff(problem))
    for engine in engines:
        for name in ("network", names[some_block % len(names)]):
            block = engine.hessian(name)
            matrix = entries(block)
            largest = float(np.abs(matrix).max())
            rtol = DEFAULT_RTOL[problem.dtype.name] * largest
            allowed = cache(partial(tolerance, floor, block, largest))
            middle = block.shape[0] // 2
            rows = np.concatenate([block.rows(0, middle), block.rows(middle, block.shape[0] + 5)])
            for others in (rows, block.to_dense()):
                residual = np.abs(others - matrix)
                # Autodiff rounds an entry and its mirror image differently.
                within = (residual <= rtol).all()
                assert within or (residual <= np.maximum(allowed(), allowed().T)).all()


@drawn(100)
@given(problems(), st.integers(0, 20))
def test_a_block_is_a_symmetric_scipy_operator(problem: Problem, some_block: int) -> None:
    generator = np.random.default_rng(0)
    chain_rule = ChainRule(problem)
    floor = floor_of(chain_rule)
    names = block_names(problem)
    for term in TERMS:
        for name in ("network", names[some_block % len(names)]):
            block = getattr(chain_rule, term)(name)
            matrix = entries(block)
            size = len(matrix)
            v, V = generator.standard_normal(size), generator.standard_normal((size, 3))
            allowed = 1e-12 * size * np.abs(matrix).max() + 1e-300
            # Where terms cancel, as those of log(exp(z)) do, an entry is nothing but rounding.
            rounding = cache(partial(tolerance, floor, block, 0.0))

            def assert_small(
                residual: Array,
                weights: Array,
                allowed: float = allowed,
                rounding: Callable[[], Array] = rounding,
            ) -> None:
                within = (residual <= allowed).all()
                assert within or (residual <= allowed + rounding() @ np.abs(weights)).all()

            assert_small(np.abs(matrix - matrix.T), np.eye(size))
            assert_small(np.abs(block @ v - matrix @ v), v)
            assert_small(np.abs(block.T @ V - matrix @ V), V)
            form = abs(block.quadratic_form(v) - v @ matrix @ v)
            assert form <= allowed * (v @ v) or form <= np.abs(v) @ rounding() @ np.abs(v)


@drawn(100)
@given(problems(), st.integers(0, 2**32 - 1))
def test_quadratic_forms_agree(problem: Problem, seed: int) -> None:
    chain_rule = ChainRule(problem)
    floor, autodiff = floor_of(chain_rule), Autodiff(problem)
    for name in ("network", "input[0]", problem.layers[0].name):
        size = chain_rule.hessian(name).shape[0]
        v = np.random.default_rng(seed).standard_normal(size)
        G = chain_rule.gauss_newton(name).quadratic_form(v)
        C = chain_rule.curvature(name).quadratic_form(v)
        residual = abs(autodiff.hessian(name).quadratic_form(v) - (G + C))
        allowed = 1e-10 * (abs(G) + abs(C))
        assert residual <= allowed or residual <= allowed + floor.quadratic_form(name, v)


@pytest.mark.parametrize("engine", [ChainRule, Autodiff])
@pytest.mark.parametrize(
    "parameter", ["dense9/kernel", "dense1/weights", "dense9", "input[4]", "inputs", "dense3/bias"]
)
def test_an_unknown_block_is_a_key_error(
    engine: type[ChainRule] | type[Autodiff], parameter: str, small_problem: Problem
) -> None:
    with pytest.raises(KeyError):
        engine(small_problem).hessian(parameter)
