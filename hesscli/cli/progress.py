"""How far a command has come, on standard error if that is a terminal; gone when it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn

    from hesscli.studies.context import Progress
    from hesscli.studies.measurement import Measurement
    from hesscli.studies.training import Watch


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yields what a study calls to show its progress."""
    from hesscli.studies.context import no_progress

    if not _is_shown():
        yield no_progress
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    bar = _bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with bar:
        # Until the first piece of work is reported, TensorFlow is being imported.
        task = bar.add_task("starting", total=None)

        def show(name: str, done: int, total: int) -> None:
            bar.update(task, description=name, completed=done, total=total)

        yield show


@contextmanager
def training_display(steps: int) -> Iterator[Watch]:
    """Yields what a training calls after every step."""
    from hesscli.studies.training import no_watch

    if not _is_shown():
        yield no_watch
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    bar = _bar(
        MofNCompleteColumn(),
        BarColumn(bar_width=14),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(compact=True),
    )
    with bar:
        task = bar.add_task("", total=steps, numbers="")

        def show(step: int, loss: float, last: Measurement) -> None:
            # The mini-batch's loss, and accuracy and sharpness as measured last.
            share = "" if last.accuracy is None else f" · accuracy {last.accuracy:.1%}"
            numbers = f"loss {loss:.4f}{share} · sharpness {last.sharpness:.3g}"
            bar.update(task, completed=step, numbers=numbers)

        yield show


def _is_shown() -> bool:
    context = click.get_current_context(silent=True)
    quiet = context is not None and context.params.get("quiet")
    return not quiet and sys.stderr.isatty()


def _bar(*columns: ProgressColumn) -> Bar:
    from rich.console import Console
    from rich.progress import Progress as Bar

    return Bar(*columns, console=Console(stderr=True), transient=True)
