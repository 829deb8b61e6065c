"""Blocks of a loss over more examples than are held at a time: the sum over chunks of examples.

Where several workers have a share of the examples each, the sum goes on over the workers.

The loss is a sum over examples, and so is each of its derivatives. With c taken from the number of
all examples, the blocks of the chunks add up to the block of the whole:

    H V = Σ_chunks H_chunk V,   vᵀHv = Σ_chunks vᵀ H_chunk v

Chunks weigh as much as they have examples, so that their size changes nothing but the rounding.
The sums are in double precision. Nothing of a chunk is kept but its summand: engines are made
anew for each product, which costs a forward and a backward pass beside it. A worker's share that
is held keeps its engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeAlias, TypeVar

import numpy as np

from hesscli.engines.autodiff import Autodiff
from hesscli.engines.block import Engine, HessianBlock
from hesscli.engines.chainrule import ChainRule
from hesscli.engines.layout import layout_of
from hesscli.engines.pieces import pieces
from hesscli.engines.rounding import RoundingFloor
from hesscli.problem.errors import InputError
from hesscli.problem.network import Array, Problem
from hesscli.problem.threads import in_threads, thread_count

# Called with how many examples are done, and how many there are.
Watch = Callable[[int, int], None]
E = TypeVar("E", bound=Engine)
T = TypeVar("T")


class Chunks:
    """The parts of a problem, each of which can be held; ``problem.chunk`` examples at a time.

    Of several workers each has its own chunks; all of them ask for the same sums.

    Threads take a chunk each, so that of ``problem.chunk`` examples each has its share.
    """

    def __init__(self, problem: Problem, watch: Watch | None = None) -> None:
        self.problem = problem
        self.watch = watch
        size = problem.examples if problem.chunk is None else problem.chunk
        threads = 1 if size >= problem.examples else thread_count()
        self.pieces = list(pieces(0, problem.examples, 1, max(1, size // threads)))

    def parts(self) -> Iterator[tuple[int, Problem]]:
        """(first example, part) of every part: the problem itself where it is held."""
        if self.problem.chunk is None:
            yield 0, self.problem
            return
        for low, high in self.pieces:
            yield low, self.problem.part(low, high)

    def each(self, work: Callable[[Problem], T]) -> Iterator[T]:
        """``work`` of every part, in order."""

        def of_piece(piece: tuple[int, int]) -> T:
            return work(self.problem.part(*piece))

        for (_, done), result in zip(self.pieces, in_threads(of_piece, self.pieces), strict=True):
            if self.watch is not None:
                self.watch(done, self.problem.examples)
            yield result

    def sum(self, work: Callable[[Problem], Array]) -> Array:
        """The sum of ``work`` of every part, of every worker, in double precision."""
        total: Array | None = None
        # What overflows is for who judges the numbers.
        with np.errstate(over="ignore", invalid="ignore"):
            for part in self.each(work):
                if total is None:
                    total = np.array(part, dtype=np.float64)
                else:
                    total += part
        assert total is not None  # a batch has one example at least
        return self.problem.workers.sum(total)


class SummedEngine(Generic[E]):
    """A witness of a problem in chunks, whose blocks are sums of the blocks that ``make`` gives.

    (Not of the inputs: an example's block is its own chunk's.)
    """

    def __init__(self, chunks: Chunks, make: Callable[[Problem], E]) -> None:
        self.chunks = chunks
        self.problem = chunks.problem
        self._make = make
        self._held: E | None = None

    def of(self, part: Problem) -> E:
        """The engine on a chunk, or on all of a share that is held."""
        if self.problem.chunk is not None:
            return self._make(part)
        if self._held is None:
            self._held = self._make(part)
        return self._held

    def hessian(self, parameter: str) -> SummedBlock:
        return SummedBlock(self, parameter, lambda engine: engine.hessian(parameter))

    def gauss_newton(self, parameter: str) -> SummedBlock:
        return SummedBlock(self, parameter, lambda engine: engine.gauss_newton(parameter))

    def curvature(self, parameter: str) -> SummedBlock:
        return SummedBlock(self, parameter, lambda engine: engine.curvature(parameter))


class SummedBlock(HessianBlock):
    """A block as the sum of its chunks' blocks."""

    # Its products use the threads themselves.
    in_threads = False

    def __init__(
        self, engine: SummedEngine[E], parameter: str, of: Callable[[E], HessianBlock]
    ) -> None:
        problem = engine.problem
        super().__init__(parameter, layout_of(problem, parameter), problem.dtype)
        self._chunks = engine.chunks
        self._row_bytes: int | None = None
        self._of: Callable[[Problem], HessianBlock] = lambda part: of(engine.of(part))

    def _matmat(self, V: Array) -> Array:
        return self._rounded(self._chunks.sum(lambda part: self._of(part).matmat(V)))

    def quadratic_form(self, v: Array) -> float:
        return float(self._chunks.sum(lambda part: np.asarray(self._of(part).quadratic_form(v))))

    @property
    def row_bytes(self) -> int:
        """What one row takes in the first chunk, which is as large as the others.

        Of several workers' the mean: they must take the same rows at a time.
        """
        if self._row_bytes is None:
            self._row_bytes = self._mean_row_bytes()
        return self._row_bytes

    def _mean_row_bytes(self) -> int:
        problem, first = self._chunks.problem, next(iter(self._chunks.pieces))
        own = float(self._of(problem.part(*first)).row_bytes)
        return int(problem.workers.sum(np.array(own)) / problem.workers.count)

    def rows(self, start: int, stop: int) -> Array:
        return self._rounded(self._chunks.sum(lambda part: self._of(part).rows(start, stop)))

    def _rounded(self, total: Array) -> Array:
        with np.errstate(over="ignore"):
            return total.astype(self.dtype, copy=False)


