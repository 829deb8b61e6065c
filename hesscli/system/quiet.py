"""Silence for libraries that write on the terminal past Python."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def silenced() -> Iterator[None]:
    """Sends standard output and standard error nowhere while the block runs.

    TensorFlow's C++ writes to the descriptors 1 and 2 themselves, whatever its log level says
    and wherever ``sys.stdout`` leads, so both the descriptors and Python's streams are replaced.
    """
    for stream in (sys.stdout, sys.stderr):
        # None if the process was started without the stream.
        if stream is not None:
            stream.flush()
    with ExitStack() as stack:
        for descriptor in (1, 2):
            stack.enter_context(_to_null(descriptor))
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        yield


@contextmanager
def _to_null(descriptor: int) -> Iterator[None]:
    try:
        saved = os.dup(descriptor)
    except OSError:
        # Closed already: there is nowhere to write.
        yield
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
