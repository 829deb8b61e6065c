"""docs/scaling.md holds: what is computed and summed is counted on small networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
# Widths that make a wrong index show, beyond those of which products use S.
NETWORKS = ((20, 40, 36, 5), (7, 50, 33, 4), (64, 35, 48, 37, 6), (33, 90, 8))
LAYERS = (1, 2, 3, 1)
SMALL = (9, 8, 5, 3)
EXAMPLES = 12
COMMANDS = (
    ["verify", "--check", "form"],
    ["verify", "--check", "probes", "--probes", "3"],
    ["compare", "--check", "form"],
    ["verify", "--of", "gradient"],
)
WHOLE = ["verify", "--check", "form", "--block", "network"]
# What is counted beside the passes: vᵀ(Hv) itself, P multiply-additions for each part.
OF_FORMS = ("witnesses.block", "witnesses.rounding.floor")


class Cost:
    """The formulas of the page for layer ``k`` (from 1) of a network of ``widths``.

    Multiply-additions for one example, with the letters of the page.
    """

    def __init__(self, widths: Sequence[int], k: int) -> None:
        m = [a * b for a, b in pairwise(widths)]
        self.F, self.first = sum(m), m[0]
        self.m, self.U, self.B = m[k - 1], sum(m[k:]), sum(m[: k - 1])
        self.P = self.m

    @property
    def heading(self) -> int:
        """The loss and the accuracy of the batch, once a command."""
        return self.F

    @property
    def product(self) -> int:
        return 2 * self.m + 2 * self.U

    @property
    def passes(self) -> int:
        """Before products with the layer."""
        return self.F + self.U

    def autodiff(self, q: int) -> int:
        return self.B + self.m + q * (3 * self.m + 4 * self.U)

    @property
    def verify_form(self) -> int:
        return 3 * (self.passes + self.product)

    @property
    def floor(self) -> int:
        """That of a form: nine runs, eight of them perturbed, with a push from the inputs each.

        Half of the perturbed ones go up a second time, to see what is rounding and nothing else.
        """
        return 9 * (3 * self.F - self.first + self.product) + 4 * self.F

    def verify_probes(self, p: int) -> int:
        return self.verify_form + self.passes + p * self.product

    @property
    def gradient(self) -> int:
        return self.passes + self.m


def cases() -> list[tuple[tuple[int, ...], int, int, list[str]]]:
    """Four networks, a layer of each, every formula; in two chunks and in one."""
    return [
        (widths, EXAMPLES, chunk, [*command, "-a", "tanh", "--layer", f"d{k}"])
        for widths, k, chunk in zip(NETWORKS, LAYERS, (6, 12, 4, 12), strict=True)
        for command in COMMANDS
    ] + [(NETWORKS[0], EXAMPLES, 6, [*WHOLE, "-a", "tanh"])]


@pytest.fixture(scope="module")
def found() -> dict[tuple[tuple[int, ...], str], Any]:
    """What the commands did, by network and command; counted in a process of its own."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "counting.py"), json.dumps(cases())],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    keys = [
        (widths, " ".join(arguments[: arguments.index("-a")])) for widths, *_, arguments in cases()
    ]
    return dict(zip(keys, json.loads(done.stdout), strict=True))


each_network = pytest.mark.parametrize(("widths", "k"), list(zip(NETWORKS, LAYERS, strict=True)))


def by_numpy(found: Any) -> float:
    """The chain rule's and the floors' multiply-additions, for one example."""
    return sum(n for name, n in found["numpy"].items() if name not in OF_FORMS) / EXAMPLES


@each_network
def test_operations_of_the_quadratic_forms(
    found: dict[Any, Any], widths: tuple[int, ...], k: int
) -> None:
    cost, counts = Cost(widths, k), found[widths, "verify --check form"]
    assert by_numpy(counts) == cost.heading + cost.verify_form
    # Beside it the softmax's own few.
    assert 0 <= counts["tensorflow"] / EXAMPLES - cost.autodiff(1) <= 2 * widths[-1]
    assert counts["sums"] == [1] * 4


@each_network
def test_operations_and_sums_of_probes(
    found: dict[Any, Any], widths: tuple[int, ...], k: int
) -> None:
    cost, counts = Cost(widths, k), found[widths, "verify --check probes --probes 3"]
    assert by_numpy(counts) == cost.heading + cost.verify_probes(3)
    theirs = cost.autodiff(1) + cost.autodiff(3)
    assert 0 <= counts["tensorflow"] / EXAMPLES - theirs <= 8 * widths[-1]
    assert counts["sums"] == [*[1] * 4, 3 * cost.P, 3 * cost.P]


@each_network
def test_operations_and_sums_of_compare(
    found: dict[Any, Any], widths: tuple[int, ...], k: int
) -> None:
    cost, counts = Cost(widths, k), found[widths, "compare --check form"]
    # For tanh the Gauss–Newton term alone is not the Hessian, and the floor is asked.
    assert by_numpy(counts) == cost.heading + cost.verify_form + cost.floor
    assert 0 <= counts["tensorflow"] / EXAMPLES - 4 * cost.autodiff(1) <= 8 * widths[-1]
    assert counts["sums"] == [1] * 7


