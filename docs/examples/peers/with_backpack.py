"""BackPACK: diagonals and block products in the same backward pass as the gradient."""

import json
import sys

from backpack import backpack, extend
from backpack.extensions import HMP, DiagGGNExact, DiagHessian
from torch_problem import load

model, loss, inputs, labels = load(sys.argv[1])
model, loss = extend(model), extend(loss)
W = model[2].weight

with backpack(DiagHessian(), DiagGGNExact(), HMP()):
    loss(model(inputs), labels).backward()
    v = W.detach()[None]
    form = (v * W.hmp(v)).sum()

found = {
    "vᵀHv of dense2/kernel": form.item(),
    "diagonal of H of dense2/kernel": [W.diag_h.min().item(), W.diag_h.max().item()],
    "diagonal of G of dense2/kernel": [
        W.diag_ggn_exact.min().item(),
        W.diag_ggn_exact.max().item(),
    ],
}
print(json.dumps(found, indent=1, ensure_ascii=False))
