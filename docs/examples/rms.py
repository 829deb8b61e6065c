"""A normalization by the root mean square,  y = γ ⊙ x̂,   x̂ = i x,   i = 1 / √(mean x² + ε).

With the symmetric P(r) = i (r − x̂ mean(x̂ ⊙ r)), by which x̂ moves, Rx̂ = P(Rx):

    push   γ ⊙ P(Rx) + V_γ ⊙ x̂
    pull   P(γ ⊙ g);   at γ: Σ_n x̂ ⊙ g
    bend   −i mean(x̂ ⊙ Rx) P(h) − i (Rx̂ mean(x̂ ⊙ h) + x̂ mean(Rx̂ ⊙ h)) + P(V_γ ⊙ g),   h = γ ⊙ g;
           at γ: Σ_n Rx̂ ⊙ g

Source: Zhang and Sennrich, "Root mean square layer normalization", arXiv:1910.07467.
"""

import mpmath
import numpy as np
import tensorflow as tf


def mean(x):
    return x.mean(axis=-1, keepdims=True)


def parts(x, epsilon):
    """x̂ and i, with an axis for the directions."""
    i = 1 / np.sqrt(mean(x * x) + x.dtype.type(epsilon))
    return (i * x)[:, None], i[:, None]


def projected(x, i, r):
    return i * (r - x * mean(x * r))


def forward(x, theta, epsilon):
    return theta["gamma"] * parts(x, epsilon)[0][:, 0]


def push(x, theta, Rx, V, epsilon):
    normal, i = parts(x, epsilon)
    return theta["gamma"] * projected(normal, i, Rx) + V["gamma"] * normal


def pull(x, theta, g, epsilon):
    normal, i = parts(x, epsilon)
    return projected(normal, i, theta["gamma"] * g), {"gamma": (normal * g).sum(axis=0)}


def bend(x, theta, g, Rx, V, epsilon):
    normal, i = parts(x, epsilon)
    g = g[:, None]
    h, moved = theta["gamma"] * g, projected(normal, i, Rx)
    at_x = -i * mean(normal * Rx) * projected(normal, i, h)
    at_x = at_x - i * (moved * mean(normal * h) + normal * mean(moved * h))
    at_x = at_x + projected(normal, i, V["gamma"] * g)
    return at_x, {"gamma": (moved * g).sum(axis=0)}


def in_tensorflow(x, theta, epsilon):
    square = tf.reduce_mean(x * x, axis=-1, keepdims=True)
    return theta["gamma"] * x / tf.sqrt(square + tf.constant(epsilon, x.dtype))


def in_mpmath(x, theta, epsilon):
    return theta["gamma"] * x / mpmath.sqrt(mpmath.fsum(x * x) / len(x) + mpmath.mpf(epsilon))


LAYERS = {
    "rms": {
        "forward": forward,
        "push": push,
        "pull": pull,
        "bend": bend,
        "arguments": {"epsilon": 1e-6},
        "shapes": lambda shape: {"gamma": shape},
        "initializers": {"gamma": "ones"},
        "tensorflow": in_tensorflow,
        "mpmath": in_mpmath,
    },
}
