"""The processes that mpiexec or srun has started, as one of them sees them, by MPI.

Before any data pass between them all ranks meet: each says what it is about to do, and whether it
has failed. So no rank waits for one that has failed or has gone another way, and one of them says
why. A process that is killed ends the others through the launcher.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from hesscli.system.errors import InputError, NumericalError, reason
from hesscli.system.threads import core_numbers
from hesscli.workers.launcher import READ_SECONDS, Launched, has_lost_one

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

T = TypeVar("T")
Facts = Mapping[str, Any]
# What shows the last line of a run.
Say = Callable[[str], None]
# Is told, again and again, for how many seconds another rank has been waited for; it may raise.
Waiting = Callable[[float], None]

# What a rank says at a meeting that it is about to do: give away so many numbers, or one of these.
_GATHER, _REPORT, _END = -1, -2, -3
# Exit codes are smaller.
_CODES = 256
# All ranks start within so many seconds.
_START_SECONDS = 120
# A rank that has failed waits so long for the others to fail alike, and then ends them.
_PATIENCE_SECONDS = 0.5
# A rank that waits looks again and again for so long, then after every pause.
_AWAKE_SECONDS, _PAUSE_SECONDS = 1e-3, 1e-3
# Longer values are told apart by their SHA-256.
_SHOWN_LENGTH = 60


class Ended(BaseException):
    """Another rank has failed, and says why; this one ends with ``code``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Ranks:
    """All ranks of MPI's world (a hesscli.workers.share.Workers).

    Raises InputError if MPI cannot be used.
    """

    def __init__(self, launched: Launched, waiting: Waiting = lambda _: None) -> None:
        self._waiting = waiting
        self._mpi = _import_mpi(launched)
        self._world = self._mpi.COMM_WORLD
        if self._world.size != launched.count:
            raise InputError(
                f"{launched.count} processes were started, but MPI knows of {self._world.size}; "
                "use the mpiexec of the MPI that mpi4py has loaded, or srun --mpi=pmi2 or pmix"
            )
        self._given_up: object = None
        self.index: int = self._world.rank
        self.count: int = self._world.size
        machine = self._world.Split_type(self._mpi.COMM_TYPE_SHARED)
        self.here: int = machine.size
        # Some launchers give each process cores of its own, others the same to all of them.
        cores = frozenset[int]().union(*machine.allgather(core_numbers()))
        self.cores = max(1, len(cores) // self.here)

    @property
    def first(self) -> bool:
        """Whether this is the rank that reports."""
        return self.index == 0

    def sum(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum over the ranks: hesscli.workers.share.Workers."""
        self._meet(values.size)
        given = values.reshape(-1)
        total: NDArray[Any] = given.copy()
        # MPI requires that every rank gets the same bits; MPICH and Open MPI add in the same order
        # each time.
        with self._in_one_line():
            self._is_done(self._world.Iallreduce(given, total))
        return total.reshape(values.shape)

    def gather(self, value: T) -> list[T]:
        """What each rank gives: hesscli.workers.share.Workers."""
        self._meet(_GATHER)
        with self._in_one_line():
            values: list[T] = self._world.allgather(value)
        return values

    def agree(self, facts: Facts) -> None:
        """Compares ``facts`` of all ranks.

        Raises InputError, on all of them, if one differs.
        """
        difference = _difference(self.gather(facts))
        if difference is not None:
            raise InputError(difference)

    def before_the_report(self) -> None:
        """Waits until all ranks have computed what there is to report."""
        self._meet(_REPORT)

    def end(self, code: int, failure: str | None, say: Say) -> int:
        """Ends together with the other ranks; gives the code that all of them end with.

        If nothing failed it is that of the first rank. ``failure`` is why this rank cannot go
        on: the first rank that has a failure says it, and all end with its code, the others by
        Ended. If they do not come, because they compute, this rank ends them.
        """
        try:
            met = self._meet(_END, code, failure is not None)
        except NumericalError as error:
            if failure is not None:
                self.abort(code, failure, say)
            return self.end(2, str(error), say)
        if met is None:
            self.abort(code, failure or "", say)
        first, code = met
        if failure is not None and first == self.index:
            self._say(failure, say)
        return code

    def leave(self) -> None:
        """The last that all ranks do."""
        self._mpi.Finalize()

    def abort(self, code: int, failure: str, say: Say) -> NoReturn:
        """Says why and ends all ranks, whatever they are doing."""
        self._say(failure, say)
        time.sleep(READ_SECONDS)
        # MPI would add in its own words that it was asked to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        self._world.Abort(code)
        sys.exit(code)

    def _say(self, failure: str, say: Say) -> None:
        say(failure if self.first else f"rank {self.index}: {failure}")

    def _meet(self, what: int, code: int = 0, failed: bool = False) -> tuple[int, int] | None:
        """Waits for all ranks, which must be about to do the same.

        Gives (r, code) of the first rank r that has failed, or of the first rank and r beyond all
        of them; None if this rank has failed and the others do not come. Raises Ended if
        another one has failed, NumericalError on all ranks if one goes another way.
        """
        order = self.index if failed else self.count + self.index
        given = array("q", [order * _CODES + code, what, -what])
        least = array("q", [0, 0, 0])
        with self._in_one_line():
            request = self._world.Iallreduce(given, least, op=self._mpi.MIN)
            if not self._is_done(request, _PATIENCE_SECONDS if failed else math.inf):
                self._given_up = (request, given, least)
                return None
        first, low, high = least
        order, code = divmod(first, _CODES)
        if order < self.count:
            if not failed:
                raise Ended(code)
        elif low != -high:
            raise NumericalError(
                "the ranks do not ask for the same sums, because one of them rounds differently; "
                "use machines of one kind"
            )
        return order, code

    def _is_done(self, request: Any, seconds: float = math.inf) -> bool:
        """Whether a request of MPI is done in time.

        It is Python that waits: in MPI itself a rank would hear no signal, and keep its core from
        the rank that it waits for, where these have to share it.
        """
        begun = time.monotonic()
        while not request.Test():
            waited = time.monotonic() - begun
            if waited > seconds:
                return False
            self._waiting(waited)
            time.sleep(0 if waited < _AWAKE_SECONDS else _PAUSE_SECONDS)
        return True

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except self._mpi.Exception as error:
            raise NumericalError(f"MPI failed ({reason(error)})") from error


def _import_mpi(launched: Launched) -> ModuleType:
    try:
        import mpi4py

        if has_lost_one():
            raise InputError(
                f"one of {launched.count} processes ended before MPI started; start them again"
            )
        # We end it ourselves: at the exit it would wait for ranks that are gone.
        mpi4py.rc(thread_level="funneled", finalize=False)
        # MPI waits for all ranks, also for one that has ended before: this one must not for ever.
        signal.alarm(_START_SECONDS)
        from mpi4py import MPI

        signal.alarm(0)
    # Without an MPI it is a RuntimeError.
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"{launched.count} processes were started together, and mpi4py, with which they add "
            f"up, cannot be used ({reason(error)}); install it with: pip install 'hesscli[mpi]'"
        ) from error
    module: ModuleType = MPI
    return module


def _difference(facts: Sequence[Facts]) -> str | None:
    """The first rank whose facts are not those of rank 0, and what it is."""
    mine = facts[0]
    for index, theirs in enumerate(facts):
        for key in dict.fromkeys((*mine, *theirs)):
            if mine.get(key) != theirs.get(key):
                return (
                    f"rank {index} has {key} {_text(theirs.get(key))}, rank 0 has "
                    f"{_text(mine.get(key))}; all ranks must have the same"
                )
    return None


def _text(value: Any) -> str:
    text = "none" if value is None else str(value)
    if len(text) <= _SHOWN_LENGTH:
        return text
    return f"of SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
