"""Each rank killed at ten moments of a run: how long until all have ended, and what is left.

    python tests/killed_ranks.py [--signal KILL|INT|TERM] [--launcher "srun --overcommit …"]

starts a spectrum, and a training that writes checkpoints, on three ranks, and kills one of them
after each tenth of the time that the run takes by itself. Every line should say that all ended
within ten seconds, with an exit code that is not zero, or with zero where the run was done.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from test_ranks import MPIEXEC, SOON, processes_in

COMMANDS = {
    "spectrum": ("spectrum", "-c", "tiny.yaml", "-q", "--output", "report.json"),
    "train": (
        *("train", "-c", "tiny.yaml", "-q", "--output", "report.json", "--steps", "60"),
        *("--checkpoint", "state.npz", "--checkpoint-every", "20"),
    ),
}
RANKS, MOMENTS = 3, 10
RANK_NAMES = (b"PMI_RANK", b"OMPI_COMM_WORLD_RANK", b"SLURM_PROCID")


def prepared(folder: Path) -> None:
    generator = np.random.default_rng(0)
    inputs, targets = generator.standard_normal((9, 4)), generator.integers(0, 2, 9)
    np.savez(folder / "batch.npz", inputs=inputs, targets=targets)
    (folder / "tiny.yaml").write_text(
        "model: {inputs: 4, layers: [{units: 3, activation: tanh}, {units: 2}]}\n"
        "data: {source: batch.npz}\n"
        "train: {batch_size: 4, every: 100, measure_examples: 4}\n",
        encoding="utf-8",
    )


def started(launcher: str, command: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    words = [*shlex.split(launcher), "-n", str(RANKS), sys.executable, "-m", "hesscli", *command]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, text=True, cwd=folder, env=environment, **pipes)


def process_of(rank: int, folder: Path) -> int:
    """The process of a rank, as soon as it is there."""
    while True:
        for number in processes_in(folder):
            with suppress(OSError):
                environment = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
                command = Path(f"/proc/{number}/cmdline").read_bytes()
                ranks = {b"%s=%d" % (name, rank) for name in RANK_NAMES}
                if not ranks.isdisjoint(environment) and b"-m\0hesscli" in command:
                    return number


def broken(folder: Path) -> list[str]:
    """Files that are neither whole nor hidden, and processes that are left."""
    found = [f"process {number}" for number in processes_in(folder)]
    if (folder / "report.json").exists():
        json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if (folder / "state.npz").exists():
        with np.load(folder / "state.npz") as state:
            found += [name for name in state.files if state[name] is None]
    known = {"batch.npz", "tiny.yaml", "report.json", "state.npz"}
    names = {path.name for path in folder.iterdir()} - known
    return found + [name for name in names if not name.endswith(".tmp")]


def struck(
    launcher: str, command: Sequence[str], rank: int, seconds: float, number: signal.Signals
) -> tuple[int | None, float, list[str]]:
    """The exit code, in how many seconds all ended, and what was broken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared(folder)
        job = started(launcher, command, folder)
        pid = process_of(rank, folder)
        time.sleep(seconds)
        begun = time.monotonic()
        with suppress(OSError):
            os.kill(pid, number)
        try:
            job.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            job.kill()
        took = time.monotonic() - begun
        time.sleep(0.2)
        return job.returncode, took, broken(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signal", default="KILL", choices=("KILL", "INT", "TERM"))
    parser.add_argument("--launcher", default=str(MPIEXEC))
    arguments = parser.parse_args()
    number, launcher = signal.Signals[f"SIG{arguments.signal}"], arguments.launcher
    slowest, runs, bad = 0.0, 0, 0
    for name, command in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            prepared(Path(folder))
            begun = time.monotonic()
            started(launcher, command, Path(folder)).communicate()
            whole = time.monotonic() - begun
        for rank in range(RANKS):
            for moment in range(MOMENTS):
                code, took, left = struck(launcher, command, rank, whole * moment / MOMENTS, number)
                slowest, runs = max(slowest, took), runs + 1
                bad += took > SOON or bool(left)
                at = f"{moment}/{MOMENTS} of {whole:.1f} s"
                print(f"{name} rank {rank} at {at}: exit {code} after {took:.1f} s {left or ''}")
    print(f"{runs} runs, slowest {slowest:.1f} s, {bad} later than {SOON:g} s or not clean")


if __name__ == "__main__":
    main()
