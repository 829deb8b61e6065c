"""Norms of blocks of given factors: against dense matrices, and where squares would not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from networks import make_problem

from hesscli.nodes.passes import HESSIAN
from hesscli.problem.graph import Array
from hesscli.studies import norms
from hesscli.studies.checks import frobenius_norm
from hesscli.studies.norms import (
    frobenius_norms,
    frobenius_work,
    gauss_newton_share,
    layer_block,
    spectral_norm,
)
from hesscli.system.errors import NumericalError
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import layout_of


def test_a_block_that_is_zero_beside_one_that_is_not() -> None:
    """The curvature term of relu costs nothing, and is not taken for its neighbour."""
    engine = ChainRule(make_problem((5, 4, 3), "relu", examples=6))
    blocks = [layer_block(term("dense1")) for term in (engine.curvature, engine.gauss_newton)]
    C, G = frobenius_norms(blocks)
    assert C == 0
    assert pytest.approx(np.linalg.norm(blocks[1].to_dense()), rel=1e-12) == G
    with pytest.raises(TypeError, match="NetworkBlock is not a layer's block"):
        layer_block(engine.hessian("network"))


def test_the_batch_in_several_pieces_has_the_same_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of examples are counted once or twice; a wrong count shows between pieces only."""
    block = ChainRule(make_problem((5, 4, 3), "tanh", examples=11)).hessian("dense1/kernel")
    assert isinstance(block, DenseBlock)
    monkeypatch.setattr(norms, "pieces", lambda start, stop, _: [(0, 4), (4, 8), (8, 11)])
    assert frobenius_norms([block])[0] == pytest.approx(np.linalg.norm(block.to_dense()), rel=1e-12)


@pytest.mark.parametrize("examples", [11, 50])
@pytest.mark.parametrize("way", ["_pairs_work", "_moments_work"])
def test_either_sum_is_the_norm_of_the_dense_matrix(
    way: str, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N² pairs or N moments, whichever is said to be cheaper, in one piece and in several."""
    monkeypatch.setattr(norms, way, lambda *_: 0.0)
    engine = ChainRule(make_problem((5, 4, 3), "tanh", examples=examples))
    for layer in ("dense1", "dense2/kernel", "dense1/bias"):
        blocks = [layer_block(term(layer)) for term in (engine.hessian, engine.curvature)]
        expected = [np.linalg.norm(block.to_dense()) for block in blocks]
        assert frobenius_norms(blocks) == pytest.approx(expected, rel=1e-12)
        with monkeypatch.context() as patch:
            patch.setattr(norms, "pieces", lambda _, stop, __: [(0, 4), (4, 8), (8, stop)])
            assert frobenius_norms(blocks) == pytest.approx(expected, rel=1e-12)


def test_the_work_of_the_norms_is_linear_beyond_few_examples() -> None:
    # Issue 14: of 30 inputs and 30 units it grew with the square of the examples.
    assert frobenius_work(200, 30, 30) == 200**2 / 2 * (30 + 3 * 465)
    assert frobenius_work(8192, 30, 30) == 4 * frobenius_work(2048, 30, 30)
    # 784 inputs have more pairs than there are pairs of 8,192 examples.
    assert frobenius_work(8192, 784, 30) == 16 * frobenius_work(2048, 784, 30)


def block_of(a: Array, S: Array) -> DenseBlock:
    """Σ_n a_n a_nᵀ ⊗ S_n of any S, as the block of a layer with the input a."""
    drawn = make_problem((a.shape[1], S.shape[1]), "linear", examples=len(a), dtype=a.dtype.name)
    zeros = {name: np.zeros_like(value) for name, value in drawn.graph.tensors.items()}
    problem = replace(drawn, graph=drawn.graph.with_tensors(zeros), inputs=a)
    layout = layout_of(problem, "dense1/kernel")
    linearized = ChainRule(problem).linearized
    return DenseBlock("dense1/kernel", layout, linearized, HESSIAN, "dense1", lambda: S)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_neither_overflow_nor_vanish_before_the_hessian_does(dtype: str) -> None:
    generator = np.random.default_rng(0)
    a = generator.standard_normal((4, 3)).astype(dtype)
    S = generator.standard_normal((4, 2, 2)).astype(dtype)
    S = S + S.transpose(0, 2, 1)
    dense = block_of(a, S).to_dense().astype(float)
    for power_a, power_S in ((-18, 0), (0, 37), (0, -37), (18, -30)):
        scaled = block_of(a * a.dtype.type(10.0**power_a), S * S.dtype.type(10.0**power_S))
        by = 10.0 ** (2 * power_a + power_S)
        assert frobenius_norms([scaled])[0] == pytest.approx(by * np.linalg.norm(dense), rel=1e-5)
        assert spectral_norm(scaled) == pytest.approx(by * np.linalg.norm(dense, 2), rel=1e-5)


def test_a_norm_beyond_float64_is_refused_and_a_zero_block_has_norm_zero() -> None:
    a, S = np.full((2, 3), 1e200), np.full((2, 2, 2), 1.0)
    for norm in (spectral_norm, lambda block: frobenius_norms([block])):
        with pytest.raises(NumericalError, match="range of float64"):
            norm(block_of(a, S))
    assert spectral_norm(block_of(a, 0 * S)) == 0
    assert frobenius_norms([block_of(a, 0 * S)]) == [0]


@pytest.mark.parametrize("exponent", [-200, 0, 200])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_length_is_right_where_its_square_is_no_number(dtype: str, exponent: int) -> None:
    """3² + 4² + 12² = 13²."""
    unit = np.dtype(dtype).type(10.0 ** (exponent if dtype == "float64" else exponent / 10))
    v = np.array([3, -4, 12], dtype=dtype) * unit
    assert frobenius_norm(v) == pytest.approx(
        13 * float(unit), rel=1e-6 if dtype == "float32" else 1e-15
    )
    assert frobenius_norm(0 * v) == frobenius_norm(v[:0]) == 0


def test_a_share_is_of_norms_whose_sum_may_be_no_number() -> None:
    assert gauss_newton_share(1.0, 3.0) == 0.25
    assert gauss_newton_share(1.5e308, 1.5e308) == 0.5
    assert gauss_newton_share(5e-324, 5e-324) == 0.5
    assert gauss_newton_share(0.0, 0.0) is None
