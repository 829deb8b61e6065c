"""H·v over 60,000 images by one worker and by two: ``python -m benchmarks.workers``.

Each worker has one core and one thread. The images are the embedded sample, tiled; the network is
784-30-30-10 with tanh. Clusters take turns, and every one is started anew for each run. What is
timed is products alone, after one to warm up; each goes through every example and ends in the
all-reduce, on the loopback address.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np

from hesscli.problem.data import load_dataset

_COPIES = 12
_RUNS = 5
_PRODUCTS = 3
_BLOCKS = ("dense1/kernel", "network")


@click.command()
@click.option("--runs", default=_RUNS, show_default=True, type=click.IntRange(1))
@click.option("--dtype", default="float64", show_default=True)
@click.option("--worker", is_flag=True, hidden=True)
def main(runs: int, dtype: str, worker: bool) -> None:
    """Measure examples per second of H·v by one worker and by two, one thread each."""
    if worker:
        _work(dtype)
        return
    found: dict[int, dict[str, list[float]]] = {1: {}, 2: {}}
    with tempfile.TemporaryDirectory(prefix="hesscli-bench-") as folder:
        _write_images(Path(folder))
        for _ in range(runs):
            for count, seconds in found.items():
                for key, value in _run(count, dtype, folder).items():
                    seconds.setdefault(key, []).append(value)
    examples = 5000 * _COPIES
    click.echo(f"H·v over {examples:,} images, {dtype}, one thread each; medians of {runs} runs")
    for key in found[1]:
        one, two = (statistics.median(found[count][key]) for count in (1, 2))
        click.echo(
            f"{key:30} one {examples / one:11,.0f}/s ({one:.3f} s)  "
            f"two {examples / two:11,.0f}/s ({two:.3f} s)  {one / two:.2f}×"
        )


def _write_images(folder: Path) -> None:
    sample = load_dataset("embedded", "train")
    images = np.asarray(sample.inputs).reshape(-1, 28, 28)
    np.savez(
        folder / "tiled.npz",
        x_train=np.tile(images, (_COPIES, 1, 1)),
        y_train=np.tile(np.asarray(sample.targets), _COPIES),
    )


def _run(count: int, dtype: str, folder: str) -> dict[str, float]:
    """Seconds by what was computed, of the first worker."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    cores = sorted(os.sched_getaffinity(0))
    workers = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        command = [sys.executable, "-m", "benchmarks.workers", "--worker", "--dtype", dtype]
        workers.append(
            subprocess.Popen(
                ["taskset", "-c", str(cores[index]), *command],
                env={
                    **os.environ,
                    "TF_CONFIG": config,
                    "DATA": folder,
                    # One thread, of BLAS and of ours.
                    "OPENBLAS_NUM_THREADS": "1",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    ended = [worker.communicate() for worker in workers]
    if any(worker.returncode for worker in workers):
        raise click.ClickException(ended[0][1].decode())
    seconds: dict[str, float] = json.loads(ended[0][0])
    return seconds


def _work(dtype: str) -> None:
    from hesscli.workers.cluster import find_cluster
    from hesscli.workers.team import Team

    from hesscli.config.build import build_problem
    from hesscli.config.load import load_config, parse_override
    from hesscli.problem.execution import execution_of
    from hesscli.witnesses.summed.engine import autodiff_of, chain_rule_of

    team = Team(find_cluster(), {}, print)
    team.agree({})
    team.start()
    path = Path(os.environ["DATA"]) / "tiled.npz"
    settings = [f"data.source={path}", "data.batch_size=all", f"dtype={dtype}", "data.memory=1GB"]
    settings += [f"model.layers.{layer}.activation=tanh" for layer in (0, 1)]
    config = load_config(None, [parse_override(text) for text in settings])
    problem = build_problem(config, workers=team)
    execution = execution_of(problem, team)
    seconds: dict[str, float] = {}
    for witness, engine in (
        ("chain rule", chain_rule_of(problem, execution)),
        ("autodiff", autodiff_of(problem, execution)),
    ):
        for block in _BLOCKS:
            H = engine.hessian(block)
            v = np.random.default_rng(0).standard_normal((H.shape[0], 1)).astype(dtype)
            H.matmat(v)
            start = time.perf_counter()
            for _ in range(_PRODUCTS):
                H.matmat(v)
            seconds[f"{witness}, {block}"] = (time.perf_counter() - start) / _PRODUCTS
    if team.first:
        team.settle()
        click.echo(json.dumps(seconds))
    sys.stdout.flush()
    os._exit(team.finish(0))


if __name__ == "__main__":
    main()
