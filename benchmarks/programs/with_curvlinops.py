"""curvlinops: ``HessianLinearOperator`` of one kernel, the full batch in one step of its loader."""

from __future__ import annotations

from functools import partial
from operator import matmul

import numpy as np
import torch
from curvlinops import HessianLinearOperator, KFACLinearOperator
from scipy.sparse.linalg import eigsh

from benchmarks.programs.torchconvolutions import TorchConvolutions
from benchmarks.programs.torchnetwork import TorchProblem
from benchmarks.worker import CONV_RTOL, EIGENVALUE_RTOL, GPU_RTOL, Array, Job, run


def product(job: Job) -> None:
    """H·v after set-up, and the network's forward pass beside it."""
    problem, H = _operator(job)
    v = problem.into(job.given("vector"))
    job.agree("product", problem.back(H @ v))
    job.measure("product", lambda: H @ v)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return problem.model(problem.X)

    job.measure("forward pass", forward)


def products(job: Job) -> None:
    """H·V for the vectors given, the time divided by their number."""
    problem, H = _operator(job)
    V = problem.into(job.given("vectors"))
    job.agree("products", problem.back(H @ V))
    job.measure("products", lambda: H @ V, per=V.shape[1])


def eigenvalues(job: Job) -> None:
    """The five eigenvalues of largest size by SciPy's ``eigsh`` on the exported operator."""
    problem, H = _operator(job)
    exported = H.to_scipy(dtype=np.dtype(np.float32))
    start = problem.into(job.given("vector")).numpy()

    def call() -> Array:
        found = eigsh(exported, k=5, v0=start, return_eigenvectors=False)
        return found[np.argsort(-np.abs(found))]

    job.agree("eigenvalues", call(), EIGENVALUE_RTOL)
    job.measure("eigenvalues", call)


def dataset(job: Job) -> None:
    """H·v over the batches of a DataLoader, and over the same batches made once."""
    problem = TorchProblem(job)
    v = problem.into(job.given("vector"))
    for what, data in problem.loaders().items():
        H = HessianLinearOperator(problem.model, problem.criterion, [problem.weight], data)
        job.agree("product", problem.back(H @ v))
        job.measure(what, partial(matmul, H, v))


def convolutions(job: Job) -> None:
    """H·v of all parameters, and the gradient of the same loss beside it."""
    problem = TorchConvolutions(job)
    H = HessianLinearOperator(
        problem.model, problem.criterion, problem.parameters, [(problem.X, problem.y)]
    )
    v = problem.into(job.given("vector"))
    job.agree("product", problem.back(H @ v), CONV_RTOL[str(job.inputs.dtype)])
    job.measure("H·v", lambda: H @ v)


def gpu(job: Job) -> None:
    """H·v of all parameters on a GPU, with products of float32 that have its digits."""
    if not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    problem = TorchConvolutions(job, "cuda")
    H = HessianLinearOperator(
        problem.model, problem.criterion, problem.parameters, [(problem.X, problem.y)]
    )
    v = problem.into(job.given("vector"))
    job.agree("product", problem.back(H @ v), GPU_RTOL[str(job.inputs.dtype)])

    def call() -> None:
        matmul(H, v)
        torch.cuda.synchronize()

    job.measure("H·v", call)


def kfac(job: Job) -> None:
    """KFAC of all kernels, of the exact Fisher matrix: a first product makes the factors."""
    problem = TorchProblem(job)
    vectors = []
    for key in job.expected:
        job.block, _, quantity = key.partition("|")
        if quantity == "vector":
            problem.weight = problem.weights[job.layer]
            vectors.append(problem.into(job.given("vector")).reshape(problem.weight.shape))

    def call() -> list[torch.Tensor]:
        data = [(problem.X, problem.y)]
        K = KFACLinearOperator(
            problem.model,
            problem.criterion,
            problem.weights,
            data,
            fisher_type="type-2",
            check_deterministic=False,
        )
        found: list[torch.Tensor] = K @ vectors
        return found

    names = [key.partition("|")[0] for key in job.expected if key.endswith("|kfac")]
    for job.block, found in zip(names, call(), strict=True):
        problem.weight = problem.weights[job.layer]
        job.agree("kfac", problem.back(found.reshape(-1)))
    job.measure("factors", call)


def agree(job: Job) -> None:
    """H·v of every block that hesscli gave, untimed."""
    for key in job.expected:
        block, _, quantity = key.partition("|")
        if quantity == "product":
            job.block = block
            problem, H = _operator(job)
            job.agree("product", problem.back(H @ problem.into(job.given("vector"))))


def agree_rows(job: Job) -> None:
    """Rows of H as products with unit vectors, untimed."""
    problem, H = _operator(job)
    numbers = job.given("row_numbers")
    units = np.zeros((H.shape[0], len(numbers)), dtype=np.float32)
    units[numbers, np.arange(len(numbers))] = 1
    job.agree("rows", problem.back(H @ problem.into(units)).T)


def _operator(job: Job) -> tuple[TorchProblem, HessianLinearOperator]:
    problem = TorchProblem(job)
    data = [(problem.X, problem.y)]
    return problem, HessianLinearOperator(problem.model, problem.criterion, [problem.weight], data)


if __name__ == "__main__":
    run(
        {
            "product": product,
            "products": products,
            "eigenvalues": eigenvalues,
            "conv": convolutions,
            "kfac": kfac,
            "dataset": dataset,
            "agree": agree,
            "agree-rows": agree_rows,
            "gpu": gpu,
        },
        ("curvlinops-for-pytorch", "torch", "numpy", "scipy"),
    )