class SummedFloor:
    """The floors of the blocks of a problem in chunks: at most the sums of the chunks' floors."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def entries(self, parameter: str) -> Array:
        return self._chunks.sum(lambda part: _floor(part).entries(parameter))

    def quadratic_form(self, parameter: str, v: Array) -> float:
        return float(
            self._chunks.sum(lambda part: np.asarray(_floor(part).quadratic_form(parameter, v)))
        )

    def product_norm(self, parameter: str, v: Array) -> float:
        return float(
            self._chunks.sum(lambda part: np.asarray(_floor(part).product_norm(parameter, v)))
        )

    def gradient(self, parameter: str) -> Array:
        return self._chunks.sum(lambda part: _floor(part).gradient(parameter))


ChainRuleEngine: TypeAlias = ChainRule | SummedEngine[ChainRule]
AutodiffEngine: TypeAlias = Autodiff | SummedEngine[Autodiff]
Floor: TypeAlias = RoundingFloor | SummedFloor


def chain_rule_of(problem: Problem, watch: Watch | None = None) -> ChainRuleEngine:
    """The chain rule on a problem, in chunks where it is not to be held at once."""
    if not problem.summed:
        return ChainRule(problem)
    return SummedEngine(Chunks(problem, watch), ChainRule)


def autodiff_of(problem: Problem, watch: Watch | None = None) -> AutodiffEngine:
    """Autodiff on a problem, in chunks where it is not to be held at once."""
    if not problem.summed:
        return Autodiff(problem)
    return SummedEngine(Chunks(problem, watch), Autodiff)


def floor_of(engine: ChainRuleEngine) -> Floor:
    """The rounding that two witnesses of the engine's problem may differ by."""
    return RoundingFloor(engine) if isinstance(engine, ChainRule) else SummedFloor(engine.chunks)


def require_held(problem: Problem, why: str) -> None:
    """Raises InputError where the examples are not held at once, which something needs."""
    if problem.workers.count > 1:
        raise InputError(
            f"--strategy: the examples are shared out among {problem.workers.count} workers, but "
            f"{why}; use one process"
        )
    if problem.chunk is not None:
        raise InputError(
            f"data.batch_size: {problem.total:,} examples are looked at {problem.chunk:,} at a "
            f"time, but {why}; use at most {problem.chunk:,}, or more data.memory"
        )


def _floor(part: Problem) -> RoundingFloor:
    return RoundingFloor(ChainRule(part))
