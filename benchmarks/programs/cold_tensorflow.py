"""A script: dense1's Hessian of a relu network by ``tape.jacobian``, and one quadratic form."""

from __future__ import annotations

import tensorflow as tf

from benchmarks.programs.cold import hold, problem


def main() -> None:
    """Forms the Hessian once, as TensorFlow's guide has it."""
    arrays, kernels = problem()
    W, x = tf.constant(kernels[0]), tf.constant(arrays["inputs"])
    with tf.GradientTape() as outer:
        outer.watch(W)
        with tf.GradientTape() as inner:
            inner.watch(W)
            a = x
            for kernel in (W, *kernels[1:-1]):
                a = tf.nn.relu(a @ kernel)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(arrays["targets"], a @ kernels[-1])
            )
        gradient = inner.gradient(loss, W)
    H = tf.reshape(outer.jacobian(gradient, W), (-1, gradient.shape.num_elements()))
    v = tf.reshape(W, (-1,))
    hold(float(tf.tensordot(v, tf.linalg.matvec(H, v), 1)))


if __name__ == "__main__":
    main()
