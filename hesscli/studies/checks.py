"""A block by two witnesses, compared in its quadratic form or in every entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hesscli.problem.graph import Array
from hesscli.studies.context import Progress
from hesscli.studies.judge import Check, Residual, Seen, Tally, judged_alone, of_layers
from hesscli.system.errors import NumericalError
from hesscli.system.pieces import pieces
from hesscli.system.threads import in_threads
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import Layout

# Rows are compared in pieces of this size: few enough calls, and memory that is used again.
_PIECE_BYTES = 16 * 2**20
# No panel is larger: freed memory is used again below what the C library maps (system.memory).
_PANEL_BYTES = 24 * 2**20
# What fits into a core's second-level cache together with its inputs.
_CACHED_BYTES = 2**17
# Products with so many vectors are compared with so many rows.
_OWN_VECTORS, _OWN_ROWS = 3, 64
Panels = tuple[Array, ...]
_Pair = tuple[int, int]
# Relative tolerances, if the configuration gives none.
DEFAULT_RTOL = {"float64": 1e-10, "float32": 1e-5}


def rtol_for(dtype: str, given: float | None) -> float:
    """The relative tolerance: the one that is given, or the default of the type."""
    return DEFAULT_RTOL[dtype] if given is None else given


def frobenius_norm(values: Array) -> float:
    """The Frobenius norm, of which no square overflows or vanishes; NaN of what is not finite."""
    largest = float(np.maximum(values.max(initial=0), -values.min(initial=0)))
    if largest == 0 or not math.isfinite(largest):
        return 0.0 if largest == 0 else math.nan
    # A few rows at a time: no copy of all in double precision.
    squares = 0.0
    for low, high in pieces(0, len(values), 8 * values[0].size, _CACHED_BYTES):
        part = values[low:high].astype(np.float64) / largest
        squares += float(np.vdot(part, part))
    return largest * math.sqrt(squares)


def check_form(
    parameter: str, residual: float, scale: float, floor: Callable[[], float], rtol: float
) -> Check:
    """Judges the difference of two quadratic forms; NumericalError if one is not finite."""
    size = abs(residual)
    if not (math.isfinite(size) and math.isfinite(scale)):
        raise NumericalError(
            f"{parameter}: the quadratic form is not finite; use smaller weights or dtype float64"
        )
    return judged_alone("form", size, scale, rtol, floor)


def require_finite_entries(block: HessianBlock, numbers: Array) -> None:
    """Raises NumericalError if some of the block's entries are not finite."""
    if not np.isfinite(numbers).all():
        raise NumericalError(
            f"{block.parameter}: an entry of the Hessian is not finite in {block.dtype}; "
            "use smaller weights or dtype float64"
        )


def check_entries(
    reference: HessianBlock,
    candidates: Sequence[HessianBlock],
    floor: Array,
    rtol: float,
    progress: Progress,
) -> tuple[Check, ...]:
    """Compares every entry of each candidate with the reference, in pieces of rows.

    ``floor`` (groups, groups) belongs to the pairs of groups of the block's layout. The
    reference's rows are computed once for all candidates. Raises NumericalError if an entry
    is not finite.
    """
    size, layout = reference.shape[0], reference.layout
    row_bytes = max(candidate.row_bytes for candidate in candidates)
    tallies = [Tally(rtol) for _ in candidates]

    def compared(piece: tuple[int, int]) -> list[list[tuple[_Pair, Seen]]]:
        # What overflows is refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            theirs = reference.panels(*piece)
        parts = [
            _Part(layout, piece[0], rows, row_layer, layer)
            for row_layer, rows in of_layers(layout, *piece)
            for layer in range(len(layout.segments))
        ]
        scaled = [(part, part.largest(theirs)) for part in parts]
        found: list[list[tuple[_Pair, Seen]]] = []
        for candidate in candidates:
            with np.errstate(over="ignore", invalid="ignore"):
                ours = candidate.panels(*piece)
                found.append(
                    [
                        (part.pair, part.seen(theirs, ours, floor, rtol, scale))
                        for part, scale in scaled
                    ]
                )
        return found

    row_pieces = [
        part
        for piece in reference.row_pieces(_PIECE_BYTES, row_bytes)
        for part in pieces(*piece, size * reference.dtype.itemsize, _PANEL_BYTES)
    ]
    threads = None if reference.in_threads else 1
    progress(reference.parameter, 0, size)
    for (_, done), by_candidate in zip(
        row_pieces,
        in_threads(compared, row_pieces, threads),
        strict=True,
    ):
        for tally, found in zip(tallies, by_candidate, strict=True):
            for pair, seen in found:
                require_finite_entries(reference, np.array([seen.largest, seen.widest.size]))
                tally.add(pair, seen)
        progress(reference.parameter, done, size)
    return tuple(tally.check("entries") for tally in tallies)


