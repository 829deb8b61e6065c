"""The third witness: finite differences of loss values, and of gradients that these confirm.

Along a direction v, with L(t) the loss and g(t) its gradient at θ + tv:

    vᵀg     D(h) = (8 (L(h) − L(−h)) − (L(2h) − L(−2h))) / 12h                     + O(h⁴)
    vᵀHv    D(h) = (16 (L(h) + L(−h)) − (L(2h) + L(−2h)) − 30 L(0)) / 12h²         + O(h⁴)
    H·v     D(h) = (8 (g(h) − g(−h)) − (g(2h) − g(−2h))) / 12h                     + O(h⁴)

(Fornberg 1988, Math. Comp. 51:699, table 1). The value is D(h); its error bar has two parts:

*   truncation, |D(2h) − D(h)|, which is 15 times the leading term of D(h)'s own error. If it is not
    small next to |D₂(h) − D(h)|, the error of the two nearest points alone (D₂), then the leading
    term is not the largest one, and that counts too;
*   rounding, the uncertainty of L or g times the stencil's weights / h. It is measured: the same
    points are computed again with perturbed numbers (stacked.py), and the largest deviation counts.

The gradient comes from the chain rule's first derivatives, and is used for precision only. Before
it is used, vᵀg and vᵀHv along random directions in every tensor of the block are compared with
the differences of loss values. To the share of itself to which these confirm it, a number by
differences of gradients is trusted: the share is part of its error bar, which is infinite where
nothing was confirmed. Where the two contradict each other the slopes of ``FiniteHessian.slopes``
say so, and a check of them is a FAIL (hesscli.studies.finitechecks).

The step is chosen for each direction by trial: h moves no value that a nonlinear node or the loss
reads by more than ε^(1/5) (ε^(1/6) for second differences), where truncation and rounding are
about equal, and stays away from the corners of relu and its kind. Where it cannot (a
pre-activation stands on a corner, or crosses it all the same, or something moves by 0.1) the error
bar is infinite: nothing was learnt.

Losses and gradients are computed where the problem's arrays are; what is made of them is NumPy's.

Everything is computed in float64. A float32 problem's arrays are taken up to float64 first, so
that ε is always float64's: what is differentiated is the same function, without its rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hesscli.nodes.penalty import each
from hesscli.problem.graph import Array, Penalty
from hesscli.problem.network import Problem
from hesscli.system import xp
from hesscli.system.errors import NumericalError
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.finite.moved import Directions, MovedLoss, Point
from hesscli.witnesses.penalized import of_penalties
from hesscli.witnesses.rounding.noise import Noise

_EPS = float(np.finfo(np.float64).eps)
_TINY = float(np.finfo(np.float64).tiny)
# How far a step moves what moves most; derivatives of every order are of size one there.
GRADIENT_STEP = _EPS ** (1 / 5)
VALUE_STEP = _EPS ** (1 / 6)
# Below this a step times a number of size ε is no longer a normal number: its digits are lost.
_SMALLEST_STEP = _TINY / _EPS
# What a step may have been found to move, relative to what it should, and how often one is tried.
_LEAST, _MOST, _TRIALS = 0.25, 1.25, 16
# How much longer or shorter a step is tried where nothing or everything moves, squared each time;
# beyond the last one nothing moves at all.
_JUMP, _LONGEST_STEP = 1e4, 1e150
# The points of a stencil, in steps, and how near to a corner the farthest may come.
_POINTS = np.array([1, 2, 4])
_FARTHEST, _OF_THE_WAY = 4, 0.5
# The sums of the stencils' weights, which multiply the uncertainty of what is differenced.
_FIRST_WEIGHTS, _SECOND_WEIGHTS = 18 / 12, 64 / 12
# Perturbed points of which the largest deviation is taken: of so many it is hardly ever small.
_PERTURBED = 8
# Random directions in each tensor: where the gradient is wrong, each of them shows it.
_CONFIRMING, _SEED = 2, 0
# A gradient that is open to more than this share of itself is not confirmed.
_OPEN = 0.1
# Beyond this share of the nearest points' own error, truncation is not its leading term alone.
_LEADING = 0.01
# The six gradients with what is made of them, the differences and the bars that are alive at once.
_COPIES = 24


class FiniteDifferences:
    """The finite-difference engine for one problem. It has no Gauss–Newton term.

    (That is a product of first derivatives and the loss's Hessian, which no difference of
    losses or gradients separates from the rest.)
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._blocks: dict[str, FiniteHessian] = {}

    def hessian(self, parameter: str) -> FiniteHessian:
        """The block ``parameter``; raises UnknownBlockError for a name that is none."""
        if parameter not in self._blocks:
            self._blocks[parameter] = FiniteHessian(parameter, self.problem)
        return self._blocks[parameter]


