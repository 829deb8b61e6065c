"""H·v over 60,000 images by one process and by two: ``python -m benchmarks.workers``.

Each process has one thread, and both together the memory of the one. The images are the embedded
sample, tiled; the network is 784-30-30-10 with tanh. Jobs take turns, and every one is started
anew for each run. What is timed is products alone, after one to warm up; each goes through every
example and ends in the sum over the processes. Time is the processor's, of the process that took
more: others may use the machine meanwhile.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from hesscli.problem.data import load_dataset
from hesscli.workers.launcher import Launched, launched

_COPIES = 12
_RUNS = 3
_PRODUCTS = 3
_BLOCKS = ("dense1/kernel", "network")
_MEGABYTES = 1000


@click.command()
@click.option("--runs", default=_RUNS, show_default=True, type=click.IntRange(1))
@click.option("--dtype", default="float64", show_default=True)
@click.option("--images", type=click.Path(), hidden=True)
def main(runs: int, dtype: str, images: str | None) -> None:
    """Measure examples per second of H·v by one process and by two, one thread each."""
    if images is not None:
        _work(images, dtype)
        return
    found: dict[int, dict[str, list[float]]] = {1: {}, 2: {}}
    with tempfile.TemporaryDirectory(prefix="hesscli-bench-") as folder:
        path = _write_images(Path(folder))
        for _ in range(runs):
            for count, seconds in found.items():
                for key, value in _run(count, dtype, path).items():
                    seconds.setdefault(key, []).append(value)
    examples = 5000 * _COPIES
    click.echo(f"H·v over {examples:,} images, {dtype}, one thread each; medians of {runs} runs")
    for key in found[1]:
        one, two = (statistics.median(found[count][key]) for count in (1, 2))
        click.echo(
            f"{key:30} one {examples / one:11,.0f}/s ({one:.3f} s)  "
            f"two {examples / two:11,.0f}/s ({two:.3f} s)  {one / two:.2f}×"
        )


def _write_images(folder: Path) -> str:
    sample = load_dataset("embedded", "train")
    images = np.asarray(sample.inputs).reshape(-1, 28, 28)
    path = folder / "tiled.npz"
    np.savez(
        path,
        x_train=np.tile(images, (_COPIES, 1, 1)),
        y_train=np.tile(np.asarray(sample.targets), _COPIES),
    )
    return str(path)


def _run(count: int, dtype: str, images: str) -> dict[str, float]:
    """Seconds by what was computed."""
    mpiexec = str(Path(sys.executable).parent / "mpiexec")
    program = [sys.executable, "-m", "benchmarks.workers", "--dtype", dtype, "--images", images]
    done = subprocess.run(
        [mpiexec, "-n", str(count), *program],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(done.stderr)
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def _work(images: str, dtype: str) -> None:
    from hesscli.config.build import build_problem
    from hesscli.config.load import load_config, parse_override
    from hesscli.problem.execution import execution_of
    from hesscli.witnesses.summed.engine import autodiff_of, chain_rule_of
    from hesscli.workers.ranks import Ranks

    ranks = Ranks(launched() or Launched(0, 1))
    settings = [f"data.source={images}", "data.batch_size=all", f"dtype={dtype}"]
    settings += [f"data.memory={_MEGABYTES // ranks.count}MB"]
    settings += [f"model.layers.{layer}.activation=tanh" for layer in (0, 1)]
    config = load_config(None, [parse_override(text) for text in settings])
    problem = build_problem(config, workers=ranks)
    execution = execution_of(problem, ranks)
    seconds: dict[str, float] = {}
    for witness, engine in (
        ("chain rule", chain_rule_of(problem, execution)),
        ("autodiff", autodiff_of(problem, execution)),
    ):
        for block in _BLOCKS:
            H = engine.hessian(block)
            v = np.random.default_rng(0).standard_normal((H.shape[0], 1)).astype(dtype)
            H.matmat(v)
            start = time.process_time()
            for _ in range(_PRODUCTS):
                H.matmat(v)
            own = (time.process_time() - start) / _PRODUCTS
            seconds[f"{witness}, {block}"] = max(ranks.gather(own))
    if ranks.first:
        click.echo(json.dumps(seconds))
    ranks.leave()


if __name__ == "__main__":
    main()
