"""What a step of training needs: loss, outputs and gradient at parameters that change.

They are the forward and the backward pass alone, without what products with the Hessian need.
Parameters and gradient are one vector, in the order of the block ``network``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hesscli.nodes import penalty
from hesscli.nodes.losses import loss_derivatives
from hesscli.nodes.passes import activity, backward, forward, loss_cotangents
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem, Targets, rows_of
from hesscli.problem.stored import StoredInputs
from hesscli.system import xp
from hesscli.system.arrays import dtype_of
from hesscli.system.pieces import pieces


@dataclass(frozen=True)
class Descent:
    """The loss of one batch (with the reduction's factor c), its gradient (P,), and f (N, c)."""

    loss: float
    gradient: Array
    outputs: Array


class Descending:
    """Loss, outputs and gradient of a problem's network; its own parameters are not used."""

    def __init__(self, problem: Problem) -> None:
        self._graph = problem.graph
        self._loss = loss_derivatives(problem.loss)
        self._penalties = problem.penalties

    def descent(self, parameters: Array, batch: Problem) -> Descent:
        """Loss and gradient on the batch of a problem, with its share of the penalties.

        Numbers beyond the range of the type are left as they come, infinite or NaN.
        """
        graph = self._graph.with_vector(parameters)
        with np.errstate(over="ignore", invalid="ignore"):
            f, records, penalized = forward(graph, graph.shaped(batch.batch), graph.nodes)
            scales = xp.astype(xp.asarray(batch.scales, like=f), f.dtype)
            loss = float(xp.sum(scales * self._loss.value(f, batch.targets)))
            loss += float(xp.sum(activity(graph, penalized, batch.of_activity)))
            g = scales[:, None] * self._loss.gradient(f, batch.targets)
            cotangents = loss_cotangents(graph, g, penalized, batch.of_activity)
            found = backward(graph, records, cotangents, list(graph.tensors)).tensors
        share = batch.share
        parts = []
        for name, theta in graph.tensors.items():
            own = found[name][0, ...] if name in found else xp.zeros_like(theta)
            if name in self._penalties:
                own = own + share * penalty.gradient(theta, self._penalties[name])
            parts.append(xp.reshape(own, (-1,)))
        return Descent(loss + share * self.penalty(parameters), xp.concat(parts), f)

    def penalty(self, parameters: Array) -> float:
        """Σ l1 |θ| + l2 θ² over the tensors that have a penalty, in double precision."""
        tensors = self._graph.with_vector(parameters).tensors
        return math.fsum(
            float(xp.sum(penalty.each(xp.double(tensors[name]), of)))
            for name, of in self._penalties.items()
        )

    def outputs(self, parameters: Array, inputs: Array | StoredInputs) -> Array:
        """The network's outputs f (N, c) for ``inputs`` (N, d), in pieces of bounded memory."""
        return self.outputs_and_activity(parameters, inputs)[0]

    def outputs_and_activity(
        self, parameters: Array, inputs: Array | StoredInputs
    ) -> tuple[Array, float]:
        """The outputs, and Σ P(v) over the examples and the values that have a penalty."""
        graph = self._graph.with_vector(parameters)
        shapes = [graph.input_shape, *(node.shape for node in graph.nodes)]
        widest = max(map(math.prod, shapes)) * dtype_of(parameters).itemsize
        with np.errstate(over="ignore", invalid="ignore"):
            parts, total = [], 0.0
            for start, stop in pieces(0, inputs.shape[0], widest):
                x = graph.shaped(rows_of(inputs, slice(start, stop)))
                f, _, penalized = forward(graph, x, ())
                parts.append(f)
                total += float(xp.sum(activity(graph, penalized, 1.0)))
        return xp.concat(parts), total

    def losses(self, outputs: Array, targets: Targets) -> Array:
        """ℓ (N,) of each example."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._loss.value(outputs, targets)
