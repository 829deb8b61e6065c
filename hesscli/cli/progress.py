"""A progress bar on standard error, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hesscli.studies.context import Progress


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yields what a study calls to show its progress; the bar is gone when the block ends."""
    from hesscli.studies.context import no_progress

    context = click.get_current_context(silent=True)
    quiet = context is not None and context.params.get("quiet")
    if quiet or not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        # Until the first piece of work is reported, TensorFlow is being imported.
        task = bar.add_task("starting", total=None)

        def show(name: str, done: int, total: int) -> None:
            bar.update(task, description=name, completed=done, total=total)

        yield show
