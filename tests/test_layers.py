"""Each type of layer: the chain rule, autodiff and finite differences agree in every block."""

from __future__ import annotations

import numpy as np
import pytest
from layer_networks import CASES, network

from hesscli.problem.layertypes import TYPES
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.autodiff.first import AutodiffFirst
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.chain_rule.first import ChainFirst
from hesscli.witnesses.layout import INPUT, NETWORK

RTOL = 1e-11


def close(found: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.abs(found - right).max() <= RTOL * max(1e-3, np.abs(right).max()))


def test_every_type_has_a_case() -> None:
    covered = {spec.type for specs, _ in CASES.values() for spec in specs}
    assert set(TYPES) <= covered


@pytest.mark.parametrize("name", CASES)
def test_the_witnesses_agree_on_every_term_of_every_block(name: str) -> None:
    problem = network(*CASES[name])
    chain_rule, autodiff = ChainRule(problem), Autodiff(problem)
    for block in (NETWORK, f"{INPUT}[1]"):
        H, G, C = (
            getattr(chain_rule, term)(block).to_dense()
            for term in ("hessian", "gauss_newton", "curvature")
        )
        assert close(G + C, H)
        assert close(H, autodiff.hessian(block).to_dense())
        assert close(G, autodiff.gauss_newton(block).to_dense())
    first, other = ChainFirst(chain_rule), AutodiffFirst(autodiff)
    assert close(first.gradient(NETWORK), other.gradient(NETWORK))
    J = first.jacobian(NETWORK).rows(0, 6)
    assert close(J, other.jacobian(NETWORK).rows(0, 6))
