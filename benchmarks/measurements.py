"""The benchmarks: which program measures what, in which case, and what it is held against.

Ours are written first, and every peer holds its own numbers against them before it times anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import python_of
from benchmarks.processes import OURS, explained, run_command
from benchmarks.session import Command, Session
from hesscli.system.devices import GPU_NAME, open_device
from hesscli.system.errors import InputError

# The network of the published figures; the other ones differ in width or depth.
WIDTHS = "784-30-30-10"
DENSE1 = "dense1/kernel"
GB = 10**9

ENTRIES_BATCHES = (1, 32, 512)
# What each peer's whole Hessian took when it was tried, with room to spare, by batch.
NEEDS: Mapping[str, Mapping[int, int]] = {
    "JAX": {1: 6 * GB, 32: 8 * GB, 512: 10 * GB},
    "PyTorch": {1: 10 * GB, 32: 10 * GB, 512: 14 * GB},
    "TensorFlow": {1: 11 * GB, 32: 11 * GB, 512: 15 * GB},
}
PRODUCT_BATCHES = (32, 512, 5000)
SWEEP_BATCHES = (500, 5000, 60000)
DENSE_BATCHES = (1, 32, 512)
# The tiled sample, and what examples may take at a time: the default, or much less than they need.
DATASET = 60_000
OTHER_SIZES = (5_000, 20_000, 600_000)
DATASET_MEMORY = "200MB"
DEFAULT_MEMORY = "default"
WIDTH_BATCH = 512
WIDTH_WIDTHS = (30, 128, 512, 2048, 4096)
DEPTH_WIDTH = 128
DEPTHS = (2, 3, 4, 6, 8, 12, 16)
CONV_BATCH = 512
CONV_NETWORKS = ("lenet5", "resnet_small")
CONV_DTYPES = ("float64", "float32")
# Widths of dense networks at one number of examples, and a convolutional one at another.
GPU_WIDTHS = (WIDTHS, "784-512-512-10", "784-2048-2048-10")
GPU_BATCH, GPU_CONV, GPU_CONV_BATCH = 60_000, "lenet5", 5_000


class SkippedError(Exception):
    """A machine has not what a benchmark is about."""


def entries(session: Session) -> None:
    """The check of every entry against peers that form the Hessian of dense1 once."""
    for batch in ENTRIES_BATCHES:
        problem, case = session.problem(WIDTHS, batch), {"batch": batch}
        expected = session.expected(problem, case, [DENSE1], ["rows"])
        if expected is None:
            continue
        session.measure(OURS, "entries", case, problem, expected)
        for peer, needs in NEEDS.items():
            session.measure(peer, "hessian", case, problem, expected, needs=needs[batch])


def product(session: Session) -> None:
    """H·v, 64 vectors at once and five eigenvalues of dense1."""
    quantities = ["gradient", "product", "products", "eigenvalues"]
    for batch in PRODUCT_BATCHES:
        problem, case = session.problem(WIDTHS, batch), {"batch": batch}
        expected = session.expected(problem, case, [DENSE1], quantities)
        if expected is None:
            continue
        for task in ("product", "products", "eigenvalues"):
            session.measure(OURS, task, case, problem, expected)
            session.measure("curvlinops", task, case, problem, expected)
        for task in ("product", "eigenvalues"):
            session.measure("PyHessian", task, case, problem, expected)
        session.measure("PyTorch", "gradient", case, problem, expected)


def sweep(session: Session) -> None:
    """The S of all layers, after curvlinops has agreed with what is read off it."""
    blocks = [f"dense{k}/kernel" for k in (1, 2, 3)]
    for batch in SWEEP_BATCHES:
        problem, case = session.problem(WIDTHS, batch), {"batch": batch}
        expected = session.expected(problem, case, blocks, ["product"])
        if expected and session.measure("curvlinops", "agree", case, problem, expected):
            session.measure(OURS, "sweep", case, problem)


def dense(session: Session) -> None:
    """``to_dense()`` of dense1 beside writing an array of its size, after curvlinops has agreed."""
    for batch in DENSE_BATCHES:
        problem, case = session.problem(WIDTHS, batch), {"batch": batch}
        expected = session.expected(problem, case, [DENSE1], ["rows"])
        if expected and session.measure("curvlinops", "agree-rows", case, problem, expected):
            session.measure(OURS, "dense", case, problem, expected, needs=6 * GB)


def width(session: Session) -> None:
    """H·v of dense1 and dense2, and the forward pass, in networks of growing width."""
    blocks = [DENSE1, "dense2/kernel"]
    for units in WIDTH_WIDTHS:
        problem = session.problem(f"784-{units}-{units}-10", WIDTH_BATCH)
        expected = session.expected(problem, {"width": units}, blocks, ["product"])
        if expected is None:
            continue
        for block in blocks:
            case = {"width": units, "block": block}
            for subject in ("curvlinops", OURS):
                session.measure(subject, "product", case, problem, expected, block)
    widest = f"784-{WIDTH_WIDTHS[-1]}-{WIDTH_WIDTHS[-1]}-10"
    config = _verify_config(session, widest)
    command = Command(OURS, "hesscli verify", (_hesscli(), "verify", "--config", str(config)))
    # Once: that it works at all is the question.
    session.measure_commands({"width": WIDTH_WIDTHS[-1]}, [command], 1)


def depth(session: Session) -> None:
    """H·v of dense1 and the forward pass in networks of a growing number of dense layers."""
    for layers in DEPTHS:
        hidden = "-".join([str(DEPTH_WIDTH)] * (layers - 1))
        problem, case = session.problem(f"784-{hidden}-10", WIDTH_BATCH), {"depth": layers}
        expected = session.expected(problem, case, [DENSE1], ["product"])
        if expected is None:
            continue
        for subject in ("curvlinops", OURS):
            session.measure(subject, "product", case, problem, expected)


def conv(session: Session) -> None:
    """H·v of all parameters of two convolutional networks."""
    for network in CONV_NETWORKS:
        for dtype in CONV_DTYPES:
            problem = session.convolutions(network, dtype, CONV_BATCH)
            case, options = {"network": network, "dtype": dtype}, {"network": network}
            expected = session.expected(problem, case, ["network"], ["product"], options)
            if expected is None:
                continue
            for subject in (OURS, "JAX", "curvlinops"):
                session.measure(
                    subject, "conv", case, problem, expected, "network", options=options
                )


def gpu(session: Session) -> None:
    """H·v of all parameters on a GPU; raises SkippedError where there is none."""
    try:
        open_device(GPU_NAME)
    except InputError as error:
        raise SkippedError(str(error)) from error
    for network in (*GPU_WIDTHS, GPU_CONV):
        for dtype in CONV_DTYPES:
            case, options = {"network": network, "dtype": dtype}, {}
            if network == GPU_CONV:
                problem = session.convolutions(network, dtype, GPU_CONV_BATCH)
                options = {"network": network}
            else:
                problem = session.problem(network, GPU_BATCH, dtype)
            expected = session.expected(problem, case, ["network"], ["product"], options)
            if expected is None:
                continue
            for subject in (OURS, "JAX", "curvlinops"):
                session.measure(subject, "gpu", case, problem, expected, "network", options=options)


def kfac(session: Session) -> None:
    """The Kronecker factors of all kernels."""
    blocks = [f"dense{k}/kernel" for k in (1, 2, 3)]
    for batch in PRODUCT_BATCHES:
        problem, case = session.problem(WIDTHS, batch), {"batch": batch}
        expected = session.expected(problem, case, blocks, ["kfac"])
        for subject in (OURS, "curvlinops") if expected else ():
            session.measure(subject, "kfac", case, problem, expected)


def dataset(session: Session) -> None:
    """H·v of dense1 over whole datasets in files, beside the peers' loops over a data loader."""
    problem = session.problem(WIDTHS, DATASET)
    expected = session.expected(problem, {"examples": DATASET}, [DENSE1], ["product"])
    if expected is None:
        return

    def ours(examples: int, memory: str) -> None:
        said = "" if memory == DEFAULT_MEMORY else memory
        options = {"images": session.images(examples), "memory": said}
        case = {"examples": examples, "memory": memory}
        session.measure(OURS, "dataset", case, problem, expected, options=options)

    # What is compared is measured close together.
    ours(DATASET, DEFAULT_MEMORY)
    ours(DATASET, DATASET_MEMORY)
    for peer in ("curvlinops", "PyHessian"):
        session.measure(peer, "dataset", {"examples": DATASET}, problem, expected)
    for examples in OTHER_SIZES:
        ours(examples, DATASET_MEMORY)


