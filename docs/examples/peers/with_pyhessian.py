"""PyHessian: eigenvalues, trace and products of the whole network's Hessian."""

import json
import sys

import numpy as np
import torch
from pyhessian import hessian
from pyhessian.utils import group_product, hessian_vector_product
from torch_problem import load

torch.manual_seed(0)
model, loss, inputs, labels = load(sys.argv[1])

H = hessian(model, loss, data=(inputs, labels), cuda=False)
eigenvalues, _ = H.eigenvalues(maxIter=1000, tol=1e-8, top_n=5)
trace = np.mean(H.trace(maxIter=1000, tol=1e-4))

theta = [parameter.detach() for parameter in H.params]
form = group_product(theta, hessian_vector_product(H.gradsH, H.params, theta))

found = {
    "eigenvalues of the network": [float(value) for value in eigenvalues],
    "trace of the network (estimate)": float(trace),
    "vᵀHv of the network": form.item(),
}
print(json.dumps(found, indent=1, ensure_ascii=False))
