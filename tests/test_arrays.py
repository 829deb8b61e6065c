"""One set of formulas runs on any array library, and gives NumPy's numbers to rounding.

array-api-strict refuses whatever is outside the array API standard, and its second device whatever
would become a NumPy array without being asked to. Where there is a GPU, CuPy is compared as well.
NumPy's own numbers are judged by the other witnesses elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from layer_networks import CASES, network
from networks import make_problem, random_targets
from scipy import special

from hesscli.nodes.activations import derivatives
from hesscli.nodes.losses import loss_derivatives
from hesscli.nodes.passes import CURVATURE, GAUSS_NEWTON, HESSIAN, Term
from hesscli.problem.graph import Activation, Penalty
from hesscli.problem.names import ACTIVATIONS, DTYPES, LOSSES
from hesscli.problem.network import Loss, Problem
from hesscli.problem.placed import placed
from hesscli.system import xp
from hesscli.system.arrays import dtype_of, from_device, is_numpy
from hesscli.system.devices import Device, open_device
from hesscli.system.errors import InputError
from hesscli.witnesses.chain_rule.descent import Descending
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.finite.engine import FiniteDifferences

SECOND = strict.Device("device1")
STRICT = Device(
    "strict", put=lambda array: strict.asarray(array, device=SECOND, copy=True), fetch=from_device
)
TERMS = (HESSIAN, GAUSS_NEWTON, CURVATURE)
BLOCKS = ("hessian", "gauss_newton", "curvature")
# Of the largest number: sums are in another order, and some functions are other programs'.
ROUNDING = {"float64": 1e-13, "float32": 3e-6}
of_types = pytest.mark.parametrize("dtype", DTYPES)


class Pair:
    """The same computation by NumPy and on ``device``, whose results are compared."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def same(self, there: Any, here: Any, factor: float = 100.0) -> None:
        assert not is_numpy(there)
        found = self.device.fetch(there)
        assert (found.shape, found.dtype) == (here.shape, here.dtype)
        assert np.array_equal(np.isfinite(found), np.isfinite(here))
        largest = np.abs(here[np.isfinite(here)]).max(initial=1e-3)
        finite = np.where(np.isfinite(here), found - here, 0)
        assert np.abs(finite).max(initial=0) <= factor * ROUNDING[here.dtype.name] * largest

    def products(
        self, problem: Problem, names: Sequence[str], terms: Sequence[str] = BLOCKS
    ) -> None:
        """The output, gradients, products in each term and rows."""
        there, here = ChainRule(placed(problem, self.device)), ChainRule(problem)
        self.same(there.linearized.f, here.linearized.f)
        for name in names:
            self.same(there.gradient(name), here.gradient(name))
            size = here.hessian(name).shape[0]
            V = np.random.default_rng(1).standard_normal((size, 2)).astype(problem.dtype)
            for of in terms:
                H, expected = getattr(there, of)(name), getattr(here, of)(name)
                self.same(H @ self.device.put(V), expected @ V)
            self.same(H.rows(1, 2), expected.rows(1, 2))

    def dense(self, problem: Problem, names: Sequence[str]) -> None:
        """All entries, the diagonal and quadratic forms."""
        there, here = ChainRule(placed(problem, self.device)), ChainRule(problem)
        rounding = 100 * ROUNDING[problem.dtype.name]
        for name in names:
            H, expected = there.hessian(name), here.hessian(name)
            dense = expected.to_dense()
            self.same(H.to_dense(), dense)
            diagonal = self.device.fetch(H.diagonal())
            assert diagonal.dtype == np.float64
            assert np.abs(diagonal - expected.diagonal()).max() <= rounding * np.abs(dense).max()
            v = np.random.default_rng(2).standard_normal(len(dense)).astype(problem.dtype)
            form = H.quadratic_form(self.device.put(v))
            terms = np.abs(v) @ np.abs(dense) @ np.abs(v)
            assert abs(form - expected.quadratic_form(v)) <= rounding * terms

    def values(
        self, problem: Problem, split: Sequence[str], terms: Sequence[Term] = (HESSIAN,)
    ) -> None:
        """S at every value in each term, g, I and O at those of ``split``, rows of the Jacobian."""
        there, here = ChainRule(placed(problem, self.device)), ChainRule(problem)
        every = slice(0, problem.examples)
        for term in terms:
            each = zip(there.sweep(every, term), here.sweep(every, term), strict=True)
            for (_, S), (_, expected) in each:
                self.same(S, expected)
        for value in split:
            found, expected = (engine.node_terms(value, 0, 2) for engine in (there, here))
            for letter in "gIOS":
                self.same(getattr(found, letter), getattr(expected, letter))
        J, expected = there.jacobian("network"), here.jacobian("network")
        self.same(J.rows(1, 3), expected.rows(1, 3))

    def layer(self, case: str) -> None:
        specs, shape = CASES[case]
        problem = network(specs, shape)
        self.products(problem, ["network"])
        self.products(problem, ["input"], BLOCKS[:1])
        of_layer = [node for node in problem.graph.nodes if node.layer == "layer"]
        self.values(problem, sorted({value for node in of_layer for value in node.inputs}))


