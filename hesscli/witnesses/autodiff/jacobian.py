"""A Jacobian by TensorFlow's automatic differentiation.

Reverse mode differentiates one number. Asked for the gradient of the vector f it answers for the
sum of its numbers, Σ f, in which the outputs cannot be told apart. So every row of the Jacobian
gets a copy of the parameters of its own: the sum over rows is still one number, but only one of
its terms depends on each copy, and one reverse pass gives all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from hesscli.problem.graph import Array
from hesscli.system.pieces import pieces
from hesscli.witnesses.autodiff.network import Tensor, TensorflowNetwork
from hesscli.witnesses.jacobian import JacobianBlock


class AutodiffJacobian(JacobianBlock):
    """Reverse mode with a copy of the parameters, or of the input, for each row."""

    def __init__(self, engine: TensorflowNetwork, parameter: str) -> None:
        super().__init__(engine.problem, parameter)
        self.engine = engine
        self._x, _ = engine.batch(None)
        own = self._x[self.first_example : self.first_example + 1]
        self._variables = engine.variables(self.layout, own)

    def rows(self, start: int, stop: int) -> Array:
        # What one row costs: a copy of the parameters, its gradient, and the activations.
        nodes = self.engine.problem.graph.nodes
        values_each = 2 * self.shape[1] + sum(prod(node.shape) for node in nodes)
        parts = [
            self._rows(low, high)
            for low, high in pieces(
                start, min(stop, self.shape[0]), values_each * self.dtype.itemsize
            )
        ]
        empty = np.empty((0, self.shape[1]), dtype=self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate([empty, *parts])

    def _rows(self, start: int, stop: int) -> Array:
        engine, tf = self.engine, self.engine.tf
        examples, outputs = self._examples_and_outputs(start, stop)
        copies = {
            name: engine.copies(value, len(examples)) for name, value in self._variables.items()
        }
        # (R, 1, *in): the example of each row as a batch of one.
        x = tf.gather(self._x, examples)[:, None]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(copies)
            f = engine.output(x, copies)
            chosen = tf.gather(f[:, 0, :], outputs, batch_dims=1)
        return flat(tape.gradient(chosen, copies, unconnected_gradients="zero"), len(examples))


def flat(gradients: Mapping[str, Tensor], count: int) -> Array:
    """Gradients (count, *shape) or, for one, (*shape), side by side as (count, P)."""
    return np.concatenate(
        [np.reshape(gradient, (count, -1)) for gradient in gradients.values()], axis=1
    )
