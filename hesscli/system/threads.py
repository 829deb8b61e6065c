"""How many cores are used, by both witnesses alike.

Rows of a block are shared out among threads of our own, each of which uses one core: NumPy's
linear algebra (BLAS) and TensorFlow, taking turns at the same cores with threads of their own,
would wait for each other. A single product uses BLAS's threads.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from hesscli.system.errors import InputError

# What the BLAS libraries that NumPy comes with read when they are loaded.
_BLAS_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# More than any machine has cores that one program uses; TensorFlow starts as many as it is told.
MOST_THREADS = 1024
_chosen: int | None = None
# Says of a thread whether it is one of ours, which begins no threads of its own.
_thread = threading.local()

Task = TypeVar("Task")
Result = TypeVar("Result")


def use_threads(count: int) -> None:
    """Makes ``count`` the number of threads; before NumPy and TensorFlow are loaded.

    Raises InputError if it is none from 1 to MOST_THREADS, or if NumPy is there already,
    with another number.
    """
    global _chosen
    if not 1 <= count <= MOST_THREADS:
        raise InputError(f"{count} threads: it must be 1 to {MOST_THREADS}")
    if "numpy" in sys.modules and count != thread_count():
        raise InputError(
            f"{count} threads: NumPy is loaded already with {thread_count()}; choose before it is "
            "imported, or set OPENBLAS_NUM_THREADS"
        )
    _chosen = count
    for name in _BLAS_VARIABLES:
        os.environ[name] = str(count)


def share_cores(count: int) -> None:
    """Makes ``count`` the number of threads, unless the environment says another."""
    if not any(os.environ.get(name) for name in _BLAS_VARIABLES[:2]):
        use_threads(count)


def thread_count() -> int:
    """The number chosen; else what OPENBLAS_NUM_THREADS says, or OMP_NUM_THREADS; else the cores.

    OpenBLAS, which NumPy mostly comes with, asks in the same order.
    """
    if _chosen is not None:
        return _chosen
    for name in _BLAS_VARIABLES[:2]:
        said = os.environ.get(name, "")
        if said.isdecimal() and len(said) <= len(str(MOST_THREADS)) and int(said) > 0:
            return min(int(said), MOST_THREADS)
    return cores()


def in_threads(
    work: Callable[[Task], Result], tasks: Iterable[Task], threads: int | None = None
) -> Iterator[Result]:
    """``work`` of every task, in the order of the tasks, by ``thread_count`` threads.

    The first task is done before the others begin, so that what it prepares is prepared once. No
    more results wait than there are threads. A task that asks for threads itself has none.
    """
    remaining = iter(tasks)
    for task in islice(remaining, 1):
        yield work(task)
    yield from at_once(work, remaining, threads)


def at_once(
    work: Callable[[Task], Result], tasks: Iterable[Task], threads: int | None = None
) -> Iterator[Result]:
    """The same of tasks that need nothing prepared, so that all of them may begin at once."""
    remaining = list(tasks)
    workers = thread_count() if threads is None else threads
    if workers == 1 or len(remaining) < 2 or getattr(_thread, "is_ours", False):
        yield from map(work, remaining)
        return
    with ThreadPoolExecutor(workers, initializer=_begin) as pool, _one_blas_thread():
        yield from _in_turn(pool, work, remaining, workers)


def ahead(work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """``work`` of every task, in their order: the next one's while one is with the caller."""
    with ThreadPoolExecutor(1) as pool:
        yield from _in_turn(pool, work, tasks, 1)


def _in_turn(
    pool: ThreadPoolExecutor,
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    beyond: int,
) -> Iterator[Result]:
    """The results in the order of the tasks, of which ``beyond`` are given out after each."""
    waiting: list[Future[Result]] = []
    try:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > beyond:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()


def _begin() -> None:
    _thread.is_ours = True


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """BLAS with one thread; without threadpoolctl it keeps the number it was loaded with."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(limits=1, user_api="blas"):
        yield


def cores() -> int:
    """How many cores this process may use."""
    return len(core_numbers())


def core_numbers() -> frozenset[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