@pytest.fixture
def pair() -> Pair:
    return Pair(STRICT)


def test_the_library_refuses_what_a_gpu_refuses() -> None:
    with pytest.raises(RuntimeError):
        np.asarray(STRICT.put(np.ones(3)))
    with pytest.raises((IndexError, TypeError)):
        STRICT.put(np.ones((3, 3)))[0]


@pytest.mark.parametrize("case", CASES)
def test_every_type_of_layer(case: str, pair: Pair) -> None:
    pair.layer(case)


@pytest.mark.parametrize("case", CASES)
def test_every_type_of_layer_in_float32(case: str, pair: Pair) -> None:
    specs, shape = CASES[case]
    pair.products(network(specs, shape, dtype="float32"), ["network"], BLOCKS[:1])


@of_types
def test_blocks_of_dense_layers(dtype: str, pair: Pair) -> None:
    # A column of inputs that is 0, which NumPy's products leave out.
    problem = make_problem((5, 4, 3, 4), "tanh", examples=6, dtype=dtype)
    inputs = np.array(problem.inputs)
    inputs[:, 2] = 0
    problem = replace(
        problem,
        inputs=inputs,
        sample_weight=np.linspace(0.5, 2, 6).astype(dtype),
        penalties={"dense1/kernel": Penalty(l1=0.1, l2=0.2)},
        graph=replace(problem.graph, activities={"dense2": Penalty(l1=0.3, l2=0.1)}),
    )
    names = ["network", "dense1", "dense2/kernel", "dense2/bias", "dense3", "input", "input[1]"]
    pair.products(problem, names)
    pair.dense(problem, names)
    pair.values(problem, [node.name for node in problem.graph.nodes], TERMS)


@of_types
def test_a_step_of_training(dtype: str, pair: Pair) -> None:
    problem = make_problem((5, 4, 3), "gelu", dtype=dtype)
    graph = replace(problem.graph, activities={"dense1": Penalty(l1=0.3)})
    problem = replace(problem, graph=graph, penalties={"dense2/kernel": Penalty(l2=0.2)})
    there = placed(problem, pair.device)
    found, expected = (Descending(p).descent(p.graph.vector(), p) for p in (there, problem))
    pair.same(found.gradient, expected.gradient)
    pair.same(found.outputs, expected.outputs)
    assert found.loss == pytest.approx(expected.loss, rel=10 * ROUNDING[dtype])


@pytest.mark.parametrize("case", ["conv2d", "max_pooling2d", "batch_normalization", "maximum"])
def test_differences_of_losses_that_are_computed_elsewhere(case: str, pair: Pair) -> None:
    specs, shape = CASES[case]
    problem = network(specs, shape)
    problem = replace(problem, penalties={"logits/kernel": Penalty(l1=0.1, l2=0.2)})
    there, here = (FiniteDifferences(p) for p in (placed(problem, pair.device), problem))
    chain = ChainRule(problem)
    for name in ("network", "input[1]"):
        v = np.random.default_rng(1).standard_normal((chain.hessian(name).shape[0], 1))
        value, bar = there.hessian(name).product_with_error(v)
        _, bar_here = here.hessian(name).product_with_error(v)
        # Both know the product to within their bars, which rounding alone makes different.
        assert np.isfinite(bar).all()
        assert (np.abs(value - chain.hessian(name) @ v) <= bar).all()
        assert np.median(bar) <= 10 * np.median(bar_here)


