"""What a penalty on a tensor, or on a value, adds to the loss: P = Σ l1 |θ| + l2 θ².

∂P/∂θ = l1 sign θ + 2 l2 θ, with 0 for sign 0 as in TensorFlow; ∂²P/∂θ² = 2 l2 on the diagonal, and
0 elsewhere. It is convex, and stands with the Gauss–Newton term.

A penalty on a value v of the graph is one more loss of each example, c P(v_n) with c = 1/N. With J
how v moves, its Hessian is c Jᵀ ∂²P J, which is Gauss–Newton's, and the curvature of what lies
below, bent by the cotangent c ∂P.
"""

from __future__ import annotations

from hesscli.problem.graph import Array, Penalty
from hesscli.system import xp


def each(theta: Array, penalty: Penalty) -> Array:
    """l1 |θ| + l2 θ² of each number."""
    total: Array = penalty.l1 * xp.abs(theta) + penalty.l2 * xp.square(theta)
    return total


def gradient(theta: Array, penalty: Penalty) -> Array:
    """∂P/∂θ, like θ."""
    slope: Array = penalty.l1 * xp.sign(theta) + 2 * penalty.l2 * theta
    return slope


def curvature(theta: Array, penalty: Penalty) -> Array:
    """The diagonal of ∂²P/∂θ², like θ."""
    return xp.full_like(theta, 2 * penalty.l2)
