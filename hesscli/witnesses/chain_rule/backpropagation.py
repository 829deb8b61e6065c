"""The gradient of the loss alone, for training: one forward pass, one backward sweep of g.

The chain rule's sweep carries S beside g, (N, units, units) at every layer, which a step of
gradient descent does not need. The formulas of the layers are the same:

    loss          g = c ∂ℓ/∂f
    activation    g ← σ′ ⊙ g
    dense         ∂L/∂W = aᵀ g,   ∂L/∂b = Σ_n g_n,   g ← g Wᵀ

Parameters and gradient are one vector, in the order of the block ``network``: layer by layer, the
kernel in C order, then the bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hesscli.nodes.activations import derivatives
from hesscli.nodes.losses import loss_derivatives
from hesscli.problem.graph import Array, Layer
from hesscli.problem.network import Problem, Targets
from hesscli.problem.stored import StoredInputs
from hesscli.system.pieces import pieces


@dataclass(frozen=True)
class Descent:
    """The loss of one batch (with the reduction's factor c), its gradient (P,), and f (N, c)."""

    loss: float
    gradient: Array
    outputs: Array


class Backpropagation:
    """Loss, outputs and gradient of a problem's network at parameters that change.

    Of ``problem`` only the layers' shapes and activations and the loss are used.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._sigmas = [derivatives(layer.activation) for layer in problem.layers]
        self._loss = loss_derivatives(problem.loss)

    def descent(
        self, parameters: Array, inputs: Array, targets: Targets, of: int | None = None
    ) -> Descent:
        """Loss and gradient on the batch ``inputs`` (N, d), ``targets``.

        ``of`` is how many examples the loss is the mean or sum of, where these are some of them.
        Numbers beyond the range of the type are left as they come, infinite or NaN.
        """
        tensors = list(self._tensors(parameters))
        with np.errstate(over="ignore", invalid="ignore"):
            a, sweep = inputs, []
            for (W, b), sigma in zip(tensors, self._sigmas, strict=True):
                z = a @ W if b is None else a @ W + b
                sweep.append((a, z))
                a = sigma.value(z)
            c = parameters.dtype.type(self._problem.loss.scale(len(inputs) if of is None else of))
            f = a
            loss = float(c * self._loss.value(f, targets).sum())
            g = c * self._loss.gradient(f, targets)
            gradient = np.empty_like(parameters)
            into = list(self._tensors(gradient))
            for index in reversed(range(len(tensors))):
                a, z = sweep[index]
                g = self._sigmas[index].first(z) * g
                kernel, bias = into[index]
                np.matmul(a.T, g, out=kernel)
                if bias is not None:
                    np.sum(g, axis=0, out=bias)
                if index:
                    g = g @ tensors[index][0].T
        return Descent(loss, gradient, f)

    def outputs(self, parameters: Array, inputs: Array | StoredInputs) -> Array:
        """The network's outputs f (N, c) for ``inputs`` (N, d), in pieces of bounded memory."""
        tensors = list(self._tensors(parameters))
        widest = max(self._problem.widths) * parameters.dtype.itemsize
        parts = []
        with np.errstate(over="ignore", invalid="ignore"):
            for start, stop in pieces(0, len(inputs), widest):
                a: Array = inputs[start:stop]
                for (W, b), sigma in zip(tensors, self._sigmas, strict=True):
                    a = sigma.value(a @ W if b is None else a @ W + b)
                parts.append(a)
        return np.concatenate(parts)

    def losses(self, outputs: Array, targets: Targets) -> Array:
        """ℓ (N,) of each example."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._loss.value(outputs, targets)

    def _tensors(self, vector: Array) -> Iterator[tuple[Array, Array | None]]:
        """Views of each layer's kernel and bias in a vector (P,)."""
        start = 0
        for layer in self._problem.layers:
            kernel = vector[start : start + layer.kernel.size].reshape(layer.kernel.shape)
            start += layer.kernel.size
            bias = None
            if layer.bias is not None:
                bias = vector[start : start + layer.bias.size]
                start += layer.bias.size
            yield kernel, bias


def parameter_vector(layers: Sequence[Layer]) -> Array:
    """The parameters of ``layers`` as one vector (P,), a copy."""
    parts = []
    for layer in layers:
        parts.append(layer.kernel.reshape(-1))
        if layer.bias is not None:
            parts.append(layer.bias)
    return np.concatenate(parts)


def with_parameters(problem: Problem, vector: Array) -> Problem:
    """``problem`` with the parameters in ``vector`` (P,), which is copied."""
    tensors, start = {}, 0
    for name, tensor in problem.graph.tensors.items():
        stop = start + tensor.size
        tensors[name] = vector[start:stop].reshape(tensor.shape).copy()
        start = stop
    return replace(problem, graph=problem.graph.with_tensors(tensors))
