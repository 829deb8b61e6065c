"""Several workers: the answers of one process, from shares of the examples.

Here the workers are threads that add up at a barrier; tests/test_cluster.py starts real ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import make_problem

from hesscli.config.build import build_problem
from hesscli.config.load import load_config, parse_override
from hesscli.config.training import build_training_data
from hesscli.problem.execution import Execution, execution_of
from hesscli.problem.network import Problem
from hesscli.studies.comparison import Comparison, compare
from hesscli.studies.spectra.subject import SpectrumOptions
from hesscli.studies.spectrum import Spectrum, spectrum
from hesscli.studies.training import train
from hesscli.studies.verification import Verification, verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.errors import InputError
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.summed.engine import chain_rule_of
from hesscli.workers.share import ALONE, Workers, share_of

CLOSE = 1e-12
Result = TypeVar("Result")


class Together:
    """Threads that wait for each other and add up in the order of their numbers."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.barrier = threading.Barrier(count, timeout=20)
        self.given: list[Any] = [None] * count
        self.sums = [0] * count

    def run(self, work: Callable[[Workers], Result]) -> list[Result]:
        """``work`` of every worker; where one raises the others are not waited for."""
        results: list[Any] = [None] * self.count
        errors: list[BaseException] = []

        def of_worker(index: int) -> None:
            try:
                results[index] = work(Member(self, index))
            except threading.BrokenBarrierError:
                pass
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=of_worker, args=(i,)) for i in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        assert not self.barrier.broken, "a worker waits for a sum that another does not ask for"
        # All of them have asked for the same sums.
        assert len(set(self.sums)) == 1
        return results


class Member:
    here = 1

    def __init__(self, together: Together, index: int) -> None:
        self.together, self.index, self.count = together, index, together.count

    def sum(self, values: Any) -> Any:
        together = self.together
        assert values.dtype == np.float64
        together.given[self.index] = np.array(values)
        together.sums[self.index] += 1
        together.barrier.wait()
        total = np.zeros_like(values)
        for part in together.given:
            assert part.shape == values.shape
            total = total + part
        together.barrier.wait()
        return total


def problem_for(workers: Workers, *settings: str) -> Problem:
    given = ["data.batch_size=37", "model.layers.0.units=6", "model.layers.1.units=5", *settings]
    return build_problem(load_config(None, [parse_override(s) for s in given]), workers=workers)


def verified(options: CheckOptions, workers: Workers, *settings: str, **more: Any) -> Verification:
    problem = problem_for(workers, *settings)
    return verify([problem], options, execution=execution_of(problem, workers), **more)


def compared(options: CheckOptions, workers: Workers, *settings: str) -> Comparison:
    problem = problem_for(workers, *settings)
    return compare([problem], options, execution=execution_of(problem, workers))


def spectrum_of(options: SpectrumOptions, workers: Workers) -> Spectrum:
    problem = problem_for(workers)
    return spectrum([problem], options, execution=execution_of(problem, workers))


def close(value: float, expected: float, scale: float | None = None) -> bool:
    return abs(value - expected) <= CLOSE * (abs(expected) if scale is None else scale)


@given(examples=st.integers(1, 1000), count=st.integers(1, 12))
def test_shares_are_all_examples_once_and_differ_by_one(examples: int, count: int) -> None:
    together = Together(count)
    shares = [share_of(examples, Member(together, index)) for index in range(count)]
    assert shares[0].start == 0
    assert shares[-1].stop == examples
    assert all(one.stop == other.start for one, other in pairwise(shares))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


def shared(problem: Problem, workers: Workers) -> Problem:
    own = share_of(problem.examples, workers)
    return problem.part(own.start, own.stop)


