"""The second witness: TensorFlow's automatic differentiation.

Nothing here knows a derivative. The network and the loss are written as TensorFlow functions of
their parameters, and every second derivative comes out of nested ``tf.GradientTape``: the Hessian
itself, or the Gauss–Newton term as forward mode, the loss's Hessian and reverse mode.

A product H·v is written as a mixed derivative, ∂/∂W ∂/∂ε L(W + εv) at ε = 0: the inner tape
differentiates by the scalar ε alone, so only what is asked for is ever seeded. Several vectors
are taken at once by giving the network a leading axis of copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from hesscli.engines.block import HessianBlock
from hesscli.engines.lazy_tensorflow import load_tensorflow
from hesscli.engines.pieces import pieces
from hesscli.problem.errors import InputError
from hesscli.problem.network import Activation, Array, Problem

Tensor = Any
Function = Callable[[Tensor], Tensor]


def _activation_functions(tf: ModuleType) -> Mapping[str, Callable[..., Tensor]]:
    """TensorFlow's own function for each Keras name, or Keras's definition out of TensorFlow's
    operations where its own cannot serve in float64: ``tf.nn.leaky_relu`` and ``tf.nn.gelu``
    round their constants to float32, ``tf.nn.elu`` and ``tf.nn.selu`` lose the digits of small
    |z|, ``tf.nn.softsign`` has no second derivative. The values at a kink are those of
    ``tf.nn``, which a test holds them to.
    """

    def leaky_relu(z: Tensor, negative_slope: float = 0.2) -> Tensor:
        return tf.where(z > 0, z, negative_slope * z)

    def below_zero(z: Tensor) -> Tensor:
        return tf.where(z < 0, tf.math.expm1(tf.minimum(z, 0)), z)

    def elu(z: Tensor, alpha: float = 1.0) -> Tensor:
        return tf.where(z > 0, z, alpha * below_zero(z))

    def selu(z: Tensor) -> Tensor:
        # Klambauer et al. 2017, as in Keras.
        return 1.0507009873554805 * tf.where(z < 0, 1.6732632423543772 * below_zero(z), z)

    def gelu(z: Tensor) -> Tensor:
        return 0.5 * z * (1 + tf.math.erf(z / math.sqrt(2)))

    def gelu_tanh(z: Tensor) -> Tensor:
        return 0.5 * z * (1 + tf.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)))

    return {
        "linear": tf.identity,
        "relu": tf.nn.relu,
        "leaky_relu": leaky_relu,
        "elu": elu,
        "selu": selu,
        "gelu": gelu,
        "gelu_tanh": gelu_tanh,
        "silu": tf.nn.silu,
        "mish": lambda z: z * tf.tanh(tf.nn.softplus(z)),
        "sigmoid": tf.sigmoid,
        "tanh": tf.tanh,
        "softplus": tf.nn.softplus,
        "softsign": lambda z: z / (1 + tf.abs(z)),
        "exponential": tf.exp,
        "square": tf.square,
        "sin": tf.sin,
    }


class Autodiff:
    """The autodiff engine for one problem; imports TensorFlow when it is made."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        tf = load_tensorflow()
        functions = _activation_functions(tf)

        def activation(of: Activation) -> Function:
            try:
                function = functions[of.name]
            except KeyError:
                raise InputError(f"autodiff has no activation {of.name!r}") from None
            return lambda z: function(z, **dict(of.parameters))

        self._tf = tf
        self._activations = [activation(layer.activation) for layer in problem.layers]
        self._kernels = [tf.constant(layer.kernel) for layer in problem.layers]
        self._biases = [
            tf.constant(0 if layer.bias is None else layer.bias, dtype=problem.dtype.name)
            for layer in problem.layers
        ]
        self._targets = tf.constant(problem.targets)

    def hessian(self, parameter: str) -> AutodiffHessian:
        return AutodiffHessian(parameter, self, self._kernel_index(parameter))

    def gauss_newton(self, parameter: str) -> AutodiffGaussNewton:
        return AutodiffGaussNewton(parameter, self, self._kernel_index(parameter))

    def curvature(self, parameter: str) -> AutodiffCurvature:
        return AutodiffCurvature(self.hessian(parameter), self.gauss_newton(parameter))

    def _kernel_index(self, parameter: str) -> int:
        layer, _, tensor = parameter.partition("/")
        if tensor != "kernel":
            raise KeyError(parameter)
        return self.problem.layer_index(layer)

    @cached_property
    def _layer_inputs(self) -> list[Tensor]:
        """The input (N, inputs) of every layer."""
        a = self._tf.constant(self.problem.inputs)
        inputs = [a]
        for W, b, activation in zip(
            self._kernels[:-1], self._biases[:-1], self._activations[:-1], strict=True
        ):
            a = activation(self._tf.matmul(a, W) + b)
            inputs.append(a)
        return inputs

    def _output(self, index: int, z: Tensor) -> Tensor:
        """The network's output (…, N, c) from the pre-activation (…, N, units) of one layer."""
        a = self._activations[index](z)
        for W, b, activation in zip(
            self._kernels[index + 1 :],
            self._biases[index + 1 :],
            self._activations[index + 1 :],
            strict=True,
        ):
            a = activation(self._tf.matmul(a, W) + b)
        return a

    def _loss(self, f: Tensor) -> Tensor:
        """The loss (…) of outputs (…, N, c), reduced over the examples."""
        tf = self._tf
        labels = tf.broadcast_to(self._targets, tf.shape(f)[:-1])
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=f)
        if self.problem.loss.reduction == "mean":
            return tf.reduce_mean(each, axis=-1)
        return tf.reduce_sum(each, axis=-1)

    def _loss_hessian_product(self, f: Tensor, v: Tensor) -> Tensor:
        """(∂²L/∂f²) v at outputs f, both (…, N, c)."""
        tf = self._tf
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(f)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(f)
                loss = self._loss(f)
            gradient = inner.gradient(loss, f)
        return outer.gradient(gradient, f, output_gradients=v, unconnected_gradients="zero")


