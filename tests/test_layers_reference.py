"""H·v of networks of one layer each is JAX's, which layers_reference.py wrote down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layer_networks import CASES

from hesscli.problem.graph import Array
from hesscli.problem.layers import planned
from hesscli.problem.layertypes import TYPES
from hesscli.problem.network import Loss, Problem
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import NETWORK

_FILE = Path(__file__).parent / "reference" / "layers.json"
ANSWERS: Mapping[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))["networks"]


@pytest.mark.parametrize("name", ANSWERS)
def test_products_are_jax_s_to_1e_12(name: str) -> None:
    answer = ANSWERS[name]
    tensors = {key: np.array(of) for key, of in answer["tensors"].items()}
    plan = planned(*CASES[name], TYPES)
    assert {**plan.tensors, **plan.constants} == {key: of.shape for key, of in tensors.items()}
    inputs, targets = np.array(answer["inputs"]), np.array(answer["targets"])
    problem = Problem(plan.graph(tensors), inputs, targets, Loss())
    for engine in (ChainRule, Autodiff):
        H = engine(problem).hessian(NETWORK)

        def vector(of: Mapping[str, Any], names: tuple[str, ...] = H.layout.tensors) -> Array:
            return np.concatenate([np.array(of[key]).reshape(-1) for key in names])

        right = vector(answer["Hv"])
        assert np.abs(H @ vector(answer["v"]) - right).max() <= 1e-12 * np.abs(right).max()
