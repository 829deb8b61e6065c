"""Wrong formulas of layers are caught: each edited in the source, each held against autodiff."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from layer_networks import CASES, network
from mutants import edit
from test_layers import TIES, disagreements, tied

from hesscli import verify
from hesscli.nodes import bilinear, linear, scaled
from hesscli.nodes.calculus import calculus_of
from hesscli.nodes.greatest import GlobalMaxPooling, MaxPooling
from hesscli.nodes.node import Calculus, Pulled
from hesscli.nodes.normalization import Normalization
from hesscli.nodes.product import Product
from hesscli.nodes.windows import Windows
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.checks import DEFAULT_RTOL
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import NETWORK

Patch = Callable[[pytest.MonkeyPatch], None]


def edited(owner: Any, name: str, old: str, new: str) -> Patch:
    return lambda patch: edit(patch, owner, name, old, new)


def without_bend(owner: type) -> Patch:
    return lambda patch: patch.setattr(owner, "bend", lambda *_: None)


def other_side(patch: pytest.MonkeyPatch) -> None:
    right = Windows.over

    def over(*arguments: Any, **others: Any) -> Windows:
        windows = right(*arguments, **others)
        sizes = zip(windows.padded, windows.spatial, windows.before, strict=True)
        return replace(windows, before=tuple(p - n - b for p, n, b in sizes))

    patch.setattr(Windows, "over", over)


MUTANTS: dict[str, tuple[str, Patch]] = {
    "padding at the other side": ("conv2d same", other_side),
    "convolution without bend": ("conv2d", without_bend(bilinear.Bilinear)),
    "no bias in push": (
        "conv1d",
        edited(bilinear.Bilinear, "push", 'if "bias" in V', 'if "none" in V'),
    ),
    "patches of x, not of Rx": (
        "depthwise_conv2d",
        edited(
            bilinear.Bilinear, "bend", "over(self.unfold, moved)", "0 * over(self.unfold, moved)"
        ),
    ),
    "bias of one place": (
        "conv2d",
        edited(bilinear.Bilinear, "pull", "summed(g, at.bias)", "summed(g, at.bias) / 2"),
    ),
    "transposed convolution folded twice": (
        "conv2d_transpose",
        edited(
            bilinear.ConvTranspose, "up", "self.windows.unfold(g)", "2 * self.windows.unfold(g)"
        ),
    ),
    "einsum without bend": ("einsum_dense", without_bend(bilinear.Bilinear)),
    "epsilon outside the root": (
        "batch_normalization of rows",
        edited(
            scaled.BatchNormalization,
            "weighted",
            "np.sqrt(variance + x.dtype.type(self.epsilon))",
            "(np.sqrt(variance) + x.dtype.type(self.epsilon))",
        ),
    ),
    "statistics of the batch": (
        "batch_normalization",
        edited(
            scaled.BatchNormalization,
            "weighted",
            "return (x - mean)",
            "return (x - x.mean(axis=(0, 1, 2)))",
        ),
    ),
    "scale without bend": ("batch_normalization", without_bend(scaled.Scaled)),
    "slope of PReLU": (
        "prelu",
        edited(scaled.PReLU, "plain", "(x > 0)", "(x < 0)"),
    ),
    "normalization without bend": ("layer_normalization", without_bend(Normalization)),
    "normalization with a fixed variance": (
        "group_normalization",
        edited(Normalization, "_projected", "- x * self._mean(x * r)", ""),
    ),
    "normalization's epsilon outside": (
        "layer_normalization of all",
        edited(
            Normalization,
            "forward",
            "np.sqrt(variance + parted.dtype.type(self.epsilon))",
            "(np.sqrt(variance) + parted.dtype.type(self.epsilon))",
        ),
    ),
    "multiply without bend": ("multiply", without_bend(Product)),
    "mean over the padding": (
        "average_pooling2d",
        edited(
            linear.AveragePooling, "transposed", "windows.counts.astype(g.dtype)", "windows.taps"
        ),
    ),
    "mean for the sum": (
        "up_sampling2d",
        edited(linear.UpSampling, "transposed", ".sum(axis=axes)", ".mean(axis=axes)"),
    ),
    "what lies inside the padding": (
        "zero_padding2d",
        edited(linear, "_inside", "slice(before, before + n)", "slice(0, n)"),
    ),
    "global mean without its count": (
        "global_average_pooling2d",
        edited(
            linear.GlobalAveragePooling,
            "transposed",
            "each / g.dtype.type(math.prod(shape[:-1]))",
            "each",
        ),
    ),
    "weights of an average": (
        "average",
        edited(linear.WeightedSum, "pull", "_times(w, g)", "g"),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_layer_is_no_longer_autodiff(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, apply = MUTANTS[name]
    apply(monkeypatch)
    assert disagreements(network(*CASES[case])) != []


TIED: dict[str, tuple[str, Patch]] = {
    "the last of equal ones": (
        "max_pooling2d",
        edited(MaxPooling, "forward", "padded[places] > y", "padded[places] >= y"),
    ),
    "all of equal ones": (
        "global_max_pooling2d",
        edited(GlobalMaxPooling, "forward", "equal / equal.sum(axes, keepdims=True)", "equal"),
    ),
}


@pytest.mark.parametrize("name", TIED)
def test_another_choice_of_equal_numbers_is_seen(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, apply = TIED[name]
    apply(monkeypatch)
    inputs = np.stack([np.full(32, 0.7), np.zeros(32)])
    assert disagreements(tied(case, inputs, **TIES[case])) != []


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["epsilon outside the root", "convolution without bend"])
def test_verify_fails_at_its_defaults(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, apply = MUTANTS[name]
    problem = network(*CASES[case], dtype=dtype)
    assert verify(problem, block="network").passed
    apply(monkeypatch)
    assert not verify(problem, block="network").passed


# The first case of each calculus that a layer type has.
OF_CALCULUS: dict[type[Calculus], str] = {
    type(calculus_of(node)): case
    for case, of in reversed(CASES.items())
    for node in network(*of).graph.nodes
    if node.layer == "layer"
}
WRONG = 1.01


def forward_off(right: Callable[..., Any], *arguments: Any) -> Any:
    y, at = right(*arguments)
    return WRONG * y, at


def push_off(right: Callable[..., Any], *arguments: Any) -> Any:
    return WRONG * right(*arguments)


def pull_off(right: Callable[..., Any], *arguments: Any) -> Pulled:
    pulled = right(*arguments)
    return replace(pulled, inputs=[g if g is None else WRONG * g for g in pulled.inputs])


def gradient_off(role: str, right: Callable[..., Any], *arguments: Any) -> Pulled:
    pulled = right(*arguments)
    if role in pulled.tensors:
        pulled.tensors[role] = WRONG * pulled.tensors[role]
    return pulled


def no_bend(right: Callable[..., Any], *arguments: Any) -> None:
    return


def in_place_of(wrong: Callable[..., Any], right: Callable[..., Any]) -> Callable[..., Any]:
    """A method: ``functools.partial`` alone would not be given the object."""
    return lambda *arguments: wrong(right, *arguments)


def wrong_methods(owner: type[Calculus], roles: set[str]) -> Iterator[tuple[str, str, Any]]:
    """Every method of a calculus, wrong in one way: (mutant, method, what stands in for it)."""
    yield "forward", "forward", forward_off
    yield "push", "push", push_off
    yield "pull", "pull", pull_off
    for role in sorted(roles):
        yield f"pull at {role}", "pull", partial(gradient_off, role)
    if owner.bend is not Calculus.bend:
        yield "bend", "bend", no_bend


@pytest.mark.parametrize("owner", OF_CALCULUS, ids=lambda owner: owner.__name__)
def test_each_wrong_method_of_each_node_is_far_beyond_the_tolerance(
    owner: type[Calculus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products with two vectors: ten times what ``verify`` allows, in either precision."""
    for dtype, rtol in DEFAULT_RTOL.items():
        problem = network(*CASES[OF_CALCULUS[owner]], dtype=dtype)
        H = Autodiff(problem).hessian(NETWORK)
        V = np.random.default_rng(0).standard_normal((H.shape[0], 2)).astype(dtype)

        def difference(problem: Problem = problem, V: Array = V, HV: Array = H @ V) -> float:
            wrong = ChainRule(problem).hessian(NETWORK).matmat(V) - HV
            return float(np.linalg.norm(wrong) / np.linalg.norm(HV))

        assert difference() <= rtol
        nodes = [node for node in problem.graph.nodes if type(calculus_of(node)) is owner]
        roles = {role for node in nodes for role in node.tensors}
        found = {}
        for mutant, method, wrong in wrong_methods(owner, roles):
            with monkeypatch.context() as patch:
                patch.setattr(owner, method, in_place_of(wrong, getattr(owner, method)))
                found[mutant] = difference()
        assert {mutant: size for mutant, size in found.items() if size <= 10 * rtol} == {}
