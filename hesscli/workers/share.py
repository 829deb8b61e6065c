"""Processes that share the work, and add up or exchange what they find.

The same program runs on every one of them (SPMD). A sum over examples is the sum of the workers'
own sums; of tasks that have nothing to do with each other each worker does some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers(Protocol):
    """All workers, as one of them sees them: ``index`` (from 0) of ``count``.

    ``here`` of them share this machine's memory, the one itself among them. All workers must call
    the methods as often and in the same order, from one thread: what decides how a computation
    goes on must be the same number everywhere.
    """

    @property
    def index(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def here(self) -> int: ...

    def sum(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum of what the workers give, float64 of one shape: the same bits for each."""
        ...

    def gather(self, value: Result) -> list[Result]:
        """The value of each of the workers, in their order."""
        ...


@dataclass(frozen=True)
class Alone:
    """One process that has all examples, ``here`` of which share this machine's memory."""

    index: int = 0
    count: int = 1
    here: int = 1

    def sum(self, values: NDArray[Any]) -> NDArray[Any]:
        return values

    def gather(self, value: Result) -> list[Result]:
        return [value]


ALONE: Workers = Alone()


def with_all_examples(workers: Workers) -> Workers:
    """For a problem of which each of the ``workers`` has every example."""
    return Alone(here=workers.here)


def share_of(examples: int, workers: Workers) -> slice:
    """Which of ``examples`` are this worker's: shares differ by one example at most."""
    first, last = (examples * end // workers.count for end in (workers.index, workers.index + 1))
    return slice(first, last)


def each_by_one(
    work: Callable[[Task], Result], tasks: Sequence[Task], workers: Workers
) -> list[Result]:
    """``work`` of every task, done by one of the workers and known to all."""
    own = [work(task) for task in tasks[share_of(len(tasks), workers)]]
    return [result for results in workers.gather(own) for result in results]
