"""Beyond the exact limit: ends by Lanczos and sums by quadrature, against the exact spectrum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from networks import make_problem, problems
from spectra_coverage import SPECTRA, Diagonal, coverage

from hesscli.nodes.passes import Linearized, Moved
from hesscli.problem.network import Loss, Problem
from hesscli.studies.norms import frobenius_norms
from hesscli.studies.spectra.lanczos import largest
from hesscli.studies.spectra.measures import Measured
from hesscli.studies.spectra.moments import diagonal
from hesscli.studies.spectra.quadrature import mean_square, quadrature
from hesscli.studies.spectra.subject import SpectrumOptions, subject_of
from hesscli.studies.spectra.terms import CurvatureNorms
from hesscli.studies.spectrum import BlockSpectrum, spectrum
from hesscli.system.errors import InputError, NumericalError
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule

BLOCKS = ("kernel", "bias", "layer", "network")


def both(problem: Problem, **options: Any) -> list[tuple[BlockSpectrum, BlockSpectrum]]:
    """The exact rows of a problem beside the estimated ones."""
    chosen = SpectrumOptions(**options)
    exact = spectrum([problem], chosen).results
    # Nothing is small enough.
    estimated = spectrum([problem], replace(chosen, exact_limit=1)).results
    return list(zip(exact, estimated, strict=True))


def within(estimate: Measured, exact: float, bars: float, least: float = 0.0) -> bool:
    error = 0.0 if estimate.error is None else estimate.error
    return abs(estimate.value - exact) <= bars * error + least


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("block", BLOCKS)
def test_ends_by_lanczos_are_those_of_the_exact_spectrum(block: str, dtype: str) -> None:
    problem = make_problem((12, 8, 6), "tanh", examples=6, dtype=dtype)
    for exact, estimated in both(problem, block=block, probes=3):
        assert exact.exact
        assert not estimated.exact
        assert estimated.passed
        for term in ("hessian", "gauss_newton"):
            right, found = getattr(exact, term), getattr(estimated, term)
            norm = right.spectral_norm.value
            least = norm * (1e-12 if dtype == "float64" else 1e-5)
            # The end near zero may lie in a crowd: it is known to its residual.
            assert within(found.spectral_norm, norm, 1, least)
            assert within(found.largest, right.largest.value, 1, least)
            assert within(found.smallest, right.smallest.value, 1, least)
            # Those of a and S are exact, for a layer.
            assert found.trace == right.trace
            assert found.diagonal == right.diagonal
            if block != "network":
                assert found.frobenius_norm.error is None
                assert found.frobenius_norm.value == pytest.approx(
                    right.frobenius_norm.value, rel=1e-10 if dtype == "float64" else 1e-5
                )
        C, right_C = estimated.curvature, exact.curvature
        assert C.spectral_norm.value == pytest.approx(
            right_C.spectral_norm.value, rel=1e-4, abs=1e-12
        )


@pytest.mark.parametrize("block", ["kernel", "network"])
def test_enough_steps_make_the_quadrature_exact_but_for_the_probes(block: str) -> None:
    # With as many steps as eigenvalues every node is an eigenvalue, and counts are off by what
    # the probes are off only.
    problem = make_problem((6, 4, 3), "tanh", examples=3)
    for exact, estimated in both(problem, block=block, probes=100, steps=60):
        for name in ("rank", "negative", "effective_rank", "frobenius_norm"):
            right = getattr(exact.hessian, name).value
            assert within(getattr(estimated.hessian, name), right, 1, 1e-9), name
            # The error bar says something.
            bar = getattr(estimated.hessian, name).error
            assert bar is None or bar <= max(1.0, 0.25 * right)
        density = estimated.hessian.density
        assert density.counts.sum() == pytest.approx(exact.size)
        assert density.errors is not None


@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("probes", [2, 10])
@pytest.mark.parametrize("name", ["bulk and outliers", "a pair", "both signs near zero"])
def test_error_bars_hold_as_often_as_they_promise(name: str, probes: int, steps: int) -> None:
    """tests/spectra_coverage.py says it of 500 seeds."""
    eigenvalues = SPECTRA[name][::3] if len(SPECTRA[name]) > 100 else SPECTRA[name]
    held = coverage(eigenvalues, probes, steps, 20)
    # Of 20 bars that hold with 95 % fewer than 16 have a chance of 1 : 400.
    assert min(held.values()) >= 0.8, held


def test_where_the_quadrature_is_exact_bars_say_something() -> None:
    block = Diagonal(np.concatenate([[2.0, 1.0, -1.0], np.zeros(47)]))
    found = quadrature(block, block.span, 100, 50, 0, 2.0)
    rank, negative = found.rank(1e-6), found.negative(1e-6)
    assert rank.error is not None
    assert negative.error is not None
    assert rank.error < 1.5
    assert negative.error < 1.5


def test_error_bars_shrink_with_the_root_of_the_number_of_probes() -> None:
    block = Diagonal(SPECTRA["bulk and outliers"])

    def bar(probes: int) -> float:
        error = quadrature(block, block.span, probes, 5, 0, 5.0).frobenius_norm().error
        assert error is not None
        return error

    assert bar(50) / bar(450) == pytest.approx(3, rel=0.3)


def test_the_mean_square_of_products_is_the_frobenius_norm() -> None:
    eigenvalues = SPECTRA["bulk and outliers"]
    block = Diagonal(eigenvalues)
    right = float(np.linalg.norm(eigenvalues))
    for seed in range(20):
        assert within(mean_square(block, block.span, 50, seed, 5.0), right, 1)


def test_weights_are_a_measure_and_seeds_decide() -> None:
    block = Diagonal(SPECTRA["bulk and outliers"])
    one, same, other = (
        quadrature(block, block.span, 4, 30, seed, 5.0).probes[0] for seed in (1, 1, 2)
    )
    assert one.weights.sum() == pytest.approx(1)
    assert (one.weights >= 0).all()
    assert np.array_equal(one.nodes, same.nodes)
    assert not np.array_equal(one.nodes, other.nodes)


def test_lanczos_vectors_stay_orthogonal_where_eigenvalues_converge() -> None:
    # Without reorthogonalization the converged 1e6 would come back as a ghost, and be counted.
    eigenvalues = np.concatenate([[1e6], np.linspace(0, 1, 150)])
    block = Diagonal(eigenvalues)
    found = quadrature(block, block.span, 3, 100, 0, 1e6)
    assert [int((np.abs(of.nodes - 1e6) < 1).sum()) for of in found.probes] == [1, 1, 1]


@pytest.mark.parametrize("shift", [0.0, 6.0, -6.0])
def test_lanczos_finds_the_end_that_it_is_sent_to(shift: float) -> None:
    eigenvalues = np.concatenate([np.linspace(-0.3, 0.2, 90), [5.0, 4.0, -3.0]])
    block = Diagonal(eigenvalues)
    expected = {0.0: [5.0, 4.0, -3.0], 6.0: [5.0, 4.0, 0.2], -6.0: [-3.0, -0.3]}[shift]
    found = largest(block, block.span, len(expected), 0, 1e-10, shift)
    assert np.allclose(found.values, expected, atol=1e-8)
    assert found.residuals.max() <= 1e-7


def test_lanczos_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesscli.studies.spectra.lanczos._MAX_RESTARTS", 1)
    block = Diagonal(np.linspace(0.999, 1, 500))
    with pytest.raises(NumericalError, match="use a smaller --top"):
        largest(block, block.span, 5, 0, 1e-12)


@pytest.mark.parametrize("density", [False, True])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("block", ["kernel", "network"])
def test_the_eigenpairs_asked_for_are_those_of_the_exact_spectrum(
    block: str, ends: bool, density: bool
) -> None:
    problem = make_problem((12, 8, 6), "tanh", examples=6)
    options = {"block": block, "probes": 2, "top": 5, "ends": ends, "density": density}
    for exact, estimated in both(problem, **options):
        assert (estimated.hessian.density is not None) == density
        right, found = exact.hessian.top, estimated.hessian.top
        assert right is not None
        assert found is not None
        norm = exact.hessian.spectral_norm.value
        assert np.allclose(found.values, right.values, atol=1e-8 * norm)
        assert found.residuals.max() <= 1e-6 * norm


@pytest.mark.parametrize("ends", [False, True])
def test_eigenpairs_alone_say_what_they_know_of_the_ends_and_nothing_else(ends: bool) -> None:
    problem = make_problem((12, 8, 6), "tanh", examples=6)
    for exact, alone in both(problem, block="kernel", top=5, ends=ends):
        assert alone.passed
        assert alone.curvature == CurvatureNorms(None, None)
        for term in ("hessian", "gauss_newton"):
            right, found = getattr(exact, term), getattr(alone, term)
            norm = right.spectral_norm.value
            assert within(found.spectral_norm, norm, 1, 1e-12 * norm)
            assert within(found.largest, right.largest.value, 1, 1e-12 * norm)
            if found.smallest is not None:
                assert within(found.smallest, right.smallest.value, 1, 1e-12 * norm)
            unknown = (
                *(found.rank, found.effective_rank, found.negative, found.trace),
                *(found.frobenius_norm, found.diagonal, found.tolerance, found.outliers),
                *(found.density, found.eigenvalues),
            )
            assert unknown == (None,) * len(unknown)
        # The second largest magnitude of both kernels' Hessians may be negative; an end is.
        assert (alone.hessian.smallest is not None) == (
            ends or bool((exact.hessian.top.values < 0).any())
        )


def test_only_a_small_block_or_many_pairs_are_decomposed_for_pairs_alone() -> None:
    alone = SpectrumOptions(top=1)
    assert alone.exact(256)
    assert not alone.exact(257)
    assert replace(alone, density=True).exact(257)
    assert replace(alone, top=51).exact(1001)
    assert replace(alone, density=True).exact(1001)
    assert SpectrumOptions().exact(4000)
    assert not SpectrumOptions().exact(4001)
    assert not replace(alone, top=1000).exact(4001)


def test_eigenpairs_alone_take_tens_of_products_not_thousands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Issue 14: the quadrature of H and G took 1,600 products, for an answer that 41 give.
    columns = 0
    product = Linearized.product

    def counting(self: Linearized, moved: Moved, *others: Any) -> Any:
        nonlocal columns
        columns += len(next(iter(moved.tensors.values())))
        return product(self, moved, *others)

    monkeypatch.setattr(Linearized, "product", counting)
    problem = make_problem((40, 30, 10), "tanh", examples=40)
    (row,) = spectrum([problem], SpectrumOptions(block="network", top=1)).results
    assert (row.exact, row.span) == (False, 1510)
    assert 0 < columns < 400


@settings(max_examples=60)
@given(problem=problems())
def test_trace_diagonal_and_frobenius_norm_from_a_and_S_are_the_dense_block_s(
    problem: Problem,
) -> None:
    engine = ChainRule(problem)
    for layer in problem.layer_names:
        for term in ("hessian", "gauss_newton", "curvature"):
            try:
                block = getattr(engine, term)(layer)
            except NumericalError:
                assume(False)
            dense = block.to_dense()
            largest_entry = np.abs(dense).max()
            assume(largest_entry == 0 or 1e-150 < largest_entry < 1e150)
            found = diagonal(block)
            near = 1e-12 * found.absolute
            assert found.trace == pytest.approx(np.trace(dense), abs=near)
            assert found.smallest == pytest.approx(dense.diagonal().min(), abs=near)
            assert found.largest == pytest.approx(dense.diagonal().max(), abs=near)
            # Squares cancel to about the root of the roundoff of their sum.
            with np.errstate(over="ignore"):
                size = np.linalg.norm(np.linalg.norm(block.a, axis=1) ** 2) * np.linalg.norm(
                    block.S
                )
            assume(np.isfinite(size))
            assert frobenius_norms([block])[0] == pytest.approx(
                np.linalg.norm(dense), rel=1e-9, abs=1e-7 * size
            )


@pytest.mark.parametrize("density", [False, True])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_hessian_that_is_zero_has_zeros(block: str, density: bool) -> None:
    problem = replace(make_problem((4, 3), "linear"), loss=Loss("sum"))
    ((_, row),) = both(problem, block=block, probes=2, top=2, density=density)
    assert row.passed
    assert row.hessian.largest is not None
    assert row.hessian.spectral_norm.value == row.hessian.largest.value == 0
    if not density:
        assert row.hessian.smallest == Measured(0.0, 0.0)
        return
    assert row.hessian.rank.value == row.hessian.negative.value == 0
    assert row.hessian.density.counts.sum() == row.size


def test_a_product_that_is_not_finite_is_named() -> None:
    block = Diagonal(np.array([1.0, np.inf, 2.0]))
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(NumericalError, match="not finite in float64"),
    ):
        quadrature(block, block.span, 2, 3, 0, 2.0)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Diagonal(np.linspace(0, 1, 1000))
    monkeypatch.setattr("hesscli.system.memory.available_memory", lambda: 10_000)
    with pytest.raises(InputError, match=r"Lanczos vectors need 640\.0 kB and 10\.0 kB are free"):
        quadrature(block, block.span, 2, 80, 0, 1.0)
    with pytest.raises(InputError, match="use a smaller --top"):
        largest(block, block.span, 5, 0, 1e-8)


def test_lanczos_cannot_find_all_eigenvalues() -> None:
    with pytest.raises(InputError, match="use --top 11 or less"):
        spectrum(
            [make_problem((3, 4, 2), "tanh")],
            SpectrumOptions(top=12, exact_limit=1, layers=("dense1",)),
        )


def test_piecewise_linear_networks_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []

    def counting(block: HessianBlock, *others: Any) -> Any:
        looked_at.append(block.parameter)
        return quadrature(block, *others)

    monkeypatch.setattr("hesscli.studies.spectra.estimated.quadrature", counting)
    options = SpectrumOptions(layers=("dense1",), exact_limit=1)
    for activation, times in (("relu", 1), ("tanh", 2)):
        (row,) = spectrum([make_problem((6, 4, 3), activation)], options).results
        assert len(looked_at) == times
        assert (row.curvature.frobenius_norm == Measured(0.0)) == (activation == "relu")
        looked_at.clear()


def test_eigenpairs_alone_of_piecewise_linear_networks_are_looked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[str] = []

    def counting(block: HessianBlock, *others: Any, **named: Any) -> Any:
        looked_at.append(block.parameter)
        return largest(block, *others, **named)

    monkeypatch.setattr("hesscli.studies.spectra.ends.largest", counting)
    options = SpectrumOptions(layers=("dense1",), exact_limit=1, top=1)
    for activation, times in (("relu", 1), ("tanh", 2)):
        spectrum([make_problem((6, 4, 3), activation)], options)
        assert len(looked_at) == times
        looked_at.clear()


def test_the_span_holds_what_the_hessian_makes_of_a_vector() -> None:
    problem = make_problem((12, 8, 6), "tanh", examples=3)
    engine = ChainRule(problem)
    for parameter, layer in (("dense1/kernel", "dense1"), ("network", "network")):
        subject = subject_of(engine, layer, parameter)
        v = np.random.default_rng(0).standard_normal((subject.size, 2))
        product = subject.hessian.matmat(v)
        inside = subject.span.lift(subject.span.restrict(product), product.dtype)
        assert np.allclose(inside, product, atol=1e-13)
        W = np.random.default_rng(1).standard_normal((subject.span.size, 2))
        assert np.allclose(subject.span.restrict(subject.span.lift(W, W.dtype)), W)