@each_network
def test_operations_and_sums_of_the_gradient(
    found: dict[Any, Any], widths: tuple[int, ...], k: int
) -> None:
    cost, counts = Cost(widths, k), found[widths, "verify --of gradient"]
    assert by_numpy(counts) == cost.heading + cost.gradient
    assert counts["tensorflow"] / EXAMPLES == cost.F + cost.m + cost.U
    assert counts["sums"] == [cost.P, cost.P]


def test_operations_of_the_network(found: dict[Any, Any]) -> None:
    counts, cost = found[NETWORKS[0], "verify --check form --block network"], Cost(NETWORKS[0], 1)
    m, others = cost.first, cost.F - cost.first
    # H and C, and G, which lacks what the gradients do.
    H, G = 2 * m + 6 * others, 2 * m + 4 * others
    assert by_numpy(counts) == cost.heading + 3 * (2 * cost.F - m) + 2 * H + G
    assert 0 <= counts["tensorflow"] / EXAMPLES - (7 * m + 9 * others) <= 2 * NETWORKS[0][-1]


def test_the_worked_example_follows_from_the_formulas() -> None:
    widths, examples = (784, 30, 30, 10), 10**6
    costs = [Cost(widths, k) for k in (1, 2, 3)]
    rows = {
        "`verify --of gradient`": sum(c.gradient + c.F + c.m + c.U for c in costs),
        "`verify --check form`": sum(c.verify_form + c.autodiff(1) for c in costs),
        "`compare --check form`": sum(c.verify_form + c.floor + 4 * c.autodiff(1) for c in costs),
        "`verify --check probes` (32)": sum(
            c.verify_probes(32) + c.autodiff(1) + c.autodiff(32) for c in costs
        ),
        "one H·v of dense1": costs[0].product,
        "`spectrum --top`, 1,000 products of dense1": 1000 * costs[0].product,
    }
    summed = {
        "`verify --of gradient`": f"{8 * 2 * sum(c.P for c in costs) / 1e3:.0f} kB",
        "`verify --check form`": f"{8 * 4 * 3} B",
        "`compare --check form`": f"{8 * 7 * 3} B",
        "`verify --check probes` (32)": f"{8 * sum(4 + 64 * c.P for c in costs) / 1e6:.1f} MB",
        "one H·v of dense1": f"{8 * costs[0].P / 1e3:.0f} kB",
        "`spectrum --top`, 1,000 products of dense1": f"{8 * costs[0].P / 1e3:.0f} MB",
    }
    for what, each in rows.items():
        mantissa, _, exponent = f"{2.0 * each * examples:.1e}".partition("e+")
        power = exponent.translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        assert f"| {what} | {each:,} | {mantissa}·10{power} | {summed[what]} |" in PAGE


def test_operations_and_sums_of_lanczos_and_of_all_rows(tmp_path: Path) -> None:
    # 80 · 60 parameters are too many for the exact spectrum.
    widths, examples, steps, probes = (80, 60, 40, 3), 4, 5, 2
    arguments = ["spectrum", "-a", "tanh", "--layer", "d1", "--top", "1"]
    alone = list(arguments)
    arguments += ["--density", "--steps", str(steps), "--probes", str(probes)]
    exported = ["export", "d1/kernel", "-a", "tanh", "-o", str(tmp_path / "H.npy")]
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests" / "counting.py"),
            json.dumps(
                [
                    (widths, examples, 2, arguments),
                    (widths, examples, 2, alone),
                    (SMALL, examples, 2, exported),
                ]
            ),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    counts, of_pairs, of_rows = json.loads(done.stdout)
    cost = Cost(widths, 1)
    diagonal, *products = counts["sums"]
    assert diagonal == 3 * (cost.P + 2)
    assert {size % cost.P for size in products} == {0}
    vectors = sum(products) // cost.P
    # The S of the first layer, for each of three terms, and the passes for every sum.
    second = 3 * sum(a * b * (a + b) for a, b in pairwise(widths[1:]))
    in_nodes = sum(n for name, n in counts["numpy"].items() if name.startswith("nodes."))
    in_passes = second + (len(products) + 1) * cost.passes
    assert in_nodes / examples == cost.heading + vectors * cost.product + in_passes

    # With --top alone there are only products.
    assert {size % cost.P for size in of_pairs["sums"]} == {0}
    vectors = sum(of_pairs["sums"]) // cost.P
    in_nodes = sum(n for name, n in of_pairs["numpy"].items() if name.startswith("nodes."))
    in_passes = len(of_pairs["sums"]) * cost.passes
    assert in_nodes / examples == cost.heading + vectors * cost.product + in_passes

    small = Cost(SMALL, 1)
    assert of_rows["sums"] == [small.P**2]
    of_entries = of_rows["numpy"]["witnesses.chain_rule.dense"]
    assert of_entries / examples == small.P * (small.P + SMALL[0]) / 2
    second = sum(a * b * (a + b) for a, b in pairwise(SMALL[1:]))
    assert of_rows["numpy"]["nodes.dense"] / examples == small.heading + small.passes + second
