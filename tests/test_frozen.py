"""Frozen layers: the network is what Keras trains, and Keras regularizes nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hesscli import InputError, entry, problem_from_keras, spectrum, train, verify
from hesscli.problem.network import Problem
from hesscli.system.tensorflow import load_tensorflow
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import layout_of

load_tensorflow()
keras = pytest.importorskip("keras")
# Keras 3.15 is not quite NumPy 2's when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

GENERATOR = np.random.default_rng(2)
X, Y = GENERATOR.standard_normal((6, 4)), GENERATOR.integers(0, 2, 6)


@pytest.fixture(scope="module")
def problem() -> Problem:
    keras.utils.set_random_seed(0)
    D: Any = keras.layers.Dense
    model = keras.Sequential(
        [
            keras.Input((4,)),
            D(5, "tanh", kernel_regularizer="l2", name="one"),
            D(3, "tanh", kernel_regularizer="l2", name="two", trainable=False),
            D(2, "softmax", name="three"),
        ]
    )
    model.compile(loss="sparse_categorical_crossentropy")
    # Keras's own loss is compared here: it has no penalty of the frozen layer.
    return problem_from_keras(model, X, Y)


def test_the_network_is_what_is_trained(problem: Problem) -> None:
    assert list(problem.penalties) == ["one/kernel"]
    layers = {tensor.partition("/")[0] for tensor in layout_of(problem, "network").tensors}
    assert layers == {"one", "three"}
    for block in ("network", "kernel"):
        result = verify(problem, block=block, witnesses=("chain_rule", "autodiff", "finite"))
        assert result.passed
    assert [row.layer for row in result.results] == ["one", "three"]


def test_a_frozen_layer_is_there_by_name(problem: Problem) -> None:
    result = verify(problem, layers=["two"])
    assert result.passed and [row.layer for row in result.results] == ["two"]
    assert entry(problem, "two/kernel[0,0]", "two/bias[1]").passed
    with pytest.raises(InputError, match="two"):
        entry(problem, "two/kernel[0,0]", "one/bias[1]")
    with pytest.raises(InputError, match="two"):
        train(problem, steps=1, batch_size="all")


def test_the_spectrum_is_that_of_the_trained_part(problem: Problem) -> None:
    H = ChainRule(problem).hessian("network").to_dense()
    assert H.shape == (25 + 8, 25 + 8)
    row = spectrum(problem, block="network").results[0]
    np.testing.assert_allclose(row.hessian.eigenvalues, np.linalg.eigvalsh(H), atol=1e-13)
