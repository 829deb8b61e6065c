"""Blocks of a loss over more examples than are held at a time: the sum over chunks of examples.

If several workers have a share of the examples each, the sum goes on over the workers.

The loss is a sum over examples, and so is each of its derivatives. With c taken from the number of
all examples, the blocks of the chunks add up to the block of the whole:

    H V = Σ_chunks H_chunk V,   vᵀHv = Σ_chunks vᵀ H_chunk v

Chunks weigh as much as they have examples, so that their size changes nothing but the rounding.
The sums are in double precision. Of a chunk nothing is kept but its summand, so that memory stays
flat whatever the number of examples; but if the memory budget leaves room next to the chunk at
work, the first chunks' first-order quantities are kept for the next product, which then needs no
file and no forward and backward pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from typing import Generic, TypeAlias, TypeVar

import numpy as np

from hesscli.nodes.passes import HESSIAN, Term
from hesscli.problem.execution import LARGEST_CHUNK, Execution, example_bytes, product_bytes
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.problem.placed import placed_graph
from hesscli.system import xp
from hesscli.system.arrays import is_foreign, is_numpy
from hesscli.system.devices import CPU, Device
from hesscli.system.errors import InputError
from hesscli.system.pieces import pieces
from hesscli.system.threads import ahead, in_threads, thread_count
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.block import Engine, HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.chain_rule.ondevice import ChainRuleOn, chain_rule_on
from hesscli.witnesses.layout import INPUT, input_example, layout_of
from hesscli.witnesses.rounding.floor import RoundingFloor
from hesscli.witnesses.summed.jacobian import ChunkedJacobian

# Called with how many examples are done, and how many there are.
Watch = Callable[[int, int], None]
E = TypeVar("E", bound=Engine)
L = TypeVar("L")
T = TypeVar("T")
# What is kept of a chunk for products with single vectors: so many numbers of the problem's type
# for each input and each unit of an example, and for each layer and term the S of its examples,
# which products of one vector use if they are no larger than a cache.
_NUMBERS_OF_AN_INPUT, _NUMBERS_OF_A_UNIT = 2, 8
_TERMS, _CACHED_BYTES = 3, 2**22
# What needs the S of every example, entries and diagonals, takes fewer examples at a time if
# layers are wide: so many that the S of one layer takes this much. Chunks are made for narrow ones.
_SECOND_BYTES = 2**26


class Chunks:
    """The parts of a problem, each of which can be held; ``execution.chunk`` examples at a time.

    Of several workers each has its own chunks; all of them ask for the same sums.

    Threads take a chunk each, so that of ``execution.chunk`` examples each has its share; a
    ``device`` takes one after the other.
    """

    def __init__(
        self,
        problem: Problem,
        execution: Execution,
        watch: Watch | None = None,
        device: Device = CPU,
    ) -> None:
        self.problem = problem
        self.execution = execution
        self.watch = watch
        self.device = device
        size = problem.examples if execution.chunk is None else execution.chunk
        one = size >= problem.examples or not device.is_cpu
        self._threads = 1 if one else thread_count()
        self._cut(max(1, size // self._threads))

    @property
    def on_host(self) -> Chunks:
        """The same examples for what is computed of NumPy's arrays."""
        return self if self.device.is_cpu else Chunks(self.problem, self.execution, self.watch)

    def _cut(self, size: int, spare: int = 0) -> None:
        """Makes parts of ``size`` examples."""
        self.size = size
        self.pieces = self._boundaries(size)
        self._kept: dict[tuple[int, int], Problem] = {}
        keepable = len(self.pieces)
        if self.execution.chunk is not None:
            keepable = spare // kept_bytes(self.problem, size)
        self._keepable = frozenset(self.pieces[:keepable])

    def _boundaries(self, size: int) -> list[tuple[int, int]]:
        return list(pieces(0, self.problem.examples, 1, size))

    def parts(self) -> Iterator[tuple[int, Problem]]:
        """(first example, part) of every part: the problem itself if it is held."""
        if self.execution.chunk is None:
            yield 0, self.problem
            return
        for low, high in self.pieces:
            yield low, self.problem.part(low, high)

    def each(self, work: Callable[[L], T], load: Callable[[Problem], L]) -> Iterator[T]:
        """``work`` of what ``load`` makes of every part, in order.

        For a device the next part is loaded, and copied there, while one is worked on.
        """

        def loaded(piece: tuple[int, int]) -> L:
            return load(self._part(piece))

        if self.device.is_cpu:
            results = in_threads(lambda piece: work(loaded(piece)), self.pieces)
        else:
            results = self._by_device(work, loaded)
        done = 0
        for (low, high), result in zip(self.pieces, results, strict=True):
            done += high - low
            if self.watch is not None:
                self.watch(done, self.problem.examples)
            yield result

    def _by_device(
        self, work: Callable[[L], T], load: Callable[[tuple[int, int]], L]
    ) -> Iterator[T]:
        def copied(piece: tuple[int, int]) -> L:
            with self.device.copying():
                return load(piece)

        for part in ahead(copied, self.pieces):
            yield work(part)
            # The part's memory is for the next one, once nothing computes with it.
            self.device.wait()

    def for_second(self) -> Chunks:
        """The same examples in parts of which the S (n, units, units) of a layer stays small."""
        widest = max(self.problem.widths[1:])
        most = max(1, _SECOND_BYTES // (8 * widest * widest))
        if most >= self.size:
            return self
        other = copy(self)
        other._cut(most)
        return other

    def for_products(self) -> Chunks:
        """The same examples in larger parts: as large as products with one vector may hold.

        The first ones that fit into ``execution.spare`` bytes are kept for the next product; all
        if the problem is held.
        """
        problem, other = self.problem, copy(self)
        of = problem.widths, problem.dtype.itemsize
        size = self.size * example_bytes(*of) // product_bytes(*of)
        if self.execution.chunk is not None:
            size = max(1, min(size, LARGEST_CHUNK // self._threads))
        other._cut(size, self.execution.spare)
        return other

    def keeps(self, part: Problem) -> bool:
        """Whether ``part`` is one that every sum is given again."""
        return any(part is kept for kept in self._kept.values())

    def _part(self, piece: tuple[int, int]) -> Problem:
        part = self._kept.get(piece)
        if part is None:
            part = self.problem.part(*piece)
            if piece in self._keepable:
                self._kept[piece] = part
        return part

    def sum(self, work: Callable[[Problem], Array]) -> Array:
        """The sum of ``work`` of every part, of every worker, in double precision."""
        return self.sum_of(work, _itself)

    def sum_of(self, work: Callable[[L], Array], load: Callable[[Problem], L]) -> Array:
        """The sum of ``work`` of what ``load`` makes of every part; where that is."""
        total: Array | None = None
        # Overflow is refused when the numbers are judged.
        with np.errstate(over="ignore", invalid="ignore"):
            for part in self.each(work, load):
                if total is None:
                    there = is_foreign(part)
                    total = xp.copy(xp.double(part)) if there else np.array(part, np.float64)
                else:
                    total += part
        assert total is not None  # a batch has one example at least
        workers = self.execution.workers
        if workers.count == 1 or not is_foreign(total):
            return workers.sum(total)
        of_all: Array = self.device.put(workers.sum(self.device.fetch(total)))
        return of_all


class OtherChunks(Chunks):
    """Chunks of other examples, in another order: smaller ones, from the last example to the first.

    What goes wrong if chunks are cut or added up, as one that is left out, goes wrong with
    other examples than in Chunks, so that the witness that has these notices it.
    """

    def _boundaries(self, size: int) -> list[tuple[int, int]]:
        size = max(1, size * 3 // 4)
        stops = range(self.problem.examples, 0, -size)
        return [(max(0, stop - size), stop) for stop in stops]


class SummedEngine(Generic[E]):
    """A witness of a problem in chunks, whose blocks are sums of the blocks that ``make`` gives.

    (Not of the inputs, which raise InputError: an example's block is its own chunk's.)
    """

    def __init__(
        self, chunks: Chunks, make: Callable[[Problem], E], for_products: Chunks | None = None
    ) -> None:
        self.chunks = chunks
        self.for_products = chunks if for_products is None else for_products
        self.problem = chunks.problem
        self.make = make
        self._prepared: dict[int, E] = {}

    def prepared(self, part: Problem) -> E:
        """The engine of a part; of a part that is kept it is the same one each time."""
        if not self.for_products.keeps(part):
            return self.make(part)
        # Nobody else has this number while the part is kept.
        if id(part) not in self._prepared:
            self._prepared[id(part)] = self.make(part)
        return self._prepared[id(part)]

    def hessian(self, parameter: str) -> SummedBlock:
        return self._block(parameter, lambda engine: engine.hessian(parameter))

    def gauss_newton(self, parameter: str) -> SummedBlock:
        return self._block(parameter, lambda engine: engine.gauss_newton(parameter))

    def curvature(self, parameter: str) -> SummedBlock:
        return self._block(parameter, lambda engine: engine.curvature(parameter))

    def gradient(self, parameter: str) -> Array:
        """∂L/∂θ (P,) of a block of parameters."""
        self._require_parameters(parameter)
        total = self.chunks.sum_of(lambda engine: engine.gradient(parameter), self.make)
        with np.errstate(over="ignore"):
            return total.astype(self.problem.dtype, copy=False)

    def jacobian(self, parameter: str) -> ChunkedJacobian:
        """∂f/∂θ (N·c, P) of a block of parameters, whose rows one process has."""
        self._require_parameters(parameter)
        count = self.chunks.execution.workers.count
        if count > 1:
            raise InputError(
                f"the examples are shared out among {count} processes, but a Jacobian has rows "
                "of every example; start one"
            )
        return ChunkedJacobian(
            self.problem,
            parameter,
            self.chunks.pieces,
            lambda part: self.make(part).jacobian(parameter),
        )

    def _block(self, parameter: str, of: Callable[[E], HessianBlock]) -> SummedBlock:
        self._require_parameters(parameter)
        return SummedBlock(self, parameter, of)

    def _require_parameters(self, parameter: str) -> None:
        if parameter == INPUT or input_example(parameter) is not None:
            why = "each example's input is a block of its own"
            require_held(self.problem, self.chunks.execution, why)


class SummedBlock(HessianBlock):
    """A block as the sum of its chunks' blocks."""

    # Its products use the threads themselves.
    in_threads = False
    # Each of its rows may take a pass over all examples, and so does a step of MINRES.
    most_eigenvalues = 128

    def __init__(
        self, engine: SummedEngine[E], parameter: str, of: Callable[[E], HessianBlock]
    ) -> None:
        problem = engine.problem
        super().__init__(parameter, layout_of(problem, parameter), problem.dtype)
        self._chunks, self._for_products = engine.chunks, engine.for_products
        self.device = engine.chunks.device
        self._row_bytes: int | None = None
        self._of: Callable[[Problem], HessianBlock] = lambda part: of(engine.make(part))
        self._prepared: Callable[[Problem], HessianBlock] = lambda part: of(engine.prepared(part))

    def _matmat(self, V: Array) -> Array:
        if is_numpy(V) and not self.device.is_cpu:
            # Once, and not for each chunk.
            product: Array = self.device.fetch(self._matmat(self.device.put(V)))
            return product
        # Several vectors soon pay for the passes of a chunk, but need more memory each.
        chunks, block_of = self._chunks, self._of
        if V.shape[1] == 1:
            chunks, block_of = self._for_products, self._prepared
        return self._rounded(chunks.sum_of(lambda block: block.matmat(V), block_of))

    @property
    def operand(self) -> Array:
        nothing: Array = self.device.put(np.empty(0))
        return nothing

    def quadratic_form(self, v: Array) -> float:
        def form(block: HessianBlock) -> Array:
            return np.asarray(block.quadratic_form(v))

        return float(self._for_products.sum_of(form, self._prepared))

    @property
    def row_bytes(self) -> int:
        """The bytes that one row takes in the first chunk, which is as large as the others.

        Of several workers' the mean: they must take the same rows at a time.
        """
        if self._row_bytes is None:
            problem, first = self._chunks.problem, self._chunks.for_second().pieces[0]
            own = np.array(float(self._of(problem.part(*first)).row_bytes))
            workers = self._chunks.execution.workers
            self._row_bytes = int(workers.sum(own) / workers.count)
        return self._row_bytes

    def rows(self, start: int, stop: int) -> Array:
        chunks = self._chunks.for_second()
        return self._rounded(chunks.sum_of(lambda block: block.rows(start, stop), self._of))

    def diagonal(self) -> Array:
        return self._chunks.for_second().sum_of(lambda block: block.diagonal(), self._of)

    def _rounded(self, total: Array) -> Array:
        with np.errstate(over="ignore"):
            return xp.astype(total, self.dtype)


class SummedFloor:
    """The floors of the blocks of a problem in chunks: at most the sums of the chunks' floors."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def entries(self, parameter: str) -> Array:
        return self._chunks.for_second().sum(lambda part: _floor(part).entries(parameter))

    def quadratic_form(self, parameter: str, v: Array) -> float:
        return float(
            self._chunks.sum(lambda part: np.asarray(_floor(part).quadratic_form(parameter, v)))
        )

    def product_norm(self, parameter: str, V: Array) -> float:
        return float(
            self._chunks.sum(lambda part: np.asarray(_floor(part).product_norm(parameter, V)))
        )

    def product(self, parameter: str, V: Array, term: Term = HESSIAN) -> Array:
        return self._chunks.sum(lambda part: _floor(part).product(parameter, V, term))

    def gradient(self, parameter: str) -> Array:
        return self._chunks.sum(lambda part: _floor(part).gradient(parameter))


ChainRuleEngine: TypeAlias = ChainRule | SummedEngine[ChainRule]
AutodiffEngine: TypeAlias = Autodiff | SummedEngine[Autodiff]
Floor: TypeAlias = RoundingFloor | SummedFloor


def chain_rule_of(
    problem: Problem, execution: Execution, watch: Watch | None = None
) -> ChainRuleEngine:
    """The chain rule on a problem, in chunks if it is not to be held at once."""
    device = execution.device
    if not execution.summed:
        return chain_rule_on(problem, device)
    chunks = Chunks(problem, execution, watch, device)
    of_part: Callable[[Problem], ChainRule] = ChainRule
    if not device.is_cpu:
        of_part = partial(ChainRuleOn, device=device, graph=placed_graph(problem.graph, device))
    return SummedEngine(chunks, of_part, chunks.for_products())


def autodiff_of(
    problem: Problem, execution: Execution, watch: Watch | None = None
) -> AutodiffEngine:
    """Autodiff on a problem, in chunks if it is not to be held at once."""
    if not execution.summed:
        return Autodiff(problem)
    return SummedEngine(OtherChunks(problem, execution, watch), Autodiff)


def floor_of(engine: ChainRuleEngine) -> Floor:
    """The rounding that two witnesses of the engine's problem may differ by."""
    return (
        RoundingFloor(engine)
        if isinstance(engine, ChainRule)
        else SummedFloor(engine.chunks.on_host)
    )


def require_held(problem: Problem, execution: Execution, why: str) -> None:
    """Raises InputError if the examples are not held at once, which something needs."""
    if execution.workers.count > 1:
        raise InputError(
            f"the examples are shared out among {execution.workers.count} processes, but {why}; "
            "start one"
        )
    if execution.chunk is not None:
        raise InputError(
            f"data.batch_size: {problem.total:,} examples are looked at {execution.chunk:,} at a "
            f"time, but {why}; use at most {execution.chunk:,}, or more data.memory"
        )


def _itself(part: Problem) -> Problem:
    return part


def kept_bytes(problem: Problem, examples: int) -> int:
    """The bytes that a chunk of so many examples takes while it waits for the next product."""
    inputs, *units = problem.widths
    numbers = _NUMBERS_OF_AN_INPUT * inputs + _NUMBERS_OF_A_UNIT * sum(units)
    each = examples * problem.dtype.itemsize
    seconds = (each * width * width for width in units)
    return each * numbers + _TERMS * sum(size for size in seconds if size <= _CACHED_BYTES)


def _floor(part: Problem) -> RoundingFloor:
    return RoundingFloor(ChainRule(part))
