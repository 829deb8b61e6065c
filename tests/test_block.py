"""A block refuses what the memory cannot hold, and says what it would need."""

from __future__ import annotations

import numpy as np
import pytest
from networks import make_problem

from hesscli.config.build import build_problem
from hesscli.config.load import load_config, parse_override
from hesscli.system.errors import InputError
from hesscli.system.memory import available_memory, readable_size
from hesscli.witnesses.chain_rule.engine import ChainRule


def test_to_dense_refuses_with_the_size_beyond_the_memory_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hessian = ChainRule(make_problem((3, 4, 2), "tanh")).hessian("dense1/kernel")
    needed = 12 * 12 * 8
    monkeypatch.setattr("hesscli.system.memory.available_memory", lambda: needed)
    with pytest.raises(InputError, match=r"the dense 12 × 12 block needs 1\.2 kB and 1\.2 kB"):
        hessian.to_dense()
    monkeypatch.setattr("hesscli.system.memory.available_memory", lambda: 2 * needed)
    assert hessian.to_dense().shape == (12, 12)


def test_a_network_beyond_the_memory_is_refused_by_its_key() -> None:
    layers = parse_override("model.layers=[{units: 1000000000}, {units: 10}]")
    with pytest.raises(InputError, match=r"^model\.layers: the parameters need .* TB and .* free"):
        build_problem(load_config(None, [layers]))


def test_available_memory_is_what_can_be_allocated() -> None:
    available = available_memory()
    assert available is not None
    assert np.iinfo(np.int32).max / 100 < available < 2**50


@pytest.mark.parametrize(
    ("size", "text"), [(999, "999 B"), (4.4e9, "4.4 GB"), (1500, "1.5 kB"), (2e15, "2000.0 TB")]
)
def test_sizes_are_in_decimal_units(size: float, text: str) -> None:
    assert readable_size(size) == text
