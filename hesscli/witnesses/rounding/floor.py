"""How far apart two correct witnesses may be: the floor below which a residual is rounding.

A tolerance relative to the largest entry is not enough. Where a unit is saturated, an entry is
the product of a σ′ such as 1 − tanh² that has been *subtracted*: it is wrong by the rounding of
what it was subtracted from, however small it is itself. So the floor follows the rounding of
every step through the same sweep, to first order in the unit roundoff u:

1.  Each elementary result is wrong by about u times the largest term that it was summed from.
    For σ, σ′ and σ″ those are the terms of TensorFlow's formulas (rounding_terms.py: for tanh,
    1 + y² for σ′ and 2|y| (1 + y²) for σ″); for a sum of n products √n times their root sum of
    squares; for the loss's p (δ − p) the size of p.
2.  These errors travel as the quantities do. Independent ones add as squares through a matrix
    product (Higham and Mary 2019, SIAM J. Sci. Comput. 41:A2815), and by size elsewhere:

        z = aW + b       e_z² = e_a² W² + n u² a² W² + u² b²
        σ^(k)(z)         e_k  = |σ^(k)(z ± e_z) − σ^(k)(z)| + u · terms of σ^(k)
        g_z = σ′ g_a     e_gz = e_1 |g_a| + |σ′| e_ga + e_1 e_ga
        S_z              E_z  = (|σ′| + e_1)(|S_a| + E_a)(|σ′| + e_1)ᵀ − |σ′| |S_a| |σ′|ᵀ
                                + diag(e_2 |g_a| + |σ″| e_ga + e_2 e_ga)
        g_x = g_z Wᵀ     e_x² = e_gz² (W²)ᵀ + n u² g_z² (W²)ᵀ
        S_x = W S_z Wᵀ   the same, twice

    (squares, sizes and σ^(k) elementwise). Where e_z is as wide as what σ^(k) does, as after a sum
    that cancels, the spread is the largest inside of it; a probability moves by p (exp(e_f) − 1),
    1 at most; where squares vanish beside others, the sum of sizes takes their place.
3.  The floor of g and S at a node is SAFETY · their errors there. That of an entry of the kernel
    block is SAFETY · Σ_n of the errors of a_n a_nᵀ ⊗ S_n at the largest input, for each pair
    (h, l) of units; those of a product and of a quadratic form follow the R-operator in the same
    way (rounding_products.py). The floors of first derivatives come from the same errors e_g,
    and from a sweep like that of g for each row of the Jacobian.

A residual passes when it is at most rtol · (the largest entry) + floor. In a network that is not
saturated the floor is some hundred u of the largest entry and decides nothing; in a saturated one
it is what the two witnesses cannot know. A wrong formula there is off by the terms themselves,
not by u times them.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hesscli.problem.graph import Array
from hesscli.system.errors import NumericalError
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.jacobian import JacobianBlock
from hesscli.witnesses.layout import NETWORK, input_example, layer_of, layout_of
from hesscli.witnesses.quantities import Quantity
from hesscli.witnesses.rounding.first import InputFloor, ParameterFloor, Uncertain
from hesscli.witnesses.rounding.products import ProductErrors
from hesscli.witnesses.rounding.sweep import SAFETY, ErrorSweep, root_of_squares


class RoundingFloor:
    """The floors of every block of one problem, from the chain rule's own quantities.

    (All but the block of all inputs at once: between two examples it is 0 without rounding.)

    Raises NumericalError where the errors themselves leave the range of float64.
    """

    def __init__(self, engine: ChainRule) -> None:
        self._problem = engine.problem
        self._swept = ErrorSweep(engine)

    def node(self, quantity: Quantity, start: int, stop: int) -> tuple[Array, Array]:
        """The floors of g (n, d) and S (n, d, d) at one quantity, for some of the examples."""
        chosen, index = slice(start, stop), quantity.layer
        with np.errstate(over="ignore", invalid="ignore"):
            if quantity.kind == "loss":
                e_g, E = (error[chosen] for error in self._swept.at_output())
            elif quantity.kind == "activation":
                e_g, E = self._swept.errors[index].g[chosen], self._swept.second(index)[1][chosen]
            else:
                node, error = self._swept.nodes[index], self._swept.errors[index]
                e_g = self._swept.product_error(node.g_z[chosen], error.g[chosen], node.W.T)
                E = self._swept.through_dense(index, chosen)
            return _finite(SAFETY * e_g, quantity.name), _finite(SAFETY * E, quantity.name)

    def entries(self, parameter: str) -> Array:
        """The floor of the block's entries for each pair of groups, (groups, groups)."""
        with np.errstate(over="ignore", invalid="ignore"):
            if parameter == NETWORK:
                floor = self._network_entries()
            elif (example := input_example(parameter)) is not None:
                floor = self._swept.through_dense(0, slice(example, example + 1))[0]
            else:
                floor = self._layer_entries(parameter)
            return _finite(SAFETY * floor, parameter)

    def quadratic_form(self, parameter: str, v: Array) -> float:
        """The floor of vᵀ H v for v of the block's size."""
        with np.errstate(over="ignore", invalid="ignore"):
            floor = self._products(parameter, v).form()
            return float(_finite(np.asarray(SAFETY * floor), parameter))

    def product_norm(self, parameter: str, v: Array) -> float:
        """The root of the sum of squares of the floors of the numbers in H v."""
        with np.errstate(over="ignore", invalid="ignore"):
            floor = self._products(parameter, v).norm()
            return float(_finite(np.asarray(SAFETY * floor), parameter))

    def _products(self, parameter: str, v: Array) -> ProductErrors:
        return ProductErrors(self._swept, parameter, v.astype(np.float64).reshape(-1))

    def gradient(self, parameter: str) -> Array:
        """The floor of ∂L/∂θ, (P,) for the block's parameters."""
        with np.errstate(over="ignore", invalid="ignore"):
            if (example := input_example(parameter)) is not None:
                node, chosen = self._swept.nodes[0], slice(example, example + 1)
                e_g = self._swept.errors[0].g[chosen]
                floor = self._swept.product_error(node.g_z[chosen], e_g, node.W.T)[0]
            else:
                names = self._problem.layer_names if parameter == NETWORK else (parameter,)
                floor = np.concatenate([self._layer_gradient(name) for name in names])
            return _finite(SAFETY * floor, parameter)

    def _layer_gradient(self, parameter: str) -> Array:
        # Σ_n a_n g_nᵀ, whose examples' errors may have the same sign.
        index = self._problem.layer_index(layer_of(parameter))
        g, e_g = np.abs(self._swept.nodes[index].g_z), self._swept.errors[index].g
        a, e_a = (value.T for value in self._inputs(parameter))
        of_sum = self._swept.product_error(a, np.zeros_like(a), g)
        return np.asarray(a @ e_g + e_a @ (g + e_g) + of_sum).reshape(-1)

    def jacobian(self, parameter: str) -> JacobianBlock:
        """The floor of ∂f/∂θ, whose rows are asked for like those of the Jacobian."""
        problem = self._problem
        if (example := input_example(parameter)) is not None:
            J, W = self._jacobians[0], self._swept.nodes[0].W
            with np.errstate(over="ignore", invalid="ignore"):
                floor = SAFETY * self._swept.product_error(J.size[example], J.error[example], W.T)
            return InputFloor(problem, parameter, _finite(floor, parameter))
        names = problem.layer_names if parameter == NETWORK else (parameter,)
        factors = tuple(
            (Uncertain(*self._inputs(name)), self._jacobians[problem.layer_index(layer_of(name))])
            for name in names
        )
        return ParameterFloor(problem, parameter, factors, self._swept.u, self._swept.tiny, SAFETY)

    @cached_property
    def _jacobians(self) -> tuple[Uncertain, ...]:
        """J = ∂f/∂z (N, c, units) at every layer, with the error of its own sweep.

        e_J = e_1 |J_a| + (|σ′| + e_1) e_Ja,   J_a = J Wᵀ of the layer above
        """
        with np.errstate(over="ignore", invalid="ignore"):
            e_1 = self._swept.errors[-1].first[:, :, None]
            identity = np.eye(e_1.shape[1])
            J, e_J = self._swept.nodes[-1].slope[:, :, None] * identity, e_1 * identity
            sweep = [Uncertain(np.abs(J), e_J)]
            for k in reversed(range(len(self._swept.nodes) - 1)):
                W = self._swept.nodes[k + 1].W
                J_a, e_Ja = J @ W.T, self._swept.product_error(J, e_J, W.T)
                slope = self._swept.nodes[k].slope[:, None, :]
                e_1 = self._swept.errors[k].first[:, None, :]
                J = slope * J_a
                e_J = e_1 * np.abs(J_a) + (np.abs(slope) + e_1) * e_Ja + self._swept.tiny
                sweep.append(Uncertain(np.abs(J), e_J))
        for uncertain, name in zip(reversed(sweep), self._problem.layer_names, strict=True):
            _finite(uncertain.error, name)
        return tuple(reversed(sweep))

    def _layer_entries(self, parameter: str) -> Array:
        index = self._problem.layer_index(layer_of(parameter))
        S, e_S = self._swept.second(index)
        a, e_a = (value[:, :, None].max(axis=1, keepdims=True) for value in self._inputs(parameter))
        return self._summed(a * a, (2 * a + e_a) * e_a, np.abs(S), e_S)

    def _network_entries(self) -> Array:
        names = self._problem.layer_names
        blocks: list[list[Array]] = [[np.empty(0)] * len(names) for _ in names]
        for k, name in enumerate(names):
            blocks[k][k] = self._layer_entries(name)
        for (k, upper), cross in self._swept.cross_terms().items():
            a_k, e_k = (value.max(axis=1)[:, None, None] for value in self._inputs(names[k]))
            a_l, e_l = (value.max(axis=1)[:, None, None] for value in self._inputs(names[upper]))
            g, e_g = (
                np.abs(self._swept.nodes[upper].g_z)[:, :, None],
                self._swept.errors[upper].g[:, :, None],
            )
            M, e_M = (x.max(axis=1)[:, None, :] for x in (np.abs(cross.M), cross.e_M))
            B, e_B = np.abs(cross.B), cross.e_B
            value = M * g + a_l * B
            error = e_M * (g + e_g) + M * e_g + (a_l + e_l) * e_B + e_l * B
            floor = self._summed(a_k, e_k, value, error)
            blocks[upper][k], blocks[k][upper] = floor, floor.T
        return np.block(blocks)

    def _summed(self, factor: Array, e_factor: Array, value: Array, error: Array) -> Array:
        """The error of Σ_n factor · value, whose factors (N, 1, 1) and values have errors."""
        of_examples = factor * error + e_factor * (value + error)
        of_sum = self._swept.u * np.sqrt(len(value)) * root_of_squares(factor * value, axis=0)
        return np.asarray(of_examples.sum(axis=0) + of_sum + len(value) * self._swept.tiny)

    def _inputs(self, parameter: str) -> tuple[Array, Array]:
        """What the layer's parameters multiply, in size, and its error: a, 1, or a with a 1."""
        index = self._problem.layer_index(layer_of(parameter))
        a, e_a = np.abs(self._swept.nodes[index].a), self._swept.errors[index].a
        ones = np.ones((len(a), 1))
        (segment,) = layout_of(self._problem, parameter).segments
        parts = [(ones, 0 * ones) if t.is_vector else (a, e_a) for t in segment.tensors]
        return (
            np.concatenate([value for value, _ in parts], axis=1),
            np.concatenate([error for _, error in parts], axis=1),
        )


def _finite(floor: Array, layer: str) -> Array:
    if not np.isfinite(floor).all():
        raise NumericalError(
            f"{layer}: the rounding error of its derivatives leaves the range of float64; "
            "use smaller weights"
        )
    return floor
