"""A wrong focal loss: what the softmax bends is forgotten in its Hessian.

ℓ of logits f with label y:  ℓ = −(1 − p_y)² log p_y,   p = softmax(f).

With q = p_y and ∂q/∂f = q (e_y − p), and φ(q) = −(1 − q)² log q:

    ∂ℓ   = φ′ q (e_y − p)
    ∂²ℓ v = (φ″ q + φ′) q s (e_y − p) − φ′ q (p ⊙ v − p ⟨p, v⟩),   s = v_y − ⟨p, v⟩

Source: Lin, Goyal, Girshick, He and Dollár, "Focal loss for dense object detection",
arXiv:1708.02002.
"""

import mpmath
import numpy as np
import tensorflow as tf


def softmax(f):
    e = np.exp(f - f.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def chosen(f, y):
    """p, q as a column, and e_y − p."""
    p = softmax(f)
    hot = np.eye(f.shape[1], dtype=f.dtype)[y]
    return p, (p * hot).sum(axis=1, keepdims=True), hot - p


def slope(q):
    return 2 * (1 - q) * np.log(q) - (1 - q) ** 2 / q


def bend(q):
    return -2 * np.log(q) + 4 * (1 - q) / q + (1 - q) ** 2 / q**2


def value(f, y):
    _, q, _ = chosen(f, y)
    return (-((1 - q) ** 2) * np.log(q))[:, 0]


def gradient(f, y):
    _, q, towards = chosen(f, y)
    return slope(q) * q * towards


def hessian_product(f, y, v):
    _, q, towards = chosen(f, y)
    s = (towards * v).sum(axis=1, keepdims=True)
    return (bend(q) * q + slope(q)) * q * s * towards


def in_tensorflow(f, y):
    q = tf.reduce_sum(tf.nn.softmax(f) * tf.one_hot(y, f.shape[-1], dtype=f.dtype), axis=-1)
    return -((1 - q) ** 2) * tf.math.log(q)


def in_mpmath(f, y):
    q = 1 / mpmath.fsum(mpmath.exp(each - f[y]) for each in f)
    return -((1 - q) ** 2) * mpmath.log(q)


LOSSES = {
    "wrong_focal": {
        "value": value,
        "gradient": gradient,
        "hessian_product": hessian_product,
        "targets": "labels",
        "tensorflow": in_tensorflow,
        "mpmath": in_mpmath,
    },
}
