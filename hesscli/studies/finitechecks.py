"""When a witness agrees with finite differences, and when these cannot tell.

A residual passes when it is at most rtol · scale + floor + error bar and fails beyond. Where the
error bar alone is more than DECISIVE of the scale, finite differences have decided nothing: such
a number is not counted as compared, and a check is undecided where most of its numbers are.
(Where the other witness says that everything is zero, only a difference of exactly zero agrees:
nothing moved within the stencil.)

The scale, the largest number that was compared or |G| + |C| of a form, is the other witness's: it
is the one that has no error bar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hesscli.problem.graph import Array
from hesscli.studies.checks import Check, relative
from hesscli.studies.context import Progress
from hesscli.system.errors import NumericalError
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.summed.finite import FiniteBlock

# An error bar below this share of the scale decides: a missing term or a wrong sign shows.
DECISIVE = 0.1
# Every entry is compared up to this many parameters, random directions are beyond.
ENTRIES_LIMIT = 2_000
RANDOM_DIRECTIONS = 16
_SEED = 0


def check_finite_form(
    parameter: str,
    exact: float,
    finite: tuple[float, float],
    scale: float,
    floor: float,
    rtol: float,
) -> Check:
    """Judges a quadratic form against the value and error bar that finite differences found.

    Raises NumericalError where the exact witness's is not finite.
    """
    value, error = finite
    if not (math.isfinite(exact) and math.isfinite(scale)):
        raise NumericalError(
            f"{parameter}: the quadratic form is not finite; use smaller weights or dtype float64"
        )
    tally = _Tally(scale, rtol)
    tally.add(0, *(np.array([[number]]) for number in (exact, value, error, floor)))
    return tally.check("form", floor, None)


def check_finite_entries(
    exact: HessianBlock, finite: FiniteBlock, floor: Array, rtol: float, progress: Progress
) -> Check:
    """Every entry; ``floor`` (groups, groups) is as in hesscli.studies.checks."""
    size = exact.shape[0]
    rows = exact.rows(0, size)
    _require_finite(exact, rows)
    tally = _Tally(float(np.abs(rows).max()), rtol)
    for start, stop in pieces(0, size, size * rows.itemsize):
        progress(f"{exact.parameter} by finite differences", start, size)
        values, errors = finite.rows_with_error(start, stop)
        groups = exact.layout.groups_of(0, size)
        floors = floor[np.ix_(groups[start:stop], groups)]
        tally.add(start, rows[start:stop], values, errors, floors)
    progress(f"{exact.parameter} by finite differences", size, size)
    row, column = tally.worst_at
    worst = exact.layout.name_of(row), exact.layout.name_of(column)
    return tally.check("entries", float(floor.max()), worst)


def check_finite_products(
    exact: HessianBlock, finite: FiniteBlock, floor: Array, rtol: float, progress: Progress
) -> Check:
    """H·v in RANDOM_DIRECTIONS normal directions, the same ones each time."""
    size = exact.shape[0]
    task = f"{exact.parameter} by finite differences"
    V = np.random.default_rng(_SEED).standard_normal((size, RANDOM_DIRECTIONS))
    groups = exact.layout.groups_of(0, size)
    progress(task, 0, RANDOM_DIRECTIONS)
    products = exact.matmat(V.astype(exact.dtype))
    _require_finite(exact, products)
    # A product's floor: Σ_j floor_ij |v_j|
    weights = np.zeros((exact.layout.groups, RANDOM_DIRECTIONS))
    np.add.at(weights, groups, np.abs(V))
    with np.errstate(over="ignore"):
        floors = (floor @ weights)[groups]
    values, errors = finite.product_with_error(V)
    tally = _Tally(float(np.abs(products).max()), rtol)
    tally.add(0, products, values, errors, floors)
    progress(task, RANDOM_DIRECTIONS, RANDOM_DIRECTIONS)
    return tally.check("products", float(floors.max()), None)


def merged_finite(checks: Sequence[Check]) -> Check:
    """Checks of several blocks as one: the worst of them, on everything that was looked at."""
    failed = [check for check in checks if check.decided and not check.passed]
    worst = max(failed or checks, key=lambda check: (check.relative_residual, check.max_abs_entry))
    # Blocks differ in scale: the bar that is widest for its own block, in the worst one's units.
    widest = max(relative(check.error_bar, check.max_abs_entry) for check in checks)
    compared = sum(check.compared for check in checks)
    undecided = sum(check.undecided for check in checks)
    decided = bool(failed) or _decided(compared, undecided)
    return replace(
        worst,
        compared=compared,
        undecided=undecided,
        error_bar=widest * worst.max_abs_entry,
        decided=decided,
        passed=decided and not failed,
    )


def _decided(compared: int, undecided: int) -> bool:
    return compared > 0 and compared >= undecided


def _require_finite(exact: HessianBlock, numbers: Array) -> None:
    if not np.isfinite(numbers).all():
        raise NumericalError(
            f"{exact.parameter}: an entry of the Hessian is not finite in {exact.dtype}; "
            "use smaller weights or dtype float64"
        )


@dataclass
class _Tally:
    """What was decided so far, by how much, and whether anything is beyond its error bar."""

    scale: float
    rtol: float
    compared: int = 0
    undecided: int = 0
    largest_bar: float = 0.0
    worst: float = 0.0
    worst_at: tuple[int, int] = (0, 0)
    failed: bool = False

    def add(self, start: int, exact: Array, found: Array, bars: Array, floors: Array) -> None:
        """Judges some rows, of which ``start`` is the first, all in arrays of one shape."""
        # At the end of the range both sides may overflow, and then decide nothing.
        with np.errstate(over="ignore"):
            residuals = np.abs(exact - found)
            # Also beyond is what cannot be compared, NaN.
            beyond = ~(residuals <= self.rtol * self.scale + floors + bars)
        decided = beyond | self._decisive(residuals, bars)
        self.compared += int(decided.sum())
        self.undecided += int(decided.size - decided.sum())
        if self.scale > 0:
            self.largest_bar = max(self.largest_bar, float(np.max(bars, where=decided, initial=0)))
        # Once something is beyond its bar, the worst of these is what is shown.
        shown = beyond if beyond.any() else decided
        if beyond.any() and not self.failed:
            self.failed, self.worst = True, 0.0
        elif self.failed and not beyond.any():
            return
        if shown.any():
            at = int(np.where(shown, residuals, -1).argmax())
            row, column = np.unravel_index(at, residuals.shape)
            if residuals[row, column] >= self.worst:
                self.worst = float(residuals[row, column])
                self.worst_at = start + int(row), int(column)

    def check(self, method: str, floor: float, worst: tuple[str, str] | None) -> Check:
        decided = self.failed or _decided(self.compared, self.undecided)
        return Check(
            method=method,
            compared=self.compared,
            max_abs_residual=self.worst,
            max_abs_entry=self.scale,
            rtol=self.rtol,
            floor=floor,
            worst=worst,
            passed=decided and not self.failed,
            error_bar=self.largest_bar,
            undecided=self.undecided,
            decided=decided,
        )

    def _decisive(self, residuals: Array, bars: Array) -> NDArray[np.bool_]:
        if self.scale == 0:
            unmoved: NDArray[np.bool_] = np.isfinite(bars) & (residuals == 0)
            return unmoved
        decisive: NDArray[np.bool_] = bars <= DECISIVE * self.scale
        return decisive
