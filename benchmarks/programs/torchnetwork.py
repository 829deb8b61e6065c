"""The problem as a PyTorch user writes it, for the programs whose peer builds on PyTorch."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.worker import Array, Job

# Examples in a step of a loader: as many as one of our threads takes at a time.
BATCH = 4096


Loader = Iterable[tuple[torch.Tensor, ...]]


class TorchProblem:
    """A ``Sequential`` of linear layers and tanh, its loss and its batch, on the CPU.

    A PyTorch weight is (units, inputs), so vectors of a block are reordered on their way in and
    out.
    """

    def __init__(self, job: Job) -> None:
        # PyTorch would otherwise count the machine's cores, whatever the process may use.
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        modules: list[torch.nn.Module] = []
        for kernel in job.kernels:
            inputs, units = kernel.shape
            linear = torch.nn.Linear(inputs, units, bias=False)
            linear.weight = torch.nn.Parameter(torch.tensor(kernel.T.copy()))
            modules += [linear, torch.nn.Tanh()]
        self.model = torch.nn.Sequential(*modules[:-1])
        self.criterion = torch.nn.CrossEntropyLoss()
        self.X, self.y = torch.tensor(job.inputs), torch.tensor(job.targets)
        self.weights = [module.weight for module in modules[::2]]
        self.weight = self.weights[job.layer]

    def gradient(self) -> torch.Tensor:
        """The gradient of the loss in the block's weight, forward pass included."""
        loss = self.criterion(self.model(self.X), self.y)
        return torch.autograd.grad(loss, self.weight)[0]

    def loaders(self) -> dict[str, Loader]:
        """The examples, BATCH at a time: as PyTorch loads them, and without that work."""
        loader = DataLoader(TensorDataset(self.X, self.y), batch_size=BATCH)
        made = list(zip(self.X.split(BATCH), self.y.split(BATCH), strict=True))
        return {"H·v, DataLoader": loader, "H·v, list of batches": made}

    def into(self, vectors: Array) -> torch.Tensor:
        """Vectors (P,) or (P, k) in hesscli's order as PyTorch's."""
        units, inputs = self.weight.shape
        shaped = torch.tensor(vectors).reshape(inputs, units, -1).transpose(0, 1)
        return shaped.reshape(vectors.shape).contiguous()

    def back(self, vectors: torch.Tensor) -> Array:
        """Vectors (P,) or (P, k) in PyTorch's order as hesscli's."""
        units, inputs = self.weight.shape
        shaped = vectors.detach().reshape(units, inputs, -1).transpose(0, 1)
        return shaped.reshape(vectors.shape).numpy()
