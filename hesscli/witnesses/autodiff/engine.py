"""The second witness: TensorFlow's automatic differentiation.

Nothing here knows a derivative. The network and the loss are written as TensorFlow functions of
their parameters, and every second derivative comes out of nested ``tf.GradientTape``: the Hessian
itself, or the Gauss–Newton term as forward mode, the loss's Hessian and reverse mode.

A product H·v is written as a mixed derivative, ∂/∂θ ∂/∂ε L(θ + εv) at ε = 0: the inner tape
differentiates by the scalar ε alone, so only what is asked for is ever seeded. Several vectors
are taken at once by giving the network a leading axis of copies.
"""

from __future__ import annotations

from math import prod

import numpy as np

from hesscli.problem.graph import INPUT, Array
from hesscli.system.pieces import pieces
from hesscli.witnesses.autodiff.blocks import (
    AutodiffCurvature,
    AutodiffGaussNewton,
    AutodiffHessian,
)
from hesscli.witnesses.autodiff.jacobian import AutodiffJacobian, flat
from hesscli.witnesses.autodiff.keras_model import KerasHessian
from hesscli.witnesses.autodiff.network import TensorflowNetwork
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import input_example, layout_of
from hesscli.witnesses.penalized import of_penalties, penalized
from hesscli.witnesses.quantities import Quantity
from hesscli.witnesses.twin import Differentiated


class Autodiff(TensorflowNetwork):
    """The autodiff engine for one problem; imports TensorFlow when it is made."""

    def hessian(self, parameter: str) -> HessianBlock:
        """The block by our functions, and its products by Keras's own model where there is one."""
        block = penalized(AutodiffHessian(parameter, self), self.problem, self.penalty_curvature)
        original = self.problem.original
        own: Differentiated | None = None if original is None else original.differentiated
        is_tensors = set(block.layout.tensors) <= set(self.problem.graph.tensors)
        if own is None or not is_tensors or not own.is_of(self.problem):
            return block
        return KerasHessian(block, own)

    def gauss_newton(self, parameter: str) -> HessianBlock:
        return penalized(AutodiffGaussNewton(parameter, self), self.problem, self.penalty_curvature)

    def curvature(self, parameter: str) -> AutodiffCurvature:
        return AutodiffCurvature(
            AutodiffHessian(parameter, self), AutodiffGaussNewton(parameter, self)
        )

    def gradient(self, parameter: str) -> Array:
        """∂L/∂θ (P,) of a block."""
        tf, (x, targets) = self.tf, self.batch(input_example(parameter))
        values = self.variables(layout_of(self.problem, parameter), x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss = self.loss(self.judged_values(x, values), targets)
        gradient: Array = flat(tape.gradient(loss, values, unconnected_gradients="zero"), 1)[0]
        found = of_penalties(self.problem, parameter, self.penalty_gradient)
        return gradient if found is None else gradient + found

    def jacobian(self, parameter: str) -> AutodiffJacobian:
        """∂f/∂θ (N·c, P) of a block, by rows; raises InputError for all inputs at once."""
        return AutodiffJacobian(self, parameter)

    def gradient_and_hessian(
        self, quantity: Quantity, start: int, stop: int
    ) -> tuple[Array, Array]:
        """∂L/∂q (n, d) and each example's ∂²L/∂q² (n, d, d) in a quantity q (N, d) of the graph.

        By reverse mode over reverse mode, for the examples from ``start`` to ``stop``: each row
        of the Hessian is the gradient of one entry of the gradient, each in its own copy of q.
        """
        tf, examples, d = self.tf, stop - start, quantity.width
        graph = self.problem.graph
        x, targets = self.some(slice(start, stop))
        downstream = graph.downstream({quantity.value}, ())
        others = [node for node in graph.nodes if node not in downstream]
        values = {INPUT: x, **dict(self.values({INPUT: x}, others))}
        g = np.empty((examples, d), dtype=self.problem.dtype)
        S = np.empty((examples, d, d), dtype=self.problem.dtype)
        widest = max((d, *(prod(node.shape) for node in downstream)))
        for low, high in pieces(0, d, examples * widest * self.problem.dtype.itemsize):
            copies = self.copies(values[quantity.value], high - low)
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(copies)
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(copies)
                    moved = {**values, quantity.value: copies}
                    moved.update(self.values(moved, downstream))
                    loss = self.loss(moved, targets)
                gradients = inner.gradient(loss, copies, unconnected_gradients="zero")
            chosen = tf.one_hot(tf.range(low, high), d, dtype=self.problem.dtype.name)
            shape = [high - low, 1, *graph.shape_of(quantity.value)]
            rows = outer.gradient(
                gradients,
                copies,
                output_gradients=tf.broadcast_to(tf.reshape(chosen, shape), gradients.shape),
                unconnected_gradients="zero",
            )
            g[:] = np.reshape(gradients[0], (examples, d))
            S[:, low:high] = np.reshape(np.swapaxes(rows, 0, 1), (examples, high - low, d))
        return g, S
