"""The network and the batch of a problem file in PyTorch, for the scripts beside this one."""

import numpy as np
import torch
from torch import nn


def load(path="problem.npz"):
    """The model, its loss function, inputs (N, d) and labels (N,), in float64."""
    with np.load(path) as stored:
        arrays = dict(stored)
    kernels = [name for name in arrays if name.endswith("/kernel")]
    parts = []
    for name in kernels:
        W, b = arrays[name], arrays[name.replace("/kernel", "/bias")]
        linear = nn.Linear(*W.shape, dtype=torch.float64)
        # PyTorch holds (units, inputs), Keras and hesscli (inputs, units).
        linear.weight.data = torch.from_numpy(W.T.copy())
        linear.bias.data = torch.from_numpy(b)
        parts += [linear, nn.Tanh()]
    model = nn.Sequential(*parts[:-1])
    return (
        model,
        nn.CrossEntropyLoss(),
        torch.from_numpy(arrays["inputs"]),
        torch.from_numpy(arrays["targets"]),
    )
