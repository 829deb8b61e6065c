"""Each rank killed at ten moments of a run: how long until all have ended, and what is left.

    python tests/killed_ranks.py [--signal KILL|INT|TERM]

starts a spectrum, and a training that writes checkpoints, on three ranks, and kills one of them
after each tenth of the time that the run takes by itself. Every line should say that all ended
within ten seconds, with an exit code that is not zero, or with zero where the run was done.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from test_ranks import SOON, mpiexec, on, processes_in

COMMANDS = {
    "spectrum": ("spectrum", "-c", "tiny.yaml", "-q", "--output", "report.json"),
    "train": (
        *("train", "-c", "tiny.yaml", "-q", "--output", "report.json", "--steps", "60"),
        *("--checkpoint", "state.npz", "--checkpoint-every", "20"),
    ),
}
RANKS, MOMENTS = 3, 10


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


def process_of(rank: int, folder: Path) -> int:
    """The process of a rank, as soon as it is there."""
    while True:
        for number in processes_in(folder):
            with suppress(OSError):
                environment = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
                command = Path(f"/proc/{number}/cmdline").read_bytes()
                ranks = {b"PMI_RANK=%d" % rank, b"OMPI_COMM_WORLD_RANK=%d" % rank}
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
    command: Sequence[str], rank: int, seconds: float, number: signal.Signals
) -> tuple[int | None, float, list[str]]:
    """The exit code, in how many seconds all ended, and what was broken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared(folder)
        job = mpiexec(on(RANKS, *command), cwd=folder)
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
    number = signal.Signals[f"SIG{parser.parse_args().signal}"]
    slowest, runs, bad = 0.0, 0, 0
    for name, command in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            prepared(Path(folder))
            begun = time.monotonic()
            mpiexec(on(RANKS, *command), cwd=folder).communicate()
            whole = time.monotonic() - begun
        for rank in range(RANKS):
            for moment in range(MOMENTS):
                code, took, left = struck(command, rank, whole * moment / MOMENTS, number)
                slowest, runs = max(slowest, took), runs + 1
                bad += took > SOON or bool(left)
                at = f"{moment}/{MOMENTS} of {whole:.1f} s"
                print(f"{name} rank {rank} at {at}: exit {code} after {took:.1f} s {left or ''}")
    print(f"{runs} runs, slowest {slowest:.1f} s, {bad} later than {SOON:g} s or not clean")


if __name__ == "__main__":
    main()