@settings(max_examples=8, deadline=None)
@given(
    count=st.sampled_from([2, 4]),
    block=st.sampled_from(["dense1/kernel", "dense2/bias", "dense2", "network"]),
    term=st.sampled_from(["hessian", "gauss_newton", "curvature"]),
    seed=st.integers(0, 99),
)
def test_products_and_rows_are_those_of_one_process(
    count: int, block: str, term: str, seed: int
) -> None:
    whole = make_problem((5, 4, 3), "tanh", examples=9, seed=seed)
    H = getattr(ChainRule(whole), term)(block).to_dense()
    scale = np.abs(ChainRule(whole).gauss_newton(block).to_dense()).max() + np.abs(H).max()
    V = np.random.default_rng(seed).standard_normal((len(H), 3))

    def on_worker(workers: Workers) -> tuple[Any, Any]:
        engine = chain_rule_of(shared(whole, workers), Execution(workers=workers))
        parts = getattr(engine, term)(block)
        return parts.to_dense(), parts.matmat(V)

    for dense, products in Together(count).run(on_worker):
        np.testing.assert_allclose(dense, H, rtol=0, atol=CLOSE * scale)
        np.testing.assert_allclose(products, H @ V, rtol=0, atol=10 * CLOSE * scale)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    ("block", "chunked"), [("kernel", ""), ("network", "data.memory=600kB"), ("bias", "")]
)
def test_verify_gives_the_forms_and_the_verdicts_of_one_process(
    count: int, block: str, chunked: str
) -> None:
    settings = [chunked] if chunked else []
    options = CheckOptions(method="probes", block=block, probes=4)
    one = verified(options, ALONE, *settings)
    for result in Together(count).run(lambda w: verified(options, w, *settings)):
        assert result.passed
        assert result.environment.workers == count
        assert replace(result.problem, chunk=one.problem.chunk) == one.problem
        for row, expected in zip(result.results, one.results, strict=True):
            form, of_one = row.quadratic_form, expected.quadratic_form
            for name in ("autodiff", "chain_rule", "gauss_newton", "curvature"):
                assert close(getattr(form, name), getattr(of_one, name), of_one.scale)
            assert row.check.relative_residual < 1e-11
            if block != "network":
                # Which layer of a network is the worst is rounding's to say.
                assert close(row.check.max_abs_entry, expected.check.max_abs_entry)


def test_finite_differences_take_part_as_well() -> None:
    options = CheckOptions(method="probes", block="bias", layers=("dense2",))
    results = Together(2).run(lambda w: verified(options, w, witnesses=("chain_rule", "finite")))
    assert all(result.passed for result in results)


@pytest.mark.parametrize("count", [2, 4])
def test_compare_splits_as_one_process_does(count: int) -> None:
    options = CheckOptions(method="form")
    settings = ["model.layers.0.activation=tanh"]
    one = compared(options, ALONE, *settings)
    for result in Together(count).run(lambda w: compared(options, w, *settings)):
        for row, expected in zip(result.results, one.results, strict=True):
            assert row.gauss_newton_alone == expected.gauss_newton_alone
            scale = abs(expected.autodiff.gauss_newton) + abs(expected.autodiff.curvature)
            for name in ("hessian", "gauss_newton", "curvature"):
                for witness in ("autodiff", "chain_rule"):
                    value = getattr(getattr(row, witness), name)
                    assert close(value, getattr(getattr(expected, witness), name), scale)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("exact_limit", [0, 4000])
def test_top_eigenvalues_are_those_of_one_process(count: int, exact_limit: int) -> None:
    options = SpectrumOptions(layers=("dense2",), top=3, probes=2, steps=5, density=True)
    one = spectrum_of(options, ALONE).results[0]
    assert one.exact
    by_workers = replace(options, exact_limit=exact_limit)
    for result in Together(count).run(lambda w: spectrum_of(by_workers, w)):
        (row,) = result.results
        assert row.exact == (exact_limit > 0)
        for term in ("hessian", "gauss_newton"):
            top, expected = (getattr(of, term).top.values for of in (row, one))
            np.testing.assert_allclose(top, expected, rtol=CLOSE)
            trace = getattr(row, term).trace.value
            assert close(trace, getattr(one, term).trace.value, getattr(one, term).trace.value)


