"""The exact spectrum: every number against dense matrices, closed forms and JAX's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from networks import make_problem, problems
from scipy.special import softmax

from hesscli.problem.graph import Activation, Layer, chain
from hesscli.problem.network import Loss, Problem
from hesscli.studies.blocks import chosen
from hesscli.studies.spectra.measures import Measured, outliers
from hesscli.studies.spectra.span import small_matrix
from hesscli.studies.spectra.subject import SpectrumOptions, subject_of
from hesscli.studies.spectra.terms import TermSpectrum
from hesscli.studies.spectrum import BlockSpectrum, spectrum
from hesscli.system.errors import InputError, NumericalError
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import layout_of

BLOCKS = ("kernel", "bias", "layer", "network")


def rows_of(problem: Problem, block: str = "kernel", **options: Any) -> tuple[BlockSpectrum, ...]:
    return spectrum([problem], SpectrumOptions(block=block, **options)).results


def one_layer(
    inputs: np.ndarray, kernel: np.ndarray, targets: np.ndarray, loss: Loss, output: str = "linear"
) -> Problem:
    return Problem(
        chain((Layer("dense1", kernel, None, Activation(output)),)), inputs, targets, loss
    )


def assert_is_that_of(found: TermSpectrum, dense: np.ndarray, summands: float) -> None:
    """Every number of ``found`` against NumPy's of a dense matrix.

    ``summands`` is the size of what its entries are summed from.
    """
    dense = dense.astype(np.float64)
    eps = np.finfo(np.float64).eps
    eigenvalues = np.linalg.eigvalsh(dense)
    norm = np.abs(eigenvalues).max()
    # What two computations of a matrix and of its spectrum may differ by.
    near = 1e3 * eps * len(dense) * max(norm, summands)
    numbers = (
        (found.largest, eigenvalues[-1]),
        (found.smallest, eigenvalues[0]),
        (found.trace, np.trace(dense)),
        (found.frobenius_norm, np.linalg.norm(dense)),
        (found.spectral_norm, np.linalg.norm(dense, 2)),
    )
    for number, expected in numbers:
        assert number.error is None
        assert abs(number.value - expected) <= near * len(dense)
    assert found.diagonal is not None
    assert np.allclose(found.diagonal, (dense.diagonal().min(), dense.diagonal().max()), atol=near)
    # Counts agree as far as eigenvalues can be told from the tolerance.
    for count, inside in (
        (found.rank, lambda tolerance: np.abs(eigenvalues) > tolerance),
        (found.negative, lambda tolerance: eigenvalues < -tolerance),
    ):
        few, many = inside(found.tolerance + near).sum(), inside(found.tolerance - near).sum()
        assert few <= count.value <= many
    if norm > near:
        nuclear = np.linalg.norm(dense, "nuc")
        assert found.effective_rank.value == pytest.approx(nuclear / norm, rel=1e-6)
    assert found.density.counts.sum() == len(dense)
    assert found.density.errors is None
    assert found.eigenvalues is not None
    ours = np.sort(np.append(found.eigenvalues, np.zeros(len(dense) - len(found.eigenvalues))))
    assert np.abs(ours - eigenvalues).max() <= near


def _summands(problem: Problem, term: Callable[[str], HessianBlock]) -> float:
    """Σ_n ‖a_n‖² ‖S_n‖ of the largest layer, with the constant input of its bias."""
    sizes = []
    for layer in problem.layer_names:
        block = term(layer)
        assert isinstance(block, DenseBlock)
        squares = 1 + np.square(block.a).sum(axis=1)
        sizes.append(float(squares @ np.linalg.norm(block.S, axis=(1, 2))))
    return max(sizes)


@pytest.mark.parametrize("block", BLOCKS)
@settings(max_examples=40)
@given(problem=problems())
def test_every_number_is_that_of_the_dense_matrix(block: str, problem: Problem) -> None:
    assume(block != "bias" or problem.layers[0].bias is not None)
    try:
        rows = rows_of(problem, block)
    except NumericalError:
        assume(False)
    engine = ChainRule(problem)
    for row in rows:
        H, G, C = (
            term(row.parameter).to_dense()
            for term in (engine.hessian, engine.gauss_newton, engine.curvature)
        )
        # Where NumPy's own norms neither overflow nor vanish.
        assume(all(np.abs(M).max() == 0 or 1e-150 < np.abs(M).max() < 1e150 for M in (H, G, C)))
        assert row.exact
        assert row.passed
        assert row.size == len(H) == layout_of(problem, row.parameter).size
        assert row.span <= row.size
        summands = [_summands(problem, term) for term in (engine.gauss_newton, engine.curvature)]
        assert_is_that_of(row.hessian, H, sum(summands))
        assert_is_that_of(row.gauss_newton, G, summands[0])
        # The examples' parts of C may cancel to the last bit, or to rounding.
        rounding = 1e3 * np.finfo(np.float64).eps * len(C) * summands[1]
        near = 1e-10 * (np.linalg.norm(C) + np.linalg.norm(G)) + rounding
        assert row.curvature.frobenius_norm.value == pytest.approx(np.linalg.norm(C), abs=near)
        assert row.curvature.spectral_norm.value == pytest.approx(np.linalg.norm(C, 2), abs=near)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("examples", [1, 3, 20], ids=["one", "fewer than inputs", "more"])
def test_the_small_matrix_has_the_size_of_the_span(block: str, examples: int) -> None:
    # Kernel: min(N, inputs) · units; a layer counts its constant input; only the first layer of
    # the network is projected.
    problem = make_problem((9, 4, 3), "tanh", examples=examples)
    rank = {rows: min(examples, rows) for rows in (1, 4, 5, 9, 10)}
    expected = {
        "kernel": [rank[9] * 4, rank[4] * 3],
        "bias": [4, 3],
        "layer": [rank[10] * 4, rank[5] * 3],
        "network": [rank[10] * 4 + 5 * 3],
    }[block]
    assert [row.span for row in rows_of(problem, block)] == expected


@pytest.mark.parametrize("block", BLOCKS)
def test_in_float32_every_number_is_that_of_the_matrix_to_its_precision(block: str) -> None:
    problem = make_problem((9, 5, 4, 3), "tanh", examples=6, dtype="float32")
    engine = ChainRule(problem)
    for row in rows_of(problem, block):
        dense = engine.hessian(row.parameter).to_dense().astype(np.float64)
        eigenvalues = np.linalg.eigvalsh(dense)
        near = 1e-5 * np.abs(eigenvalues).max()
        assert row.passed
        assert row.hessian.largest.value == pytest.approx(eigenvalues[-1], abs=near)
        assert row.hessian.smallest.value == pytest.approx(eigenvalues[0], abs=near)
        assert row.hessian.trace.value == pytest.approx(np.trace(dense), abs=near * len(dense))
        assert row.hessian.frobenius_norm.value == pytest.approx(np.linalg.norm(dense), rel=1e-5)
        # What single precision cannot tell from zero is not counted as negative.
        assert row.gauss_newton.negative == Measured(0)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_numbers_are_jax_s(
    activation: str, reference_problem: Problem, reference_answers: Mapping[str, Any]
) -> None:
    rows = rows_of(reference_problem.with_activation(Activation(activation)))
    for row in rows[1:]:
        expected = reference_answers[activation][row.layer]
        norm = expected["frobenius_norm"]
        assert row.hessian.frobenius_norm.value == pytest.approx(norm, rel=1e-10)
        assert row.hessian.trace.value == pytest.approx(expected["trace"], abs=1e-10 * norm)
        smallest = expected["smallest_eigenvalue"]
        assert row.hessian.smallest.value == pytest.approx(smallest, abs=1e-10 * norm)
        assert row.hessian.eigenvalues is not None
        largest = row.hessian.eigenvalues[::-1][: len(expected["largest_eigenvalues"])]
        assert np.allclose(largest, expected["largest_eigenvalues"], rtol=0, atol=1e-10 * norm)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_linear_regression_has_the_spectrum_of_its_moment_matrix(reduction: str) -> None:
    # Keras averages over the u outputs: ℓ = ‖f − y‖²/u, H = 2c/u · XᵀX ⊗ I; each of XᵀX's
    # eigenvalues comes u times.
    generator = np.random.default_rng(0)
    X, W, Y = (generator.standard_normal(shape) for shape in ((5, 8), (8, 3), (5, 3)))
    (row,) = rows_of(one_layer(X, W, Y, Loss("mean_squared_error", reduction)))
    c = 1 / 5 if reduction == "mean" else 1
    expected = np.sort(np.repeat(2 * c / 3 * np.linalg.eigvalsh(X @ X.T), 3))
    for term in (row.hessian, row.gauss_newton):
        assert term.eigenvalues is not None
        assert np.allclose(term.eigenvalues, expected, rtol=1e-12, atol=0)
        assert term.rank == Measured(15)
        assert term.negative == Measured(0)
        assert term.smallest == Measured(0.0)  # 24 parameters, 15 eigenvalues
        assert term.effective_rank.value == pytest.approx(expected.sum() / expected[-1])
        assert term.trace.value == pytest.approx(2 * c * np.square(X).sum())
    assert row.curvature.spectral_norm == Measured(0.0)


def test_softmax_regression_has_the_textbook_spectrum() -> None:
    # H = Σ_n x_n x_nᵀ ⊗ (diag p_n − p_n p_nᵀ) / N; of one example the eigenvalues are ‖x‖² times
    # those of diag p − ppᵀ.
    generator = np.random.default_rng(1)
    x, W = generator.standard_normal((1, 6)), generator.standard_normal((6, 4))
    p = softmax(x @ W, axis=1)[0]
    expected = np.linalg.eigvalsh(np.diag(p) - np.outer(p, p)) * np.square(x).sum()
    (row,) = rows_of(one_layer(x, W, np.array([2]), Loss()))
    assert row.span == 4
    assert row.hessian.rank == Measured(3)
    assert row.hessian.eigenvalues is not None
    assert np.allclose(row.hessian.eigenvalues, expected, atol=1e-15)


def test_a_negative_spectrum_ends_in_zero_where_the_matrix_is_singular() -> None:
    # L = Σ tanh(w x) at w x > 0: σ″ < 0; one example, so that all but one eigenvalue is zero.
    x = np.array([[1.0, 2.0]])
    problem = one_layer(x, np.array([[0.3], [0.2]]), np.array([0]), Loss("sum", "sum"), "tanh")
    (row,) = rows_of(problem)
    t = np.tanh(0.7)
    assert row.hessian.smallest.value == pytest.approx(-2 * t * (1 - t * t) * 5)
    assert row.hessian.largest == Measured(0.0)
    assert row.hessian.negative == Measured(1)
    assert row.hessian.spectral_norm.value == pytest.approx(-row.hessian.smallest.value)
    assert row.gauss_newton.spectral_norm == Measured(0.0)


def test_a_negative_definite_hessian_has_a_negative_largest_eigenvalue() -> None:
    problem = one_layer(
        np.array([[2.0]]), np.array([[0.5]]), np.array([0]), Loss("sum", "sum"), "tanh"
    )
    (row,) = rows_of(problem)
    t = np.tanh(1.0)
    expected = pytest.approx(-2 * t * (1 - t * t) * 4)
    assert row.hessian.largest.value == row.hessian.smallest.value == expected


@pytest.mark.parametrize("block", BLOCKS)
def test_a_hessian_that_is_zero_has_zeros(block: str) -> None:
    # The outputs' sum of a linear network with one layer is linear in its parameters.
    problem = replace(make_problem((4, 3), "linear"), loss=Loss("sum"))
    (row,) = rows_of(problem, block, top=2)
    zero = Measured(0.0)
    for term in (row.hessian, row.gauss_newton):
        assert term.rank == term.negative == Measured(0)
        assert term.largest == term.smallest == term.effective_rank == term.trace == zero
        assert term.density.counts.sum() == row.size
        assert term.top is not None
        assert not term.top.values.any()
    assert row.passed


def test_dead_units_have_a_layer_hessian_of_zero() -> None:
    problem = make_problem((4, 3, 2), "relu")
    dead = replace(problem.layers[0], bias=np.full(3, -1e3))
    first, _ = rows_of(replace(problem, graph=chain((dead, problem.layers[1]))))
    assert first.hessian.spectral_norm == Measured(0.0)


@pytest.mark.parametrize("which", ["magnitude", "ends"])
@pytest.mark.parametrize("block", BLOCKS)
def test_the_eigenpairs_asked_for_are_the_right_ones(block: str, which: str) -> None:
    problem = make_problem((9, 5, 3), "tanh", examples=3)
    row = rows_of(problem, block, top=3, ends=which == "ends")[0]
    H = ChainRule(problem).hessian(row.parameter).to_dense()
    eigenvalues = np.linalg.eigvalsh(H)
    # Zeros beyond the span are none of those at the ends.
    expected = (
        eigenvalues[np.argsort(-np.abs(eigenvalues))][:3]
        if which == "magnitude"
        else eigenvalues[[-1, -2, 0]]
    )
    top = row.hessian.top
    assert top is not None
    assert np.allclose(top.values, expected, atol=1e-12)
    assert np.allclose(H @ top.vectors, top.vectors * top.values, atol=1e-12)
    assert np.allclose(top.vectors.T @ top.vectors, np.eye(3), atol=1e-12)
    assert top.residuals.max() <= 1e-13


def test_residuals_tell_of_vectors_that_are_none() -> None:
    from hesscli.studies.spectra.lanczos import eigenpairs

    block = ChainRule(make_problem((3, 2), "linear")).hessian("dense1/kernel")
    H = block.to_dense()
    vectors = np.random.default_rng(0).standard_normal((6, 2))
    vectors /= np.linalg.norm(vectors, axis=0)
    values = np.array([0.5, -2.0])
    expected = np.linalg.norm(H @ vectors - vectors * values, axis=0)
    assert np.allclose(eigenpairs(block, values, vectors).residuals, expected, atol=1e-15)


def test_the_check_fails_where_eigenvalues_and_diagonal_do_not_belong_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = np.linalg.eigvalsh
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda K: right(K) * (1 + 1e-8))
    assert not spectrum([make_problem((3, 2), "tanh")], SpectrumOptions()).passed


def test_blocks_that_do_not_fit_go_through_products(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem((9, 5, 3), "tanh", examples=3)
    engine = ChainRule(problem)
    subject = subject_of(engine, "dense1", "dense1/kernel")
    expected = small_matrix(subject.hessian, subject.span, [subject.own[0][0]])
    monkeypatch.setattr("hesscli.studies.spectra.span.available_memory", lambda: 0)
    found = small_matrix(subject.hessian, subject.span, [subject.own[0][0]])
    assert np.allclose(found, expected, atol=1e-14)
    for block in ("kernel", "network"):
        for row in rows_of(problem, block):
            dense = engine.hessian(row.parameter).to_dense()
            assert row.check is None
            assert row.hessian.diagonal is None
            assert row.hessian.trace.value == pytest.approx(np.trace(dense))
            assert row.hessian.largest.value == pytest.approx(np.linalg.eigvalsh(dense)[-1])


def test_outliers_lie_above_the_widest_gap() -> None:
    bulk = np.linspace(-1, 1, 50)
    found = outliers(np.array([9.0, *bulk, -7.0, 8.0]), classes=3, tolerance=0.0)
    assert found.tolist() == [9.0, 8.0, -7.0]
    # No gap of 1.5; a gap that is too far down; nothing but rounding below.
    assert len(outliers(1.2 ** -np.arange(30.0), 3, 0.0)) == 0
    assert len(outliers(np.array([*np.linspace(9, 10, 8), 1.0]), 3, 0.0)) == 0
    assert len(outliers(np.array([1.0, 1e-18]), 3, 1e-15)) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SpectrumOptions(layers=("dense9",)), "dense9"),
        (SpectrumOptions(block="network", layers=("dense1",)), "no layers to choose from"),
        (SpectrumOptions(top=13), "use --top 12 or less"),
    ],
)
def test_options_that_name_nothing_are_refused(options: SpectrumOptions, words: str) -> None:
    with pytest.raises(InputError, match=words):
        spectrum([make_problem((3, 4, 2), "tanh")], options)


def test_a_network_without_biases_has_no_bias_blocks() -> None:
    problem = make_problem((3, 2), "tanh")
    bare = replace(problem, graph=chain((replace(problem.layers[0], bias=None),)))
    with pytest.raises(InputError, match="--block bias"):
        chosen(bare, "bias")


def test_what_cancels_between_examples_counts_as_zero() -> None:
    # f = sin(w x) + sin(−w x) over two examples that are opposite but for the last digit: S_1 and
    # S_2 are not small, and H is zero up to their rounding.
    x = np.array([0.1, 0.7, 0.3])
    inputs = np.array([x, -np.nextafter(x, [0, 1, 1])])
    kernel = np.array([[0.3], [0.2], [-0.4]])
    (row,) = rows_of(one_layer(inputs, kernel, np.array([0, 0]), Loss("sum", "sum"), "sin"))
    assert 0 < row.hessian.spectral_norm.value < 1e-15
    assert row.hessian.rank == row.hessian.negative == Measured(0)
    assert row.hessian.largest == row.hessian.smallest == Measured(0.0)
