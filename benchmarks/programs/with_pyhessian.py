"""PyHessian: its product with the Hessian of one kernel, and eigenvalues by power iteration.

PyHessian takes every parameter that requires a gradient, so the other kernels' are switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from pyhessian import hessian
from pyhessian.utils import hessian_vector_product

from benchmarks.programs.torchnetwork import TorchProblem
from benchmarks.worker import POWER_ITERATION_RTOL, Job, run

# Power iteration stops where two values in a row differ by less than this, relatively. PyHessian's
# own 1e-3 and 100 iterations stop before eigenvalues that lie close together are told apart.
TOLERANCE = 1e-5
ITERATIONS = 1000


def product(job: Job) -> None:
    """H·v after set-up: PyHessian differentiates the gradient's graph that it has kept."""
    problem, H = _set_up(job)
    v = problem.into(job.given("vector")).reshape(problem.weight.shape)

    def call() -> Sequence[torch.Tensor]:
        return hessian_vector_product(H.gradsH, H.params, [v])

    job.agree("product", problem.back(call()[0].reshape(-1)))
    job.measure("product", call)


def dataset(job: Job) -> None:
    """H·v over the batches of a DataLoader, and over the same batches made once."""
    problem = _problem(job)
    v = problem.into(job.given("vector")).reshape(problem.weight.shape)
    for what, data in problem.loaders().items():
        H = hessian(problem.model, problem.criterion, dataloader=data, cuda=False)
        job.agree("product", problem.back(H.dataloader_hv_product([v])[1][0].reshape(-1)))
        job.measure(what, partial(H.dataloader_hv_product, [v]))


def eigenvalues(job: Job) -> None:
    """The five eigenvalues of largest size by power iteration with deflation."""
    _, H = _set_up(job)
    torch.manual_seed(0)

    def call() -> list[float]:
        found, _ = H.eigenvalues(maxIter=ITERATIONS, tol=TOLERANCE, top_n=5)
        return found

    found = np.array(call())
    job.agree("eigenvalues", found[np.argsort(-np.abs(found))], POWER_ITERATION_RTOL)
    job.measure("eigenvalues", call)


def _problem(job: Job) -> TorchProblem:
    problem = TorchProblem(job)
    for weight in problem.weights:
        weight.requires_grad_(weight is problem.weight)
    return problem


def _set_up(job: Job) -> tuple[TorchProblem, hessian]:
    problem = _problem(job)
    data = (problem.X, problem.y)
    return problem, hessian(problem.model, problem.criterion, data=data, cuda=False)


if __name__ == "__main__":
    run(
        {"product": product, "dataset": dataset, "eigenvalues": eigenvalues},
        ("PyHessian", "torch", "numpy"),
    )
