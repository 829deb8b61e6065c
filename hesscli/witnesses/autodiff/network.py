"""A problem written in TensorFlow: what the autodiff engine differentiates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from hesscli.problem.graph import Activation
from hesscli.problem.network import Problem
from hesscli.problem.registry import lacks_tensorflow, tensorflow_function
from hesscli.system.errors import InputError
from hesscli.system.tensorflow import load_tensorflow
from hesscli.witnesses.autodiff.functions import activation_functions, loss_function
from hesscli.witnesses.layout import Segment

Tensor = Any
Tensors = Mapping[str, Tensor]
Function = Callable[[Tensor], Tensor]


class TensorflowNetwork:
    """A problem's network and loss as TensorFlow functions of whatever is differentiated.

    Imports TensorFlow when it is made.
    """

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
        self.activations = [activation(layer.activation) for layer in problem.layers]
        self._loss_function = loss_function(tf, problem.loss.name)
        self._scale = tf.constant(problem.scale, problem.dtype.name)
        self.parameters: dict[str, Tensor] = {}
        for layer in problem.layers:
            self.parameters[f"{layer.name}/kernel"] = tf.constant(layer.kernel)
            if layer.bias is not None:
                self.parameters[f"{layer.name}/bias"] = tf.constant(layer.bias[None, :])

    def batch(self, example: int | None) -> tuple[Tensor, Tensor]:
        """Inputs (N, d) and targets of the batch, or of one of its examples."""
        chosen = slice(None) if example is None else slice(example, example + 1)
        tf = self.tf
        return tf.constant(self.problem.inputs[chosen]), tf.constant(self.problem.targets[chosen])

    def value_of(self, name: str) -> Tensor:
        """A kernel (inputs, units) or a bias (1, units)."""
        return self.parameters[name]

    def output(
        self, x: Tensor, replaced: Tensors, shift: tuple[int, Function] | None = None
    ) -> Tensor:
        """The network's output (…, N, c) with some parameters replaced.

        Parameters may have a leading axis of copies. ``shift`` (k, function) adds function(a) to
        the pre-activation of layer k with input a.
        """
        tf, a = self.tf, x
        parameters = {**self.parameters, **replaced}
        for index, layer in enumerate(self.problem.layers):
            z = tf.matmul(a, parameters[f"{layer.name}/kernel"])
            if layer.bias is not None:
                z = z + parameters[f"{layer.name}/bias"]
            if shift is not None and shift[0] == index:
                z = z + shift[1](a)
            a = self.activations[index](z)
        return a

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

    def with_parameters(self, parameters: Tensors) -> TensorflowNetwork:
        """The same network with other parameters."""
        other = copy(self)
        other.parameters = dict(parameters)
        return other

    def factors(self, segment: Segment, a: Tensor) -> Tensor:
        """What the segment's parameters multiply, (N, rows): a for a kernel, 1 for a bias."""
        ones = self.tf.ones_like(a[:, :1])
        parts = [ones if tensor.is_vector else a for tensor in segment.tensors]
        return self.tf.concat(parts, axis=1) if len(parts) > 1 else parts[0]

    def through_layer(self, factors: Tensor, cotangents: Tensor) -> Tensor:
        """The derivative (rows, m) by W of the linear map z = a W, given those by z (N, m)."""
        tf, dtype = self.tf, self.problem.dtype.name
        wide = tf.zeros((factors.shape[1], tf.shape(cotangents)[1]), dtype=dtype)
        # With the factors the other way round the gradient is a product without a transposed
        # factor. In a traced function the product's own value, never needed, is left out.
        transposed = tf.transpose(factors)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(wide)
            z = tf.matmul(transposed, wide, transpose_a=True)
        return tape.gradient(z, wide, output_gradients=cotangents)
