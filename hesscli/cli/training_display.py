"""A training as it goes, on standard error where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesscli.studies.measurement import Measurement
    from hesscli.studies.training import Watch


@contextmanager
def training_display(steps: int) -> Iterator[Watch]:
    """Yields what a training calls after every step; the display is gone when the block ends."""
    from hesscli.studies.training import no_watch

    if not sys.stderr.isatty():
        yield no_watch
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    display = Progress(
        MofNCompleteColumn(),
        BarColumn(bar_width=14),
        TextColumn("{task.fields[numbers]}"),
        Remaining(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
    with display:
        task = display.add_task("", total=steps, numbers="")

        def show(step: int, loss: float, last: Measurement) -> None:
            display.update(task, completed=step, numbers=_numbers(loss, last))

        yield show


def _numbers(loss: float, last: Measurement) -> str:
    """The mini-batch's loss, and accuracy and sharpness as measured last."""
    share = "" if last.accuracy is None else f" · accuracy {last.accuracy:.1%}"
    return f"loss {loss:.4f}{share} · sharpness {last.sharpness:.3g}"
