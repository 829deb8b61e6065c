"""The processes that ``hesscli launch`` starts, and what they say."""

from __future__ import annotations

import codecs
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import FrameType
from typing import TextIO

import click

from hesscli.cli.interrupt import INTERRUPTED, heeded_by, interruption_is_said, say_interrupted
from hesscli.cli.outcome import FAILED_INPUT

_LOOPBACK = "127.0.0.1"
# When one has failed, the others know it within a minute; after that they are told.
_GRACE_SECONDS = 65.0
_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.05
# Whose failure it was is part of what the others say of it.
_OF_WORKER = re.compile(r"(?<=hesscli: )worker \d+ \([^)]*\): ")


class Processes:
    """The workers' processes; none is left when the block ends."""

    def __init__(self, count: int, arguments: Sequence[str]) -> None:
        self._count = count
        self._arguments = arguments
        self._workers: list[subprocess.Popen[bytes]] = []
        self._signalled = False
        self._stack = ExitStack()

    def __enter__(self) -> Processes:
        self._stack.callback(self._kill)
        self._stack.enter_context(heeded_by(self._pass_on))
        return self

    def start(self) -> None:
        """Starts all of them, each with an address of its own."""
        addresses = [f"{_LOOPBACK}:{port}" for port in _free_ports(self._count)]
        self._said = [_Said(sys.stderr if index == 0 else None) for index in range(self._count)]
        self._result = None if _is_of_the_process(sys.stdout) else _Said(sys.stdout)
        for index, said in enumerate(self._said):
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": addresses}, "task": task}
            self._workers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "hesscli", *self._arguments],
                    env={**os.environ, "TF_CONFIG": json.dumps(config)},
                    stdin=subprocess.DEVNULL,
                    stdout=self._standard_output() if index == 0 else subprocess.DEVNULL,
                    stderr=said.writing_end,
                    # Signals of the terminal come from here, once.
                    start_new_session=True,
                )
            )
            said.begin()
        if self._result is not None:
            self._result.begin()
        if self._signalled:
            # It came before there were all of them.
            self._pass_on(signal.SIGINT, None)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait(self) -> int:
        """Waits until all have ended; the worst exit code."""
        deadline: float | None = None
        while any(worker.poll() is None for worker in self._workers):
            if deadline is None and any(worker.poll() is not None for worker in self._workers):
                deadline = time.monotonic() + _GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        self._kill()
        self._say_what_is_left()
        return max(self._code(worker.returncode) for worker in self._workers)

    def _code(self, returned: int) -> int:
        """A worker that a signal has ended has given no answer."""
        ended = INTERRUPTED if self._signalled else FAILED_INPUT
        return returned if returned >= 0 else ended

    def _standard_output(self) -> int | None:
        """Where the first worker's goes: None is this process's own."""
        return None if self._result is None else self._result.writing_end

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._signalled = True
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(number)

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.terminate()
        for worker in self._workers:
            with suppress(subprocess.TimeoutExpired):
                worker.wait(_KILL_SECONDS)
            if worker.poll() is None:
                worker.kill()
                worker.wait()

    def _say_what_is_left(self) -> None:
        """What the first worker has not said itself."""
        first, *others = (said.lines() for said in self._said)
        if self._result is not None:
            self._result.lines()
        if self._signalled:
            (interruption_is_said if first else say_interrupted)()
        known = {_OF_WORKER.sub("", line) for line in first}
        for index, lines in enumerate(others, start=1):
            for line in lines:
                text = _OF_WORKER.sub("", line)
                # All of them were interrupted.
                if text not in known and not self._signalled:
                    click.echo(f"worker {index}: {line}", err=True)
                known.add(text)


class _Said:
    """What one worker writes, shown on ``stream`` as it comes, where there is one.

    Where that is a terminal the worker gets a terminal, too, for its progress bar.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        if stream is not None and stream.isatty():
            self._reading_end, self.writing_end = os.openpty()
        else:
            self._reading_end, self.writing_end = os.pipe()
        self._received = b""
        self._thread = threading.Thread(target=self._read, daemon=True)

    def begin(self) -> None:
        """After the worker has its end."""
        os.close(self.writing_end)
        self._thread.start()

    def lines(self) -> list[str]:
        """All of them, when the worker has ended."""
        self._thread.join(_KILL_SECONDS)
        text = self._received.decode("utf-8", "replace")
        return [line for line in text.replace("\r", "\n").split("\n") if line.strip()]

    def _read(self) -> None:
        # A terminal whose other end is closed is an error.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with suppress(OSError):
            while some := os.read(self._reading_end, 2**12):
                self._received += some
                if self._stream is not None:
                    self._stream.write(decoder.decode(some))
                    self._stream.flush()
        os.close(self._reading_end)


def _is_of_the_process(stream: TextIO) -> bool:
    """Whether it has a descriptor: a program that calls this one may have put another there."""
    try:
        stream.fileno()
    except (OSError, ValueError):
        return False
    return True


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((_LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
