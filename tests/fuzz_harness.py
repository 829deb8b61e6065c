"""Runs command lines in a closed room, and says what went against the rules.

Whatever a command is given: no traceback, an end within seconds, no more than 2 GB, exit code 2
with exactly one line on standard error and nothing written (or the code and the silence of a
command that could use what it got), nothing unpickled, started or connected to, and no file opened
but those that were named.
"""

from __future__ import annotations

import faulthandler
import io
import os
import pickle
import resource
import selectors
import shutil
import signal
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from hesscli.cli.main import main
from hesscli.system import tensorflow as lazy_tensorflow
from hesscli.system.errors import InputError

MOST_BYTES = 2 * 10**9
_SECONDS, _LAST_SECONDS = 60.0, 120.0
_CASES_OF_A_CHILD = 250
# What a program reads of its own accord: itself, its libraries and what the system says.
_OWN = tuple(
    os.path.realpath(path) + os.sep
    for path in (
        sys.prefix,
        sys.base_prefix,
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + "/hesscli",
        "/proc",
        "/sys",
        *(path for path in sys.path if path.endswith("-packages")),
    )
)
_OWN_FILES = ("/dev/null", "/dev/urandom")
_NEVER = (
    "pickle.find_class",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "socket.connect",
    "ctypes.dlopen",
)
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod")


@dataclass(frozen=True)
class Case:
    """A command line; ``named`` are the files and folders that it names.

    ``more_named`` says which are named by what it reads, where it opens any other.
    """

    arguments: tuple[str, ...]
    named: tuple[str, ...] = ()
    more_named: Callable[[], Iterable[str]] = tuple


# Makes the files of a case in the working folder, which is empty.
Draw = Callable[[int], Case]


@dataclass
class Tally:
    """What became of some cases: exit codes, and what went against the rules by seed."""

    codes: dict[int, int] = field(default_factory=dict)
    peak_bytes: int = 0
    complaints: list[tuple[int, str]] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return sum(self.codes.values())


class Hang(BaseException):
    """Time is up."""


def judged(draw: Draw, seeds: Sequence[int], folder: str, jobs: int) -> Tally:
    """Runs the case of every seed, in ``jobs`` processes at a time.

    A process that dies is a complaint about the case it was at.
    """
    tally = Tally()
    waiting = [
        seeds[low : low + _CASES_OF_A_CHILD] for low in range(0, len(seeds), _CASES_OF_A_CHILD)
    ][::-1]
    with selectors.DefaultSelector() as selector:
        while waiting or selector.get_map():
            while waiting and len(selector.get_map()) < jobs:
                child = _Child(draw, waiting.pop(), folder)
                selector.register(child.results, selectors.EVENT_READ, child)
            for key, _ in selector.select():
                child = key.data
                if child.read(tally):
                    continue
                selector.unregister(child.results)
                rest = child.ended(tally)
                if rest:
                    waiting.append(rest)
    tally.complaints.sort()
    return tally


class _Child:
    """A process that runs some cases, one after the other, and tells of each in a pipe."""

    def __init__(self, draw: Draw, seeds: Sequence[int], folder: str) -> None:
        self.seeds = list(seeds)
        self.results, told = os.pipe()
        self._buffer = b""
        self.process = os.fork()
        if self.process == 0:
            os.close(self.results)
            _run_cases(draw, seeds, folder, told)
        os.close(told)

    def read(self, tally: Tally) -> bool:
        """Takes what there is of results; False where there will be no more."""
        content = os.read(self.results, 2**16)
        self._buffer += content
        while len(self._buffer) >= 8:
            size = int.from_bytes(self._buffer[:8], "little")
            if len(self._buffer) < 8 + size:
                break
            seed, code, peak, complaint = pickle.loads(self._buffer[8 : 8 + size])
            self._buffer = self._buffer[8 + size :]
            assert seed == self.seeds.pop(0)
            tally.codes[code] = tally.codes.get(code, 0) + 1
            tally.peak_bytes = max(tally.peak_bytes, peak)
            if complaint:
                tally.complaints.append((seed, complaint))
        return bool(content)

    def ended(self, tally: Tally) -> list[int]:
        """The seeds that are left when the process is gone."""
        os.close(self.results)
        _, status = os.waitpid(self.process, 0)
        if self.seeds:
            died = self.seeds.pop(0)
            tally.codes[-1] = tally.codes.get(-1, 0) + 1
            tally.complaints.append((died, f"the process died (wait status {status})"))
        return self.seeds


def _run_cases(draw: Draw, seeds: Sequence[int], folder: str, told: int) -> NoReturn:
    """The life of a child."""
    try:
        room = _Room(os.path.join(folder, str(os.getpid())))
        for seed in seeds:
            content = pickle.dumps((seed, *room.judge(draw, seed)))
            os.write(told, len(content).to_bytes(8, "little") + content)
        shutil.rmtree(room.folder)
        os._exit(0)
    except BaseException:
        with open(os.path.join(folder, "died.txt"), "a") as stream:
            traceback.print_exc(file=stream)
        os._exit(1)


