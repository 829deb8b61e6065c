"""hesscli itself, through its public interface; it also writes the problems and what peers check.

What depends on how the engines work today stands in ``sweep`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse.linalg import eigsh

from benchmarks.worker import (
    EIGENVALUE_RTOL,
    GPU_RTOL,
    Array,
    DisagreementError,
    Job,
    forget_peak,
    peak_bytes,
    run,
)
from hesscli.api.problems import load_config
from hesscli.config.build import build_problem
from hesscli.config.schema import Config, DataConfig, LayerConfig, ModelConfig
from hesscli.problem.data import load_dataset
from hesscli.problem.execution import execution_of
from hesscli.problem.graph import Activation, Layer, chain
from hesscli.problem.network import Problem
from hesscli.problem.problemfile import read_batch, read_parameters, save_problem
from hesscli.studies.approximation import ApproximationOptions, some_approximations
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.devices import GPU_NAME, open_device
from hesscli.system.tensorflow import load_tensorflow
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.chain_rule.ondevice import ChainRuleOn
from hesscli.witnesses.layout import NETWORK
from hesscli.witnesses.summed.engine import chain_rule_of

# Of every block this many rows are held against the peers'.
ROWS = 24
VECTORS = 64
EMBEDDED = 5000
# Examples whose S of all layers is held at a time.
SWEPT = 5000


def sweep(problem: Problem) -> object:
    """Builds the S of all layers; the only place that says how."""
    engine = ChainRule(problem)
    # A chunk of examples at a time, as whoever sums over a dataset goes through them.
    for start in range(0, problem.examples, SWEPT):
        for _, S in engine.sweep(slice(start, start + SWEPT)):
            assert S.shape[1] == S.shape[2]
    return engine


def write_problem(job: Job) -> None:
    """A tanh network without biases on MNIST images, repeated where there are not enough.

    Options: ``widths``, as in 784-30-30-10, ``dtype``, ``batch``, and ``out``, the file.
    """
    widths = [int(width) for width in job.options["widths"].split("-")]
    batch = int(job.options["batch"])
    config = Config(
        model=_model(widths),
        data=DataConfig(batch_size=min(batch, EMBEDDED)),
        dtype=job.options["dtype"],
    )
    problem = build_problem(config)
    chosen = np.arange(batch) % problem.examples
    inputs, targets = problem.inputs[chosen], problem.targets[chosen]
    save_problem(
        Problem(problem.graph, inputs, targets, problem.loss, problem.seed), job.options["out"]
    )


def write_convolutions(job: Job) -> None:
    """A network of ``configs/`` as it is initialized, on MNIST images.

    Options: ``network``, its file's name, ``dtype``, ``batch``, and ``out``, the file.
    """
    config = load_config(
        _config_file(job), batch_size=int(job.options["batch"]), dtype=job.options["dtype"]
    )
    save_problem(build_problem(config), job.options["out"])


def write_images(job: Job) -> None:
    """MNIST images and their labels as files, repeated where there are not enough.

    Options: ``examples``, and ``out``, the folder.
    """
    sample = load_dataset("embedded", "train")
    examples, folder = int(job.options["examples"]), Path(job.options["out"])
    folder.mkdir()
    for name, rows in (("x_train", sample.inputs), ("y_train", sample.targets)):
        shape = (examples, *rows.shape[1:])
        file = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", rows.dtype, shape)
        for start in range(0, examples, len(rows)):
            file[start : start + len(rows)] = rows[: examples - start]
        file.flush()


def write_expected(job: Job) -> None:
    """What the peers are held against.

    Options: ``blocks`` and ``quantities``, separated by commas, and ``out``, the file.
    """
    engine = ChainRule(_problem(job))
    arrays: dict[str, Array] = {}
    for block in job.options["blocks"].split(","):
        for quantity in job.options["quantities"].split(","):
            found = _QUANTITIES[quantity](engine, block)
            arrays |= {f"{block}|{name}": array for name, array in found.items()}
    np.savez(job.options["out"], **arrays)


def _row_quantities(engine: ChainRule, block: str) -> dict[str, Array]:
    numbers = _row_numbers(engine.problem, block)
    return {"row_numbers": numbers, "rows": _rows(engine.hessian(block), numbers)}


def _gradient_quantities(engine: ChainRule, block: str) -> dict[str, Array]:
    W = engine.problem.layers[engine.problem.layer_index(block.partition("/")[0])].kernel
    return {"gradient": engine.gradient(block).reshape(W.shape)}


def _product_quantities(engine: ChainRule, block: str) -> dict[str, Array]:
    H = engine.hessian(block)
    v = _directions(H, 1)[:, 0]
    return {"vector": v, "product": H @ v}


def _products_quantities(engine: ChainRule, block: str) -> dict[str, Array]:
    H = engine.hessian(block)
    V = _directions(H, VECTORS)
    return {"vectors": V, "products": H.matmat(V)}


def _eigenvalue_quantities(engine: ChainRule, block: str) -> dict[str, Array]:
    H = engine.hessian(block)
    v = _directions(H, 1)[:, 0]
    return {"vector": v, "eigenvalues": _eigenvalues(H, v)}


def _kfac_quantities(engine: ChainRule, block: str) -> dict[str, Array]:
    v = _directions(engine.hessian(block), 1)[:, 0]
    return {"vector": v, "kfac": _kfac(engine, block) @ v}


def _kfac(engine: ChainRule, block: str = NETWORK) -> HessianBlock:
    return some_approximations(engine, block, ApproximationOptions(), ("kfac",))["kfac"]


_QUANTITIES: Mapping[str, Callable[[ChainRule, str], dict[str, Array]]] = {
    "rows": _row_quantities,
    "gradient": _gradient_quantities,
    "product": _product_quantities,
    "products": _products_quantities,
    "eigenvalues": _eigenvalue_quantities,
    "kfac": _kfac_quantities,
}


def entries(job: Job) -> None:
    """The check of every entry of all layers by both witnesses; the first call traces."""
    problem = _problem(job)
    # Importing it is start-up, which is measured apart.
    load_tensorflow()

    def call() -> None:
        found = verify([problem], CheckOptions(method="entries"))
        if not found.passed:
            raise DisagreementError("hesscli's own two witnesses do not agree")
        job.numbers["compared"] = sum(row.check.compared for row in found.results)

    job.agree("rows", _rows(ChainRule(problem).hessian(job.block), job.given("row_numbers")))
    job.measure("entries check", call)


def product(job: Job) -> None:
    """H·v after one set-up, the forward pass beside it, and how far the memory grows.

    The memory is counted from what is resident with the problem and v loaded to the peak of
    set-up and one product; ``network_bytes`` is that of weights and activations.
    """
    problem = _problem(job)
    v = job.given("vector")
    # The matrix library's own buffers are there from its first product on.
    np.ones((64, 64), dtype=np.float32) @ np.ones((64, 64), dtype=np.float32)
    before = forget_peak()
    H = ChainRule(problem).hessian(job.block)
    found = H @ v
    job.numbers["growth_bytes"] = peak_bytes() - before
    activations = problem.examples * sum(problem.widths)
    job.numbers["network_bytes"] = (activations + problem.parameter_count) * problem.dtype.itemsize
    job.agree("product", found)
    job.measure("product", lambda: H @ v)
    job.measure("forward pass", lambda: _forward(problem))


def convolutions(job: Job) -> None:
    """H·v of all parameters after one set-up, and a gradient, forward pass included."""
    problem = _problem(job)
    v = job.given("vector")
    before = forget_peak()
    H = ChainRule(problem).hessian(NETWORK)
    job.agree("product", H @ v)
    job.numbers["growth_bytes"] = peak_bytes() - before
    job.measure("H·v", lambda: H @ v)
    tensors, again = H.layout.tensors, ChainRule(problem).linearized
    job.measure("gradient", lambda: again.cotangents(tensors=tensors))


def kfac(job: Job) -> None:
    """KFAC of all kernels, of the exact Fisher matrix, and its product with a vector of each."""
    problem = _problem(job)
    blocks = [key.partition("|")[0] for key in job.expected if key.endswith("|vector")]
    vectors = [job.expected[f"{block}|vector"] for block in blocks]
    v, ends = np.concatenate(vectors), np.cumsum([len(each) for each in vectors])

    def call() -> Array:
        return _kfac(ChainRule(problem)) @ v

    for job.block, found in zip(blocks, np.split(call(), ends[:-1]), strict=True):
        job.agree("kfac", found)
    job.measure("factors", call)


def products(job: Job) -> None:
    """H·V after one set-up, the time divided by the number of vectors."""
    H, V = ChainRule(_problem(job)).hessian(job.block), job.given("vectors")
    job.agree("products", H.matmat(V))
    job.measure("products", lambda: H.matmat(V), per=V.shape[1])


def eigenvalues(job: Job) -> None:
    """The five eigenvalues of largest size by SciPy's ``eigsh`` after one set-up."""
    H, v = ChainRule(_problem(job)).hessian(job.block), job.given("vector")
    job.agree("eigenvalues", _eigenvalues(H, v), EIGENVALUE_RTOL)
    job.measure("eigenvalues", lambda: _eigenvalues(H, v))


