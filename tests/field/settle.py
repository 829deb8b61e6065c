"""vᵀHv of every kernel of four models at 60 digits: who is right where truth.json and we differ.

    python tests/field/settle.py > tests/field/settled.json

The networks are written out here in mpmath, from Keras's weights. L(θ + hv) − 2 L(θ) + L(θ − hv)
over h², with h = 1e-15, has some 30 right digits. Nothing of hesscli is used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from mpmath import mp
from numpy.typing import NDArray

HERE, EXAMPLES, STEP = Path(__file__).parent, 16, -15
# Arrays of mpmath numbers.
Numbers = NDArray[Any]
Tensors = Mapping[str, Numbers]


def each(function: Callable[[Any], Any], values: Numbers) -> Numbers:
    found = np.empty(values.size, dtype=object)
    found[:] = [function(value) for value in values.reshape(-1)]
    return found.reshape(values.shape)


def exact(values: Any) -> Numbers:
    return each(lambda value: mp.mpf(float(value)), np.asarray(values))


def weighted(x: Numbers, W: Numbers) -> Numbers:
    """The product x W, without the numbers of x that are 0."""
    lit = [index for index, value in enumerate(x) if value != 0]
    return np.array([mp.fdot([x[i] for i in lit], column[lit]) for column in W.T], dtype=object)


def dense(theta: Tensors, name: str, x: Numbers) -> Numbers:
    return np.asarray(weighted(x, theta[f"{name}/kernel"]) + theta[f"{name}/bias"])


def conv(theta: Tensors, name: str, x: Numbers) -> Numbers:
    """3 × 3, stride 1, padding "same"."""
    W, n = theta[f"{name}/kernel"], len(x)
    padded = np.full((n + 2, n + 2, x.shape[2]), mp.mpf(0), dtype=object)
    padded[1:-1, 1:-1] = x
    rows = [
        [weighted(padded[i : i + 3, j : j + 3].reshape(-1), W.reshape(-1, W.shape[3]))
         for j in range(n)]
        for i in range(n)
    ]  # fmt: skip
    return np.asarray(np.array(rows, dtype=object) + theta[f"{name}/bias"])


def sigmoid(z: Any) -> Any:
    return 1 / (1 + mp.exp(-z))


def softplus(z: Any) -> Any:
    return max(z, 0) + mp.log1p(mp.exp(-abs(z)))


def layer_normalization(theta: Tensors, epsilon: Any, x: Numbers) -> Numbers:
    a, name = each(mp.tanh, dense(theta, "dense_32", x)), "layer_normalization"
    centered = a - mp.fsum(a) / len(a)
    deviation = mp.sqrt(mp.fsum(centered**2) / len(a) + epsilon)
    y = centered / deviation * theta[f"{name}/gamma"] + theta[f"{name}/beta"]
    return dense(theta, "dense_33", y)


def residual(theta: Tensors, _: Any, x: Numbers) -> Numbers:
    a = each(mp.tanh, dense(theta, "dense_37", x))
    return dense(theta, "dense_38", a + each(sigmoid, dense(theta, "dense_39", a)))


def gated(theta: Tensors, _: Any, x: Numbers) -> Numbers:
    a, b = each(mp.tanh, dense(theta, "dense_44", x)), each(sigmoid, dense(theta, "dense_45", x))
    return dense(theta, "dense_46", a * b)


def residual_conv(theta: Tensors, epsilon: Any, x: Numbers) -> Numbers:
    c, name = conv(theta, "conv2d_3", x.reshape(28, 28, 1)), "batch_normalization_2"
    slope = theta[f"{name}/gamma"] / each(mp.sqrt, theta[f"{name}/moving_variance"] + epsilon)
    a = each(mp.tanh, (c - theta[f"{name}/moving_mean"]) * slope + theta[f"{name}/beta"])
    z = each(softplus, c + conv(theta, "conv2d_4", a)).reshape(-1, 4)
    return dense(theta, "dense_43", np.array([mp.fsum(of) / len(z) for of in z.T], dtype=object))


def crossentropy(f: Numbers, label: int) -> Any:
    largest = max(f)
    return largest + mp.log(mp.fsum(mp.exp(value - largest) for value in f)) - f[label]


def main() -> None:
    mp.dps = 60
    h = mp.mpf(10) ** STEP
    with np.load(HERE / "data.npz") as data:
        inputs = exact(data["x_train"][:EXAMPLES].reshape(EXAMPLES, -1) / 255.0)
        labels = data["y_train"][:EXAMPLES].tolist()
    found: dict[str, dict[str, float]] = {}
    for network in (layer_normalization, residual, gated, residual_conv):
        name = f"{network.__name__}.keras"
        model = keras.models.load_model(HERE / name, compile=False)
        theta = {
            f"{layer.name}/{weight.path.rpartition('/')[2]}": exact(weight)
            for layer in model.layers
            for weight in layer.weights
        }
        epsilons = [mp.mpf(of.epsilon) for of in model.layers if hasattr(of, "epsilon")]

        def loss(
            at: Tensors, network: Any = network, epsilon: Any = (epsilons or [None])[0]
        ) -> Any:
            each_loss = (
                crossentropy(network(at, epsilon, x), y)
                for x, y in zip(inputs, labels, strict=True)
            )
            return mp.fsum(each_loss) / EXAMPLES

        here, found[name] = loss(theta), {}
        for path in [path for path in theta if path.endswith("kernel")]:
            v = theta[path]
            there = [loss({**theta, path: v * (1 + step)}) for step in (h, -h)]
            found[name][path] = float((mp.fsum(there) - 2 * here) / h**2)
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
