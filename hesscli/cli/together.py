"""A command line that runs on every rank of MPI, of which the first one shows what is found."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn, TextIO

from hesscli.cli import interrupt
from hesscli.cli.outcome import FAILED_INPUT, FAULT, exit_code_of, show
from hesscli.system.errors import InputError
from hesscli.system.threads import share_cores
from hesscli.workers.launcher import READ_SECONDS, Launched, abort
from hesscli.workers.ranks import Ended, Ranks


def run_together(launched: Launched, command_line: Callable[[Ranks], object]) -> int:
    """The exit code of what all ranks do, which is the same for all of them."""
    stderr = sys.stderr
    if launched.rank > 0:
        # What is found, and shown on the way, is for the first one to say.
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    told = False

    def note(*_: object) -> None:
        nonlocal told
        told = True

    try:
        # MPI is not Python, so an exception cannot end it. While it starts it waits for all ranks,
        # and Slurm ends those that wait for one that is gone by SIGTERM.
        with interrupt.heeded_by(note), interrupt.ended_by_termination():
            ranks = Ranks(launched, interrupt.wait_no_longer)
    except InputError as error:
        # Ranks cannot agree on which one prints it: others do if the first one does not end them.
        if launched.rank > 0:
            time.sleep(interrupt.OTHERS_SECONDS)
        rank = f"rank {launched.rank}: " if launched.rank > 0 else ""
        show(f"{rank}{error}", stream=stderr)
        time.sleep(READ_SECONDS)
        abort(FAILED_INPUT)
        return FAILED_INPUT
    interrupt.joined()
    share_cores(ranks.cores)
    try:
        if told:
            raise interrupt.Interrupted
        code, failure = _ended(lambda: command_line(ranks))
        if failure is not None and code == interrupt.INTERRUPTED:
            _interrupt(ranks)
        code = ranks.end(code, failure, lambda line: _say(line, stderr))
    except interrupt.Interrupted:
        _interrupt(ranks)
    except Ended as ended:
        code = ended.code
    ranks.leave()
    # All of them end with its code.
    interrupt.interruption_is_said()
    return code


def _ended(run: Callable[[], object]) -> tuple[int, str | None]:
    """The exit code, and what a failure is told in."""
    failures: list[str] = []

    def note(line: str, _: int) -> None:
        failures.append(line)

    code = exit_code_of(run, note)
    return code, failures[0] if failures else None


def _say(failure: str, stream: TextIO) -> None:
    show(failure, FAULT if "\n" in failure else FAILED_INPUT, stream)


def _interrupt(ranks: Ranks) -> NoReturn:
    if not ranks.first:
        # If the first rank is interrupted as well, it ends this one.
        time.sleep(interrupt.OTHERS_SECONDS)
    ranks.abort(interrupt.INTERRUPTED, "", lambda _: interrupt.say_interrupted())
