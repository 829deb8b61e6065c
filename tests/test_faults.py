"""What happens when everything around fails: signals, disks, pipes, memory, and other runs."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hesscli.studies import verification
from hesscli.system import files, threads
from hesscli.system.errors import InputError
from hesscli.system.files import opened, replacing

INTERRUPTED = b"hesscli: interrupted\n"
# None of them imports TensorFlow.
COMMANDS = (
    ("config",),
    ("spectrum", "-c", "tiny.yaml", "-f", "json", "-q", "-o", "out.json"),
    ("init", "-c", "tiny.yaml", "--seeds", "3", "-q", "-o", "out.html"),
    ("export", "network", "-c", "tiny.yaml", "-o", "out.npy"),
    ("export", "dense2/kernel", "-n", "32", "-o", "out.h5"),
    ("init", "-n", "8", "--seeds", "2", "-q", "-o", "out.md"),
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with tiny.yaml, of a 4-3-2 network."""
    generator = np.random.default_rng(0)
    np.savez(
        tmp_path / "batch.npz",
        inputs=generator.standard_normal((6, 4)),
        targets=generator.integers(0, 2, 6),
    )
    layers = "[{units: 3, activation: tanh}, {units: 2}]"
    (tmp_path / "tiny.yaml").write_text(
        f"model: {{inputs: 4, layers: {layers}}}\ndata: {{source: batch.npz}}\n"
        "train: {batch_size: 2, steps: 2, every: 2, measure_examples: 2}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(arguments: Sequence[str], program: Sequence[str] = (), **options: Any) -> Any:
    """A process that captures both streams, unless ``options`` say otherwise."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, *(program or ("-m", "hesscli")), *arguments], **streams
    )


def ended(*arguments: str, **options: Any) -> tuple[int, bytes, bytes]:
    process = started(arguments, **options)
    out, err = process.communicate(timeout=60)
    return process.returncode, out or b"", err or b""


def outputs() -> set[str]:
    """What commands have left in the folder, hidden files as well."""
    return set(os.listdir()) - {"batch.npz", "tiny.yaml"}


def is_whole(path: str) -> bool:
    if path.endswith(".npy"):
        return bool(np.isfinite(np.load(path)).all())
    if path.endswith(".json"):
        return bool(json.loads(Path(path).read_text()))
    if path.endswith(".h5"):
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "r") as file:
            return bool(np.isfinite(file["hessian"][()]).all())
    return Path(path).read_text().rstrip().endswith(("</html>", "|", "."))


# Tells when it has begun: what Python itself says of a signal before that is not ours.
BEGUN = "import os, sys; from hesscli.__main__ import main; os.write(0, b'.'); main()"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_is_one_line_and_leaves_files_whole_or_absent(
    number: signal.Signals,
) -> None:
    """Six commands at once; where one had finished before, its exit code is its own."""
    generator = random.Random(int(number))
    running = []
    for index, command in enumerate(COMMANDS):
        Path(str(index)).mkdir()
        for name in ("batch.npz", "tiny.yaml"):
            os.link(name, f"{index}/{name}")
        told, tell = os.pipe()
        running.append((index, told, started(command, ("-c", BEGUN), cwd=str(index), stdin=tell)))
        os.close(tell)
    for _, told, process in generator.sample(running, len(running)):
        os.read(told, 1)
        os.close(told)
        time.sleep(generator.uniform(0, 0.4))
        process.send_signal(number)
    for index, _, process in running:
        _, err = process.communicate(timeout=60)
        # It may have ended before, or be too young to listen.
        allowed = ((130, INTERRUPTED), (0, b""), (-signal.SIGTERM, b""))
        assert (process.returncode, err) in allowed
        os.chdir(str(index))
        for name in outputs():
            assert name.startswith("out.")
            assert is_whole(name)
        os.chdir("..")


WHILE_A_CLASS_IS_MADE = """
import importlib, sys
from hesscli.__main__ import main
from hesscli.cli.interrupt import Interrupted
class Signalled:
    def __set_name__(self, owner, name):
        raise Interrupted
def struck(*_, **__):
    class Made:
        attribute = Signalled()
setattr(importlib.import_module(sys.argv.pop(1)), sys.argv.pop(1), struck)
main()
"""


@pytest.mark.parametrize(
    ("module", "name"), [("hesscli.cli.main", "main"), ("hesscli.config.load", "load_config")]
)
def test_a_signal_while_a_class_is_made_is_one_line(module: str, name: str) -> None:
    """Python up to 3.11 raises a RuntimeError in its place."""
    process = started(("config",), ("-c", WHILE_A_CLASS_IS_MADE, module, name))
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, INTERRUPTED)


# Runs a command in which a function, at its first call, sends the process a signal and goes on.
AT_A_CALL = """
import importlib, os, sys
module, name, number = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
home = importlib.import_module(module)
was = getattr(home, name)
def signalled(*arguments, **options):
    global number
    if number:
        sent, number = number, 0
        os.kill(os.getpid(), sent)
    return was(*arguments, **options)
setattr(home, name, signalled)
from hesscli.__main__ import main
main()
"""
MOMENTS = {
    "while it imports": ("importlib", "import_module", "config"),
    "while it reads": ("hesscli.config.text", "parsed", "config --config tiny.yaml"),
    "while its threads compute": ("hesscli.system.pieces", "pieces", "export network -o H.npz"),
    "before a file takes its place": ("os", "fsync", "spectrum -c tiny.yaml -o out.json"),
    "after a file took its place": (
        "hesscli.system.temporaries",
        "remove",
        "export dense2 -o H.h5",
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_in_a_delicate_moment(moment: str) -> None:
    module, name, line = MOMENTS[moment]
    before = outputs()
    arguments = (module, name, str(int(signal.SIGTERM)), *line.split())
    process = started(arguments, ("-c", AT_A_CALL))
    out, err = process.communicate(timeout=60)
    if (process.returncode, err) != (0, b""):
        assert (process.returncode, out, err) == (130, b"", INTERRUPTED)
    for name in outputs() - before:
        assert is_whole(name)
        assert not name.endswith(".tmp")


# A command in which nothing comes of the exception: dropped with what it was raised in, or not
# raised before a library is done.
DEAF = """
import hashlib, os, signal, sys, threading
import hesscli.config.load
class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
def in_a_callback():
    Dropped()
    threading.Event().wait(50)
def in_a_library():
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
def deaf(*_):
    from hesscli.system.files import replacing
    with replacing("out.txt") as stream:
        stream.write(b"half")
        globals()[deafness]()
hesscli.config.load.load_config = deaf
deafness = sys.argv.pop()
from hesscli.__main__ import main
main()
"""


@pytest.mark.parametrize("deaf", ["in_a_callback", "in_a_library"])
def test_who_does_not_hear_a_signal_is_ended_a_second_later(deaf: str) -> None:
    begun = time.monotonic()
    process = started(("config", deaf), ("-c", DEAF))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", INTERRUPTED)
    assert time.monotonic() - begun < 30
    assert not outputs()


def test_a_signal_that_the_caller_ignores_is_ignored() -> None:
    """As nohup has it; and of a command in the background of a script."""

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    arguments = ("os", "fsync", str(int(signal.SIGHUP)), *COMMANDS[1])
    process = started(arguments, ("-c", AT_A_CALL), preexec_fn=ignore)
    assert (process.communicate(timeout=60)[1], process.returncode) == (b"", 0)
    assert is_whole("out.json")


def into_closed_pipe(*arguments: str) -> tuple[int, bytes]:
    """The exit code and standard error of a command whose reader has gone already."""
    reading, writing = os.pipe()
    os.close(reading)
    code, _, err = ended(*arguments, stdout=writing)
    os.close(writing)
    return code, err


@pytest.mark.parametrize("arguments", [("config",), ("--help",), ("export", "--help")])
def test_a_reader_that_has_seen_enough_is_no_error(arguments: tuple[str, ...]) -> None:
    assert into_closed_pipe(*arguments) == (0, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("config",), ("--help",)])
def test_a_full_standard_output_is_one_line(
    arguments: tuple[str, ...], unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is in a buffer Python writes when it ends.
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "wb") as full:
        code, _, err = ended(*arguments, stdout=full)
        assert code == 2
        assert re.fullmatch(rb"hesscli: standard output .*No space left on device.*\n", err)
        # Nobody can be told.
        assert ended(*arguments, "--nosuch", stderr=full)[0] == 2
        assert ended(stderr=full)[0] == 2


def test_closed_streams_take_no_part() -> None:
    """The next file that is opened would get their number, and what is printed."""
    closed = 'exec "$@" <&- >&- 2>&-'
    command = ["bash", "-c", closed, "-", sys.executable, "-m", "hesscli", *COMMANDS[1]]
    assert subprocess.run(command, check=False).returncode == 0
    assert is_whole("out.json")
    assert subprocess.run([*command[:7], "config"], check=False).returncode == 0
    assert subprocess.run([*command[:7], "config", "--nosuch"], check=False).returncode == 2


WRITERS = (
    ("export", "network", "-c", "tiny.yaml", "-o", "out.npy"),
    ("export", "network", "-c", "tiny.yaml", "-o", "out.npz"),
    ("export", "network", "-c", "tiny.yaml", "-o", "out.h5"),
    ("spectrum", "-c", "tiny.yaml", "-q", "-o", "out.json"),
    ("spectrum", "-c", "tiny.yaml", "--top", "2", "--eigenvectors", "out.npz"),
    ("solve", "-c", "tiny.yaml", "-q", "--save", "out.npz"),
    ("train", "-c", "tiny.yaml", "--checkpoint", "out.npz"),
    (
        "init",
        "-c",
        "tiny.yaml",
        "--tune",
        "--target",
        "0.01",
        "--seeds",
        "2",
        "--write",
        "out.yaml",
    ),
)


@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
@pytest.mark.parametrize(
    ("function", "number", "text"),
    [
        ("fsync", errno.ENOSPC, "No space left on device"),
        ("replace", errno.EROFS, "Read-only file system"),
    ],
)
def test_a_disk_that_fails_leaves_what_was_there(
    command: tuple[str, ...],
    function: str,
    number: int,
    text: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    target = next(word for word in command if word.startswith("out."))
    Path(target).write_text("old")
    with monkeypatch.context() as patched:
        patched.setattr(f"hesscli.system.files.os.{function}", fail)
        code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"hesscli: {target}(\.json)?: cannot be written \({text}\); .*\n", err)
    # A full disk is not a folder that may not be written to.
    assert ("writable folder" in err) == (number != errno.ENOSPC)
    assert (Path(target).read_text(), outputs()) == ("old", {target})


def on_a_disk_of_its_own(mounted: str, *arguments: str) -> tuple[int, bytes, bytes]:
    """``ended`` beside a disk of 64 kB, which is in ``disk`` and has a file old.npy.

    The standard output is what that file holds at the end, and the names of all files.
    """
    can_mount = ("unshare", "--map-root-user", "--mount", "sh", "-c")
    os.mkdir("disk")
    mount = f"mount -t tmpfs -o size=64k none disk && echo old > disk/old.npy && {mounted}"
    if subprocess.run([*can_mount, mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a disk")
    script = mount + ' && "$@"; code=$?; cat disk/old.npy; ls -A disk; exit $code'
    command = [*can_mount, script, "-", sys.executable, "-m", "hesscli", *arguments]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", ["new.npy", "old.npy", "new.h5"])
def test_a_disk_that_is_too_small_is_said_before_anything_is_written(name: str) -> None:
    target = f"disk/{name}"
    code, out, err = on_a_disk_of_its_own(
        "true", "export", "dense2/kernel", "-n", "2", "-o", target
    )
    assert (code, out) == (2, b"old\nold.npy\n")
    wrong = rf"hesscli: {target}: needs [\d.]+ MB and the disk has [\d.]+ kB free; use .*\n"
    assert re.fullmatch(wrong.encode(), err), err


@pytest.mark.parametrize("name", ["new.json", "old.npy"])
def test_a_disk_that_is_really_full(name: str) -> None:
    code, out, err = on_a_disk_of_its_own(
        "! head -c 99999 /dev/zero 2>/dev/null > disk/all",
        *("init", "-c", "tiny.yaml", "--seeds", "2", "-f", "json", "-q", "-o", f"disk/{name}"),
    )
    assert (code, out) == (2, b"old\nall\nold.npy\n")
    wrong = rf"hesscli: disk/{name}: cannot be written \(No space left on device\); .*\n"
    assert re.fullmatch(wrong.encode(), err), err


@pytest.mark.parametrize("name", ["new.npy", "old.npy"])
def test_a_disk_that_is_really_read_only(name: str) -> None:
    code, out, err = on_a_disk_of_its_own(
        "mount -o remount,ro disk", "export", "network", "-c", "tiny.yaml", "-o", f"disk/{name}"
    )
    assert (code, out) == (2, b"old\nold.npy\n")
    assert err.startswith(f"hesscli: disk/{name}: cannot be written (Read-only file ".encode()), err
    assert err.count(b"\n") == 1


def test_a_file_that_may_grow_no_more_is_not_left(run: Run) -> None:
    """The system's limit, as of a disk's quota, in the middle of writing."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))

    for name in ("H.npy", "H.npz", "H.h5"):
        code, out, err = ended("export", "dense2/kernel", "-n", "2", "-o", name, preexec_fn=limit)
        assert (code, out) == (2, b"")
        assert err.startswith(f"hesscli: {name}: cannot be written (".encode())
        assert err.count(b"\n") == 1
        assert not outputs()


def test_a_folder_that_is_read_only_is_refused_before_anything_is_computed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)
    for command in WRITERS:
        code, out, err = run(*command)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "cannot be written (Permission denied); a file name in a writable folder" in err


