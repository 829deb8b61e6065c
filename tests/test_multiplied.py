"""Products with a layer's input, whose columns are dense, nearly 0, or 0 in all examples."""

from __future__ import annotations

import numpy as np
import pytest
from networks import make_problem

from hesscli.nodes.multiplied import Multiplied
from hesscli.problem.graph import Array
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.engine import ChainRule


def inputs_of_three_kinds(examples: int) -> Array:
    """Columns 0 to 4 are dense, 5 to 7 hold one number each, 8 and 9 none."""
    a = np.random.default_rng(0).standard_normal((examples, 10))
    a[:, 5:] = 0
    a[[3, examples // 2, examples - 1], [5, 6, 7]] = 1.5, -2.0, 0.25
    return a


@pytest.mark.parametrize("columns", [1, 30, 100])
@pytest.mark.parametrize("chosen", [slice(None), slice(10, 90)])
def test_products_are_those_of_the_whole_array(columns: int, chosen: slice) -> None:
    a = inputs_of_three_kinds(120)
    split = Multiplied(a)
    assert split.dense.shape == (120, 5)
    assert split.sparse_columns.tolist() == [5, 6, 7]
    generator = np.random.default_rng(1)
    V = generator.standard_normal((10, columns))
    Y = generator.standard_normal((len(a[chosen]), columns))
    part = split.part(chosen)
    np.testing.assert_allclose(part.times(V), a[chosen] @ V, rtol=1e-12, atol=1e-12)
    of_transposed = part.transposed_times(Y)
    np.testing.assert_allclose(of_transposed, a[chosen].T @ Y, rtol=1e-12, atol=1e-12)


def test_an_array_without_such_columns_is_not_copied() -> None:
    a = np.random.default_rng(0).standard_normal((20, 6))
    assert Multiplied(a).dense is a


@pytest.mark.parametrize("parameter", ["dense1/kernel", "dense1"])
def test_a_block_of_such_inputs_is_its_definition(parameter: str) -> None:
    """H[(i,h),(j,l)] = Σ_n a_n[i] a_n[j] S_n[h,l], by rows, densely and in products."""
    a = inputs_of_three_kinds(120)
    a[::2, :3] = 0
    drawn = make_problem((10, 4, 3), "tanh", examples=120)
    problem = type(drawn)(drawn.graph, a, drawn.targets, drawn.loss)
    H = ChainRule(problem).hessian(parameter)
    assert isinstance(H, DenseBlock)
    expected = np.einsum("ni,nj,nhl->ihjl", H.a, H.a, H.S).reshape(H.shape)
    np.testing.assert_allclose(H.to_dense(), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(H.rows(5, 30), expected[5:30], rtol=1e-12, atol=1e-14)
    V = np.random.default_rng(2).standard_normal((H.shape[0], 3))
    np.testing.assert_allclose(H.matmat(V), expected @ V, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(H @ V[:, 0], expected @ V[:, 0], rtol=1e-11, atol=1e-13)