class _KernelBlock(HessianBlock):
    """What the blocks of a kernel share: vectors in pieces that keep the memory flat."""

    def __init__(self, parameter: str, engine: Autodiff, index: int) -> None:
        layer = engine.problem.layers[index]
        self.engine = engine
        self.index = index
        self.inputs, self.units = layer.inputs, layer.units
        super().__init__(parameter, layer.kernel.size, engine.problem.dtype)
        widest = max(other.units for other in engine.problem.layers[index:])
        # What one vector costs: a copy of the kernel and of each activation.
        self._values_each = max(self.shape[0], engine.problem.examples * widest)

    def _products(self, directions: Tensor) -> Tensor:
        """Products with directions (k, inputs, units), in the same shape."""
        raise NotImplementedError

    def _matmat(self, V: Array) -> Array:
        columns = V.shape[1]
        result = np.empty((self.shape[0], columns), dtype=self.dtype)
        for start, stop in pieces(0, columns, self._values_each * self.dtype.itemsize):
            directions = np.ascontiguousarray(V[:, start:stop].T, dtype=self.dtype)
            products = self._products(
                self.engine._tf.constant(directions.reshape(-1, self.inputs, self.units))
            )
            result[:, start:stop] = products.numpy().reshape(stop - start, -1).T
        return result

    def _copies(self, count: int) -> Tensor:
        """The kernel, ``count`` times: (count, inputs, units)."""
        return self.engine._tf.tile(self.engine._kernels[self.index][None], [count, 1, 1])

    def _pre_activation(self, W: Tensor) -> Tensor:
        engine = self.engine
        return engine._tf.matmul(engine._layer_inputs[self.index], W) + engine._biases[self.index]


