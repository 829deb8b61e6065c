"""How much of a block two witnesses are compared on, and when they agree.

A residual passes when it is at most rtol · scale + floor: the scale is the largest entry for
entries and |G| + |C| for quadratic forms, the floor is the rounding of what was subtracted
(hesscli.engines.rounding).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hesscli.engines.block import HessianBlock
from hesscli.engines.layout import Layout
from hesscli.engines.pieces import pieces
from hesscli.problem.errors import NumericalError
from hesscli.problem.network import Array
from hesscli.studies.context import Progress

# What fits into a core's second-level cache together with its inputs.
_CACHED_BYTES = 2**18
# Relative tolerances, where the configuration gives none.
DEFAULT_RTOL = {"float64": 1e-10, "float32": 1e-5}


@dataclass(frozen=True)
class Check:
    """The outcome of one comparison.

    ``compared`` numbers were compared; ``max_abs_residual`` is the largest difference,
    ``max_abs_entry`` the scale it is judged by (the largest entry of the autodiff block, or
    |G| + |C| for a form), ``floor`` the largest difference that rounding explains.
    ``worst`` names the two parameters of the entry with the largest residual; None for a form.

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
    tallies = [_Tally(reference.layout) for _ in candidates]
    largest = 0.0
    for start, stop in pieces(0, size, size * reference.dtype.itemsize):
        progress(reference.parameter, start, size)
        rows = reference.rows(start, stop)
        largest = float(np.maximum(largest, np.maximum(rows.max(), -rows.min())))
        for tally, candidate in zip(tallies, candidates, strict=True):
            tally.add(start, rows, candidate.rows(start, stop))
    progress(reference.parameter, size, size)
    if not np.isfinite([largest, *(tally.worst.max() for tally in tallies)]).all():
        raise NumericalError(
            f"{reference.parameter}: an entry of the Hessian is not finite in {reference.dtype}; "
            "use smaller weights or dtype float64"
        )
    return tuple(
        Check(
            method="entries",
            compared=size * size,
            max_abs_residual=float(tally.worst.max()),
            max_abs_entry=largest,
            rtol=rtol,
            floor=float(floor.max()),
            worst=tally.worst_entry(),
            passed=bool((tally.worst <= rtol * largest + floor).all()),
        )
        for tally in tallies
    )


def merged(checks: Sequence[Check]) -> Check:
    """Checks of several blocks as one: the worst of them, on everything that was compared."""
    worst = max(checks, key=lambda check: (not check.passed, check.relative_residual))
    return replace(
        worst,
        compared=sum(check.compared for check in checks),
        passed=all(check.passed for check in checks),
    )


class _Tally:
    """The largest residual seen so far, for each pair of groups and in all."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.worst = np.zeros((layout.groups, layout.groups))
        self._worst_at = (0, 0)

    def add(self, start: int, reference: Array, candidate: Array) -> None:
        # A few rows at a time, so that the three passes over them stay in the cache.
        for low, high in pieces(0, len(reference), reference[0].nbytes, _CACHED_BYTES):
            self._add_cached(start + low, np.abs(reference[low:high] - candidate[low:high]))

    def _add_cached(self, start: int, residual: Array) -> None:
        seen = self.worst.max()
        maxima = self.layout.group_maxima(residual)
        groups = self.layout.groups_of(start, start + len(residual))
        np.maximum.at(self.worst, groups, maxima)
        if maxima.max() > seen:
            row, column = np.unravel_index(int(residual.argmax()), residual.shape)
            self._worst_at = (start + int(row), int(column))

    def worst_entry(self) -> tuple[str, str]:
        row, column = self._worst_at
        return self.layout.name_of(row), self.layout.name_of(column)