class _Room:
    """A folder, captured streams and a watch on what is opened, for one case at a time."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        # Where Keras would put its MNIST there is one that is damaged: nothing is downloaded.
        keras = os.path.join(os.path.dirname(folder), "keras")
        os.makedirs(os.path.join(keras, "datasets"), exist_ok=True)
        with open(os.path.join(keras, "datasets", "mnist.npz"), "wb"):
            pass
        self._keras = os.path.realpath(os.path.join(keras, "datasets", "mnist.npz"))
        os.environ.update(KERAS_HOME=keras, HOME=folder, COLUMNS="80")
        sys.dont_write_bytecode = True
        # TensorFlow takes seconds to come: what is wrong must be found before.
        lazy_tensorflow.load_tensorflow = _no_tensorflow  # type: ignore[assignment]
        for module in list(sys.modules.values()):
            if getattr(module, "load_tensorflow", None) is not None:
                module.load_tensorflow = _no_tensorflow  # type: ignore[attr-defined]
        self._captured = [os.memfd_create(name) for name in ("stdout", "stderr")]
        self._watching = False
        self._events: list[tuple[str, Any]] = []
        sys.addaudithook(self._watch)
        mapped = int(_status("VmSize"))
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MOST_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, _time_is_up)

    def judge(self, draw: Draw, seed: int) -> tuple[int, int, str]:
        """Exit code, peak of memory in bytes, and what is wrong."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.mkdir(self.folder)
        os.chdir(self.folder)
        case = draw(seed)
        before = _contents(self.folder)
        with open("/proc/self/clear_refs", "w") as stream:
            stream.write("5")
        code, raised = self._run(case.arguments)
        peak = int(_status("VmHWM"))
        out, err = (os.pread(captured, 2**26, 0) for captured in self._captured)
        complaints = [
            *([raised] if raised else _about_streams(code, out, err)),
            *self._about_events(case),
            *([f"{peak / 1e9:.1f} GB of memory"] if peak > MOST_BYTES else []),
        ]
        if code == 2 and (after := _contents(self.folder)) != before:
            complaints.append(f"written: {sorted({*after} ^ {*before})}")
        text = f"{_readable(case.arguments)}\n  " + "\n  ".join(complaints) if complaints else ""
        return code, peak, text

    def _run(self, arguments: Sequence[str]) -> tuple[int, str]:
        self._events.clear()
        faulthandler.dump_traceback_later(_LAST_SECONDS, exit=True, file=sys.__stderr__)
        with self._streams(), warnings.catch_warnings():
            warnings.simplefilter("always")
            for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
                warnings.simplefilter("ignore", kind)
            try:
                signal.setitimer(signal.ITIMER_REAL, _SECONDS)
                self._watching = True
                main(arguments)
            except SystemExit as ended:
                return int(ended.code or 0), ""
            except BaseException:
                self._watching = False
                return -1, traceback.format_exc(limit=-6)
            finally:
                self._watching = False
                signal.setitimer(signal.ITIMER_REAL, 0)
                faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def _streams(self) -> Iterator[None]:
        saved = [os.dup(1), os.dup(2)]
        streams = sys.stdout, sys.stderr
        for number, captured in enumerate(self._captured, start=1):
            os.ftruncate(captured, 0)
            os.lseek(captured, 0, os.SEEK_SET)
            os.dup2(captured, number)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", write_through=True)
            for number in (1, 2)
        )
        try:
            yield
        finally:
            sys.stdout, sys.stderr = streams
            for number, descriptor in enumerate(saved, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._watching and (event == "open" or event in _NEVER or event in _CHANGES):
            self._events.append((event, arguments))

    def _about_events(self, case: Case) -> Iterable[str]:
        named = {os.path.realpath(os.path.expanduser(name)) for name in case.named}
        named.add(self._keras)
        asked = False
        for event, arguments in self._events:
            path = arguments[0]
            if isinstance(path, int):
                continue
            if event == "ctypes.dlopen" and arguments[0] is None:
                # The program itself is asked what its C library has.
                continue
            if event in _NEVER:
                yield f"{event} {arguments}"
                continue
            path = os.path.realpath(os.fsdecode(path) if path is not None else "")
            if path.startswith(self.folder + os.sep) and event != "open":
                continue
            writing = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if path in _OWN_FILES or (not writing and path.startswith(_OWN)):
                continue
            if os.path.basename(path).startswith(".hesscli-"):
                continue
            if not asked and not {path, os.path.dirname(path)} & named:
                asked = True
                named |= {os.path.realpath(os.path.expanduser(it)) for it in case.more_named()}
            if not {path, os.path.dirname(path)} & named:
                yield f"{event} {path}"


def _no_tensorflow() -> NoReturn:
    raise InputError("so far nothing was wrong")


def _time_is_up(*_: object) -> NoReturn:
    raise Hang


def _about_streams(code: int, out: bytes, err: bytes) -> Iterable[str]:
    if code not in (0, 1, 2):
        yield f"exit code {code}"
    shown = err[:400].decode("utf-8", "backslashreplace")
    if code != 2:
        if err:
            yield f"exit code {code}, and on standard error: {shown!r}"
        return
    if out:
        yield f"exit code 2, and on standard output: {out[:200]!r}"
    try:
        line = err.decode("utf-8")
    except UnicodeDecodeError:
        line = ""
    if not line.startswith("hesscli: ") or not line.endswith("\n") or line.count("\n") != 1:
        yield f"not one line on standard error: {shown!r}"
    elif any(unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp") for sign in line[:-1]):
        yield f"control characters on standard error: {shown!r}"
    elif "out of memory" in line or "llocate" in line:
        yield f"memory that was not refused: {shown!r}"


def _contents(folder: str) -> dict[str, tuple[int, int, int]]:
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = os.lstat(os.path.join(root, name))
            found[os.path.relpath(os.path.join(root, name), folder)] = (
                entry.st_mode,
                entry.st_size if not os.path.isdir(os.path.join(root, name)) else 0,
                entry.st_mtime_ns if not os.path.isdir(os.path.join(root, name)) else 0,
            )
    return found


def _status(key: str) -> int:
    """A size in /proc/self/status, in bytes."""
    with open("/proc/self/status") as stream:
        line = next(line for line in stream if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def _readable(arguments: Sequence[str]) -> str:
    return " ".join(text if len(text) < 80 else f"{text[:80]}…" for text in map(repr, arguments))
