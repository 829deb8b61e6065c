"""When a witness agrees with finite differences, and when these cannot tell.

A residual passes when it is at most rtol · scale + floor + error bar and fails beyond. If the
error bar alone is more than DECISIVE of the scale, finite differences have decided nothing: such
a number is not counted as compared, and a check is undecided if most of its numbers are.
(If the other witness says that everything is zero, only a difference of exactly zero agrees:
nothing moved within the stencil.)

Differences of gradients stand on the gradient, which differences of loss values have to confirm
first. If these contradict it, the check of that name, ``slopes``, is a FAIL, and takes the place
of every other one.

The scale is the other witness's, which is the one that has no error bar: |G| + |C| of a form, the
largest entry of a layer's block or of a pair of layers, the largest number that a layer has in
the products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hesscli.problem.graph import Array
from hesscli.studies.checks import product_floors, require_finite_entries
from hesscli.studies.context import Progress
from hesscli.studies.judge import (
    Check,
    Names,
    Residual,
    Seen,
    Tally,
    excess,
    excused,
    of_layers,
    relative,
    worst,
)
from hesscli.studies.verdict import Verdict
from hesscli.system.errors import NumericalError
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import Layout
from hesscli.witnesses.summed.finite import FiniteBlock

# An error bar below this share of the scale decides: a missing term or a wrong sign shows.
DECISIVE = 0.1
# Every entry is compared up to this many parameters, random directions are beyond.
ENTRIES_LIMIT = 2_000
RANDOM_DIRECTIONS = 16
SLOPES = "slopes"
# A contradiction is a residual beyond so many error bars: these are not bounds in every last case.
_CLEAR = 10.0


def contradiction(finite: FiniteBlock, rtol: float) -> Check | None:
    """The check ``slopes`` if loss values contradict the gradients that are differenced.

    None if they do not: then error bars say how much they confirm.
    """
    slopes = finite.slopes
    with np.errstate(over="ignore"):
        bars = _CLEAR * slopes.bars
    failed = []
    for gradient, value, bar in zip(slopes.by_gradients, slopes.by_values, bars, strict=True):
        residual = Residual(abs(float(gradient - value)), 0.0, error_bar=float(bar))
        scale = max(abs(float(gradient)), abs(float(value)))
        # Numbers that are not finite are refused later; without a bar nothing is known.
        if math.isfinite(scale) and math.isfinite(bar):
            check = residual.judged(SLOPES, scale, rtol, compared=len(bars))
            failed += [check] if check.failed else []
    return worst(failed) if failed else None


def check_finite_form(
    parameter: str,
    exact: float,
    finite: tuple[float, float],
    scale: float,
    floor: Callable[[], float],
    rtol: float,
) -> Check:
    """Judges a quadratic form against the value and error bar that finite differences found.

    Raises NumericalError if the exact witness's is not finite.
    """
    value, error = finite
    if not (math.isfinite(exact) and math.isfinite(scale)):
        raise NumericalError(
            f"{parameter}: the quadratic form is not finite; use smaller weights or dtype float64"
        )

    def judged(found: float) -> list[Check]:
        tally = _FiniteTally(rtol)
        numbers = (np.array([number]) for number in (exact, value, error, found))
        tally.add(None, scale, _Numbers(*numbers))
        return [tally.check("form")]

    (check,) = excused(judged, 0.0, floor)
    return check


def check_finite_entries(
    exact: HessianBlock, finite: FiniteBlock, floor: Array, rtol: float, progress: Progress
) -> Check:
    """Every entry; ``floor`` (groups, groups) is as in hesscli.studies.checks."""
    size, layout = exact.shape[0], exact.layout
    all_rows = exact.rows(0, size)
    require_finite_entries(exact, all_rows)
    layers, groups = of_layers(layout, 0, size), layout.groups_of(0, size)
    scales = {
        (i, j): float(np.abs(all_rows[rows, columns]).max())
        for i, rows in layers
        for j, columns in layers
    }
    tally = _FiniteTally(rtol)
    for start, stop in pieces(0, size, size * all_rows.itemsize):
        progress(f"{exact.parameter} by finite differences", start, size)
        values, errors = finite.rows_with_error(start, stop)
        floors = floor[np.ix_(groups[start:stop], groups)]
        numbers = _Numbers(all_rows[start:stop], values, errors, floors)
        for i, rows in of_layers(layout, start, stop):
            for j, columns in layers:
                names = partial(_entry_names, layout, start + rows.start, columns.start)
                tally.add((i, j), scales[i, j], numbers.at((rows, columns)), names)
    progress(f"{exact.parameter} by finite differences", size, size)
    return tally.check("entries")


def check_finite_products(
    exact: HessianBlock,
    finite: FiniteBlock,
    floor: Array,
    rtol: float,
    progress: Progress,
    seed: int = 0,
) -> Check:
    """H·v in RANDOM_DIRECTIONS normal directions."""
    size = exact.shape[0]
    task = f"{exact.parameter} by finite differences"
    V = np.random.default_rng(seed).standard_normal((size, RANDOM_DIRECTIONS))
    progress(task, 0, RANDOM_DIRECTIONS)
    products = exact.matmat(V.astype(exact.dtype))
    require_finite_entries(exact, products)
    floors = product_floors(exact.layout, floor, V)
    values, errors = finite.product_with_error(V)
    tally, numbers = _FiniteTally(rtol), _Numbers(products, values, errors, floors)
    for layer, rows in of_layers(exact.layout, 0, size):
        tally.add(layer, float(np.abs(products[rows]).max()), numbers.at(rows))
    progress(task, RANDOM_DIRECTIONS, RANDOM_DIRECTIONS)
    return tally.check("products")


def merged_finite(checks: Sequence[Check]) -> Check:
    """Checks of several blocks as one: the worst of them, on everything that was looked at."""
    found = worst(checks)
    # Blocks differ in scale: the bar that is widest for its own block, in the worst one's units.
    widest = max(relative(check.error_bar, check.max_abs_entry) for check in checks)
    compared = sum(check.compared for check in checks)
    undecided = sum(check.undecided for check in checks)
    verdict = found.verdict
    if not found.failed:
        doubtful = any(check.open_by_rounding for check in checks)
        decided = _decided(compared, undecided) and not doubtful
        verdict = Verdict.PASS if decided else Verdict.UNDECIDED
    return replace(
        found,
        compared=compared,
        undecided=undecided,
        error_bar=widest * found.max_abs_entry,
        verdict=verdict,
    )


def _decided(compared: int, undecided: int) -> bool:
    return compared > 0 and compared >= undecided


@dataclass(frozen=True)
class _Numbers:
    """Numbers by both witnesses, with their error bars and floors, in arrays of one shape."""

    exact: Array
    finite: Array
    bars: Array
    floors: Array

    def at(self, place: slice | tuple[slice, slice]) -> _Numbers:
        return _Numbers(self.exact[place], self.finite[place], self.bars[place], self.floors[place])


def _entry_names(layout: Layout, first: int, low: int, row: int, column: int) -> Names:
    return layout.name_of(first + row), layout.name_of(low + column)


def _nameless(*_: int) -> Names:
    return None


class _FiniteTally:
    """Counts the numbers that were decided so far, and those that were not."""

    def __init__(self, rtol: float) -> None:
        self._rtol = rtol
        self._tally = Tally(rtol)
        self._compared = self._undecided = 0
        self._widest_bar = 0.0

    def add(
        self,
        part: Hashable,
        scale: float,
        numbers: _Numbers,
        names: Callable[..., Names] = _nameless,
    ) -> None:
        """Judges numbers of one scale."""
        bars, floors = numbers.bars, numbers.floors
        with np.errstate(over="ignore"):
            residuals = np.abs(numbers.exact - numbers.finite)
        beyond = excess(residuals, scale, floors, self._rtol, bars) > 0
        decided = beyond | _decisive(residuals, bars, scale)
        compared = int(decided.sum())
        self._compared += compared
        self._undecided += decided.size - compared
        if scale > 0:
            widest = float(np.max(bars, where=decided, initial=0)) / scale
            self._widest_bar = max(self._widest_bar, widest)
        # A residual of zero is never the worst.
        residuals = np.where(decided, residuals, 0)
        self._tally.add(part, Seen.of(compared, scale, residuals, floors, self._rtol, names, bars))

    def check(self, method: str) -> Check:
        found = self._tally.check(method)
        decided = found.failed or _decided(self._compared, self._undecided)
        return replace(
            found,
            verdict=found.verdict if decided else Verdict.UNDECIDED,
            error_bar=self._widest_bar * found.max_abs_entry,
            undecided=self._undecided,
        )


def _decisive(residuals: Array, bars: Array, scale: float) -> NDArray[np.bool_]:
    if scale == 0:
        unmoved: NDArray[np.bool_] = np.isfinite(bars) & (residuals == 0)
        return unmoved
    decisive: NDArray[np.bool_] = bars <= DECISIVE * scale
    return decisive
