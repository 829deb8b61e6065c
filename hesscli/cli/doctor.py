"""``hesscli doctor``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from hesscli.cli.command import command
from hesscli.cli.output import OutputOptions, output_options

_VARIABLES = ("TERM", "LANG", "LC_ALL", "NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING")


@command(
    "hesscli doctor",
    "hesscli doctor --format json --output doctor.json",
    "hesscli doctor --no-tensorflow",
)
@click.option(
    "--no-tensorflow",
    "without_tensorflow",
    is_flag=True,
    help="Look for TensorFlow, but do not import it.",
)
@output_options
def doctor(without_tensorflow: bool, output: OutputOptions) -> int:
    """Show what is installed and found, for bug reports.

    It prints versions, extras, cores, threads and memory, TensorFlow's devices, the data and where
    they are, the defaults of the configuration, and the terminal. Exits with 1 if something that
    hesscli needs is missing.
    """
    from hesscli.report.documents import document_of
    from hesscli.studies.doctor import diagnose

    # While something is shown, Rich has a stream of its own in the place of the terminal's.
    terminal = dict(_terminal())
    with _waiting():
        result = diagnose(tensorflow=not without_tensorflow, terminal=terminal)
    output.write(document_of(result))
    return 0 if result.passed else 1


def _terminal() -> Iterator[tuple[str, str]]:
    import shutil

    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns
    yield "standard output", f"a terminal of {columns} columns" if is_terminal else "no terminal"
    yield "encoding", str(getattr(sys.stdout, "encoding", None))
    for name in _VARIABLES:
        if name in os.environ:
            yield name, os.environ[name]


@contextmanager
def _waiting() -> Iterator[None]:
    """TensorFlow takes seconds; a terminal says so."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status("looking around"):
        yield
