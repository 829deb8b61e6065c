"""hesscli: all that the others print, by the chain rule."""

import json
import sys

import numpy as np
from scipy.sparse.linalg import eigsh

import hesscli

path = sys.argv[1]
settings = {"model.weights": path, "data.source": path}
problem = hesscli.problem_from_config(settings=settings, activation="tanh")
engine = hesscli.ChainRule(problem)

H = engine.hessian("network")
eigenvalues = eigsh(H, k=5, which="LM", return_eigenvectors=False)
theta = np.concatenate([t.ravel() for layer in problem.layers for t in (layer.kernel, layer.bias)])
form = H.quadratic_form(theta)
layers = hesscli.spectrum(problem, block="layer").results
trace = sum(layer.hessian.trace.value for layer in layers)

w = problem.layers[1].kernel
H_dense2 = engine.hessian("dense2/kernel")
G_dense2 = engine.gauss_newton("dense2/kernel")
dense, gauss_newton = H_dense2.to_dense(), G_dense2.to_dense()
J = engine.jacobian("dense2/kernel")

found = {
    "eigenvalues of the network": sorted(map(float, eigenvalues), key=abs, reverse=True),
    "trace of the network": trace,
    "vᵀHv of the network": form,
    "vᵀHv of dense2/kernel": H_dense2.quadratic_form(w),
    "vᵀGv of dense2/kernel": G_dense2.quadratic_form(w),
    "‖H‖_F of dense2/kernel": float(np.linalg.norm(dense)),
    "diagonal of H of dense2/kernel": [float(np.diag(dense).min()), float(np.diag(dense).max())],
    "diagonal of G of dense2/kernel": [
        float(np.diag(gauss_newton).min()),
        float(np.diag(gauss_newton).max()),
    ],
    "‖J‖_F of dense2/kernel": float(np.linalg.norm(J.rows(0, J.shape[0]))),
}
print(json.dumps(found, indent=1, ensure_ascii=False))
