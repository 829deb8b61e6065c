"""The third witness: finite differences of gradients and of loss values, each with its error bar.

It knows σ, σ′, the loss and its gradient, and no second derivative. Along a direction v, with
g(t) the gradient and L(t) the loss at θ + tv:

    H·v     D(h) = (8 (g(h) − g(−h)) − (g(2h) − g(−2h))) / 12h                     + O(h⁴)
    vᵀHv    D(h) = (16 (L(h) + L(−h)) − (L(2h) + L(−2h)) − 30 L(0)) / 12h²         + O(h⁴)

(Fornberg 1988, Math. Comp. 51:699, table 1). The value is D(h); its error bar has two parts:

*   truncation, |D(2h) − D(h)|, which is 15 times the leading term of D(h)'s own error;
*   rounding, the uncertainty of g or L (moved.py) times the stencil's weights / h.
    It adds sizes where errors would partly cancel; no other factor of safety is on it.

In 1,200 random networks of all activations and losses H's own residual was below 0.14 of the bar.

The step is chosen for each direction: h moves no pre-activation and no output by more than
ε^(1/5) (ε^(1/6) for loss values), where truncation and rounding are about equal, and stays away
from the corners of relu and its kind. Where it cannot (a pre-activation stands on a corner, or
crosses it all the same, or something moves by 0.1 that to first order does not move at all) the
error bar is infinite: nothing was learnt.

Everything is computed in float64. A float32 problem's arrays are taken up to float64 first, so
that ε is always float64's: what is differentiated is the same function, without its rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.system.errors import NumericalError
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.finite.moved import Directions, MovedLoss

_EPS = float(np.finfo(np.float64).eps)
# How far a step moves what moves most; derivatives of every order are of size one there.
GRADIENT_STEP = _EPS ** (1 / 5)
VALUE_STEP = _EPS ** (1 / 6)
# Below this a step times a number of size ε is no longer a normal number: its digits are lost.
_TINY = float(np.finfo(np.float64).tiny)
_SMALLEST_STEP = _TINY / _EPS
# The farthest point of the wider stencil, in steps, and how near to a corner it may come.
_FARTHEST = 4
_OF_THE_WAY = 0.5
# The sums of the stencils' weights, which multiply the uncertainty of what is differenced.
_GRADIENT_WEIGHTS = 18 / 12
_VALUE_WEIGHTS = 64 / 12
# The six gradients, the differences and the bars that are alive at once.
_COPIES = 12


class FiniteDifferences:
    """The finite-difference engine for one problem. It has no Gauss–Newton term.

    (That is a product of first derivatives and the loss's Hessian, which no difference of
    losses or gradients separates from the rest.)
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def hessian(self, parameter: str) -> FiniteHessian:
        """The block ``parameter``; raises KeyError for a name that is none."""
        return FiniteHessian(parameter, MovedLoss(self.problem, parameter))


