"""Wrong formulas of layers are caught: each edited in the source, each held against autodiff."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn import THOROUGH
from layer_mutants import MARKS, OF_CALCULUS, verdict, verdicts
from mutants import DOCUMENT, DTYPES, edit
from test_layers import TIES, disagreements, tied

from hesscli.nodes import bilinear, linear, scaled
from hesscli.nodes.greatest import GlobalMaxPooling, MaxPooling
from hesscli.nodes.node import Calculus
from hesscli.nodes.normalization import Normalization
from hesscli.nodes.product import Product
from hesscli.nodes.windows import Windows
from hesscli.studies.verdict import Verdict

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
            "xp.sqrt(variance + self.epsilon)",
            "(xp.sqrt(variance) + self.epsilon)",
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
        edited(scaled.PReLU, "plain", "xp.astype(x > 0", "xp.astype(x < 0"),
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
            "xp.sqrt(variance + self.epsilon)",
            "(xp.sqrt(variance) + self.epsilon)",
        ),
    ),
    "multiply without bend": ("multiply", without_bend(Product)),
    "mean over the padding": (
        "average_pooling2d",
        edited(linear.AveragePooling, "transposed", "windows.counts_like(g)", "windows.taps"),
    ),
    "mean for the sum": (
        "up_sampling2d",
        edited(linear.UpSampling, "transposed", "xp.sum(", "xp.mean("),
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
            "each / math.prod(shape[:-1])",
            "each",
        ),
    ),
    "weights of an average": (
        "average",
        edited(linear.WeightedSum, "pull", "_times(w, g)", "g"),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_verify_sees_a_wrong_layer_at_its_defaults(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, apply = MUTANTS[name]
    dtypes = DTYPES if THOROUGH else (DTYPES[[*MUTANTS].index(name) % 2],)
    assert {verdict(case, dtype) for dtype in dtypes} == {Verdict.PASS}
    apply(monkeypatch)
    assert {verdict(case, dtype) for dtype in dtypes} == {Verdict.FAIL}


TIED: dict[str, tuple[str, Patch]] = {
    "the last of equal ones": (
        "max_pooling2d",
        edited(MaxPooling, "forward", "padded[places] > y", "padded[places] >= y"),
    ),
    "all of equal ones": (
        "global_max_pooling2d",
        edited(
            GlobalMaxPooling, "forward", "equal / xp.sum(equal, axis=axes, keepdims=True)", "equal"
        ),
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


@pytest.mark.parametrize("owner", OF_CALCULUS, ids=lambda owner: owner.__name__)
def test_verify_sees_each_wrong_method_of_each_node(owner: type[Calculus]) -> None:
    assert {verdict(OF_CALCULUS[owner], dtype) for dtype in DTYPES} == {Verdict.PASS}
    found = verdicts(owner, both=THOROUGH)
    assert found == dict.fromkeys(found, Verdict.FAIL)


def test_the_page_says_of_every_node_that_verify_saw_all_of_it() -> None:
    marked = DOCUMENT.read_text(encoding="utf-8").partition(f"<!-- {MARKS[0]}:")[2]
    lines = [line.strip("| ").split(" | ") for line in marked.partition("<!-- end")[0].splitlines()]
    counted = {cells[0]: cells[-1].split(" of ") for cells in lines[3:]}
    assert set(counted) == {owner.__name__ for owner in OF_CALCULUS}
    assert all(seen == of for seen, of in counted.values())
