"""Autodiff's Hessian blocks: rows and products out of nested tapes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from hesscli.problem.graph import Array
from hesscli.system.pieces import pieces
from hesscli.witnesses.autodiff.network import Tensor, TensorflowNetwork, Tensors
from hesscli.witnesses.autodiff.rows import TracedRows
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import input_example, layout_of

Output = Callable[[Tensor, Tensor], dict[str, Tensor]]
# A tape keeps some twenty arrays of this size, in every thread.
_PIECE_BYTES = 8 * 2**20
# Tracing a function takes as long as a dozen products of a piece each, and a traced one shares
# what does not depend on the vector among those of a piece: the more the larger.
_TRACED_BYTES = 48 * 2**20


class _Block(HessianBlock):
    """What the blocks share: vectors in pieces that keep the memory flat."""

    def __init__(self, parameter: str, engine: TensorflowNetwork) -> None:
        problem = engine.problem
        layout = layout_of(problem, parameter)
        super().__init__(parameter, layout, problem.dtype)
        self.engine = engine
        self._x, self._targets = engine.batch(input_example(parameter))
        self._variables = engine.variables(layout, self._x)
        segments = layout.segments
        # The node by whose pre-activations the block's parameters can be moved.
        self._node = engine.sole_user(segments[0]) if len(segments) == 1 else None
        self._widest = engine.widest(layout)
        # What one vector costs: a copy of the parameters and of each activation.
        values_each = max(self.shape[0], int(self._x.shape[0]) * self._widest)
        self._bytes_each = values_each * self.dtype.itemsize

    @cached_property
    def _fixed(self) -> Tensors:
        return self.engine.fixed(self.layout, self._x, self._node)

    def _matmat(self, V: Array) -> Array:
        result = np.empty(V.shape, dtype=self.dtype)
        for start, stop in pieces(0, V.shape[1], self._bytes_each, self._piece_bytes(V.shape[1])):
            columns = np.ascontiguousarray(V[:, start:stop].T, dtype=self.dtype)
            if self._node is not None:
                result[:, start:stop] = self._products_of(self._node, columns)
                continue
            products = self._products(self._by_tensor(columns))
            flat = [np.reshape(product, (stop - start, -1)) for product in products]
            result[:, start:stop] = np.concatenate(flat, axis=1).T
        return result

    def _piece_bytes(self, _vectors: int) -> int:
        return _PIECE_BYTES

    def _products(self, directions: Tensors) -> list[Tensor]:
        """Products with directions (k, *shape) by tensor, in the same shapes."""
        raise NotImplementedError

    def _at_pre_activations(self, step: Tensor, added: Tensor, output: Output) -> Tensor:
        """The product with one node's directions, as far as its pre-activations (k, N, units).

        ``output`` gives f (k, N, c), and what else the loss is of, after ``step`` (k, 1, 1) along
        the directions, with ``added`` (k, N, units) on the pre-activations; both are zero.
        """
        raise NotImplementedError

    def _products_of(self, node: str, vectors: Array) -> Array:
        """The products (P, k) of the block of one node's parameters with vectors (k, P).

        The parameters enter by z = a W alone: what the directions add to z is a V, and the product
        is the derivative by z taken through this linear map. So no parameter is copied for a
        vector.
        """
        engine, tf = self.engine, self.engine.tf
        (segment,) = self.layout.segments
        count = len(vectors)
        V = tf.constant(vectors.reshape(count, segment.rows, segment.units))
        multiplied: list[Tensor] = []

        def output(step: Tensor, added: Tensor) -> dict[str, Tensor]:
            def shift(a: Tensor) -> Tensor:
                factors = engine.factors(segment, a)
                multiplied.append(factors)
                return added + step * tf.matmul(factors, V)

            return engine.judged_values(self._x, self._fixed, (node, shift))

        examples = self._x.shape[0]
        step = tf.zeros((count, 1, 1), dtype=self.dtype.name)
        added = tf.zeros((count, examples, segment.units), dtype=self.dtype.name)
        cotangents = self._at_pre_activations(step, added, output)
        by_example = tf.reshape(tf.transpose(cotangents, [1, 0, 2]), [examples, -1])
        return self._by_parameter(engine.through_layer(multiplied[0], by_example), count)

    def _by_parameter(self, wide: Tensor, count: int) -> Array:
        """Products (rows, k · units) of the block of one node's parameters as (P, k)."""
        (segment,) = self.layout.segments
        by_unit = np.asarray(wide).reshape(segment.rows, count, segment.units).swapaxes(1, 2)
        return np.reshape(by_unit, (self.shape[0], count))

    def _by_tensor(self, vectors: Array) -> Tensors:
        """Vectors (k, P) as a tensor (k, *shape) for each parameter tensor."""
        tensors, low = {}, 0
        for name, value in self._variables.items():
            size = value.shape.num_elements()
            part = vectors[:, low : low + size]
            tensors[name] = self.engine.tf.constant(part.reshape(-1, *value.shape))
            low += size
        return tensors

    def _copies(self, count: int) -> dict[str, Tensor]:
        """Every parameter tensor ``count`` times, (count, *shape)."""
        return {name: self.engine.copies(value, count) for name, value in self._variables.items()}

    def _moved(self, parameters: Tensors, step: Tensor, directions: Tensors) -> Tensors:
        """Each copy (k, *shape) of the parameters after its own step (k,) along its direction."""
        reshape = self.engine.tf.reshape
        return {
            name: value + reshape(step, [-1, *[1] * (value.shape.rank - 1)]) * directions[name]
            for name, value in parameters.items()
        }


