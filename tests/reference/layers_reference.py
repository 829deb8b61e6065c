"""H·v of small networks with one layer each of a type that JAX has no name for, in float64.

pip install jax==0.10.2 && python layers_reference.py layers.json

Every layer is written out with jax.numpy and lax. Parameters and directions are normal numbers.
"""

import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

jax.config.update("jax_enable_x64", True)
GENERATOR = np.random.default_rng(17)
NUMBERS, IMAGES = ("NWC", "WIO", "NWC"), ("NHWC", "HWIO", "NHWC")


def normalized(x, theta, epsilon=1e-3):
    """Batch normalization over the last axis, and tanh, below the layer in question."""
    mean, variance = theta["below/moving_mean"], theta["below/moving_variance"]
    y = theta["below/gamma"] * (x - mean) / jnp.sqrt(variance + epsilon) + theta["below/beta"]
    return jnp.tanh(y)


def logits(y, theta):
    flat = jnp.tanh(y.reshape(len(y), -1))
    return flat @ theta["logits/kernel"] + theta["logits/bias"]


def conv1d(x, theta):
    of = {"window_strides": (2,), "padding": "VALID", "dimension_numbers": NUMBERS}
    return lax.conv_general_dilated(x, theta["layer/kernel"], **of) + theta["layer/bias"]


def separable_conv2d(x, theta):
    kernel = theta["layer/depthwise_kernel"]
    *size, channels, multiplier = kernel.shape
    kernel = kernel.reshape(*size, 1, channels * multiplier)
    of = {"window_strides": (1, 1), "padding": "VALID", "dimension_numbers": IMAGES}
    y = lax.conv_general_dilated(x, kernel, feature_group_count=channels, **of)
    return y @ theta["layer/pointwise_kernel"][0, 0] + theta["layer/bias"]


def conv2d_transpose(padding, strides):
    def of(x, theta):
        y = lax.conv_transpose(
            x,
            theta["layer/kernel"],
            strides,
            padding,
            dimension_numbers=IMAGES,
            transpose_kernel=True,
        )
        return y + theta["layer/bias"]

    return of


def group_normalization(x, theta):
    groups = x.reshape(*x.shape[:-1], 2, -1)
    mean = groups.mean((1, 2, 4), keepdims=True)
    variance = ((groups - mean) ** 2).mean((1, 2, 4), keepdims=True)
    y = ((groups - mean) / jnp.sqrt(variance + 1e-3)).reshape(x.shape)
    return theta["layer/gamma"] * y + theta["layer/beta"]


def einsum_dense(x, theta):
    return jnp.einsum("abc,cde->abde", x, theta["layer/kernel"]) + theta["layer/bias"]


def up_sampling2d(x, theta):
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 3, axis=2)


def cropping2d(x, theta):
    return x[:, 1:, 2:-1]


def permute(x, theta):
    return x.transpose(0, 3, 1, 2)


def maximum(x, theta):
    functions = (jnp.tanh, jax.nn.sigmoid, jnp.sin)
    first, second, third = (
        function(x @ theta[f"branch{i}/kernel"] + theta[f"branch{i}/bias"])
        for i, function in enumerate(functions)
    )
    return jnp.maximum(jnp.maximum(first, second), third)


def dot(x, theta):
    first = jnp.tanh(x @ theta["branch0/kernel"] + theta["branch0/bias"])
    of = {"window_strides": (1,), "padding": "VALID", "dimension_numbers": NUMBERS}
    second = lax.conv_general_dilated(x, theta["branch1/kernel"], **of) + theta["branch1/bias"]
    return jnp.einsum("nic,njc->nij", first, second)


def one(shape, layer, tensors):
    """A network of one layer, as its input's shape, its function and its tensors' shapes."""
    channels = shape[-1:]
    below = {f"below/{role}": channels for role in ("gamma", "beta")}
    constants = {f"below/{role}": channels for role in ("moving_mean", "moving_variance")}
    own = {f"layer/{role}": of for role, of in tensors.items()}
    return shape, lambda x, theta: layer(normalized(x, theta), theta), below | own, constants


def branches(shape, layer, tensors):
    return shape, layer, tensors, {}


def dense(i):
    return {f"branch{i}/kernel": (3, 2), f"branch{i}/bias": (2,)}


NETWORKS = {
    "conv1d": one((6, 2), conv1d, {"kernel": (3, 2, 2), "bias": (2,)}),
    "separable_conv2d": one(
        (4, 5, 2),
        separable_conv2d,
        {"depthwise_kernel": (2, 2, 2, 2), "pointwise_kernel": (1, 1, 4, 2), "bias": (2,)},
    ),
    "conv2d_transpose": one(
        (2, 3, 2), conv2d_transpose("SAME", (2, 2)), {"kernel": (3, 3, 2, 2), "bias": (2,)}
    ),
    "conv2d_transpose valid": one(
        (2, 2, 2), conv2d_transpose("VALID", (3, 2)), {"kernel": (2, 3, 1, 2), "bias": (1,)}
    ),
    "group_normalization": one((2, 3, 4), group_normalization, {"gamma": (4,), "beta": (4,)}),
    "einsum_dense": one((3, 2), einsum_dense, {"kernel": (2, 2, 2), "bias": (2, 2)}),
    "up_sampling2d": one((2, 3, 2), up_sampling2d, {}),
    "cropping2d": one((4, 5, 2), cropping2d, {}),
    "permute": one((4, 5, 2), permute, {}),
    "maximum": branches((3,), maximum, dense(0) | dense(1) | dense(2)),
    "dot of rows": branches(
        (3, 2),
        dot,
        {
            "branch0/kernel": (2, 2),
            "branch0/bias": (2,),
            "branch1/kernel": (2, 2, 2),
            "branch1/bias": (2,),
        },
    ),
}


def drawn(shapes):
    return {name: GENERATOR.standard_normal(shape) for name, shape in shapes.items()}


def answer(shape, layer, tensors, constants, examples=3):
    x = GENERATOR.standard_normal((examples, *shape))
    y = GENERATOR.integers(0, 3, examples)
    theta, held = drawn(tensors), {name: np.abs(of) for name, of in drawn(constants).items()}
    units = math.prod(layer(x, theta | held).shape[1:])
    theta |= drawn({"logits/kernel": (units, 3), "logits/bias": (3,)})
    V = drawn({name: of.shape for name, of in theta.items()})

    def loss(theta):
        logarithms = jax.nn.log_softmax(logits(layer(x, theta | held), theta))
        return -jnp.take_along_axis(logarithms, y[:, None], axis=1).mean()

    HV = jax.jvp(jax.grad(loss), (theta,), (V,))[1]
    arrays = {"inputs": x.reshape(examples, -1), "targets": y}
    found = {"tensors": theta | held, "v": V, "Hv": HV}
    return {name: of.tolist() for name, of in arrays.items()} | {
        name: {key: np.asarray(of).tolist() for key, of in group.items()}
        for name, group in found.items()
    }


answers = {name: answer(*network) for name, network in NETWORKS.items()}
found = {"jax": jax.__version__, "networks": answers}
with open(sys.argv[1], "w", encoding="utf-8") as stream:
    json.dump(found, stream)
    stream.write("\n")
