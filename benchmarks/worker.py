"""What every program of the benchmarks does alike: read the task, agree, measure, answer.

A program runs in its peer's environment, so nothing but the standard library and NumPy is
imported here. It is started as ``python -m benchmarks.programs.with_jax TASK --problem FILE …``
and writes its answer, a JSON object, to a file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Task = Callable[["Job"], None]

# How far two programs may be apart in float32, relative to the largest number compared: products
# and entries are sums of a few thousand terms in different orders.
RTOL = 1e-4
# Eigenvalues by the same method, and by power iteration, which stops by its own rule.
EIGENVALUE_RTOL = 1e-4
POWER_ITERATION_RTOL = 2e-2
# Products of convolutional networks, by type.
CONV_RTOL = {"float64": 1e-12, "float32": 1e-5}
# Sums over 60,000 examples, on a GPU and on the CPU.
GPU_RTOL = {"float64": 1e-11, "float32": 1e-4}
# A run repeats its call until it has lasted this long (seconds): short calls are not timed alone.
SHORTEST_RUN = 0.1

DISAGREED = 3


class DisagreementError(Exception):
    """A peer's numbers are not ours, so nothing is timed."""


class Job:
    """One task of one program: what it was given, and the answer that it fills in.

    ``expected`` holds hesscli's numbers by block and quantity, as in ``dense1/kernel|product``.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.problem_path: str = arguments.problem
        self.block: str = arguments.block
        self.runs: int = arguments.runs
        self.options: dict[str, str] = dict(pair.split("=", 1) for pair in arguments.option)
        self.expected = _arrays(arguments.expected)
        self.timings: dict[str, dict[str, Any]] = {}
        self.agreements: list[dict[str, Any]] = []
        self.numbers: dict[str, float] = {}

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """The problem file's; of a task that has examples of its own they are not read."""
        return _arrays(self.problem_path)

    @property
    def inputs(self) -> Array:
        """The batch (N, d), in the problem's type."""
        return self.arrays["inputs"]

    @property
    def targets(self) -> Array:
        """The class labels (N,), int64."""
        return self.arrays["targets"]

    @property
    def kernels(self) -> list[Array]:
        """The layers' kernels (inputs, units), float32, from the input to the output."""
        return [array for name, array in self.arrays.items() if name.endswith("/kernel")]

    @property
    def layer(self) -> int:
        """The position of the block's layer."""
        kernels = [name for name in self.arrays if name.endswith("/kernel")]
        return kernels.index(self.block)

    def given(self, quantity: str) -> Array:
        """What hesscli found for ``quantity`` of the block."""
        return self.expected[f"{self.block}|{quantity}"]

    def agree(self, quantity: str, found: Any, rtol: float = RTOL) -> None:
        """Holds ``found`` against hesscli's ``quantity``; raises DisagreementError beyond ``rtol``.

        The difference is relative to the largest number of ours.
        """
        ours, theirs = self.given(quantity), np.asarray(found)
        what = f"{self.block} {quantity}"
        if ours.shape != theirs.shape:
            raise DisagreementError(f"{what}: shape {theirs.shape}, hesscli has {ours.shape}")
        scale = float(np.abs(ours).max())
        worst = float(np.abs(ours.astype(np.float64) - theirs).max())
        # Written so that NaN disagrees, and zeros prove nothing.
        if not (scale > 0 and worst <= rtol * scale):
            raise DisagreementError(
                f"{what}: differs from hesscli by {worst:.1e}, largest number {scale:.1e}, "
                f"allowed {rtol:.0e} of it"
            )
        self.agreements.append(
            {"what": what, "compared": ours.size, "relative": worst / scale, "rtol": rtol}
        )

    def measure(self, what: str, call: Callable[[], object], per: int = 1) -> None:
        """Times ``call`` once to warm up and then ``runs`` times, in seconds divided by ``per``."""
        first = elapsed = _elapsed(call, 1)
        if elapsed < SHORTEST_RUN:
            # The first call may have traced or compiled; it does not say how long the rest take.
            elapsed = _elapsed(call, 1)
        number = max(1, math.ceil(SHORTEST_RUN / max(elapsed, 1e-9)))
        seconds, processor = [], []
        for _ in range(self.runs):
            before = time.process_time()
            seconds.append(_elapsed(call, number) / number / per)
            processor.append((time.process_time() - before) / number / per)
        self.timings[what] = {
            "first": first / per,
            "number": number,
            "seconds": seconds,
            "processor": processor,
        }


def run(tasks: Mapping[str, Task], packages: Sequence[str]) -> None:
    """Does the task of the command line and writes the answer; exits with 3 on a disagreement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=tasks)
    parser.add_argument("--problem")
    parser.add_argument("--expected")
    parser.add_argument("--answer", required=True)
    parser.add_argument("--block", default="dense1/kernel")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    job = Job(arguments)
    try:
        tasks[arguments.task](job)
    except DisagreementError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(DISAGREED)
    answer = {
        "timings": job.timings,
        "agreements": job.agreements,
        "numbers": job.numbers,
        "peak_bytes": peak_bytes(),
        "versions": _versions(packages),
    }
    Path(arguments.answer).write_text(json.dumps(answer), encoding="utf-8")


def peak_bytes() -> int:
    """The largest resident memory of this process so far, or since ``forget_peak``.

    ``ru_maxrss`` starts with what the parent held when it started this process; Linux's
    ``VmHWM`` does not, so that is preferred.
    """
    found = _status("VmHWM")
    if found is not None:
        return found
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> int:
    """Starts the peak anew from what is resident now, and says how much that is (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return peak_bytes()
    return _status("VmRSS") or peak_bytes()


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def _arrays(path: str | None) -> dict[str, Array]:
    if path is None:
        return {}
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def _elapsed(call: Callable[[], object], number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    return time.perf_counter() - start