class AutodiffHessian(_Block):
    """The Hessian, by reverse mode over reverse mode."""

    def _at_pre_activations(self, step: Tensor, added: Tensor, output: Output) -> Tensor:
        tf = self.engine.tf
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(added)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(step)
                loss = self.engine.loss(output(step, added), self._targets)
            slopes = inner.gradient(loss, step, unconnected_gradients="zero")
        return outer.gradient(slopes, added, unconnected_gradients="zero")

    def _products(self, directions: Tensors) -> list[Tensor]:
        engine, tf = self.engine, self.engine.tf
        count = next(iter(directions.values())).shape[0]
        parameters = self._copies(count)
        step = tf.zeros(count, dtype=self.dtype.name)
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(parameters)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(step)
                moved = self._moved(parameters, step, directions)
                values = engine.judged_values(self._x, {**self._fixed, **moved})
                loss = engine.loss(values, self._targets)
            slopes = inner.gradient(loss, step, unconnected_gradients="zero")
        products: dict[str, Tensor] = outer.gradient(
            slopes, parameters, unconnected_gradients="zero"
        )
        return list(products.values())

    @cached_property
    def _at_once(self) -> bool:
        return self.engine.rows_at_once(self.layout)

    @cached_property
    def _are_rows_traced(self) -> bool:
        return self._at_once and self.shape[0] * self._bytes_each > _TRACED_BYTES

    def _are_traced(self, vectors: int) -> bool:
        """Whether so many products with the block of one node's parameters are."""
        return self._at_once and vectors * self._bytes_each > _TRACED_BYTES / 2

    def _piece_bytes(self, vectors: int) -> int:
        traced = self._node is not None and self._are_traced(vectors)
        return _TRACED_BYTES if traced else super()._piece_bytes(vectors)

    def _products_of(self, node: str, vectors: Array) -> Array:
        if not self._are_traced(len(vectors)):
            return super()._products_of(node, vectors)
        return self._by_parameter(self._traced.products(vectors), len(vectors))

    def rows(self, start: int, stop: int) -> Array:
        stop = min(stop, self.shape[0])
        if not self._are_rows_traced:
            return super().rows(start, stop)
        if self._node is not None:
            (panel,) = self.panels(start, stop)
            return np.ascontiguousarray(panel.swapaxes(0, 1)).reshape(-1, self.shape[0])
        # np.asarray takes TensorFlow's memory as it is.
        parts = [
            np.asarray(self._traced.rows(index, low - first, high - first))
            for index, first in enumerate(self.layout.starts[:-1])
            for low, high in pieces(
                max(start, first), min(stop, self.layout.starts[index + 1]), self._bytes_each
            )
        ]
        empty = np.empty((0, self.shape[0]), dtype=self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate([empty, *parts])

    @property
    def row_bytes(self) -> int:
        # Each row has its own copy of the derivatives at every unit, several at a time.
        derivatives = 4 * self._x.shape[0] * self._widest
        return int(max(self.shape[0], derivatives) * self.dtype.itemsize)

    def panels(self, start: int, stop: int) -> tuple[Array, ...]:
        if self._node is None or not self._are_rows_traced:
            return super().panels(start, stop)
        (segment,) = self.layout.segments
        flat = self._traced.panel(start, min(stop, self.shape[0]))
        return (np.asarray(flat).reshape(segment.rows, -1, segment.units),)

    @cached_property
    def _traced(self) -> TracedRows:
        return TracedRows(self.engine, self.parameter, self.layout, self._fixed)


class AutodiffGaussNewton(_Block):
    """The Gauss–Newton term Jᵀ (∂²ℓ/∂f²) J: forward mode (J v), the loss's Hessian, reverse mode.

    f is all that the loss is of: the values that have a penalty stand beside the output.

    J v is reverse mode transposed by a second reverse pass (Townsend 2017, "A new trick for
    calculating Jacobian vector products"): Jᵀw is linear in w, and its derivative by w along v is
    J v. ``tf.autodiff.ForwardAccumulator`` gives the same but compiles a function for every
    operation and shape it meets, which takes up to a second for each new network.
    """

    def _at_pre_activations(self, step: Tensor, added: Tensor, output: Output) -> Tensor:
        return self._there_and_back(added, step, lambda: output(step, added))

    def _products(self, directions: Tensors) -> list[Tensor]:
        tf = self.engine.tf
        count = next(iter(directions.values())).shape[0]
        parameters = self._copies(count)
        step = tf.zeros(count, dtype=self.dtype.name)

        def output() -> dict[str, Tensor]:
            moved = self._moved(parameters, step, directions)
            return self.engine.judged_values(self._x, {**self._fixed, **moved})

        products: dict[str, Tensor] = self._there_and_back(parameters, step, output)
        return list(products.values())

    def _there_and_back(
        self, values: Any, step: Tensor, output: Callable[[], dict[str, Tensor]]
    ) -> Any:
        """Jᵀ (∂²ℓ/∂f²) J v by ``values``, where the output moves along v with ``step``."""
        engine, tf = self.engine, self.engine.tf
        with tf.GradientTape(watch_accessed_variables=False) as backward:
            backward.watch(values)
            with tf.GradientTape(watch_accessed_variables=False) as to_w:
                with tf.GradientTape(watch_accessed_variables=False) as to_step:
                    to_step.watch(step)
                    f = output()
                w = tf.nest.map_structure(tf.zeros_like, f)
                to_w.watch(w)
                transposed = to_step.gradient(
                    f, step, output_gradients=w, unconnected_gradients="zero"
                )
            Jv = to_w.gradient(transposed, w, unconnected_gradients="zero")
        at, along = (tf.nest.map_structure(tf.stop_gradient, of) for of in (f, Jv))
        HJv = engine.loss_hessian_product(at, self._targets, along)
        return backward.gradient(f, values, output_gradients=HJv, unconnected_gradients="zero")


class AutodiffCurvature(HessianBlock):
    """The curvature term, as the difference of the two blocks that autodiff can form."""

    def __init__(self, hessian: AutodiffHessian, gauss_newton: AutodiffGaussNewton) -> None:
        super().__init__(hessian.parameter, hessian.layout, hessian.dtype)
        self._hessian = hessian
        self._gauss_newton = gauss_newton

    def _matmat(self, V: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            difference: Array = self._hessian.matmat(V) - self._gauss_newton.matmat(V)
        return difference

    def rows(self, start: int, stop: int) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            of_both = self._hessian.rows(start, stop), self._gauss_newton.rows(start, stop)
            difference: Array = of_both[0] - of_both[1]
        return difference
