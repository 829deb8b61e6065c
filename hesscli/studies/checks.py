"""How much of a block two witnesses are compared on, and when they agree.

A residual passes when it is at most rtol · scale + floor: the scale is the largest entry for
entries and |G| + |C| for quadratic forms, the floor is the rounding of what was subtracted
(hesscli.witnesses.rounding.floor).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hesscli.problem.graph import Array
from hesscli.studies.context import Progress
from hesscli.system.errors import NumericalError
from hesscli.system.pieces import pieces
from hesscli.system.threads import in_threads
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import Layout

# Rows are compared in pieces of this size: few enough calls, and memory that is used again.
_PIECE_BYTES = 16 * 2**20
# What fits into a core's second-level cache together with its inputs.
_CACHED_BYTES = 2**17
Panels = tuple[Array, ...]
# Relative tolerances, where the configuration gives none.
DEFAULT_RTOL = {"float64": 1e-10, "float32": 1e-5}


@dataclass(frozen=True)
class Check:
    """The outcome of one comparison.

    ``compared`` numbers were compared; ``max_abs_residual`` is the largest difference,
    ``max_abs_entry`` the scale it is judged by (the largest entry of the autodiff block, or
    |G| + |C| for a form), ``floor`` the largest difference that rounding explains.
    ``worst`` names the two parameters of the entry with the largest residual; None for a form.
    Where rounding explains that residual but not another one, ``worst``, ``max_abs_residual`` and
    ``floor`` are those of the largest that it does not explain.

    Of random products (hesscli.studies.probes) ``max_abs_residual`` is a bound from above on the
    Frobenius norm of the difference and ``max_abs_entry`` one from below on that of the block;
    both hold with the probability ``confidence``, which is None for what is certain.

    Where finite differences take part (hesscli.studies.finitechecks), ``error_bar`` is their
    largest one among the numbers that were compared, ``undecided`` how many more numbers their
    error bars left open, and ``decided`` whether there was enough to pass or to fail.
    """

    method: str
    compared: int
    max_abs_residual: float
    max_abs_entry: float
    rtol: float
    floor: float
    worst: tuple[str, str] | None
    passed: bool
    error_bar: float = 0.0
    undecided: int = 0
    decided: bool = True
    confidence: float | None = None

    @property
    def relative_residual(self) -> float:
        """The residual in units of the scale; infinite where only the scale is zero."""
        return relative(self.max_abs_residual, self.max_abs_entry)

    @property
    def limited_by_rounding(self) -> bool:
        """Whether it passed only because of the floor."""
        allowed = self.rtol * self.max_abs_entry + self.error_bar
        return self.passed and self.max_abs_residual > allowed


def relative(residual: float, scale: float) -> float:
    """The size of residual / scale, where 0 / 0 is 0."""
    if scale > 0:
        return abs(residual) / scale
    return 0.0 if residual == 0 else float("inf")


def frobenius_norm(values: Array) -> float:
    """The Frobenius norm, of which no square overflows or vanishes; NaN of what is not finite."""
    largest = float(np.abs(values).max())
    if largest == 0 or not math.isfinite(largest):
        return 0.0 if largest == 0 else math.nan
    return largest * float(np.linalg.norm(values.astype(np.float64) / largest))


def check_form(parameter: str, residual: float, scale: float, floor: float, rtol: float) -> Check:
    """Judges the difference of two quadratic forms; NumericalError where one is not finite."""
    size = abs(residual)
    if not (math.isfinite(size) and math.isfinite(scale)):
        raise NumericalError(
            f"{parameter}: the quadratic form is not finite; use smaller weights or dtype float64"
        )
    return Check("form", 1, size, scale, rtol, floor, None, size <= rtol * scale + floor)


def check_entries(
    reference: HessianBlock,
    candidates: Sequence[HessianBlock],
    floor: Array,
    rtol: float,
    progress: Progress,
) -> tuple[Check, ...]:
    """Compares every entry of each candidate with the reference, in pieces of rows.

    ``floor`` (groups, groups) belongs to the pairs of groups of the block's layout. The
    reference's rows are computed once for all candidates. Raises NumericalError where an entry
    is not finite.
    """
    size = reference.shape[0]
    row_bytes = max(candidate.row_bytes for candidate in candidates)
    tallies = [_Tally(reference.layout) for _ in candidates]
    largest, done = 0.0, 0

    def compared(piece: tuple[int, int]) -> tuple[float, list[_Residuals]]:
        rows = reference.panels(*piece)
        with np.errstate(over="ignore", invalid="ignore"):
            residuals = [
                _Residuals.of(reference.layout, piece[0], rows, candidate.panels(*piece))
                for candidate in candidates
            ]
        return _largest(rows), residuals

    row_pieces = reference.row_pieces(_PIECE_BYTES, row_bytes)
    threads = None if reference.in_threads else 1
    progress(reference.parameter, 0, size)
    for (_, done), (of_rows, residuals) in zip(
        row_pieces,
        in_threads(compared, row_pieces, threads),
        strict=True,
    ):
        largest = float(np.maximum(largest, of_rows))
        for tally, found in zip(tallies, residuals, strict=True):
            tally.add(found)
        progress(reference.parameter, done, size)
    if not np.isfinite([largest, *(tally.worst.max() for tally in tallies)]).all():
        raise NumericalError(
            f"{reference.parameter}: an entry of the Hessian is not finite in {reference.dtype}; "
            "use smaller weights or dtype float64"
        )
    checks: list[Check] = []
    for tally, candidate in zip(tallies, candidates, strict=True):
        with np.errstate(over="ignore"):
            beyond = tally.worst - (rtol * largest + floor)
        check = Check(
            method="entries",
            compared=size * size,
            max_abs_residual=float(tally.worst.max()),
            max_abs_entry=largest,
            rtol=rtol,
            floor=float(floor.max()),
            worst=tally.worst_entry(),
            passed=bool((beyond <= 0).all()),
        )
        if not check.passed and beyond[tally.worst_pair()] <= 0:
            # Of the entry with the largest residual rounding is the cause; of this one it is not.
            pair = tuple(int(i) for i in np.unravel_index(int(beyond.argmax()), beyond.shape))
            residual, worst = _largest_of_groups(reference, candidate, *pair)
            check = replace(check, max_abs_residual=residual, floor=float(floor[pair]), worst=worst)
        checks.append(check)
    return tuple(checks)


def _largest_of_groups(
    reference: HessianBlock, candidate: HessianBlock, group: int, other: int
) -> tuple[float, tuple[str, str]]:
    """The largest residual between the parameters of two groups, and where it is."""
    layout, size = reference.layout, reference.shape[0]
    groups = layout.groups_of(0, size)
    columns = np.flatnonzero(groups == other)
    found: tuple[float, tuple[str, str]] = (-1.0, ("", ""))
    for row in np.flatnonzero(groups == group).tolist():
        rows = (block.rows(row, row + 1)[0, columns] for block in (reference, candidate))
        residuals = np.abs(np.subtract(*rows))
        at = int(residuals.argmax())
        if residuals[at] > found[0]:
            found = float(residuals[at]), (layout.name_of(row), layout.name_of(int(columns[at])))
    return found


def merged(checks: Sequence[Check]) -> Check:
    """Checks of several blocks as one: the worst of them, on everything that was compared."""
    worst = max(checks, key=lambda check: (not check.passed, check.relative_residual))
    return replace(
        worst,
        compared=sum(check.compared for check in checks),
        passed=all(check.passed for check in checks),
    )


@dataclass(frozen=True)
class _Residuals:
    """The residuals of some rows: the largest of each row in each group, and where the worst is."""

    groups: NDArray[np.intp]
    maxima: Array
    worst_at: tuple[int, int]

    @classmethod
    def of(cls, layout: Layout, start: int, reference: Panels, candidate: Panels) -> _Residuals:
        """From the panels (HessianBlock.panels) of the rows that begin at ``start``."""
        parts = [_largest_residuals(*pair) for pair in zip(reference, candidate, strict=True)]
        maxima = np.concatenate(parts, axis=1)
        row, group = (int(i) for i in np.unravel_index(int(maxima.argmax()), maxima.shape))
        first, column = 0, 0
        for index, segment in enumerate(layout.segments):
            unit = group - first
            if 0 <= unit < segment.units:
                residuals = reference[index][:, row, unit] - candidate[index][:, row, unit]
                j = int(np.abs(residuals).argmax())
                column = layout.starts[index] + j * segment.units + unit
            first += segment.units
        groups = layout.groups_of(start, start + len(maxima))
        return cls(groups, maxima, (start + row, column))


class _Tally:
    """The largest residual seen so far, for each pair of groups and in all."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.worst = np.zeros((layout.groups, layout.groups))
        self._worst_at = (0, 0)

    def add(self, found: _Residuals) -> None:
        if found.maxima.max() > self.worst.max():
            self._worst_at = found.worst_at
        np.maximum.at(self.worst, found.groups, found.maxima)

    def worst_pair(self) -> tuple[int, int]:
        """The groups of the entry with the largest residual."""
        row, column = (int(self.layout.groups_of(at, at + 1)[0]) for at in self._worst_at)
        return row, column

    def worst_entry(self) -> tuple[str, str]:
        row, column = self._worst_at
        return self.layout.name_of(row), self.layout.name_of(column)


def _largest_residuals(reference: Array, candidate: Array) -> Array:
    """max_j |reference[j] − candidate[j]|, (rows, units)."""
    worst = np.zeros(reference.shape[1:], dtype=reference.dtype)
    # A few j at a time, so that the passes over them stay in the cache.
    for low, high in pieces(0, len(reference), worst.nbytes, _CACHED_BYTES):
        residual = reference[low:high] - candidate[low:high]
        np.abs(residual, out=residual)
        np.maximum(worst, residual.max(axis=0), out=worst)
    return worst


def _largest(panels: Panels) -> float:
    return float(max(np.maximum(panel.max(), -panel.min()) for panel in panels))
