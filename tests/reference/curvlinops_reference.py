"""Fisher matrices and Kronecker factors of a small network by curvlinops, in float64.

pip install curvlinops-for-pytorch==3.0.1 && python curvlinops_reference.py curvlinops.json
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from curvlinops import (
    EFLinearOperator,
    EKFACLinearOperator,
    GGNLinearOperator,
    KFACInverseLinearOperator,
    KFACLinearOperator,
)

torch.set_default_dtype(torch.float64)
GENERATOR = np.random.default_rng(7)
W1, W2 = GENERATOR.standard_normal((4, 3)), GENERATOR.standard_normal((3, 3))
b1, b2 = GENERATOR.standard_normal(3), GENERATOR.standard_normal(3)
DAMPING = 0.1
X, y = GENERATOR.standard_normal((6, 4)), GENERATOR.integers(0, 3, 6)
net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 3))
with torch.no_grad():
    for layer, W, b in ((net[0], W1, b1), (net[2], W2, b2)):
        layer.weight.copy_(torch.tensor(W.T))
        layer.bias.copy_(torch.tensor(b))
loss = torch.nn.CrossEntropyLoss(reduction="mean")
data = [(torch.tensor(X), torch.tensor(y))]


def dense(kind, weight, **options):
    """The matrix with parameters in the order of Keras's (inputs, units)."""
    return in_order(kind(net, loss, [weight], data, **options), weight)


def inverse(kind, weight):
    """(X + λI)⁻¹ in the same order."""
    X = kind(net, loss, [weight], data, fisher_type="type-2")
    return in_order(KFACInverseLinearOperator(X, DAMPING, use_exact_damping=True), weight)


def in_order(operator, weight):
    units, inputs = weight.shape
    order = np.arange(units * inputs).reshape(units, inputs).T.reshape(-1)
    columns = operator @ torch.eye(units * inputs)
    return columns.detach().numpy()[np.ix_(order, order)].tolist()


WEIGHTS = (("dense1/kernel", net[0].weight), ("dense2/kernel", net[2].weight))
arrays = {"W1": W1, "b1": b1, "W2": W2, "b2": b2, "X": X, "y": y}
found = {
    "curvlinops": version("curvlinops-for-pytorch"),
    "torch": torch.__version__,
    **{name: array.tolist() for name, array in arrays.items()},
    "blocks": {
        name: {
            "gauss_newton": dense(GGNLinearOperator, weight),
            "empirical": dense(EFLinearOperator, weight),
            "kfac": dense(KFACLinearOperator, weight, fisher_type="type-2"),
            "kfac_empirical": dense(KFACLinearOperator, weight, fisher_type="empirical"),
            "ekfac": dense(EKFACLinearOperator, weight, fisher_type="type-2"),
        }
        for name, weight in WEIGHTS
    },
    "damping": DAMPING,
    "inverses": {
        name: {
            "kfac": inverse(KFACLinearOperator, weight),
            "ekfac": inverse(EKFACLinearOperator, weight),
        }
        for name, weight in WEIGHTS
    },
}
Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
