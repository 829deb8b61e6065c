"""Two witnesses compared by random products: for blocks too large for every entry.

For a matrix D and v of independent standard normal numbers, E ‖D v‖² = ‖D‖_F². So k probes v_i
give the unbiased estimate 1/k Σ ‖D v_i‖² of the squared norm of D, the difference of the
witnesses' Hessians, and likewise of H itself.

The estimate is a mixture Σ_j λ_j χ²_k/k with Σ λ_j = ‖D‖_F². Of all mixtures the one with a
single λ has the heaviest tails, below the mean everywhere and above it beyond 1 + 2/k (Székely
and Bakirov 2003, Probability Theory and Related Fields 126; Roosta-Khorasani, Székely and Ascher
2015, SIAM/ASA J. Uncertainty Quantification 3). So with the quantiles q of χ²_k, whatever the
matrices are, both

    ‖D‖_F² ≤ k · estimate / q(δ/2)      and      ‖H‖_F² ≥ k · estimate / q(1 − δ/2)

hold with probability at least 1 − δ, and their quotient bounds the relative difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from scipy.special import gammaincinv

from hesscli.problem.graph import Array
from hesscli.studies.checks import frobenius_norm
from hesscli.studies.context import Progress
from hesscli.studies.judge import Check, Residual, excused, of_layers, worst
from hesscli.system.errors import NumericalError
from hesscli.system.pieces import pieces
from hesscli.system.threads import in_threads
from hesscli.witnesses.block import HessianBlock

CONFIDENCE = 0.999
# The floor differs little from one probe to the next; less so if a probe has few numbers.
_PROBES_FOR_FLOOR, _NUMBERS_FOR_FLOOR = 2, 256
# So much of probes at a time, for each thread: autodiff shares a pass among them.
_PIECE_BYTES = 48 * 2**20


def check_probes(
    reference: HessianBlock,
    candidates: Sequence[HessianBlock],
    floor: Callable[[Array], float],
    rtol: float,
    probes: int,
    progress: Progress,
    seed: int = 0,
) -> tuple[Check, ...]:
    """Compares products of each candidate with the reference's; ``seed`` draws the probes.

    ``floor`` gives the Frobenius norm of the rounding of products H V. A check passes when the
    bound on ‖D‖_F is at most rtol times that on ‖H‖_F, plus the floor: the same bound, on what
    rounding alone may leave of ‖D v‖. In the block of the whole network that is asked of the rows
    of every layer, D and H being these rows, all with the floor of the whole. Raises
    NumericalError if a product is not finite.
    """
    size, dtype = reference.shape[0], reference.dtype
    with_floor = max(_PROBES_FOR_FLOOR, -(-_NUMBERS_FOR_FLOOR // size))
    layers = of_layers(reference.layout, 0, size)
    norms: list[Array] = []
    vectors: list[Array] = []

    def compared(piece: tuple[int, int]) -> tuple[Array, Array]:
        low, high = piece
        generator = np.random.default_rng((seed, low))
        V = generator.standard_normal((high - low, size), dtype=dtype.type).T
        theirs = reference.matmat(V)
        with np.errstate(over="ignore", invalid="ignore"):
            residuals = [theirs - candidate.matmat(V) for candidate in candidates]
        by_layer = [
            [frobenius_norm(values[rows]) for _, rows in layers] for values in (theirs, *residuals)
        ]
        return np.array(by_layer), V.T[: max(0, with_floor - low)]

    task = f"{reference.parameter} probes"
    progress(task, 0, probes)
    probe_pieces = list(pieces(0, probes, size * dtype.itemsize, _PIECE_BYTES))
    threads = None if reference.in_threads else 1
    for (_, done), (of_piece, first) in zip(
        probe_pieces, in_threads(compared, probe_pieces, threads), strict=True
    ):
        norms.append(of_piece)
        vectors += list(first)
        progress(task, done, probes)
    of_H, *of_D = np.hypot.reduce(norms)
    if not np.isfinite([of_H, *of_D]).all():
        wider = " or dtype float64" if dtype == np.float32 else ""
        raise NumericalError(
            f"{reference.parameter}: a product with the Hessian is not finite in {dtype}; "
            f"use smaller weights{wider}"
        )
    low_tail, high_tail = _quantiles(probes, len(layers))

    def rounding() -> float:
        return floor(np.stack(vectors, axis=1)) * math.sqrt(probes / (len(vectors) * low_tail))

    def check(found: float, norm: float, residual: float) -> Check:
        bound = Residual(residual / math.sqrt(low_tail), found)
        return bound.judged("probes", norm / math.sqrt(high_tail), rtol, probes, CONFIDENCE)

    def judged(found: float) -> list[Check]:
        return [
            worst(map(partial(check, found), of_H.tolist(), of_candidate.tolist()))
            for of_candidate in of_D
        ]

    return tuple(excused(judged, 0.0, rounding))


def _quantiles(k: int, layers: int) -> tuple[float, float]:
    """The quantiles of χ²_k that leave half of what CONFIDENCE leaves on either side.

    Each of several layers leaves its share, so that the bounds hold for all of them.
    """
    # scipy.stats has them by name, and takes a third of a second to import.
    tail = (1 - CONFIDENCE) / layers / 2
    low, high = 2 * gammaincinv(k / 2, [tail, 1 - tail])
    return float(low), float(high)
