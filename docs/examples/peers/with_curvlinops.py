"""curvlinops: the Hessian and its Gauss-Newton term as linear operators."""

import json
import sys

import torch
from curvlinops import GGNLinearOperator, HessianLinearOperator, hutchinson_trace
from scipy.sparse.linalg import eigsh
from torch_problem import load

torch.manual_seed(0)
model, loss, inputs, labels = load(sys.argv[1])
data = [(inputs, labels)]

theta = [parameter for parameter in model.parameters() if parameter.requires_grad]
H = HessianLinearOperator(model, loss, theta, data)
eigenvalues = eigsh(H.to_scipy(), k=5, which="LM", return_eigenvectors=False)
trace = hutchinson_trace(H, num_matvecs=500)
v = torch.cat([parameter.detach().flatten() for parameter in theta])
form = v @ (H @ v)

W = [model[2].weight]
H_dense2 = HessianLinearOperator(model, loss, W, data)
G_dense2 = GGNLinearOperator(model, loss, W, data)
w = W[0].detach().flatten()
dense = H_dense2 @ torch.eye(len(w), dtype=w.dtype)

found = {
    "eigenvalues of the network": sorted(map(float, eigenvalues), key=abs, reverse=True),
    "trace of the network (estimate)": float(trace),
    "vᵀHv of the network": float(form),
    "vᵀHv of dense2/kernel": float(w @ (H_dense2 @ w)),
    "vᵀGv of dense2/kernel": float(w @ (G_dense2 @ w)),
    "‖H‖_F of dense2/kernel": float(torch.linalg.norm(dense)),
}
print(json.dumps(found, indent=1, ensure_ascii=False))