def startup(session: Session) -> None:
    """What has to be imported before anything happens; nothing here has a peer's numbers."""
    python = (sys.executable, "-c")
    commands = [
        Command("Python", "import click", (*python, "import click")),
        Command(OURS, "hesscli --help", (_hesscli(), "--help")),
        Command("TensorFlow", "import tensorflow", (*python, "import tensorflow")),
        _verify("--check", "form"),
    ]
    session.measure_commands({}, commands, session.runs)


def command(session: Session) -> None:
    """What a person waits for: ``hesscli verify`` beside scripts that form dense1's Hessian once.

    A script imports its library, forms the Hessian and takes one quadratic form, which has to be
    ours. All of them take turns.
    """
    problem, report = session.folder / "command.npz", session.folder / "command.json"
    of_relu = ("--activation", "relu")
    saving = (*of_relu, "--check", "form", "--save-problem", str(problem), "--output", str(report))
    made = run_command((_hesscli(), "verify", *saving), session.threads, session.timeout)
    if made.code != 0:
        session.miss(OURS, "hesscli verify", {}, explained(made, session.timeout))
        return
    row = json.loads(report.read_text(encoding="utf-8"))["results"][0]
    given = (str(problem), str(row["quadratic_form"]["chain_rule"]))
    scripts = [
        Command(peer, "Hessian and form", (str(python), "-m", f"benchmarks.programs.{of}", *given))
        for peer, of, python in (
            ("JAX", "cold_jax", python_of("jax")),
            ("TensorFlow", "cold_tensorflow", sys.executable),
        )
    ]
    bare = Command("TensorFlow", "import tensorflow", (sys.executable, "-c", "import tensorflow"))
    forms = _verify("--activation", "all", "--check", "form")
    session.measure_commands({}, [_verify(*of_relu), *scripts, forms, bare], session.runs)


