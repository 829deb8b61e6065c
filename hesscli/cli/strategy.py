"""``--strategy``: a command that runs on several workers, of which the first one reports."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from hesscli.cli.outcome import exit_code_of, show

if TYPE_CHECKING:
    from hesscli.cli.options import ProblemOptions, WitnessOptions
    from hesscli.cli.replay import Run
    from hesscli.workers.team import Team

Command = TypeVar("Command", bound=Callable[..., Any])

MULTI_WORKER = "multi-worker"
# Takes back what a progress bar did to the terminal.
_CLEAR_LINE_AND_SHOW_CURSOR = "\r\x1b[2K\x1b[?25h"


def strategy_option(function: Command) -> Command:
    """Adds ``--strategy``: the command's ``problem`` and ``run`` then know the other workers.

    It stands next to the function, below ``problem_options``.
    """

    @click.option(
        "--strategy",
        type=click.Choice((MULTI_WORKER,)),
        help="Run this same command on several workers, each with its share of the examples; "
        "they are those of TF_CONFIG or of a Slurm step, and the first one reports.",
    )
    @functools.wraps(function)
    def wrapper(*, strategy: str | None, problem: ProblemOptions, run: Run, **others: Any) -> Any:
        if strategy is None:
            return function(problem=problem, run=run, **others)
        team = _joined(run)

        def on_all_workers() -> object:
            return function(
                problem=replace(problem, workers=team), run=replace(run, team=team), **others
            )

        failed = False

        def tell(line: str, code: int) -> None:
            nonlocal failed
            failed = True
            team.failed(line, code)
            show(line, code)

        code = exit_code_of(on_all_workers, tell)
        _leave(code if failed else team.finish(code))

    return wrapper  # type: ignore[return-value]  # Click's decorators keep no signature


def refuse_saving(witness: WitnessOptions) -> None:
    """Raises UsageError where the problem is to be saved, of which each worker has a share."""
    if witness.save_path is not None:
        raise click.UsageError(
            f"--strategy {MULTI_WORKER} --save-problem: no worker has all examples; leave one of "
            "the two out"
        )


def _versions(run: Run) -> dict[str, Any]:
    from hesscli.studies.context import installed_versions

    return {"the command": run.command, **installed_versions()}


def _joined(run: Run) -> Team:
    from hesscli.workers.cluster import find_cluster
    from hesscli.workers.team import Team

    cluster = find_cluster()
    _keep_standard_error_for_us()
    return Team(cluster, _versions(run), functools.partial(_say_last, sys.stderr))


def _keep_standard_error_for_us() -> None:
    """TensorFlow's C++ writes to the descriptor 2 from its own threads as long as there is a
    cluster; Python's stream gets another descriptor, and that one leads nowhere.
    """
    stream = sys.stderr
    try:
        own = os.dup(stream.fileno())
    except (AttributeError, OSError, ValueError):
        # It is not the process's: there is nothing to take from TensorFlow.
        return
    stream.flush()
    sys.stderr = open(  # noqa: SIM115 - for as long as the process lives
        own, "w", encoding=stream.encoding, errors=stream.errors, buffering=1
    )
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _say_last(stream: IO[str], line: str) -> None:
    """From another thread, whatever the first one is showing, and where it is silenced, too."""
    if stream.isatty():
        stream.write(_CLEAR_LINE_AND_SHOW_CURSOR)
    show(line, stream=stream)
    stream.flush()


def _leave(code: int) -> NoReturn:
    """Ends the process without TensorFlow's farewell, which waits for workers that are gone."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)
