"""When two witnesses agree: the one rule, and what the numbers of a comparison add up to.

A number passes when its residual is at most rtol · scale + floor, plus the error bar if one of
the witnesses has some. The floor is the rounding of what was subtracted
(hesscli.witnesses.rounding.floor); it is an excuse only while it is small: what only a floor above
TRUSTED of the scale would excuse is undecided, and so is what any floor would excuse if the code
of a plugin's layer or loss, which is on trial, has made it.

The scale is |G| + |C| for a quadratic form, and for an entry the largest one of its own block: in
the block of the whole network that of its layer or, between two layers, of the pair, so that a
layer of small entries does not hide behind one of large ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from hesscli.problem.graph import Array
from hesscli.studies.verdict import Judged, Verdict
from hesscli.witnesses.layout import Layout

Names = tuple[str, str] | None
Floor = TypeVar("Floor")
# A floor below this share of the scale is trusted: a missing term or a wrong sign shows.
TRUSTED = 0.1


@dataclass(frozen=True)
class Check(Judged):
    """The outcome of one comparison.

    ``compared`` numbers were compared. The others are those of the worst of them: if some
    fail the one with the largest ``excess``, otherwise the one with the largest residual relative
    to its scale. ``worst`` names its two parameters, and is None for a form;
    ``max_abs_residual`` is its residual, ``max_abs_entry`` the scale that it is judged by (the
    largest entry of its block, or |G| + |C| of a form), ``floor`` the residual that rounding
    explains there, 0 if it was not asked because the tolerance alone is enough.

    Of random products (hesscli.studies.probes) ``max_abs_residual`` is a bound from above on the
    Frobenius norm of the difference and ``max_abs_entry`` one from below on that of the block;
    both hold with the probability ``confidence``, which is None for what is certain.

    If finite differences take part (hesscli.studies.finitechecks), ``error_bar`` is the widest
    one, relative to its scale, among the numbers that were compared, in units of the worst one's
    scale; ``undecided`` how many more numbers their error bars left open.
    """

    method: str
    compared: int
    max_abs_residual: float
    max_abs_entry: float
    rtol: float
    floor: float
    worst: Names
    verdict: Verdict
    error_bar: float = 0.0
    undecided: int = 0
    confidence: float | None = None

    @property
    def failed(self) -> bool:
        return self.verdict is Verdict.FAIL

    @property
    def open_by_rounding(self) -> bool:
        """Whether only a floor that is not to be trusted would excuse it."""
        return self.verdict is Verdict.UNDECIDED and self._needs_floor

    @property
    def relative_residual(self) -> float:
        """The residual in units of the scale; infinite if only the scale is zero."""
        return relative(self.max_abs_residual, self.max_abs_entry)

    @property
    def excess(self) -> float:
        """How far the residual is beyond what is allowed."""
        return float(
            excess(self.max_abs_residual, self.max_abs_entry, self.floor, self.rtol, self.error_bar)
        )

    @property
    def limited_by_rounding(self) -> bool:
        """Whether it passed only because of the floor."""
        return self.passed and self._needs_floor

    @property
    def _needs_floor(self) -> bool:
        return self.max_abs_residual > self.rtol * self.max_abs_entry + self.error_bar

    def on_trial(self) -> Check:
        """The same if the user's own code made the floor: it does not vouch for itself."""
        return replace(self, verdict=Verdict.UNDECIDED) if self.limited_by_rounding else self


def relative(residual: float, scale: float) -> float:
    """The size of residual / scale, if 0 / 0 is 0."""
    if scale > 0:
        return abs(residual) / scale
    return 0.0 if residual == 0 else float("inf")


def excess(
    residual: Array | float,
    scale: float,
    floor: Array | float,
    rtol: float,
    error_bar: Array | float = 0.0,
) -> Array:
    """Residual − (rtol · scale + floor + error bar): a number passes if this is at most 0.

    It is infinite for a residual that is not a number.
    """
    # At the end of the range both sides may overflow: an infinite tolerance allows everything.
    with np.errstate(over="ignore", invalid="ignore"):
        allowed = np.add(np.add(rtol * scale, floor), error_bar)
        beyond = np.subtract(residual, allowed)
        return np.where(
            np.less_equal(residual, allowed),
            np.fmin(beyond, 0.0),
            np.where(np.isnan(beyond), np.inf, beyond),
        )


