"""The second witness: TensorFlow's automatic differentiation.

Nothing here knows a derivative. The network and the loss are written as TensorFlow functions of
their parameters, and every second derivative comes out of nested ``tf.GradientTape``: the Hessian
itself, or the Gauss–Newton term as forward mode, the loss's Hessian and reverse mode.

A product H·v is written as a mixed derivative, ∂/∂θ ∂/∂ε L(θ + εv) at ε = 0: the inner tape
differentiates by the scalar ε alone, so only what is asked for is ever seeded. Several vectors
are taken at once by giving the network a leading axis of copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hesscli.engines.block import HessianBlock
from hesscli.engines.layout import INPUT, Segment, input_example, layer_of, layout_of
from hesscli.engines.lazy_tensorflow import load_tensorflow
from hesscli.engines.pieces import pieces
from hesscli.engines.quantities import Quantity
from hesscli.engines.tensorflow_functions import activation_functions, loss_function
from hesscli.problem.errors import InputError
from hesscli.problem.network import Activation, Array, Problem
from hesscli.problem.registry import lacks_tensorflow, tensorflow_function

Tensor = Any
Tensors = Mapping[str, Tensor]
Function = Callable[[Tensor], Tensor]


class Autodiff:
    """The autodiff engine for one problem; imports TensorFlow when it is made."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        tf = load_tensorflow()
        functions = activation_functions(tf)

        def activation(of: Activation) -> Function:
            function = functions.get(of.name) or tensorflow_function(of.name)
            if function is None and lacks_tensorflow(of.name):
                raise InputError(
                    f"activation {of.name!r} has no TensorFlow function, so autodiff cannot "
                    "differentiate it; give its plugin one under the key tensorflow"
                )
            if function is None:
                raise InputError(f"autodiff has no activation {of.name!r}")
            return lambda z: function(z, **dict(of.parameters))

        self.tf = tf
        # Traced functions by block and segment; tracing takes as long as thousands of rows.
        self.traced: dict[tuple[str, int], Callable[..., Tensor]] = {}
        self._activations = [activation(layer.activation) for layer in problem.layers]
        self._loss_function = loss_function(tf, problem.loss.name)
        self._scale = tf.constant(problem.loss.scale(problem.examples), problem.dtype.name)
        self._parameters: dict[str, Tensor] = {}
        for layer in problem.layers:
            self._parameters[f"{layer.name}/kernel"] = tf.constant(layer.kernel)
            if layer.bias is not None:
                self._parameters[f"{layer.name}/bias"] = tf.constant(layer.bias[None, :])

    def hessian(self, parameter: str) -> AutodiffHessian:
        return AutodiffHessian(parameter, self)

    def gauss_newton(self, parameter: str) -> AutodiffGaussNewton:
        return AutodiffGaussNewton(parameter, self)

    def curvature(self, parameter: str) -> AutodiffCurvature:
        return AutodiffCurvature(self.hessian(parameter), self.gauss_newton(parameter))

    def batch(self, example: int | None) -> tuple[Tensor, Tensor]:
        """Inputs (N, d) and targets of the batch, or of one of its examples."""
        chosen = slice(None) if example is None else slice(example, example + 1)
        tf = self.tf
        return tf.constant(self.problem.inputs[chosen]), tf.constant(self.problem.targets[chosen])

    def value_of(self, name: str) -> Tensor:
        """A kernel (inputs, units) or a bias (1, units)."""
        return self._parameters[name]

    def output(
        self, x: Tensor, replaced: Tensors, shift: tuple[int, Function] | None = None
    ) -> Tensor:
        """The network's output (…, N, c) with some parameters replaced.

        Parameters may have a leading axis of copies. ``shift`` (k, function) adds function(a) to
        the pre-activation of layer k with input a.
        """
        tf, a = self.tf, x
        parameters = {**self._parameters, **replaced}
        for index, layer in enumerate(self.problem.layers):
            z = tf.matmul(a, parameters[f"{layer.name}/kernel"])
            if layer.bias is not None:
                z = z + parameters[f"{layer.name}/bias"]
            if shift is not None and shift[0] == index:
                z = z + shift[1](a)
            a = self._activations[index](z)
        return a

    def gradient_and_hessian(
        self, quantity: Quantity, start: int, stop: int
    ) -> tuple[Array, Array]:
        """∂L/∂q (n, d) and each example's ∂²L/∂q² (n, d, d) in an intermediate quantity q (N, d).

        By reverse mode over reverse mode, for the examples from ``start`` to ``stop``: each row
        of the Hessian is the gradient of one entry of the gradient, each in its own copy of q.
        """
        tf, examples, d = self.tf, stop - start, quantity.width
        targets = tf.constant(self.problem.targets[start:stop])
        x = tf.constant(self.problem.inputs[start:stop])
        value = self._between(x, 0, quantity.position)
        g = np.empty((examples, d), dtype=self.problem.dtype)
        S = np.empty((examples, d, d), dtype=self.problem.dtype)
        widest = max(self.problem.widths[(quantity.position + 1) // 2 :])
        for low, high in pieces(0, d, examples * widest * self.problem.dtype.itemsize):
            copies = tf.tile(value[None], [high - low, 1, 1])
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(copies)
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(copies)
                    f = self._between(copies, quantity.position, 2 * len(self._activations))
                    loss = self.loss(f, targets)
                gradients = inner.gradient(loss, copies, unconnected_gradients="zero")
            chosen = tf.one_hot(tf.range(low, high), d, dtype=self.problem.dtype.name)[:, None, :]
            rows = outer.gradient(
                gradients,
                copies,
                output_gradients=tf.broadcast_to(chosen, gradients.shape),
                unconnected_gradients="zero",
            )
            g[:] = gradients[0]
            S[:, low:high] = np.swapaxes(rows, 0, 1)
        return g, S

    def _between(self, value: Tensor, start: int, stop: int) -> Tensor:
        """The quantity at the position ``stop`` as a function of the one at ``start``."""
        for position in range(start, stop):
            layer = self.problem.layers[position // 2]
            if position % 2:
                value = self._activations[position // 2](value)
            else:
                value = self.tf.matmul(value, self._parameters[f"{layer.name}/kernel"])
                if layer.bias is not None:
                    value = value + self._parameters[f"{layer.name}/bias"]
        return value

    def loss(self, f: Tensor, targets: Tensor) -> Tensor:
        """The loss (…) of outputs (…, N, c), reduced over the examples."""
        return self._scale * self.tf.reduce_sum(self._loss_function(f, targets), axis=-1)

    def loss_hessian_product(self, f: Tensor, targets: Tensor, v: Tensor) -> Tensor:
        """(∂²L/∂f²) v at outputs f, both (…, N, c)."""
        tf = self.tf
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(f)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(f)
                loss = self.loss(f, targets)
            gradient = inner.gradient(loss, f, unconnected_gradients="zero")
        return outer.gradient(gradient, f, output_gradients=v, unconnected_gradients="zero")


class _Block(HessianBlock):
    """What the blocks share: vectors in pieces that keep the memory flat."""

    def __init__(self, parameter: str, engine: Autodiff) -> None:
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

    def _products(self, directions: Tensors) -> list[Tensor]:
        """Products with directions (k, rows, units) by tensor, in the same shapes."""
        raise NotImplementedError

    def _matmat(self, V: Array) -> Array:
        result = np.empty(V.shape, dtype=self.dtype)
        for start, stop in pieces(0, V.shape[1], self._bytes_each):
            columns = np.ascontiguousarray(V[:, start:stop].T, dtype=self.dtype)
            products = self._products(self._by_tensor(columns))
            flat = [np.reshape(product, (stop - start, -1)) for product in products]
            result[:, start:stop] = np.concatenate(flat, axis=1).T
        return result

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

    @property
    def _is_one_layers(self) -> bool:
        return not self._in_input and len(self.layout.segments) == 1

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
            wide = tf.zeros((segment.rows, tf.shape(by_row)[1]), dtype=self.dtype.name)
            # The product's own value is never needed, so that the graph leaves it out. With the
            # factors the other way round its gradient is a product without a transposed factor.
            transposed = tf.transpose(factors)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(wide)
                z = tf.matmul(transposed, wide, transpose_a=True)
            return tape.gradient(z, wide, output_gradients=by_row)

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
            ones = tf.ones_like(a[:, :1])
            parts = [ones if tensor.is_vector else a for tensor in segment.tensors]
            factors = tf.concat(parts, axis=1) if len(parts) > 1 else parts[0]
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

    def _products(self, directions: Tensors) -> list[Tensor]:
        engine, tf = self.engine, self.engine.tf
        count = next(iter(directions.values())).shape[0]
        parameters = self._copies(count)
        step = tf.zeros((count, 1, 1), dtype=self.dtype.name)
        with tf.GradientTape(watch_accessed_variables=False) as backward:
            backward.watch(parameters)
            with tf.GradientTape(watch_accessed_variables=False) as to_w:
                with tf.GradientTape(watch_accessed_variables=False) as to_step:
                    to_step.watch(step)
                    moved = {
                        name: parameters[name] + step * directions[name] for name in parameters
                    }
                    f = self._output(moved)
                w = tf.zeros_like(f)
                to_w.watch(w)
                transposed = to_step.gradient(
                    f, step, output_gradients=w, unconnected_gradients="zero"
                )
            Jv = to_w.gradient(transposed, w, unconnected_gradients="zero")
        HJv = engine.loss_hessian_product(tf.stop_gradient(f), self._targets, tf.stop_gradient(Jv))
        products: dict[str, Tensor] = backward.gradient(
            f, parameters, output_gradients=HJv, unconnected_gradients="zero"
        )
        return list(products.values())


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
