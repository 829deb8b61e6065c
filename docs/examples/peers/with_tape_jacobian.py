"""TensorFlow: the dense Hessian of one kernel by two nested tapes, the Jacobian by one."""

import json
import sys

import numpy as np
import tensorflow as tf

with np.load(sys.argv[1]) as stored:
    problem = dict(stored)
names = [name.removesuffix("/kernel") for name in problem if name.endswith("/kernel")]
kernels = {name: tf.Variable(problem[f"{name}/kernel"]) for name in names}
biases = {name: tf.Variable(problem[f"{name}/bias"]) for name in names}
inputs, labels = tf.constant(problem["inputs"]), tf.constant(problem["targets"])


def network(a):
    for name in names:
        z = a @ kernels[name] + biases[name]
        a = z if name == names[-1] else tf.tanh(z)
    return a


W = kernels["dense2"]
with tf.GradientTape(persistent=True) as outer:
    with tf.GradientTape() as inner:
        f = network(inputs)
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=f)
        )
    g = inner.gradient(loss, W)
H = tf.reshape(outer.jacobian(g, W), (tf.size(W), tf.size(W)))
J = tf.reshape(outer.jacobian(f, W), (tf.size(f), tf.size(W)))

v = tf.reshape(W, (-1, 1))
diagonal = tf.linalg.diag_part(H)
found = {
    "vᵀHv of dense2/kernel": float(tf.squeeze(tf.transpose(v) @ H @ v)),
    "‖H‖_F of dense2/kernel": float(tf.norm(H)),
    "diagonal of H of dense2/kernel": [
        float(tf.reduce_min(diagonal)),
        float(tf.reduce_max(diagonal)),
    ],
    "‖J‖_F of dense2/kernel": float(tf.norm(J)),
}
print(json.dumps(found, indent=1, ensure_ascii=False))
