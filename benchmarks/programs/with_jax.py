"""JAX: ``jax.hessian`` of one kernel under jit, as its documentation has it."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.worker import CONV_RTOL, GPU_RTOL, Array, Job, run

Tensors = dict[str, jax.Array]


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


def convolutions(job: Job) -> None:
    """H·v of all parameters by ``jax.jvp`` of ``jax.grad`` under jit."""
    _products(job, CONV_RTOL)


def gpu(job: Job) -> None:
    """The same on a GPU, with products of float32 that have its digits."""
    if jax.default_backend() != "gpu":
        raise SystemExit("JAX finds no GPU; install jax[cuda12] or jax[cuda13] beside it")
    jax.config.update("jax_default_matmul_precision", "highest")
    _products(job, GPU_RTOL)


def _products(job: Job, rtol: Mapping[str, float]) -> None:
    jax.config.update("jax_enable_x64", True)
    arrays = {name: jnp.asarray(array) for name, array in job.arrays.items()}
    networks = {"dense": _dense, "lenet5": _lenet5, "resnet_small": _resnet_small}
    network = networks[job.options.get("network", "dense")]
    constants = {name: of for name, of in arrays.items() if "/moving_" in name}
    theta = {name: of for name, of in arrays.items() if "/" in name and name not in constants}
    x, y = arrays["inputs"].reshape(-1, 28, 28, 1), arrays["targets"]

    def loss(theta: Tensors) -> jax.Array:
        logarithms = jax.nn.log_softmax(network({**theta, **constants}, x))
        return -jnp.take_along_axis(logarithms, y[:, None], axis=1).mean()

    ends = np.cumsum([of.size for of in theta.values()])[:-1]
    parts = np.split(job.given("vector"), ends)
    v = {name: part.reshape(theta[name].shape) for name, part in zip(theta, parts, strict=True)}
    compiled = jax.jit(lambda theta, v: jax.jvp(jax.grad(loss), (theta,), (v,))[1])

    def call() -> Tensors:
        return jax.block_until_ready(compiled(theta, v))

    found = call()
    flat = np.concatenate([np.asarray(found[name]).ravel() for name in theta])
    job.agree("product", flat, rtol[str(flat.dtype)])
    job.measure("H·v", call)


def _convolved(
    theta: Tensors, name: str, x: jax.Array, strides: int = 1, padding: str = "SAME"
) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    kernel, window = theta[f"{name}/kernel"], (strides, strides)
    y = lax.conv_general_dilated(x, kernel, window, padding, dimension_numbers=numbers)
    return y + theta[f"{name}/bias"]


def _dense(theta: Tensors, x: jax.Array) -> jax.Array:
    *hidden, last = theta.values()
    x = x.reshape(len(x), -1)
    for W in hidden:
        x = jnp.tanh(x @ W)
    return x @ last


def _lenet5(theta: Tensors, x: jax.Array) -> jax.Array:
    def halved(x: jax.Array) -> jax.Array:
        return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4

    x = halved(jnp.tanh(_convolved(theta, "conv1", x)))
    x = halved(jnp.tanh(_convolved(theta, "conv2", x, padding="VALID")))
    x = x.reshape(len(x), -1)
    for name in ("dense1", "dense2"):
        x = jnp.tanh(x @ theta[f"{name}/kernel"] + theta[f"{name}/bias"])
    return x @ theta["dense3/kernel"] + theta["dense3/bias"]


def _resnet_small(theta: Tensors, x: jax.Array) -> jax.Array:
    def normalized(name: str, x: jax.Array) -> jax.Array:
        gamma, beta, mean, variance = (
            theta[f"{name}/{role}"] for role in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (x - mean) / jnp.sqrt(variance + 1e-3) + beta

    x = jax.nn.relu(normalized("norm0", _convolved(theta, "stem", x, 2)))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    inside = jax.nn.relu(normalized("norm1", _convolved(theta, "conv1", x)))
    x = jax.nn.relu(normalized("norm2", _convolved(theta, "conv2", inside)) + x)
    inside = normalized("norm3", _convolved(theta, "conv3", x, 2))
    x = jax.nn.relu(inside + _convolved(theta, "short", x, 2))
    return x.mean((1, 2)) @ theta["logits/kernel"] + theta["logits/bias"]


def _rows(H: jax.Array, job: Job) -> Array:
    i, h = np.divmod(job.given("row_numbers"), H.shape[1])
    return np.asarray(H[i, h]).reshape(len(i), -1)


if __name__ == "__main__":
    run({"hessian": hessian, "conv": convolutions, "gpu": gpu}, ("jax", "jaxlib", "numpy"))
