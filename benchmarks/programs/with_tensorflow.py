"""TensorFlow: ``tape.jacobian`` of one kernel's gradient, eager, as its guide has it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from benchmarks.worker import Array, Job, run


def hessian(job: Job) -> None:
    """The whole Hessian of the block."""
    kernels = [tf.Variable(kernel) for kernel in job.kernels]
    inputs, targets = tf.constant(job.inputs), tf.constant(job.targets)
    kernel = kernels[job.layer]

    def call() -> tf.Tensor:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                a = inputs
                for W in kernels[:-1]:
                    a = tf.tanh(a @ W)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, a @ kernels[-1])
                loss = tf.reduce_mean(losses)
            gradient = inner.gradient(loss, kernel)
        return outer.jacobian(gradient, kernel)

    job.agree("rows", _rows(call(), job))
    job.measure("Hessian", call)


def _rows(H: tf.Tensor, job: Job) -> Array:
    i, h = np.divmod(job.given("row_numbers"), H.shape[1])
    return H.numpy()[i, h].reshape(len(i), -1)


if __name__ == "__main__":
    run({"hessian": hessian}, ("tensorflow", "numpy"))