@dataclass(frozen=True)
class Slopes:
    """The same m numbers by gradients and by differences of loss values, and their error bars."""

    by_gradients: Array
    by_values: Array
    bars: Array


@dataclass(frozen=True)
class _Found:
    """What k directions show: H v (k, P) with its bars, and vᵀg and vᵀHv, (2, k).

    ``form_bars`` (k,) are those of vᵀHv by gradients alone.
    """

    products: Array
    bars: Array
    form_bars: Array
    slopes: Slopes


class FiniteHessian(HessianBlock):
    """The Hessian by finite differences, float64 whatever the problem's type.

    Errors are bounds on |value − H v| where the loss is smooth within the stencil, and infinite
    where it is known not to be, and where loss values do not confirm the gradients.
    """

    def __init__(self, parameter: str, problem: Problem) -> None:
        self._loss = loss = MovedLoss(problem, parameter)
        super().__init__(parameter, loss.layout, np.dtype(np.float64))
        self._penalty: tuple[Array, Array] | None = None
        found = of_penalties(problem, parameter, _penalty_curvature)
        bars = of_penalties(problem, parameter, _penalty_bars)
        if found is not None and bars is not None:
            self._penalty = xp.on_host(found), xp.on_host(bars)

    @cached_property
    def slopes(self) -> Slopes:
        """vᵀg and vᵀHv along random directions v in each tensor."""
        found = [found.slopes for found in self._confirming]
        return Slopes(
            np.concatenate([of.by_gradients for of in found], axis=None),
            np.concatenate([of.by_values for of in found], axis=None),
            np.concatenate([of.bars for of in found], axis=None),
        )

    def product_with_error(self, V: Array) -> tuple[Array, Array]:
        """H V and its error bars, both (P, k), for V of shape (P, k)."""
        values, errors = np.empty(V.shape), np.empty(V.shape)
        for low, high in self._pieces(0, V.shape[1]):
            value, error = self._products(V[:, low:high].T)
            values[:, low:high], errors[:, low:high] = value.T, error.T
        return values, errors

    def rows_with_error(self, start: int, stop: int) -> tuple[Array, Array]:
        """Rows ``start`` to ``stop`` of H and their error bars, both (stop − start, P)."""
        size = self.shape[0]
        stop = min(stop, size)
        values, errors = np.empty((stop - start, size)), np.empty((stop - start, size))
        for low, high in self._pieces(start, stop):
            units = np.zeros((high - low, size))
            units[np.arange(high - low), np.arange(low, high)] = 1
            part = slice(low - start, high - start)
            values[part], errors[part] = self._products(units)
        return values, errors

    def form_with_error(self, v: Array) -> tuple[float, float]:
        """vᵀHv and its error bar: of the two ways, the one that is surer of itself."""
        ways = self.form_of_gradients(v), self.form_of_values(v)
        value, error = min(ways, key=lambda found: found[1])
        if self._penalty is not None:
            square = np.square(np.asarray(v, dtype=np.float64).reshape(-1))
            curvature, bars = self._penalty
            value, error = value + float(square @ curvature), error + float(square @ bars)
        return value, error

    def form_of_gradients(self, v: Array) -> tuple[float, float]:
        """vᵀHv as a first difference of slopes vᵀg, and its error bar, without penalties."""
        flat = np.asarray(v, dtype=np.float64).reshape(1, -1)
        with np.errstate(all="ignore"):
            found = self._along(flat)
            # What stays has no part in it, however little is known of it.
            sizes = np.abs(flat * found.products)[0]
            open_to = np.where(sizes > 0, self._open * sizes, 0).sum()
            return _bounded(found.slopes.by_gradients[1, 0], found.form_bars[0] + open_to)

    def form_of_values(self, v: Array) -> tuple[float, float]:
        """vᵀHv as a second difference of loss values, and its error bar, without penalties."""
        with np.errstate(all="ignore"):
            directions = self._loss.directions(np.asarray(v, dtype=np.float64).reshape(1, -1))
            h, stuck = self._steps(directions, VALUE_STEP)
            points = self._stencil(directions, h, slopes=False)
            e_loss, _ = self._rounding(directions, h, points, slopes=False)
            value, bar = self._second_difference(points, h, e_loss)
            bar[stuck | points.crossed.any(axis=(0, 1))] = np.inf
            return _bounded(value[0], bar[0])

    def quadratic_form(self, v: Array) -> float:
        return self.form_with_error(v)[0]

    def _matmat(self, V: Array) -> Array:
        return self.product_with_error(V)[0]

    def _pieces(self, start: int, stop: int) -> list[tuple[int, int]]:
        return list(pieces(start, stop, _COPIES * self._loss.bytes_each))

    def _products(self, V: Array) -> tuple[Array, Array]:
        """H v and its error bars, (k, P), for directions V (k, P)."""
        # What overflows gets an infinite error bar below.
        with np.errstate(all="ignore"):
            found = self._along(V)
            values = found.products
            errors = found.bars + self._open * np.abs(values) + _TINY
            if self._penalty is not None:
                curvature, bars = self._penalty
                values, errors = values + V * curvature, errors + np.abs(V) * bars
        unknown = ~np.isfinite(values) | np.isnan(errors)
        return np.where(unknown, 0, values), np.where(unknown, np.inf, errors)

    @cached_property
    def _open(self) -> Array:
        """To which share of itself the gradient is confirmed (P,), infinite where it is not."""
        shares = []
        for found in self._confirming:
            of = found.slopes
            # Where nothing depends on a tensor there is nothing to confirm.
            idle = not (of.by_gradients.any() or of.by_values.any())
            each = of.bars / np.abs(of.by_gradients)
            share = 0.0 if idle else float(np.fmin.reduce(each, axis=None))
            shares.append(share if share <= _OPEN and _agree(of).all() else np.inf)
        sizes = [int(np.prod(shape)) for shape in self._loss.shapes.values()]
        return np.repeat(shares, sizes)

    @cached_property
    def _confirming(self) -> list[_Found]:
        """The slopes in random directions in each tensor."""
        generator = np.random.default_rng(_SEED)
        found, low = [], 0
        with np.errstate(all="ignore"):
            for shape in self._loss.shapes.values():
                size = int(np.prod(shape))
                V = np.zeros((_CONFIRMING, self.shape[0]))
                V[:, low : low + size] = generator.standard_normal((_CONFIRMING, size))
                found.append(self._along(V))
                low += size
        return found

    @cached_property
    def _gradient(self) -> Array:
        """The gradient at θ (P,)."""
        nowhere = self._loss.directions(np.zeros((1, self.shape[0])))
        with np.errstate(all="ignore"):
            gradient: Array = self._loss.at(nowhere, np.zeros(1)).gradient[0]
        if not np.isfinite(gradient).all():
            raise NumericalError(
                f"{self.parameter}: the gradient leaves the range of float64; use smaller weights"
            )
        return gradient

    def _along(self, V: Array) -> _Found:
        """What directions V (k, P) show. Bars are infinite where nothing was learnt."""
        V = np.ascontiguousarray(V, dtype=np.float64)
        directions = self._loss.directions(V)
        h, stuck = self._steps(directions, GRADIENT_STEP)
        points = self._stencil(directions, h)
        e_loss, e_gradient = self._rounding(directions, h, points)
        nothing = stuck | points.crossed.any(axis=(0, 1))

        products, bars = _first_difference(points.gradient, h[:, None])
        bars += _FIRST_WEIGHTS * e_gradient / h[:, None]
        slope, slope_bars = _first_difference(points.loss, h)
        form, form_bars = _first_difference(np.einsum("stkp,kp->stk", points.gradient, V), h)
        # The gradient is wrong by as much at θ as in a step's reach.
        e_slope = np.abs(V) @ e_gradient
        form_bars += _FIRST_WEIGHTS * e_slope / h
        slope_bars += _FIRST_WEIGHTS * e_loss / h + e_slope
        form_of_values, value_bars = self._second_difference(points, h, e_loss)
        slopes = Slopes(
            np.stack([V @ self._gradient, form]),
            np.stack([slope, form_of_values]),
            np.stack([slope_bars, form_bars + value_bars]) + _TINY,
        )
        unknown = ~np.isfinite(slopes.by_values - slopes.by_gradients + slopes.bars)
        slopes.bars[unknown | nothing] = np.inf
        # Loss values along the very direction may contradict the gradients there.
        nothing |= ~_agree(slopes).all(axis=0)
        bars[nothing], form_bars[nothing] = np.inf, np.inf
        return _Found(products, bars, form_bars, slopes)

    def _stencil(self, directions: Directions, h: Array, *, slopes: bool = True) -> Point:
        """The points at ±h, ±2h and ±4h along each direction, (3, 2, k)."""
        steps = _POINTS[:, None, None] * np.stack([h, -h])
        return self._loss.at(directions, steps, slopes=slopes)

    def _rounding(
        self, directions: Directions, h: Array, points: Point, *, slopes: bool = True
    ) -> tuple[float, Array]:
        """How much rounding leaves uncertain of the loss, and of its gradient (P,).

        The largest deviation at the farthest points: where z is 1e-20, what is rounded is what z
        has moved.
        """
        loss, gradient = points.loss[-1, 0], points.gradient[-1, 0]
        known = ~points.crossed[-1, 0] & np.isfinite(gradient).all(axis=1)
        if not known.any():
            return _TINY, np.full(gradient.shape[1], _TINY)
        noise = Noise(np.random.default_rng(_SEED), _EPS / 2, _TINY)
        steps = np.broadcast_to(_FARTHEST * h, (-(-_PERTURBED // len(h)), len(h)))
        noisy = self._loss.at(directions, steps, noise, slopes=slopes)
        e_loss = np.abs(noisy.loss - loss)[:, known].max()
        e_gradient = np.abs(noisy.gradient - gradient)[:, known].max(axis=(0, 1))
        # Below the smallest normal number digits end, whatever the rounding.
        return float(e_loss + _TINY), e_gradient + _TINY

    def _second_difference(self, points: Point, h: Array, e_loss: float) -> tuple[Array, Array]:
        """vᵀHv by loss values, and its error bars, (k,)."""
        near, middle, far = points.loss.sum(axis=1)
        rest = self._loss.at_rest
        value = (16 * near - middle - 30 * rest) / (12 * h**2)
        of_twice = (16 * middle - far - 30 * rest) / (12 * (2 * h) ** 2)
        truncation = _truncation(value, of_twice, (near - 2 * rest) / h**2)
        return value, truncation + _SECOND_WEIGHTS * e_loss / h**2

    def _steps(self, directions: Directions, step: float) -> tuple[Array, NDArray[np.bool_]]:
        """The step along each direction (k,), and whether there is none (k,).

        As on a corner, or where a kernel is so small that the step could not be any smaller.
        """
        lengths = self._loss.lengths(directions)
        count = len(lengths)
        h, jump = step / lengths, np.full(count, _JUMP)
        shorter, longer = np.zeros(count), np.full(count, np.inf)
        moved, corner = np.zeros(count), np.full(count, np.inf)
        tried = np.arange(count)
        for _ in range(_TRIALS):
            some = {name: xp.take(V, tried, axis=0) for name, V in directions.items()}
            moved[tried], corner[tried] = self._loss.reach(some, h[tried])
            off = (moved < _LEAST * step) | (moved > _MOST * step)
            tried = np.flatnonzero(off & ~((moved == 0) & (h * lengths > _LONGEST_STEP)))
            if not tried.size:
                break
            for i in tried:
                bound = longer if moved[i] > step else shorter
                bound[i] = h[i]
                if 0 < moved[i] < np.inf:
                    h[i] *= step / moved[i]
                else:
                    h[i] *= jump[i] if moved[i] == 0 else 1 / jump[i]
                    jump[i] *= jump[i]
                if not shorter[i] < h[i] < longer[i]:
                    h[i] = np.sqrt(shorter[i]) * np.sqrt(longer[i])
        # Where nothing moves any step is as good as another.
        h = np.where(moved == 0, step / lengths, h)
        h = np.minimum(h, step * self._loss.own_size(directions))
        h = np.minimum(h, _OF_THE_WAY * corner / _FARTHEST)
        stuck = ~((h * lengths >= _SMALLEST_STEP) & np.isfinite(h))
        return np.where(stuck, step / lengths, h), stuck


def _penalty_curvature(theta: Array, penalty: Penalty) -> Array:
    """∂²P/∂θ² of each number, by a second difference of its own."""
    theta, h = xp.double(theta), _penalty_step(theta, penalty)
    near, far = (each(theta + step, penalty) for step in (-h, h))
    with np.errstate(all="ignore"):
        found = (near + far - 2 * each(theta, penalty)) / h**2
    return xp.where(xp.isfinite(found), found, 0.0)


def _penalty_bars(theta: Array, penalty: Penalty) -> Array:
    """The error bars: rounding alone, because the penalty is a parabola; infinite at its kink."""
    theta, h = xp.double(theta), _penalty_step(theta, penalty)
    with np.errstate(all="ignore"):
        bars = 4 * _EPS * each(xp.abs(theta) + h, penalty) / h**2 + _TINY
    return xp.where(xp.isnan(bars), math.inf, bars)


def _penalty_step(theta: Array, penalty: Penalty) -> Array:
    """As far as to half the way to the kink of |θ|."""
    size = xp.abs(xp.double(theta))
    return size / 2 if penalty.l1 else xp.maximum(size, 1.0)


def _first_difference(of: Array, h: Array) -> tuple[Array, Array]:
    """D(h) and its truncation, of what the points of a stencil have, (3, 2, k, …)."""
    near, middle, far = of[:, 0] - of[:, 1]
    value = (8 * near - middle) / (12 * h)
    return value, _truncation(value, (8 * middle - far) / (24 * h), near / (2 * h))


def _truncation(value: Array, of_twice: Array, of_nearest: Array) -> Array:
    """A bound on the truncation of D(h), from D(2h) and the difference of the nearest points."""
    fine, rough = np.abs(of_twice - value), np.abs(of_nearest - value)
    return np.where(fine > _LEADING * rough, fine + rough, fine)


def _agree(of: Slopes) -> NDArray[np.bool_]:
    return np.asarray(~(np.abs(of.by_gradients - of.by_values) > of.bars))


def _bounded(value: float, error: float) -> tuple[float, float]:
    # Below the smallest normal number digits end.
    error += _TINY
    if not np.isfinite([value, error]).all():
        return (float(value) if np.isfinite(value) else 0.0), float("inf")
    return float(value), float(error)