def test_a_file_that_fails_while_it_is_read_is_refused() -> None:
    Path("x").write_text("x")
    wrong = r"^x: cannot be read \(Input/output error\); a file is needed"
    with pytest.raises(InputError, match=wrong), opened("x", "a file is needed"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def limited(megabytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes * 10**6,) * 2)


def test_too_little_memory_for_the_libraries_is_one_line() -> None:
    """NumPy's BLAS would wait for it without an end."""
    code, out, err = ended("spectrum", "-c", "tiny.yaml", preexec_fn=limited(260))
    assert (code, out) == (2, b"")
    assert re.fullmatch(rb"hesscli: ulimit -v leaves .* MB; NumPy with \d+ threads .*\n", err)


def test_too_little_memory_for_the_problem_is_one_line() -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    layers = ("--set", "model.layers=[{units: 300000}, {units: 10}]")
    code, out, err = ended(
        "spectrum", *layers, env=environment, preexec_fn=limited(900), stdin=subprocess.DEVNULL
    )
    assert (code, out, err.count(b"\n")) == (2, b"", 1)
    assert err.startswith(b"hesscli: model.layers: the parameters need 1.9 GB and ")


class ExhaustedError(Exception):
    """What TensorFlow raises where an allocation fails."""


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("can't start new thread"), ExhaustedError("OOM")],
    ids=repr,
)
def test_memory_that_runs_out_is_one_line(
    error: Exception, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    errors = SimpleNamespace(ResourceExhaustedError=ExhaustedError)
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(errors=errors))
    monkeypatch.setattr(verification, "verify", fail)
    code, out, err = run(
        "verify", "-c", "tiny.yaml", "-q", "-o", "out.json", "--save-problem", "p.npz"
    )
    assert (code, out, outputs()) == (2, "", set())
    assert err == ("hesscli: out of memory; use a smaller batch, fewer units or dtype float32\n")