class FiniteHessian(HessianBlock):
    """The Hessian by finite differences, float64 whatever the problem's type.

    Errors are bounds on |value − H v| where the loss is smooth within the stencil, and infinite
    where it is known not to be.
    """

    def __init__(self, parameter: str, loss: MovedLoss) -> None:
        super().__init__(parameter, loss.layout, np.dtype(np.float64))
        self._loss = loss
        with np.errstate(all="ignore"):
            _, at_rest = loss.rounding(0.0)
            if not np.isfinite(at_rest).all():
                raise NumericalError(
                    f"{parameter}: the gradient leaves the range of float64; use smaller weights"
                )
            e_loss, e_gradient = loss.rounding(_FARTHEST * VALUE_STEP)
        # What overflows within a step tells nothing.
        # Below the smallest normal number digits end, whatever the rounding.
        self._e_loss = e_loss + _TINY if np.isfinite(e_loss) else np.inf
        self._e_gradient = np.where(np.isfinite(e_gradient), e_gradient + _TINY, np.inf)

    def product_with_error(self, V: Array) -> tuple[Array, Array]:
        """H V and its error bars, both (P, k), for V of shape (P, k)."""
        values, errors = np.empty(V.shape), np.empty(V.shape)
        for low, high in pieces(0, V.shape[1], _COPIES * self._loss.bytes_each):
            value, error = self._products(V[:, low:high])
            values[:, low:high], errors[:, low:high] = value.T, error.T
        return values, errors

    def rows_with_error(self, start: int, stop: int) -> tuple[Array, Array]:
        """Rows ``start`` to ``stop`` of H and their error bars, both (stop − start, P)."""
        size = self.shape[0]
        stop = min(stop, size)
        values, errors = np.empty((stop - start, size)), np.empty((stop - start, size))
        for low, high in pieces(start, stop, _COPIES * self._loss.bytes_each):
            units = np.zeros((size, high - low))
            units[np.arange(low, high), np.arange(high - low)] = 1
            part = slice(low - start, high - start)
            values[part], errors[part] = self._products(units)
        return values, errors

    def form_with_error(self, v: Array) -> tuple[float, float]:
        """vᵀHv and its error bar: of the two ways, the one that is surer of itself."""
        return min(self.form_of_gradients(v), self.form_of_values(v), key=lambda found: found[1])

    def form_of_gradients(self, v: Array) -> tuple[float, float]:
        """vᵀHv as a first difference of slopes vᵀg, and its error bar."""
        flat = np.asarray(v, dtype=np.float64).reshape(-1)
        with np.errstate(all="ignore"):
            directions = self._loss.directions(flat[:, None])
            h, stuck = self._steps(directions, GRADIENT_STEP)
            narrow, wide, crossed = self._gradient_differences(directions, h)
            value, other = narrow[0] @ flat, wide[0] @ flat
            uncertain = _GRADIENT_WEIGHTS * (self._e_gradient @ np.abs(flat)) / h[0]
            error = abs(other - value) + uncertain
        return _bounded(value, error, crossed[0] or stuck[0])

    def form_of_values(self, v: Array) -> tuple[float, float]:
        """vᵀHv as a second difference of loss values, and its error bar."""
        flat = np.asarray(v, dtype=np.float64).reshape(-1)
        with np.errstate(all="ignore"):
            directions = self._loss.directions(flat[:, None])
            h, stuck = self._steps(directions, VALUE_STEP)
            rest = self._loss.loss_at_rest()
            pairs, crossed = [], bool(stuck[0])
            for factor in (1, 2, _FARTHEST):
                up, down = (self._loss.at(directions, side * factor * h) for side in (1, -1))
                pairs.append(up.loss[0] + down.loss[0])
                crossed = crossed or bool(up.crossed[0] or down.crossed[0])
            near, middle, far = pairs
            value = (16 * near - middle - 30 * rest) / (12 * h[0] ** 2)
            other = (16 * middle - far - 30 * rest) / (12 * (2 * h[0]) ** 2)
            uncertain = _VALUE_WEIGHTS * self._e_loss / h[0] ** 2
            error = abs(other - value) + uncertain
        return _bounded(value, error, crossed)

    def quadratic_form(self, v: Array) -> float:
        return self.form_with_error(v)[0]

    def _matmat(self, V: Array) -> Array:
        return self.product_with_error(V)[0]

    def _products(self, V: Array) -> tuple[Array, Array]:
        """H V and its error bars, transposed: (k, P)."""
        # What overflows gets an infinite error bar below.
        with np.errstate(all="ignore"):
            directions = self._loss.directions(V)
            h, stuck = self._steps(directions, GRADIENT_STEP)
            values, wide, crossed = self._gradient_differences(directions, h)
            errors = np.abs(wide - values)
            errors += _GRADIENT_WEIGHTS * self._e_gradient / h[:, None]
        errors[crossed | stuck] = np.inf
        unknown = ~np.isfinite(values) | np.isnan(errors)
        values[unknown], errors[unknown] = 0, np.inf
        return values, errors

    def _steps(self, directions: Directions, step: float) -> tuple[Array, NDArray[np.bool_]]:
        """The step along each direction (k,), and whether there is none (k,).

        As on a corner, or where a kernel is so small that the step could not be any smaller.
        """
        natural, corner = self._loss.reach(directions)
        h = np.minimum(step * natural, _OF_THE_WAY * corner / _FARTHEST)
        stuck = ~(h >= _SMALLEST_STEP)
        # Where nothing moves any step is as good as another.
        return np.where(stuck | ~np.isfinite(h), step, h), stuck

    def _gradient_differences(
        self, directions: Directions, h: Array
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """D(h) and D(2h), both (k, P), and along which directions a corner was crossed (k,)."""
        crossed = np.zeros(len(h), dtype=bool)
        differences = []
        for factor in (1, 2, _FARTHEST):
            up, down = (self._loss.at(directions, side * factor * h) for side in (1, -1))
            differences.append(up.gradient - down.gradient)
            crossed |= up.crossed | down.crossed
        near, middle, far = differences
        step = 12 * h[:, None]
        return (8 * near - middle) / step, (8 * middle - far) / (2 * step), crossed


def _bounded(value: float, error: float, crossed: bool) -> tuple[float, float]:
    if crossed or not np.isfinite([value, error]).all():
        return (float(value) if np.isfinite(value) else 0.0), float("inf")
    return float(value), float(error)