@of_types
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name: str, dtype: str, pair: Pair) -> None:
    sigma = derivatives(Activation(name))
    z = np.concatenate([np.linspace(-8, 8, 65), [-1e4, -40, 0, 40, 1e4]]).astype(dtype)
    for function in (sigma.value, sigma.first, sigma.second):
        with np.errstate(over="ignore"):
            there, here = function(pair.device.put(z)), function(z)
        # Each number by itself: its digits count where it is small, too.
        assert dtype_of(there) == here.dtype
        np.testing.assert_allclose(
            pair.device.fetch(there), here, rtol=10 * ROUNDING[dtype], atol=1e-30
        )


@of_types
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss(name: str, dtype: str, pair: Pair) -> None:
    generator = np.random.default_rng(0)
    put, loss = pair.device.put, loss_derivatives(Loss(name, gamma=1.5))
    f = generator.uniform(0.05, 0.95, (6, 4)).astype(dtype)
    t = random_targets(name, 6, 4, generator)
    t = t if t.dtype.kind == "i" else t.astype(dtype)
    v = generator.standard_normal((3, 2, 4)).astype(dtype)
    for of in (loss.value, loss.gradient, loss.hessian):
        pair.same(of(put(f), put(t)), of(f, t))
    chosen = slice(1, 4)
    there, here = loss.hessian_product(put(f), put(t)), loss.hessian_product(f, t)
    pair.same(there(chosen, put(v)), here(chosen, v))


def test_an_output_that_poisson_cannot_take_is_named(pair: Pair) -> None:
    f = np.ones((3, 2))
    f[1, 0] = -0.5
    with pytest.raises(InputError, match=r"output -0.5 of example 1"):
        loss_derivatives(Loss("poisson")).gradient(
            pair.device.put(f), pair.device.put(np.ones((3, 2)))
        )


@pytest.mark.parametrize(
    "equation",
    [
        "nhc,cf->nhf",
        "nka,nab->nkb",
        "nkgtc,tcgf->nkgf",
        "na,na->n",
        "nkab,nac->nkcb",
        "nab,kb->kan",
    ],
)
def test_sums_of_products_are_those_of_einsum(equation: str, pair: Pair) -> None:
    generator, sizes = (
        np.random.default_rng(0),
        dict(zip("nkabcfght", (3, 2, 4, 5, 2, 3, 2, 4, 3), strict=True)),
    )
    a, b = (
        generator.standard_normal([sizes[letter] for letter in operand])
        for operand in equation.partition("->")[0].split(",")
    )
    pair.same(
        xp.einsum(equation, pair.device.put(a), pair.device.put(b)), np.einsum(equation, a, b)
    )


@of_types
@pytest.mark.parametrize("name", ["expit", "erfc"])
def test_special_functions_are_those_of_scipy(name: str, dtype: str, pair: Pair) -> None:
    z = np.linspace(-12, 12, 97).astype(dtype)
    own: Callable[[Any], Any] = getattr(xp, name)
    found, expected = pair.device.fetch(own(pair.device.put(z))), getattr(special, name)(z)
    np.testing.assert_allclose(found, expected, rtol=10 * ROUNDING[dtype], atol=1e-30)


@pytest.mark.skipif(find_spec("cupy") is None, reason="CuPy is not installed: no GPU to compare")
def test_a_gpu_gives_the_numbers_of_the_cpu() -> None:
    try:
        pair = Pair(open_device("gpu"))
    except InputError as error:
        pytest.skip(str(error))
    for case in CASES:
        test_every_type_of_layer(case, pair)
        test_every_type_of_layer_in_float32(case, pair)
    for dtype in DTYPES:
        for name in ACTIVATIONS:
            test_every_activation(name, dtype, pair)
        for name in LOSSES:
            test_every_loss(name, dtype, pair)
        test_blocks_of_dense_layers(dtype, pair)
        test_a_step_of_training(dtype, pair)
