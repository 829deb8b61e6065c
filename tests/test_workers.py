"""Several workers: the answers of one process, from shares of the examples.

Here the workers are threads that add up at a barrier; tests/test_ranks.py starts real ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import make_problem

from hesscli.config.load import load_config, parse_override
from hesscli.config.training import build_training_data
from hesscli.problem.execution import Execution
from hesscli.problem.network import Problem
from hesscli.studies.training import train
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.summed.engine import chain_rule_of
from hesscli.workers.share import Workers, share_of

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


def close(value: float, expected: float) -> bool:
    return abs(value - expected) <= CLOSE * abs(expected)


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


@settings(max_examples=8)
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
