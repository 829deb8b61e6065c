"""What the tridiagonal matrix of a Lanczos process says of the spectral measure of its vector.

Of all measures with the same first moments, which T of k rows and the length β_k of the next
vector fix, the Gauss–Radau quadrature with a node at x has the least share below x and the most up
to x (Chebyshev, Markov, Stieltjes; Golub and Meurant, "Matrices, Moments and Quadrature", 2010,
chapters 2 and 6). That quadrature belongs to T with one row more, of the diagonal

    α = x + β_k² Σ_i s_i² / (θ_i − x),      s_i the last components of T's eigenvectors.

For f(λ) = |λ| the error of the quadrature with a node at 0, of weight w, is at least 0 and at most
2 w times the way to the next node: the error of the mean of max(λ − ξ, 0) is a function of ξ that
is convex between nodes, has slopes between −w and w beside one, and changes its sign between any
two of them, as it is orthogonal to every polynomial of two degrees less than the quadrature is
exact for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigh_tridiagonal

from hesscli.studies.spectra.measures import Doubles

# A diagonal so much larger than T says that x is one of its nodes, to rounding.
_HUGE = 1e8


@dataclass(frozen=True)
class Tridiagonal:
    """T of the diagonals α (k,) and β (k,), whose last is the length of the next vector.

    It is 0 where there is none: then the quadrature is exact.
    """

    alphas: Doubles
    betas: Doubles

    @cached_property
    def _decomposed(self) -> tuple[Doubles, Doubles, Doubles]:
        """The nodes θ, ascending, their weights τ and the last components s."""
        nodes, vectors = eigh_tridiagonal(self.alphas, self.betas[:-1])
        return nodes, vectors[0] ** 2, vectors[-1]

    @property
    def nodes(self) -> Doubles:
        return self._decomposed[0]

    @property
    def weights(self) -> Doubles:
        return self._decomposed[1]

    def square(self, unit: float) -> float:
        """‖Hv‖², in squares of a unit."""
        return float((self.alphas[0] / unit) ** 2 + (self.betas[0] / unit) ** 2)

    def below(self, x: float, reach: float) -> tuple[float, float, float]:
        """The measure's share below x: estimated, at least and at most.

        The bounds hold also where x is off by up to ``reach``.
        """
        nodes, weights, _ = self._decomposed
        estimate = float(weights[nodes < x].sum())
        if self.betas[-1] == 0:
            return (
                estimate,
                float(weights[nodes < x - reach].sum()),
                float(weights[nodes <= x + reach].sum()),
            )
        return estimate, self._bounds(x - reach)[0], self._bounds(x + reach)[1]

    def absolute(self, norm: float) -> tuple[float, float, float]:
        """The mean of |λ|: estimated, at least and at most, where no |λ| is above ``norm``."""
        nodes, weights, _ = self._decomposed
        estimate = float(weights @ np.abs(nodes))
        if self.betas[-1] == 0:
            return estimate, estimate, estimate
        found = self._radau(0.0)
        if found is None:
            return estimate, 0.0, norm
        nodes, weights, at = found
        others = np.concatenate([[-norm], np.delete(nodes, at), [norm]])
        way = min(-others[at], others[at + 1])
        low = float(weights @ np.abs(np.where(np.arange(len(nodes)) == at, 0.0, nodes)))
        return estimate, low, low + 2 * float(weights[at]) * max(way, 0.0)

    def _bounds(self, x: float) -> tuple[float, float]:
        """The least share below x, and the most up to x."""
        found = self._radau(x)
        if found is None:
            nodes, weights, _ = self._decomposed
            at = int(np.abs(nodes - x).argmin())
        else:
            nodes, weights, at = found
        low = float(weights[:at].sum())
        return low, min(low + float(weights[at]), 1.0)

    def _radau(self, x: float) -> tuple[Doubles, Doubles, int] | None:
        """Nodes, weights, and which of the nodes is x; None where x is a node of T."""
        theta, _, last = self._decomposed
        beyond = self.betas[-1]
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            alpha = x + float((beyond * (beyond * last**2 / (theta - x))).sum())
        if not abs(alpha) <= _HUGE * max(np.abs(theta).max(), abs(x)):
            return None
        nodes, vectors = eigh_tridiagonal(np.append(self.alphas, alpha), self.betas)
        # Of the nodes one lies in each gap of T's own, and x in the one where it is.
        return nodes, vectors[0] ** 2, int((theta < x).sum())