@dataclass(frozen=True)
class Benchmark:
    """What is measured, and on which network in which precision."""

    measure: Callable[[Session], None]
    network: str
    dtype: str = "float32"


BENCHMARKS: Mapping[str, Benchmark] = {
    "entries": Benchmark(entries, f"{WIDTHS} tanh"),
    "product": Benchmark(product, f"{WIDTHS} tanh"),
    "sweep": Benchmark(sweep, f"{WIDTHS} tanh"),
    "dense": Benchmark(dense, f"{WIDTHS} tanh"),
    "width": Benchmark(width, f"784-W-W-10 tanh, batch {WIDTH_BATCH}"),
    "depth": Benchmark(depth, f"784-{DEPTH_WIDTH}-…-10 tanh, batch {WIDTH_BATCH}"),
    "conv": Benchmark(conv, f"LeNet-5 and resnet_small, batch {CONV_BATCH}", "both types"),
    "gpu": Benchmark(
        gpu,
        f"784-W-W-10 tanh, {GPU_BATCH:,} examples, and LeNet-5, {GPU_CONV_BATCH:,}",
        "both types",
    ),
    "kfac": Benchmark(kfac, f"{WIDTHS} tanh"),
    "dataset": Benchmark(dataset, f"{WIDTHS} tanh"),
    "startup": Benchmark(startup, f"{WIDTHS} relu, batch 32 (the defaults)", "float64"),
    "command": Benchmark(command, f"{WIDTHS} relu, batch 32 (the defaults)", "float64"),
}


def _verify_config(session: Session, widths: str) -> Path:
    """A configuration that reads the problem of ``widths`` as a user's would."""
    problem = session.problem(widths, WIDTH_BATCH)
    inputs, *units = (int(number) for number in widths.split("-"))
    layers = [
        {"name": f"dense{k}", "units": number, "activation": "tanh" if k < len(units) else "linear"}
        for k, number in enumerate(units, start=1)
    ]
    config = {
        "model": {"inputs": inputs, "bias": False, "layers": layers, "weights": str(problem)},
        "data": {"source": str(problem)},
        "dtype": "float32",
    }
    path = session.folder / "verify.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def _verify(*options: str) -> Command:
    return Command(OURS, " ".join(("hesscli verify", *options)), (_hesscli(), "verify", *options))


def _hesscli() -> str:
    """The command as it is installed beside this Python."""
    return str(Path(sys.executable).with_name("hesscli"))
