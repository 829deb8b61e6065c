"""A gated linear unit,  y = a ⊙ s(b),   a = x W + c,   b = x U + d,   s(b) = 1 / (1 + e^−b).

With s′ = s (1 − s) and s″ = s′ (1 − 2 s), how a and b move, and a cotangent g of y:

    Ra = Rx W + x V_W + V_c,   Rb = Rx U + x V_U + V_d
    push   s Ra + a s′ Rb
    pull   g_a = s g,   g_b = a s′ g;   at x: g_a Wᵀ + g_b Uᵀ,   at W: xᵀ g_a,   at c: Σ g_a, …
    bend   Rg_a = g s′ Rb,   Rg_b = g (s′ Ra + a s″ Rb), pulled likewise, and
           at x: g_a V_Wᵀ + g_b V_Uᵀ,   at W: Rxᵀ g_a,   at U: Rxᵀ g_b

Source: Dauphin, Fan, Auli and Grangier, "Language modeling with gated convolutional networks",
arXiv:1612.08083.
"""

import mpmath
import numpy as np
import tensorflow as tf


def parts(x, theta):
    """a, and s with its two derivatives at b."""
    s = 1 / (1 + np.exp(-(x @ theta["gate_kernel"] + theta["gate_bias"])))
    return x @ theta["kernel"] + theta["bias"], s, s * (1 - s), s * (1 - s) * (1 - 2 * s)


def moves(x, theta, Rx, V):
    """Ra and Rb (n, k, units)."""
    return (
        Rx @ theta[kernel] + np.einsum("ni,kiu->nku", x, V[kernel]) + V[bias]
        for kernel, bias in (("kernel", "bias"), ("gate_kernel", "gate_bias"))
    )


def down(x, theta, g_a, g_b):
    """What cotangents g_a and g_b (n, k, units) of a and b are worth."""
    return g_a @ theta["kernel"].T + g_b @ theta["gate_kernel"].T, {
        "kernel": np.einsum("ni,nku->kiu", x, g_a),
        "bias": g_a.sum(axis=0),
        "gate_kernel": np.einsum("ni,nku->kiu", x, g_b),
        "gate_bias": g_b.sum(axis=0),
    }


def forward(x, theta):
    a, s, _, _ = parts(x, theta)
    return a * s


def push(x, theta, Rx, V):
    a, s, slope, _ = (part[:, None] for part in parts(x, theta))
    Ra, Rb = moves(x, theta, Rx, V)
    return s * Ra + a * slope * Rb


def pull(x, theta, g):
    a, s, slope, _ = (part[:, None] for part in parts(x, theta))
    return down(x, theta, s * g, a * slope * g)


def bend(x, theta, g, Rx, V):
    a, s, slope, curve = parts(x, theta)
    g_a, g_b = s * g, a * slope * g
    Ra, Rb = moves(x, theta, Rx, V)
    Rg_a = (g * slope)[:, None] * Rb
    Rg_b = (g * slope)[:, None] * Ra + (g * a * curve)[:, None] * Rb
    at_x, at_theta = down(x, theta, Rg_a, Rg_b)
    at_x = at_x + np.einsum("nu,kiu->nki", g_a, V["kernel"])
    at_x = at_x + np.einsum("nu,kiu->nki", g_b, V["gate_kernel"])
    at_theta["kernel"] += np.einsum("nki,nu->kiu", Rx, g_a)
    at_theta["gate_kernel"] += np.einsum("nki,nu->kiu", Rx, g_b)
    return at_x, at_theta


def shapes(shape, units):
    return {
        "kernel": (shape[-1], units),
        "bias": (units,),
        "gate_kernel": (shape[-1], units),
        "gate_bias": (units,),
    }


def in_tensorflow(x, theta):
    gate = tf.sigmoid(x @ theta["gate_kernel"] + theta["gate_bias"])
    return (x @ theta["kernel"] + theta["bias"]) * gate


def in_mpmath(x, theta):
    b = x @ theta["gate_kernel"] + theta["gate_bias"]
    gate = np.array([1 / (1 + mpmath.exp(-each)) for each in b], dtype=object)
    return (x @ theta["kernel"] + theta["bias"]) * gate


LAYERS = {
    "glu": {
        "forward": forward,
        "push": push,
        "pull": pull,
        "bend": bend,
        "arguments": {"units": 3},
        "shapes": shapes,
        "initializers": {
            "kernel": "glorot_uniform",
            "bias": "zeros",
            "gate_kernel": "glorot_uniform",
            "gate_bias": "zeros",
        },
        "tensorflow": in_tensorflow,
        "mpmath": in_mpmath,
    },
}