class AutodiffHessian(_KernelBlock):
    """The Hessian in one kernel, by reverse mode over reverse mode."""

    def _products(self, directions: Tensor) -> Tensor:
        engine, tf = self.engine, self.engine._tf
        count = directions.shape[0]
        W = self._copies(count)
        moved = tf.matmul(engine._layer_inputs[self.index], directions)
        step = tf.zeros((count, 1, 1), dtype=W.dtype)
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(W)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(step)
                z = self._pre_activation(W) + step * moved
                loss = engine._loss(engine._output(self.index, z))
            slopes = inner.gradient(loss, step)
        return outer.gradient(slopes, W, unconnected_gradients="zero")

    def rows(self, start: int, stop: int) -> Array:
        stop = min(stop, self.shape[0])
        # np.asarray takes TensorFlow's memory as it is.
        parts = [
            np.asarray(self._rows(self.engine._tf.range(low, high)))
            for low, high in pieces(start, stop, self._values_each * self.dtype.itemsize)
        ]
        if len(parts) == 1:
            return parts[0].reshape(stop - start, self.shape[0])
        empty = np.empty((0, self.inputs, self.units), dtype=self.dtype)
        return np.concatenate([empty, *parts]).reshape(-1, self.shape[0])

    @cached_property
    def _rows(self) -> Function:
        """A traced function from row numbers (R,) to rows (R, inputs, units).

        The loss gets one small variable for each wanted row's parameter; its gradient (R,) is
        differentiated by the whole kernel, for all rows in one vectorized pass.
        """
        engine, tf = self.engine, self.engine._tf
        W = engine._kernels[self.index]
        a = engine._layer_inputs[self.index]

        def rows(numbers: Tensor) -> Tensor:
            moved_inputs = tf.gather(a, numbers // self.units, axis=1)
            units = tf.one_hot(numbers % self.units, self.units, dtype=W.dtype)
            steps = tf.zeros(tf.shape(numbers), dtype=W.dtype)
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(W)
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(steps)
                    z = self._pre_activation(W) + tf.matmul(moved_inputs * steps, units)
                    loss = engine._loss(engine._output(self.index, z))
                slopes = inner.gradient(loss, steps)
            return outer.jacobian(slopes, W, unconnected_gradients="zero")

        traced: Function = tf.function(
            rows, input_signature=[tf.TensorSpec([None], tf.int32)], autograph=False
        )
        return traced


class AutodiffGaussNewton(_KernelBlock):
    """The Gauss–Newton term Jᵀ (∂²ℓ/∂f²) J in one kernel: forward mode (J v), the loss's Hessian,
    reverse mode.

    J v is reverse mode transposed by a second reverse pass (Townsend 2017, "A new trick for
    calculating Jacobian vector products"): Jᵀw is linear in w, and its derivative by w along v is
    J v. ``tf.autodiff.ForwardAccumulator`` gives the same but compiles a function for every
    operation and shape it meets, which takes up to a second for each new network.
    """

    def _products(self, directions: Tensor) -> Tensor:
        engine, tf = self.engine, self.engine._tf
        count = directions.shape[0]
        W = self._copies(count)
        moved = tf.matmul(engine._layer_inputs[self.index], directions)
        step = tf.zeros((count, 1, 1), dtype=W.dtype)
        with tf.GradientTape(watch_accessed_variables=False) as to_kernel:
            to_kernel.watch(W)
            with tf.GradientTape(watch_accessed_variables=False) as to_w:
                with tf.GradientTape(watch_accessed_variables=False) as to_step:
                    to_step.watch(step)
                    z = self._pre_activation(W) + step * moved
                    f = engine._output(self.index, z)
                w = tf.zeros_like(f)
                to_w.watch(w)
                transposed = to_step.gradient(f, step, output_gradients=w)
            Jv = to_w.gradient(transposed, w, unconnected_gradients="zero")
        HJv = engine._loss_hessian_product(tf.stop_gradient(f), tf.stop_gradient(Jv))
        return to_kernel.gradient(f, W, output_gradients=HJv, unconnected_gradients="zero")


class AutodiffCurvature(HessianBlock):
    """The curvature term, as the difference of the two blocks that autodiff can form."""

    def __init__(self, hessian: AutodiffHessian, gauss_newton: AutodiffGaussNewton) -> None:
        super().__init__(hessian.parameter, hessian.shape[0], hessian.dtype)
        self._hessian = hessian
        self._gauss_newton = gauss_newton

    def _matmat(self, V: Array) -> Array:
        difference: Array = self._hessian.matmat(V) - self._gauss_newton.matmat(V)
        return difference

    def rows(self, start: int, stop: int) -> Array:
        difference: Array = self._hessian.rows(start, stop) - self._gauss_newton.rows(start, stop)
        return difference
