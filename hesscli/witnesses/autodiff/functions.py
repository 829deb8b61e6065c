"""Activations and losses as TensorFlow functions; no derivative stands here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from hesscli.problem.graph import Penalty
from hesscli.problem.names import FOCAL, OUTPUT
from hesscli.problem.network import Loss
from hesscli.problem.registry import LOSS, lacks_tensorflow, tensorflow_function
from hesscli.system.errors import InputError

Tensor = Any
# Keras's ``keras.config.epsilon()``.
_EPSILON = 1e-7


def activation_functions(tf: ModuleType) -> Mapping[str, Callable[..., Tensor]]:
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
        "relu6": tf.nn.relu6,
        "hard_sigmoid": lambda z: tf.nn.relu6(z + 3) / 6,
    }


def penalty_function(tf: ModuleType, penalty: Penalty) -> Callable[[Tensor], Tensor]:
    """What Keras's L1L2 regularizer adds for each number."""
    return lambda theta: penalty.l1 * tf.abs(theta) + penalty.l2 * tf.square(theta)


def loss_function(tf: ModuleType, loss: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """Keras's loss per example (…, N) of outputs (…, N, c) and targets without leading axes."""

    def sparse_categorical_crossentropy(f: Tensor, targets: Tensor) -> Tensor:
        labels = tf.broadcast_to(targets, tf.shape(f)[:-1])
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=f)

    def categorical_crossentropy(f: Tensor, targets: Tensor) -> Tensor:
        labels = tf.broadcast_to(targets, tf.shape(f))
        return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=f)

    def binary_crossentropy(f: Tensor, targets: Tensor) -> Tensor:
        labels = tf.broadcast_to(targets, tf.shape(f))
        each = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=f)
        return tf.reduce_mean(each, axis=-1)

    def each_number(of: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda f, targets: tf.reduce_mean(of(f, targets), axis=-1)

    def huber(f: Tensor, targets: Tensor) -> Tensor:
        error, delta = f - targets, loss.delta
        size = tf.abs(error)
        return tf.where(size <= delta, error * error / 2, delta * size - delta * delta / 2)

    def log_cosh(f: Tensor, targets: Tensor) -> Tensor:
        error = f - targets
        return error + tf.nn.softplus(-2 * error) - math.log(2)

    def kl_divergence(f: Tensor, targets: Tensor) -> Tensor:
        p, q = (tf.clip_by_value(of, _EPSILON, 1) for of in (targets, f))
        return tf.reduce_sum(p * tf.math.log(p / q), axis=-1)

    def categorical_focal_crossentropy(f: Tensor, targets: Tensor) -> Tensor:
        p = tf.clip_by_value(tf.nn.softmax(f), _EPSILON, 1 - _EPSILON)
        each = -targets * tf.math.log(p) * loss.alpha * tf.pow(1 - p, loss.gamma)
        return tf.reduce_sum(each, axis=-1)

    losses: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
        "sparse_categorical_crossentropy": sparse_categorical_crossentropy,
        "categorical_crossentropy": categorical_crossentropy,
        "binary_crossentropy": binary_crossentropy,
        FOCAL: categorical_focal_crossentropy,
        "mean_squared_error": each_number(lambda f, targets: tf.square(f - targets)),
        "mean_absolute_error": each_number(lambda f, targets: tf.abs(f - targets)),
        "huber": each_number(huber),
        "log_cosh": each_number(log_cosh),
        "kl_divergence": kl_divergence,
        "poisson": each_number(lambda f, targets: f - targets * tf.math.log(f + _EPSILON)),
        "sum_of_squares": lambda f, _: tf.reduce_sum(tf.square(f), axis=-1),
        "sum": lambda f, _: tf.reduce_sum(f, axis=-1),
        OUTPUT: lambda f, _: tf.gather(f, loss.index, axis=-1),
    }
    if loss.name in losses:
        return losses[loss.name]
    own = tensorflow_function(loss.name, LOSS)
    if own is None and lacks_tensorflow(loss.name, LOSS):
        raise InputError(
            f"loss {loss.name!r} has no TensorFlow function, so autodiff cannot differentiate it; "
            "give its plugin one under the key tensorflow"
        )
    if own is None:
        raise InputError(f"autodiff has no loss {loss.name!r}")

    def of_rows(f: Tensor, targets: Tensor) -> Tensor:
        """A plugin's loss, which knows (N, c) alone, of each copy's examples."""
        copies, flat = tf.shape(f)[:-1], tf.reshape(f, (-1, f.shape[-1]))
        times = tf.shape(flat)[0] // tf.shape(targets)[0]
        repeated = tf.tile(targets, [times] + [1] * (len(targets.shape) - 1))
        return tf.reshape(own(flat, repeated), copies)

    return of_rows