def dataset(job: Job) -> None:
    """H·v over images in files, as ``--batch-size all`` and ``--memory`` have it.

    The images are those of the problem, so often that the mean is the same. Options: ``images``,
    the folder, and ``memory``, empty for the default.
    """
    parameters = read_parameters(job.problem_path)
    widths = [next(iter(parameters.values())).shape[0], *(W.shape[1] for W in parameters.values())]
    config = Config(
        model=replace(_model(widths), weights=job.problem_path),
        data=DataConfig(
            source=job.options["images"], batch_size="all", memory=job.options["memory"] or None
        ),
        dtype="float32",
    )
    problem = build_problem(config)
    v = job.given("vector")
    execution = execution_of(problem)
    H = chain_rule_of(problem, execution).hessian(job.block)
    job.agree("product", H @ v)
    job.numbers["chunk"] = execution.chunk or problem.examples
    job.measure("H·v", lambda: H @ v)


def gpu(job: Job) -> None:
    """H·v of all parameters on a GPU after one set-up, v and the product being there."""
    device = open_device(GPU_NAME)
    H = ChainRuleOn(_problem(job), device).hessian(NETWORK)
    v = device.put(job.given("vector"))
    job.agree("product", device.fetch(H @ v), GPU_RTOL[H.dtype.name])

    def call() -> None:
        H.dot(v)
        device.wait()

    job.measure("H·v", call)