@pytest.mark.parametrize("share_out", [threads.in_threads, threads.at_once])
def test_memory_that_runs_out_in_a_thread_is_heard_of(
    share_out: Callable[..., Iterator[int]],
) -> None:
    def work(number: int) -> int:
        if number == 3:
            raise MemoryError
        return number

    with pytest.raises(MemoryError):
        list(share_out(work, range(10), threads=3))


def test_a_thread_of_ours_begins_none_of_its_own() -> None:
    def name(_: int) -> str:
        return threading.current_thread().name

    def names(number: int) -> set[str]:
        return {name(number), *threads.at_once(name, range(5), threads=3)}

    assert all(len(of_task) == 1 for of_task in threads.at_once(names, range(4), threads=2))


def test_two_runs_may_write_the_same_file_at_once() -> None:
    """Whoever reads it finds one result or the other, whole."""
    commands = [
        ("spectrum", "-c", "tiny.yaml", "--seed", str(seed), "-q", "-o", "out.json")
        for seed in (1, 2)
    ]
    running = [started(command) for command in commands]
    seen = set()
    while any(process.poll() is None for process in running):
        if os.path.exists("out.json"):
            seen.add(json.loads(Path("out.json").read_text())["problem"]["seed"])
        time.sleep(0.002)
    assert [(process.communicate()[1], process.returncode) for process in running] == [(b"", 0)] * 2
    seen.add(json.loads(Path("out.json").read_text())["problem"]["seed"])
    assert seen <= {1, 2}
    assert outputs() == {"out.json"}


@pytest.fixture
def rivals() -> Iterator[list[bytes]]:
    yield [bytes([number]) * 10**6 for number in range(8)]


def test_rivals_within_a_process_leave_one_content_whole(rivals: list[bytes]) -> None:
    def write(content: bytes) -> None:
        with replacing("out.bin") as stream:
            stream.write(content)
        assert Path("out.bin").read_bytes() in rivals

    assert len(list(threads.in_threads(write, rivals * 3, threads=4))) == 24
    assert outputs() == {"out.bin"}
    assert files.sha256_of("out.bin")
