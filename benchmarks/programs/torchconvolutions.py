"""All parameters of a network as a PyTorch user has them: channels first, weights (out, in)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.worker import Array, Job


class Dense(nn.Module):
    """Linear layers without biases, dense1, dense2 …, and tanh between them."""

    def __init__(self, kernels: Sequence[Array]) -> None:
        super().__init__()
        self.names = [f"dense{k}" for k in range(1, len(kernels) + 1)]
        for name, kernel in zip(self.names, kernels, strict=True):
            self.add_module(name, nn.Linear(*kernel.shape, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        for name in self.names[:-1]:
            x = torch.tanh(self.get_submodule(name)(x))
        found: torch.Tensor = self.get_submodule(self.names[-1])(x)
        return found


class LeNet5(nn.Module):
    """``configs/lenet5.yaml``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding="same"), nn.Conv2d(6, 16, 5)
        self.dense1, self.dense2 = nn.Linear(400, 120), nn.Linear(120, 84)
        self.dense3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = functional.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        # Keras flattens with the channels last.
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.dense3(torch.tanh(self.dense2(torch.tanh(self.dense1(x)))))


class ResnetSmall(nn.Module):
    """``configs/resnet_small.yaml``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16, eps=1e-3)
        self.conv1, self.norm1 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16, eps=1e-3)
        self.conv2, self.norm2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16, eps=1e-3)
        self.conv3, self.norm3 = nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24, eps=1e-3)
        self.short, self.logits = nn.Conv2d(16, 24, 1, 2), nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Of an odd number of zeros around the image TensorFlow puts more after it.
        x = functional.max_pool2d(
            functional.relu(self.norm0(self.stem(functional.pad(x, (0, 1, 0, 1))))), 2
        )
        inside = functional.relu(self.norm1(self.conv1(x)))
        x = functional.relu(self.norm2(self.conv2(inside)) + x)
        x = functional.relu(self.norm3(self.conv3(x)) + self.short(x))
        return self.logits(x.mean((2, 3)))


# What Keras calls them.
_ROLES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
_ROLES |= {"moving_mean": "running_mean", "moving_variance": "running_var"}


class TorchConvolutions:
    """Network, loss and batch of a problem file on a device; normalization is that of inference."""

    def __init__(self, job: Job, device: str = "cpu") -> None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        dtype = torch.float64 if job.inputs.dtype == np.float64 else torch.float32
        networks = {"lenet5": LeNet5, "resnet_small": ResnetSmall}
        name = job.options.get("network")
        model = Dense(job.kernels) if name is None else networks[name]()
        self.model = model.to(device, dtype).eval()
        self.device = device
        self.criterion = nn.CrossEntropyLoss()
        self.X = torch.tensor(job.inputs, device=device).reshape(-1, 1, 28, 28)
        self.y = torch.tensor(job.targets, device=device).long()
        own = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        self.parameters, self.shapes = [], []
        for name, array in job.arrays.items():
            layer, _, role = name.partition("/")
            if not role:
                continue
            target = own[f"{layer}.{_ROLES[role]}"]
            target.data.copy_(torch.tensor(_turned(array)))
            if isinstance(target, nn.Parameter):
                self.parameters.append(target)
                self.shapes.append(array.shape)

    def into(self, vector: Array) -> torch.Tensor:
        """A vector (P,) in hesscli's order as PyTorch's."""
        ends = np.cumsum([np.prod(shape) for shape in self.shapes])[:-1].astype(int)
        parts = zip(np.split(vector, ends), self.shapes, strict=True)
        turned = np.concatenate([_turned(p.reshape(of)).ravel() for p, of in parts])
        return torch.tensor(turned, device=self.device)

    def back(self, vector: torch.Tensor) -> Array:
        """A vector (P,) in PyTorch's order as hesscli's."""
        sizes = [parameter.numel() for parameter in self.parameters]
        parts = zip(vector.detach().cpu().split(sizes), self.parameters, strict=True)
        turned = [_turned_back(part.reshape(of.shape).numpy()) for part, of in parts]
        return np.concatenate([part.ravel() for part in turned])


def _turned(kernel: Array) -> Array:
    """(…, in, out) as (out, in, …)."""
    return kernel.transpose(-1, -2, *range(kernel.ndim - 2)) if kernel.ndim > 1 else kernel


def _turned_back(kernel: Array) -> Array:
    return kernel.transpose(*range(2, kernel.ndim), 1, 0) if kernel.ndim > 1 else kernel
