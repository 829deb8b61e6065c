"""Processes that have a share of the examples each, and add up what they find.

The same program runs on every one of them (SPMD). A sum over examples is the sum of the workers'
own sums; nothing else passes between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Workers(Protocol):
    """All workers, as one of them sees them: ``index`` (from 0) of ``count``.

    ``here`` of them share this machine's memory, the one itself among them.
    """

    @property
    def index(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def here(self) -> int: ...

    def sum(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum of what the workers give, float64 of one shape: the same bits for each of them.

        All of them must call it, as often and in the same order: what decides how a computation
        goes on must be the same number everywhere. Not from several threads.
        """
        ...


@dataclass(frozen=True)
class _Alone:
    index: int = 0
    count: int = 1
    here: int = 1

    def sum(self, values: NDArray[Any]) -> NDArray[Any]:
        return values


# One process that has all examples.
ALONE: Workers = _Alone()


def share_of(examples: int, workers: Workers) -> slice:
    """Which of ``examples`` are this worker's: shares differ by one example at most."""
    first, last = (examples * end // workers.count for end in (workers.index, workers.index + 1))
    return slice(first, last)