def check_own_products(block: HessianBlock, floor: Array, rtol: float, seed: int) -> Check:
    """The block's products with several vectors at once against its first rows, which are known.

    ``floor`` is as in ``check_entries``. A product's scale is Σ_j |H_ij v_j|.
    """
    size, layout = block.shape[0], block.layout
    _, stop = block.row_pieces(_PIECE_BYTES)[0]
    stop = min(stop, _OWN_ROWS)
    V = np.random.default_rng(seed).standard_normal((size, _OWN_VECTORS)).astype(block.dtype)
    # What overflows is refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        rows = block.rows(0, stop).astype(np.float64)
        residuals = np.abs(rows @ V - block.matmat(V)[:stop])
        scales = np.abs(rows) @ np.abs(V)
        floors = product_floors(layout, floor, V)[:stop]
    require_finite_entries(block, residuals)
    at = np.unravel_index(int((residuals - rtol * scales - floors).argmax()), residuals.shape)
    residual, scale, open_to = (float(of[at]) for of in (residuals, scales, floors))
    return Residual(residual, open_to).judged("products", scale, rtol, residuals.size)


def product_floors(layout: Layout, floor: Array, V: Array) -> Array:
    """Σ_j floor_ij |v_j|, which rounding leaves uncertain of H V, like V (P, k)."""
    groups = layout.groups_of(0, len(V))
    weights = np.zeros((layout.groups, V.shape[1]))
    np.add.at(weights, groups, np.abs(V))
    with np.errstate(over="ignore"):
        return np.asarray((floor @ weights)[groups])


@dataclass(frozen=True)
class _Part:
    """Of the rows from ``start`` on those of one layer, in the columns of another or the same."""

    layout: Layout
    start: int
    rows: slice
    row_layer: int
    layer: int

    @property
    def pair(self) -> _Pair:
        """The two layers; the block below the diagonal is that above it, transposed."""
        return min(self.row_layer, self.layer), max(self.row_layer, self.layer)

    def largest(self, panels: Panels) -> float:
        panel = panels[self.layer][:, self.rows]
        return float(np.maximum(panel.max(), -panel.min()))

    def seen(self, theirs: Panels, ours: Panels, floor: Array, rtol: float, largest: float) -> Seen:
        """The residuals, of which only the largest of each row and each column's group counts."""
        reference, candidate = (of[self.layer][:, self.rows] for of in (theirs, ours))
        low, segment = self.layout.starts[self.layer], self.layout.segments[self.layer]

        def names(row: int, unit: int) -> tuple[str, str]:
            residuals = np.abs(reference[:, row, unit] - candidate[:, row, unit])
            column = low + int(residuals.argmax()) * segment.units + unit
            return self.layout.name_of(first + row), self.layout.name_of(column)

        first = self.start + self.rows.start
        rows = self.layout.groups_of(first, self.start + self.rows.stop)
        columns = self.layout.groups_of(low, low + segment.units)
        return Seen.of(
            compared=reference.size,
            largest=largest,
            residual=_largest_residuals(reference, candidate),
            floor=floor[np.ix_(rows, columns)],
            rtol=rtol,
            names=names,
        )


def _largest_residuals(reference: Array, candidate: Array) -> Array:
    """max_j |reference[j] − candidate[j]|, (rows, units)."""
    worst = np.zeros(reference.shape[1:], dtype=reference.dtype)
    # A few j at a time, so that the passes over them stay in the cache.
    for low, high in pieces(0, len(reference), worst.nbytes, _CACHED_BYTES):
        residual = reference[low:high] - candidate[low:high]
        np.abs(residual, out=residual)
        np.maximum(worst, residual.max(axis=0), out=worst)
    return worst
