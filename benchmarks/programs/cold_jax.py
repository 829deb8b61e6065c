"""A script: dense1's Hessian of a relu network by ``jax.hessian``, and one quadratic form."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks.programs.cold import hold, problem


def main() -> None:
    """Forms the Hessian once, compiled as the documentation has it."""
    jax.config.update("jax_enable_x64", True)
    arrays, kernels = problem()
    x, y = jnp.asarray(arrays["inputs"]), jnp.asarray(arrays["targets"])

    def loss(kernel: jax.Array) -> jax.Array:
        a = x
        for W in (kernel, *kernels[1:-1]):
            a = jax.nn.relu(a @ W)
        logarithms = jax.nn.log_softmax(a @ kernels[-1])
        return -jnp.take_along_axis(logarithms, y[:, None], axis=1).mean()

    W = jnp.asarray(kernels[0])
    H = jax.jit(jax.hessian(loss))(W).reshape(W.size, W.size)
    hold(float(W.ravel() @ (H @ W.ravel())))


if __name__ == "__main__":
    main()
