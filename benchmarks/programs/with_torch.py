"""PyTorch: ``torch.func.hessian`` of one kernel, and a gradient of the same loss."""

from __future__ import annotations

import numpy as np
import torch
from torch.func import functional_call, hessian

from benchmarks.programs.torchnetwork import TorchProblem
from benchmarks.worker import Array, Job, run


def whole_hessian(job: Job) -> None:
    """The whole Hessian of the block."""
    problem = TorchProblem(job)
    # The other kernels are constants here, not parameters to keep a graph for.
    problem.model.requires_grad_(False)
    name = f"{2 * job.layer}.weight"
    weight = problem.weight.detach()

    def loss(weight: torch.Tensor) -> torch.Tensor:
        output = functional_call(problem.model, {name: weight}, (problem.X,))
        return problem.criterion(output, problem.y)

    job.agree("rows", _rows(hessian(loss)(weight), job))
    job.measure("Hessian", lambda: hessian(loss)(weight))


def gradient(job: Job) -> None:
    """A gradient of the loss in the same kernel, forward pass included."""
    problem = TorchProblem(job)
    job.agree("gradient", problem.gradient().numpy().T)
    job.measure("gradient", problem.gradient)


def _rows(H: torch.Tensor, job: Job) -> Array:
    # H is (units, inputs, units, inputs); hesscli's row (i, h) holds (inputs, units).
    i, h = np.divmod(job.given("row_numbers"), H.shape[0])
    return H[h, i].transpose(1, 2).reshape(len(i), -1).numpy()


if __name__ == "__main__":
    run({"hessian": whole_hessian, "gradient": gradient}, ("torch", "numpy"))