def whole_sweep(job: Job) -> None:
    """The S of all layers, set up anew by every call."""
    problem = _problem(job)
    job.measure("sweep", lambda: sweep(problem))


def dense(job: Job) -> None:
    """``to_dense()``, and writing an array of that size once; both into fresh memory."""
    H = ChainRule(_problem(job)).hessian(job.block)
    job.agree("rows", H.to_dense()[job.given("row_numbers")])
    job.measure("to_dense", H.to_dense)
    job.measure("write", lambda: np.full(H.shape, 1, dtype=H.dtype))


def _model(widths: Sequence[int]) -> ModelConfig:
    hidden, linear = Activation("tanh"), Activation("linear")
    layers = tuple(
        LayerConfig(f"dense{k}", units, hidden if k < len(widths) - 1 else linear)
        for k, units in enumerate(widths[1:], start=1)
    )
    return ModelConfig(inputs=widths[0], bias=False, layers=layers)


def _config_file(job: Job) -> Path:
    return Path(__file__).parents[2] / "configs" / f"{job.options['network']}.yaml"


def _problem(job: Job) -> Problem:
    if "network" in job.options:
        stored = {"model.weights": job.problem_path, "data.source": job.problem_path}
        dtype = str(job.inputs.dtype)
        config = load_config(_config_file(job), settings=stored, batch_size="all", dtype=dtype)
        return build_problem(config)
    parameters = read_parameters(job.problem_path)
    inputs, targets = read_batch(job.problem_path)
    last = len(parameters) - 1
    layers = tuple(
        Layer(name.partition("/")[0], W, None, Activation("tanh" if k < last else "linear"))
        for k, (name, W) in enumerate(parameters.items())
    )
    return Problem(chain(layers), inputs, targets)


def _row_numbers(problem: Problem, block: str) -> Array:
    """Rows spread over the block, but for the pixels that are 0 in every image."""
    layer = problem.layer_index(block.partition("/")[0])
    lit = np.flatnonzero(problem.inputs.any(axis=0)) if layer == 0 else None
    i = np.arange(problem.layers[layer].inputs) if lit is None else lit
    chosen = i[np.linspace(0, len(i) - 1, ROWS).astype(int)]
    units = problem.layers[layer].units
    return chosen * units + np.arange(ROWS) % units


def _rows(H: HessianBlock, numbers: Array) -> Array:
    return np.concatenate([H.rows(int(row), int(row) + 1) for row in numbers])


def _directions(H: HessianBlock, count: int) -> Array:
    v = np.random.default_rng(0).standard_normal((H.shape[0], count), dtype=np.float32)
    return v.astype(H.dtype)


def _eigenvalues(H: HessianBlock, v: Array) -> Array:
    found = eigsh(H, k=5, v0=v, return_eigenvectors=False)
    return found[np.argsort(-np.abs(found))]


def _forward(problem: Problem) -> Array:
    a = problem.inputs
    for layer in problem.layers[:-1]:
        a = np.tanh(a @ layer.kernel)
    return a @ problem.layers[-1].kernel


if __name__ == "__main__":
    run(
        {
            "problem": write_problem,
            "convolutions": write_convolutions,
            "images": write_images,
            "expected": write_expected,
            "entries": entries,
            "product": product,
            "products": products,
            "conv": convolutions,
            "kfac": kfac,
            "eigenvalues": eigenvalues,
            "dataset": dataset,
            "sweep": whole_sweep,
            "dense": dense,
            "gpu": gpu,
        },
        ("hesscli", "numpy", "scipy", "tensorflow", "cupy-cuda12x", "cupy-cuda13x"),
    )
