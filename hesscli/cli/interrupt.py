"""Ctrl-C and termination: how a program ends that is told to.

A signal is an exception at whatever is at work. If that does not end the program soon, because
a library is busy with a long product or because Python dropped the exception in a callback, a
thread that waits for signals ends it.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from hesscli.system import temporaries
from hesscli.workers.launcher import launched

INTERRUPTED = 130
# What ends a program from outside: Ctrl-C, kill, and a terminal that is closed.
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
# So long may what is at work take to end by itself.
_PATIENCE_SECONDS = 1.0
# Of processes that are told together the first one says it and ends the others by then.
OTHERS_SECONDS = 1.5
# Processes that end after the same step wait for each other; for longer than this for none.
_STEP_SECONDS = 5.0


@dataclass
class _Process:
    """The process's state about signals, which belong to the process and not to a caller.

    Handlers and the thread that waits for signals are called by the system, with nothing of ours.
    """

    # Signals that a loop at work has been told of, and will heed by itself.
    heeded: float = 0
    # When such a loop was told, while it is at work.
    told: float = math.inf
    # Where the last line goes: standard error, wherever that leads for a while (system/quiet.py).
    stderr: int | None = None
    asked: bool = False
    said: threading.Lock = field(default_factory=threading.Lock)
    # What the line begins with, how long the first of several processes is waited for, and
    # whether the others wait for this one to start.
    name: str = ""
    waited: float = 0.0
    awaited: bool = False


_process = _Process()


class Interrupted(BaseException):
    """A signal. No KeyboardInterrupt, at which Click puts out an empty line."""


def interruptible() -> None:
    """Makes signals end this process with INTERRUPTED, in one line and with no file half written.

    For the entry of the program: it changes the whole process.
    """
    together = launched()
    if together is not None:
        _process.awaited = True
        if together.rank > 0:
            _process.name, _process.waited = f"rank {together.rank}: ", OTHERS_SECONDS
    for each in _SIGNALS:
        # The program that started this one may have it ignore a signal, as nohup does.
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _raise)
    with suppress(OSError):
        _process.stderr = os.dup(2)
    sys.unraisablehook = _but_for_interrupts(sys.unraisablehook)
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    # If there is no room for a thread, a signal waits for the library at work.
    with suppress(RuntimeError):
        threading.Thread(target=_watch, args=(told,), daemon=True).start()


def joined() -> None:
    """For one of several processes: from now on it can end the others by itself."""
    _process.awaited = False


def uninterruptible() -> None:
    """Ignores signals from now on: the work is done."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def end_interrupted() -> NoReturn:
    """Ends the process, whatever its threads are doing."""
    threading.Event().wait(_process.waited)
    temporaries.remove_all()
    say_interrupted()
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    if _process.awaited:
        # The others would wait without an end, and launchers end them if one is killed.
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(INTERRUPTED)


def say_interrupted(when: str = "") -> None:
    """The last line of an interrupted program, on standard error; ``when`` is its end."""
    line = f"hesscli: {_process.name}interrupted{when}\n"
    if _process.stderr is None:
        # Of a command inside another program, which may be interrupted again.
        sys.stderr.write(line)
    elif _process.said.acquire(blocking=False):
        if os.isatty(_process.stderr) and os.environ.get("TERM", "dumb") != "dumb":
            # Over what a progress bar left, or ^C; a bar hides the cursor.
            line = f"\r\x1b[2K\x1b[?25h{line}"
        with suppress(OSError):
            os.write(_process.stderr, line.encode("ascii"))


def interruption_is_said() -> None:
    """Somebody else has said the last line: ``say_interrupted`` says no more."""
    _process.waited = 0.0
    _process.said.acquire(blocking=False)


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C was pressed, or the process told to terminate.

    The second time it is an exception, for users who cannot wait.
    """
    asked = False

    def note(*_: object) -> None:
        nonlocal asked
        if asked:
            raise Interrupted
        asked = True
        _process.told = time.monotonic()

    with heeded_by(note, times=1):
        try:
            yield lambda: asked
        finally:
            _process.told = math.inf


def wait_no_longer(waited: float) -> None:
    """For who has ``waited`` for another process so many seconds.

    Raises Interrupted if this one is to end after its step, and the other one seems to be gone.
    """
    if min(waited, time.monotonic() - _process.told) > _STEP_SECONDS:
        raise Interrupted


@contextmanager
def heeded_by(handler: Callable[..., None], times: float = math.inf) -> Iterator[None]:
    """Signals go to ``handler``, which ends the process itself the first so many ``times``."""
    before: dict[signal.Signals, Any] = {}
    try:
        for each in _SIGNALS:
            if signal.getsignal(each) is not signal.SIG_IGN:
                before[each] = signal.signal(each, handler)
    except ValueError:
        # Only the main thread may listen; elsewhere a signal does what it always does.
        pass
    _process.heeded = times
    try:
        yield
    finally:
        _process.heeded = 0
        for each, was in before.items():
            signal.signal(each, was)


@contextmanager
def ended_by_termination() -> Iterator[None]:
    """SIGTERM ends the process at once, without a line, also while a library keeps Python's lock.

    Neither a handler in Python nor a thread would be called before the library returns.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(*_: object) -> NoReturn:
    if _process.asked:
        # In the middle of what the first one had to be undone: an exception would lose that.
        end_interrupted()
    _process.asked = True
    raise Interrupted


def _watch(told: int) -> None:
    while number := os.read(told, 1):
        if number[0] not in _SIGNALS:
            continue
        if _process.heeded:
            _process.heeded -= 1
        else:
            threading.Event().wait(_PATIENCE_SECONDS)
            end_interrupted()


def _but_for_interrupts(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """``hook``, which tells of exceptions in callbacks; those of signals the thread heeds."""

    def unraisable(what: Any) -> None:
        if not issubclass(what.exc_type, Interrupted):
            hook(what)

    return unraisable
