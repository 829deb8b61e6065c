"""Autodiff's Hessian blocks: rows and products out of nested tapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hesscli.engines.autodiff_network import Tensor, TensorflowNetwork, Tensors
from hesscli.engines.block import HessianBlock
from hesscli.engines.layout import INPUT, Segment, input_example, layer_of, layout_of
from hesscli.engines.pieces import pieces
from hesscli.problem.network import Array

Output = Callable[[Tensor, Tensor], Tensor]


class _Block(HessianBlock):
    """What the blocks share: vectors in pieces that keep the memory flat."""

    def __init__(self, parameter: str, engine: TensorflowNetwork) -> None:
        problem = engine.problem
        layout = layout_of(problem, parameter)
        super().__init__(parameter, layout, problem.dtype)
        self.engine = engine
        self._example = input_example(parameter)
        self._x, self._targets = engine.batch(self._example)
        self._in_input = parameter == INPUT or self._example is not None
        if self._in_input:
            self._values = {parameter: self._x}
        else:
            self._values = {
                tensor.name: engine.value_of(tensor.name)
                for segment in layout.segments
                for tensor in segment.tensors
            }
        # What one vector costs: a copy of the parameters and of each activation.
        values_each = max(self.shape[0], self._x.shape[0] * max(problem.widths[1:]))
        self._bytes_each = values_each * self.dtype.itemsize

    @property
    def _is_one_layers(self) -> bool:
        return not self._in_input and len(self.layout.segments) == 1

    def _matmat(self, V: Array) -> Array:
        result = np.empty(V.shape, dtype=self.dtype)
        for start, stop in pieces(0, V.shape[1], self._bytes_each):
            columns = np.ascontiguousarray(V[:, start:stop].T, dtype=self.dtype)
            if self._is_one_layers:
                result[:, start:stop] = self._layer_products(columns)
                continue
            products = self._products(self._by_tensor(columns))
            flat = [np.reshape(product, (stop - start, -1)) for product in products]
            result[:, start:stop] = np.concatenate(flat, axis=1).T
        return result

    def _products(self, directions: Tensors) -> list[Tensor]:
        """Products with directions (k, rows, units) by tensor, in the same shapes."""
        raise NotImplementedError

    def _at_pre_activations(self, step: Tensor, added: Tensor, output: Output) -> Tensor:
        """The product with one layer's directions, as far as its pre-activations (k, N, units).

        ``output`` gives f (k, N, c) after ``step`` (k, 1, 1) along the directions, with ``added``
        (k, N, units) on the pre-activations; both are zero.
        """
        raise NotImplementedError

    def _layer_products(self, vectors: Array) -> Array:
        """The products (P, k) of one layer's block with vectors (k, P).

        The layer's parameters enter by z = a W alone: what the directions add to z is a V, and
        the product is the derivative by z taken through this linear map. So no parameter is
        copied for a vector.
        """
        engine, tf = self.engine, self.engine.tf
        (segment,) = self.layout.segments
        count, layer = len(vectors), engine.problem.layer_index(layer_of(segment.tensors[0].name))
        V = tf.constant(vectors.reshape(count, segment.rows, segment.units))
        multiplied: list[Tensor] = []

        def output(step: Tensor, added: Tensor) -> Tensor:
            def shift(a: Tensor) -> Tensor:
                factors = self._factors(segment, a)
                multiplied.append(factors)
                return added + step * tf.matmul(factors, V)

            return engine.output(self._x, {}, (layer, shift))

        examples = self._x.shape[0]
        step = tf.zeros((count, 1, 1), dtype=self.dtype.name)
        added = tf.zeros((count, examples, segment.units), dtype=self.dtype.name)
        cotangents = self._at_pre_activations(step, added, output)
        by_example = tf.reshape(tf.transpose(cotangents, [1, 0, 2]), [examples, -1])
        wide = np.asarray(self._through_layer(multiplied[0], by_example))
        by_unit = wide.reshape(segment.rows, count, segment.units).swapaxes(1, 2)
        return np.reshape(by_unit, (self.shape[0], count))

    def _factors(self, segment: Segment, a: Tensor) -> Tensor:
        """What the segment's parameters multiply, (N, rows): a for a kernel, 1 for a bias."""
        tf = self.engine.tf
        ones = tf.ones_like(a[:, :1])
        parts = [ones if tensor.is_vector else a for tensor in segment.tensors]
        return tf.concat(parts, axis=1) if len(parts) > 1 else parts[0]

    def _through_layer(self, factors: Tensor, cotangents: Tensor) -> Tensor:
        """The derivative (rows, m) by W of the linear map z = a W, given those by z (N, m)."""
        tf = self.engine.tf
        wide = tf.zeros((factors.shape[1], tf.shape(cotangents)[1]), dtype=self.dtype.name)
        # With the factors the other way round the gradient is a product without a transposed
        # factor. In a traced function the product's own value, never needed, is left out.
        transposed = tf.transpose(factors)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(wide)
            z = tf.matmul(transposed, wide, transpose_a=True)
        return tape.gradient(z, wide, output_gradients=cotangents)

    def _by_tensor(self, vectors: Array) -> Tensors:
        """Vectors (k, P) as a tensor (k, rows, units) for each parameter tensor."""
        tensors, low = {}, 0
        for name, value in self._values.items():
            rows, units = value.shape
            part = vectors[:, low : low + rows * units]
            tensors[name] = self.engine.tf.constant(part.reshape(-1, rows, units))
            low += rows * units
        return tensors

    def _copies(self, count: int) -> dict[str, Tensor]:
        """Every parameter tensor ``count`` times, (count, rows, units)."""
        tile = self.engine.tf.tile
        return {name: tile(value[None], [count, 1, 1]) for name, value in self._values.items()}

    def _output(self, parameters: Tensors) -> Tensor:
        x = parameters[self.parameter] if self._in_input else self._x
        return self.engine.output(x, parameters)


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
        step = tf.zeros((count, 1, 1), dtype=self.dtype.name)
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(parameters)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(step)
                moved = {name: parameters[name] + step * directions[name] for name in parameters}
                loss = engine.loss(self._output(moved), self._targets)
            slopes = inner.gradient(loss, step, unconnected_gradients="zero")
        products: dict[str, Tensor] = outer.gradient(
            slopes, parameters, unconnected_gradients="zero"
        )
        return list(products.values())

    def rows(self, start: int, stop: int) -> Array:
        if self.parameter == INPUT:
            return super().rows(start, stop)
        stop = min(stop, self.shape[0])
        if self._is_one_layers:
            (panel,) = self.panels(start, stop)
            return np.ascontiguousarray(panel.swapaxes(0, 1)).reshape(-1, self.shape[0])
        # np.asarray takes TensorFlow's memory as it is.
        batch = self._x, self._targets
        parts = [
            np.asarray(self._traced(index)(self._range(low, high, first), *batch))
            for index, first in enumerate(self.layout.starts[:-1])
            for low, high in pieces(
                max(start, first), min(stop, self.layout.starts[index + 1]), self._bytes_each
            )
        ]
        empty = np.empty((0, self.shape[0]), dtype=self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate([empty, *parts])

    def panels(self, start: int, stop: int) -> tuple[Array, ...]:
        if not self._is_one_layers:
            return super().panels(start, stop)
        (segment,) = self.layout.segments
        numbers = self._range(start, min(stop, self.shape[0]), 0)
        flat = self._traced(0)(numbers, self._x, self._targets)
        return (np.asarray(flat).reshape(segment.rows, -1, segment.units),)

    def _range(self, start: int, stop: int, first: int) -> Tensor:
        return self.engine.tf.range(start - first, stop - first)

    def _traced(self, index: int) -> Callable[..., Tensor]:
        """The function of a segment's rows or panel, traced once in the engine."""
        # One function does for the inputs of all examples.
        block = INPUT if self._example is not None else self.parameter
        traced = self.engine.traced
        if (block, index) not in traced:
            one = self._is_one_layers
            traced[block, index] = self._panel_function() if one else self._row_function(index)
        return traced[block, index]

    def _row_function(self, index: int) -> Callable[..., Tensor]:
        """A traced function from row numbers (R,) within one segment to rows (R, P).

        The loss gets one small variable for each wanted row's parameter; its gradient (R,) is
        differentiated by all the block's parameters, for all rows in one vectorized pass.
        """
        engine, tf = self.engine, self.engine.tf
        segment = self.layout.segments[index]

        def rows(numbers: Tensor, x: Tensor, targets: Tensor) -> Tensor:
            values = self._values if self._example is None else {INPUT: x}
            steps = tf.zeros(tf.shape(numbers), dtype=self.dtype.name)
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(values)
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(steps)
                    f, _ = self._moved_output(segment, numbers, steps, x)
                    loss = engine.loss(f, targets)
                slopes = inner.gradient(loss, steps, unconnected_gradients="zero")
            jacobians = outer.jacobian(slopes, values, unconnected_gradients="zero")
            count = tf.shape(numbers)[0]
            flat = [tf.reshape(jacobian, [count, -1]) for jacobian in jacobians.values()]
            return tf.concat(flat, axis=1) if len(flat) > 1 else flat[0]

        return self._compiled(rows)

    def _panel_function(self) -> Callable[..., Tensor]:
        """A traced function from row numbers (R,) of a layer's block to its panel (n, R · units).

        As ``_row_function``, but differentiated first by what is added to the layer's
        pre-activations, for all rows in one vectorized pass, and then through the layer's own
        linear map z = a W, which gives all rows as one matrix product.
        """
        engine, tf = self.engine, self.engine.tf
        (segment,) = self.layout.segments
        examples = self._x.shape[0]

        def panel(numbers: Tensor, x: Tensor, targets: Tensor) -> Tensor:
            steps = tf.zeros(tf.shape(numbers), dtype=self.dtype.name)
            added = tf.zeros((examples, segment.units), dtype=self.dtype.name)
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(added)
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(steps)
                    f, factors = self._moved_output(segment, numbers, steps, x, added)
                    loss = engine.loss(f, targets)
                slopes = inner.gradient(loss, steps, unconnected_gradients="zero")
            jacobian = outer.jacobian(slopes, added, unconnected_gradients="zero")
            by_row = tf.reshape(tf.transpose(jacobian, [1, 0, 2]), [examples, -1])
            return self._through_layer(factors, by_row)

        return self._compiled(panel)

    def _compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        tf = self.engine.tf
        specs = [tf.TensorSpec([None], tf.int32)]
        specs += [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in (self._x, self._targets)]
        traced: Callable[..., Tensor] = tf.function(
            function, input_signature=specs, autograph=False
        )
        return traced

    def _moved_output(
        self, segment: Segment, numbers: Tensor, steps: Tensor, x: Tensor, added: Tensor = 0
    ) -> tuple[Tensor, Tensor]:
        """The output after steps (R,) in the parameters with these numbers in the segment.

        And what the segment's parameters multiply, (N, rows): row i of a kernel is multiplied
        by a[:, i], the bias by 1. ``added`` is added to the layer's pre-activations.
        """
        engine, tf = self.engine, self.engine.tf
        units = tf.one_hot(numbers % segment.units, segment.units, dtype=self.dtype.name)
        if self._example is not None:
            return engine.output(x + tf.matmul(steps[None], units), {}), x
        multiplied: list[Tensor] = []

        def shift(a: Tensor) -> Tensor:
            factors = self._factors(segment, a)
            multiplied.append(factors)
            chosen = tf.gather(factors, numbers // segment.units, axis=1)
            return added + tf.matmul(chosen * steps, units)

        layer = engine.problem.layer_index(layer_of(segment.tensors[0].name))
        f = engine.output(x, self._values, (layer, shift))
        return f, multiplied[0]


class AutodiffGaussNewton(_Block):
    """The Gauss–Newton term Jᵀ (∂²ℓ/∂f²) J: forward mode (J v), the loss's Hessian, reverse mode.

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
        step = tf.zeros((count, 1, 1), dtype=self.dtype.name)

        def output() -> Tensor:
            return self._output(
                {name: parameters[name] + step * directions[name] for name in parameters}
            )

        products: dict[str, Tensor] = self._there_and_back(parameters, step, output)
        return list(products.values())

    def _there_and_back(self, values: Any, step: Tensor, output: Callable[[], Tensor]) -> Any:
        """Jᵀ (∂²ℓ/∂f²) J v by ``values``, where the output moves along v with ``step``."""
        engine, tf = self.engine, self.engine.tf
        with tf.GradientTape(watch_accessed_variables=False) as backward:
            backward.watch(values)
            with tf.GradientTape(watch_accessed_variables=False) as to_w:
                with tf.GradientTape(watch_accessed_variables=False) as to_step:
                    to_step.watch(step)
                    f = output()
                w = tf.zeros_like(f)
                to_w.watch(w)
                transposed = to_step.gradient(
                    f, step, output_gradients=w, unconnected_gradients="zero"
                )
            Jv = to_w.gradient(transposed, w, unconnected_gradients="zero")
        HJv = engine.loss_hessian_product(tf.stop_gradient(f), self._targets, tf.stop_gradient(Jv))
        return backward.gradient(f, values, output_gradients=HJv, unconnected_gradients="zero")


class AutodiffCurvature(HessianBlock):
    """The curvature term, as the difference of the two blocks that autodiff can form."""

    def __init__(self, hessian: AutodiffHessian, gauss_newton: AutodiffGaussNewton) -> None:
        super().__init__(hessian.parameter, hessian.layout, hessian.dtype)
        self._hessian = hessian
        self._gauss_newton = gauss_newton

    def _matmat(self, V: Array) -> Array:
        difference: Array = self._hessian.matmat(V) - self._gauss_newton.matmat(V)
        return difference

    def rows(self, start: int, stop: int) -> Array:
        difference: Array = self._hessian.rows(start, stop) - self._gauss_newton.rows(start, stop)
        return difference