@pytest.mark.parametrize("count", [2, 4])
def test_a_training_takes_the_steps_of_one_process(count: int) -> None:
    # Mini-batches of 9 of 29 examples: the last one of an epoch has 2, fewer than four workers.
    settings = ["train.batch_size=9", "train.examples=29", "train.steps=21", "train.every=7"]
    settings += ["train.momentum=0.9", "train.measure_examples=16"]
    config = load_config(None, [parse_override(text) for text in settings])
    data = build_training_data(config)
    assert data.held_out is not None
    data = replace(data, held_out=data.held_out.part(0, 3))
    one = train(data, config.train)

    def on_worker(workers: Workers) -> Any:
        return train(data, config.train, execution=Execution(workers=workers))

    results = Together(count).run(on_worker)
    for result in results:
        assert result.environment.workers == count
        for found, expected in zip(result.measurements, one.measurements, strict=True):
            assert close(found.loss, expected.loss)
            assert close(found.gradient_norm, expected.gradient_norm)
            assert close(found.sharpness, expected.sharpness)
        for end, expected_end in zip(result.final, one.final, strict=True):
            assert close(end.loss, expected_end.loss)
            assert end.accuracy == pytest.approx(expected_end.accuracy, rel=CLOSE)
            assert end.examples == expected_end.examples
    # Parameters that differed in a bit would go apart.
    assert all(result.final == results[0].final for result in results)


def test_workers_go_on_from_the_checkpoint_of_one_process(tmp_path: Path) -> None:
    settings = ["train.batch_size=8", "train.examples=20", "train.every=4", "train.momentum=0.5"]
    config = load_config(None, [parse_override(text) for text in settings])
    data = build_training_data(config)
    half, whole = (replace(config.train, steps=steps) for steps in (6, 12))
    state = str(tmp_path / "state.npz")
    train(data, half, checkpoint=state)
    one = train(data, whole)

    def on_worker(workers: Workers) -> Any:
        return train(data, whole, resume=state, execution=Execution(workers=workers))

    for result in Together(2).run(on_worker):
        assert (result.resumed_at, result.steps) == (6, 12)
        assert close(result.final[0].loss, one.final[0].loss)
        assert close(result.measurements[-1].sharpness, one.measurements[-1].sharpness)


def test_a_training_stops_on_all_workers_when_one_is_told_to() -> None:
    settings = ["train.batch_size=8", "train.examples=16", "train.steps=50"]
    config = load_config(None, [parse_override(text) for text in settings])
    data = build_training_data(config)

    def on_worker(workers: Workers) -> Any:
        asked: Iterator[bool] = iter([False] * 5 + [workers.index == 1] * 50)
        execution = Execution(workers=workers)
        return train(data, config.train, execution=execution, stopped=lambda: next(asked))

    assert [result.steps for result in Together(3).run(on_worker)] == [5, 5, 5]


def test_float32_is_added_up_in_double_precision() -> None:
    options = CheckOptions(method="form")
    one = verified(options, ALONE, "dtype=float32")
    for result in Together(2).run(lambda w: verified(options, w, "dtype=float32")):
        assert result.passed
        for row, expected in zip(result.results, one.results, strict=True):
            form, of_one = row.quadratic_form, expected.quadratic_form
            assert abs(form.autodiff - of_one.autodiff) <= 1e-5 * of_one.scale


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (CheckOptions(method="entries"), "--check entries: of 2 workers"),
        (CheckOptions(method="auto", layers=("dense3",)), "--check auto, here entries: of 2"),
        (CheckOptions(method="form", block="input"), "shared out among 2 workers"),
    ],
)
def test_what_is_no_sum_is_refused(options: CheckOptions, what: str) -> None:
    with pytest.raises(InputError, match=what):
        Together(2).run(lambda workers: verified(options, workers))


def test_there_are_no_more_workers_than_examples() -> None:
    with pytest.raises(InputError, match=r"data.batch_size: 3 examples for 4 workers"):
        Together(4).run(lambda workers: problem_for(workers, "data.batch_size=3"))
