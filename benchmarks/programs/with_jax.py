"""JAX: ``jax.hessian`` of one kernel under jit, as its documentation has it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.worker import Array, Job, run


def hessian(job: Job) -> None:
    """The whole Hessian of the block; the first call, which compiles, is kept apart."""
    kernels = [jnp.asarray(kernel) for kernel in job.kernels]
    inputs, targets = jnp.asarray(job.inputs), jnp.asarray(job.targets)
    layer = job.layer

    def loss(kernel: jax.Array, others: list[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        weights = [*others[:layer], kernel, *others[layer + 1 :]]
        a = x
        for W in weights[:-1]:
            a = jnp.tanh(a @ W)
        logarithms = jax.nn.log_softmax(a @ weights[-1])
        return -jnp.take_along_axis(logarithms, y[:, None], axis=1).mean()

    compiled = jax.jit(jax.hessian(loss))

    def call() -> jax.Array:
        return compiled(kernels[layer], kernels, inputs, targets).block_until_ready()

    job.agree("rows", _rows(call(), job))
    job.measure("Hessian", call)


def _rows(H: jax.Array, job: Job) -> Array:
    i, h = np.divmod(job.given("row_numbers"), H.shape[1])
    return np.asarray(H[i, h]).reshape(len(i), -1)


if __name__ == "__main__":
    run({"hessian": hessian}, ("jax", "jaxlib", "numpy"))
