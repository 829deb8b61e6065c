"""How often error bars of a spectrum hold, on matrices of known spectrum.

    python tests/spectra_coverage.py [--seeds 500] [--probes 2 3 10 40] [--steps 1 2 5 20 80]

prints the share of seeds whose bar holds the right number, for every number of probes and steps in
turn, and the least share of any bin of the density. Each is promised with 95 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from hesscli.problem.graph import Array
from hesscli.studies.spectra.bars import CONFIDENCE
from hesscli.studies.spectra.measures import Measured, density_edges, histogram
from hesscli.studies.spectra.quadrature import mean_square, quadrature
from hesscli.studies.spectra.span import Part, Span
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import Layout, Segment, Tensor

_GENERATOR = np.random.default_rng(0)
SPECTRA: Mapping[str, Array] = {
    "bulk and outliers": np.concatenate(
        [np.linspace(-0.2, 0.3, 190), [2.0, 3.0, 5.0], np.zeros(7)]
    ),
    "powers of ten": 10.0 ** np.linspace(-5, 1, 200),
    "one sign": -np.linspace(0.5, 2, 200),
    "all the same": np.full(200, 3.0),
    "one alone": np.concatenate([[1.0], np.zeros(99)]),
    "a pair": np.concatenate([[1.0, -1.0], np.zeros(48)]),
    "both signs near zero": 1e-3 * _GENERATOR.standard_normal(150) ** 3,
}
PROBES = (2, 3, 10, 40)
STEPS = (1, 2, 5, 20, 80)


class Diagonal(HessianBlock):
    """A matrix of known eigenvalues."""

    def __init__(self, eigenvalues: Array) -> None:
        self.eigenvalues = eigenvalues
        tensor = Tensor("known", (len(eigenvalues), 1))
        super().__init__("known", Layout((Segment(1, (tensor,)),)), eigenvalues.dtype)

    def _matmat(self, V: Array) -> Array:
        return self.eigenvalues[:, None] * V

    @property
    def span(self) -> Span:
        return Span((Part(len(self.eigenvalues), 1, None),))


def coverage(eigenvalues: Array, probes: int, steps: int, seeds: int) -> dict[str, float]:
    """The share of seeds whose bars hold what is right, by quantity."""
    block, norm = Diagonal(eigenvalues), float(np.abs(eigenvalues).max())
    # Between the eigenvalues, so that rounding has no part in what is right.
    tolerance = 1.0001e-4 * norm
    edges = density_edges(1.0001 * norm, tolerance)
    inside = histogram(eigenvalues, edges)
    frobenius = float(np.linalg.norm(eigenvalues))
    right = {
        "trace": eigenvalues.sum(),
        "frobenius_norm": frobenius,
        "mean_square": frobenius,
        "effective_rank": np.abs(eigenvalues).sum() / norm,
        "rank": (np.abs(eigenvalues) > tolerance).sum(),
        "negative": (eigenvalues < -tolerance).sum(),
    }
    held = dict.fromkeys(right, 0)
    bins = np.zeros(len(inside))
    for seed in range(seeds):
        found = quadrature(block, block.span, probes, steps, seed, norm)
        norm_F = found.frobenius_norm()
        measured = {
            "trace": found.trace(norm_F),
            "frobenius_norm": norm_F,
            "mean_square": mean_square(block, block.span, probes, seed, norm),
            "effective_rank": found.effective_rank(norm_F),
            "rank": found.rank(tolerance),
            "negative": found.negative(tolerance),
        }
        for name, number in measured.items():
            held[name] += _holds(number, float(right[name]))
        density = found.density(edges)
        assert density.errors is not None
        bins += np.abs(density.counts - inside) <= density.errors + 1e-9
    return {**{name: of / seeds for name, of in held.items()}, "density": bins.min() / seeds}


def _holds(number: Measured, right: float) -> bool:
    assert number.error is not None
    return abs(number.value - right) <= number.error + 1e-9 * max(1.0, abs(right))


def all_of_them(
    seeds: int, of_probes: Sequence[int], of_steps: Sequence[int]
) -> Iterator[tuple[str, int, int, dict[str, float]]]:
    for (name, eigenvalues), probes, steps in product(SPECTRA.items(), of_probes, of_steps):
        yield name, probes, steps, coverage(eigenvalues, probes, steps, seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--probes", type=int, nargs="+", default=PROBES)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    arguments = parser.parse_args()
    least = 1.0
    cases = all_of_them(arguments.seeds, arguments.probes, arguments.steps)
    for name, probes, steps, held in cases:
        least = min(least, *held.values())
        print(f"{name:22} {probes:3} probes {steps:3} steps ", end="")
        print(" ".join(f"{what} {share:.3f}" for what, share in held.items()), flush=True)
    print(f"least {least:.3f} of {arguments.seeds} seeds; promised {CONFIDENCE}")


if __name__ == "__main__":
    main()