def _open_to(
    residual: Array | float, floor: Array | float, rtol: float, error_bar: Array | float
) -> Array:
    """Below which scale only a floor that is not small would excuse a residual."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        beyond = np.divide(np.subtract(residual, error_bar), rtol)
        return np.fmin(beyond, np.divide(floor, TRUSTED))


def _is_open(residual: float, scale: float, floor: float, rtol: float, error_bar: float) -> bool:
    return bool(_open_to(residual, floor, rtol, error_bar) > scale)


@dataclass(frozen=True)
class Residual:
    """One number that was compared: its residual, and what excuses it at any scale."""

    size: float
    floor: float
    names: Names = None
    error_bar: float = 0.0

    def excess(self, scale: float, rtol: float) -> float:
        return float(excess(self.size, scale, self.floor, rtol, self.error_bar))

    def judged(
        self,
        method: str,
        scale: float,
        rtol: float,
        compared: int = 1,
        confidence: float | None = None,
    ) -> Check:
        """The check of which this number is the worst."""
        verdict = Verdict.of(self.excess(scale, rtol) <= 0)
        if verdict is Verdict.PASS and _is_open(self.size, scale, self.floor, rtol, self.error_bar):
            verdict = Verdict.UNDECIDED
        return Check(
            method=method,
            compared=compared,
            # What is not a number differs by more than any.
            max_abs_residual=math.inf if math.isnan(self.size) else self.size,
            max_abs_entry=scale,
            rtol=rtol,
            floor=self.floor,
            worst=self.names,
            verdict=verdict,
            error_bar=self.error_bar,
            confidence=confidence,
        )


@dataclass(frozen=True)
class Seen:
    """A summary of numbers that are judged by one scale, which may be known at the end only.

    ``largest`` is the largest number of the reference, ``widest`` the largest residual, and
    ``beyond`` the one that is largest beyond its floor and error bar: whatever the scale is, if
    any number fails this one does, with the largest excess. Likewise if any is undecided
    ``undecided`` is.
    """

    compared: int
    largest: float
    widest: Residual
    beyond: Residual
    undecided: Residual

    @classmethod
    def of(
        cls,
        compared: int,
        largest: float,
        residual: Array,
        floor: Array,
        rtol: float,
        names: Callable[..., Names],
        error_bar: Array | None = None,
    ) -> Seen:
        """From arrays of one shape; ``names`` is called with the place of a residual in them."""
        bars = np.zeros(1) if error_bar is None else error_bar
        floors, bars = np.broadcast_to(floor, residual.shape), np.broadcast_to(bars, residual.shape)

        def at(index: int) -> Residual:
            place = tuple(int(i) for i in np.unravel_index(index, residual.shape))
            number, floor, bar = (float(of[place]) for of in (residual, floors, bars))
            return Residual(number, floor, names(*place), bar)

        beyond = excess(residual, 0.0, floors, 0.0, bars)
        open_to = _open_to(residual, floors, rtol, bars)
        widest, failing, undecided = (at(int(of.argmax())) for of in (residual, beyond, open_to))
        return cls(compared, largest, widest, failing, undecided)

    def joined(self, other: Seen, rtol: float) -> Seen:
        return Seen(
            self.compared + other.compared,
            max(self.largest, other.largest),
            max(self.widest, other.widest, key=lambda found: found.size),
            max(self.beyond, other.beyond, key=lambda found: found.excess(0.0, 0.0)),
            max(
                self.undecided,
                other.undecided,
                key=lambda found: float(_open_to(found.size, found.floor, rtol, found.error_bar)),
            ),
        )

    def check(self, method: str, rtol: float) -> Check:
        found = [
            residual.judged(method, self.largest, rtol, self.compared)
            for residual in (self.beyond, self.undecided, self.widest)
        ]
        failing, undecided, widest = found
        return failing if failing.failed else widest if undecided.passed else undecided


class Tally:
    """The numbers of one comparison, piece by piece, in parts of one scale each."""

    def __init__(self, rtol: float) -> None:
        self.rtol = rtol
        self._parts: dict[Hashable, Seen] = {}

    @property
    def compared(self) -> int:
        return sum(seen.compared for seen in self._parts.values())

    def add(self, part: Hashable, seen: Seen) -> None:
        before = self._parts.get(part)
        self._parts[part] = seen if before is None else before.joined(seen, self.rtol)

    def check(self, method: str) -> Check:
        return merged([seen.check(method, self.rtol) for seen in self._parts.values()])


def excused(
    judged: Callable[[Floor], Sequence[Check]], none: Floor, floor: Callable[[], Floor]
) -> Sequence[Check]:
    """Checks without a floor if the tolerance alone is enough, otherwise again with it.

    What rounding leaves uncertain takes longer to find than what is judged by it, and hardly ever
    decides. ``none`` is the floor that excuses nothing.
    """
    checks = judged(none)
    return judged(floor()) if any(check.failed for check in checks) else checks


def judged_alone(
    method: str,
    residual: float,
    scale: float,
    rtol: float,
    floor: Callable[[], float],
    names: Names = None,
) -> Check:
    """The check of one number alone."""
    size = abs(residual)
    (check,) = excused(
        lambda found: [Residual(size, found, names).judged(method, scale, rtol)], 0.0, floor
    )
    return check


def layer_around(layout: Layout, index: int) -> slice:
    """The parameters of the layer that the parameter ``index`` is in."""
    layers = of_layers(layout, 0, layout.size)
    return next(of for _, of in layers if of.start <= index < of.stop)


def worst(checks: Iterable[Check]) -> Check:
    """The one that fails with the largest excess, or is open, or has the largest residual.

    (The largest relative to its scale.)
    """
    return max(
        checks,
        key=lambda check: (
            check.failed,
            not check.passed,
            check.excess if check.failed else check.relative_residual,
            check.max_abs_entry,
        ),
    )


def merged(checks: Sequence[Check]) -> Check:
    """Checks of several blocks as one: the worst of them, on everything that was compared."""
    return replace(worst(checks), compared=sum(check.compared for check in checks))


def of_layers(layout: Layout, start: int, stop: int) -> list[tuple[int, slice]]:
    """The segments that parameters ``start`` to ``stop`` are in, and which of these are theirs.

    A segment is a layer, whose entries have a scale of their own.
    """
    return [
        (segment, slice(max(low, start) - start, min(high, stop) - start))
        for segment, (low, high) in enumerate(zip(layout.starts, layout.starts[1:], strict=False))
        if low < stop and start < high
    ]
