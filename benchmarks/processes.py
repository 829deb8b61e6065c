"""One process for every measurement, and what is known of the machine that they run on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import python_of
from benchmarks.worker import DISAGREED
from hesscli.system.devices import GPU_NAME, open_device
from hesscli.system.errors import InputError
from hesscli.system.memory import available_memory, readable_size

ROOT = Path(__file__).parent.parent
OURS = "hesscli"
# Which program and which environment (None: hesscli's own) a subject has.
PROGRAMS: Mapping[str, tuple[str, str | None]] = {
    OURS: ("with_hesscli", None),
    "TensorFlow": ("with_tensorflow", None),
    "JAX": ("with_jax", "jax"),
    "PyTorch": ("with_torch", "torch"),
    "curvlinops": ("with_curvlinops", "curvlinops"),
    "PyHessian": ("with_pyhessian", "pyhessian"),
}
# A process that asks for more than this share of the free memory is refused it, which is an
# error that can be told; without a limit the system would end some process, not always ours.
_MEMORY_SHARE = 0.95
# Every library that counts threads for itself reads one of these.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


# How programs say that they were refused memory: Python and hesscli, NumPy, PyTorch, JAX, C++.
_OUT_OF_MEMORY = (
    "MemoryError",
    "out of memory",
    "Unable to allocate",
    "not enough memory",
    "RESOURCE_EXHAUSTED",
    "bad_alloc",
)


class RefusedError(Exception):
    """A peer's numbers and ours do not agree."""


class NotMeasuredError(Exception):
    """A process did not come to its end; says why."""


@dataclass(frozen=True)
class Outcome:
    """What a command came to: its exit code, wall and processor time (s), peak, and last words."""

    code: int
    seconds: float
    processor: float
    peak_bytes: int
    output: str


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_to(threads: int) -> None:
    """Binds this process and all that it starts to the first ``threads`` cores, where possible.

    Some libraries take no number of threads (JAX), but all of them count the cores they may use.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def machine() -> dict[str, str | int]:
    """Processor, cores, memory, system and GPU; nothing that names the machine itself."""
    found: dict[str, str | int] = {
        "processor": _processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if hasattr(os, "sysconf"):
        found["memory_bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(InputError):
        found["gpu"] = open_device(GPU_NAME).description
    return found


def run_program(
    subject: str,
    task: str,
    arguments: Sequence[str],
    threads: int,
    timeout: float,
    needs: int = 0,
) -> dict[str, Any]:
    """The answer of ``subject``'s program to ``task``; ``needs`` bytes must be free.

    Raises RefusedError where its numbers are not ours, NotMeasuredError where it gives no answer,
    MissingEnvironmentError where its environment is not there.
    """
    module, environment = PROGRAMS[subject]
    python = sys.executable if environment is None else str(python_of(environment))
    free = available_memory()
    if free is not None and needs > free:
        raise NotMeasuredError(
            f"needs about {readable_size(needs)}, {readable_size(free)} are free"
        )
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [python, "-m", f"benchmarks.programs.{module}", task, "--answer", str(answer)]
        outcome = run_command([*command, *arguments], threads, timeout)
        if outcome.code == DISAGREED:
            raise RefusedError(f"{subject}: {_last_line(outcome.output)}")
        if outcome.code != 0:
            raise NotMeasuredError(explained(outcome, timeout))
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found


def run_command(command: Sequence[str], threads: int, timeout: float) -> Outcome:
    """Runs ``command`` to its end and ends it after ``timeout`` seconds."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= dict.fromkeys(_THREAD_VARIABLES, str(threads))
    # Python keeps what it has compiled, as where users run it: pip has done so for the others.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_limiting_memory(),
        )
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        try:
            # Not process.wait(), which does not say how much memory this child alone has used.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode("utf-8", errors="replace")
    unit = 1 if sys.platform == "darwin" else 1024
    processor = usage.ru_utime + usage.ru_stime
    return Outcome(process.returncode, seconds, processor, usage.ru_maxrss * unit, text)


def _limiting_memory() -> Callable[[], None] | None:
    free = available_memory()
    if free is None or not sys.platform.startswith("linux"):
        return None
    import resource

    limit = int(_MEMORY_SHARE * free)
    return lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def explained(outcome: Outcome, timeout: float) -> str:
    """Why a command that failed did."""
    if outcome.seconds >= timeout:
        return f"no answer within {timeout:.0f} s"
    words = _last_line(outcome.output)
    if any(sign in outcome.output for sign in _OUT_OF_MEMORY):
        return f"out of memory ({words})" if words else "out of memory"
    return words or f"exit code {outcome.code}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
