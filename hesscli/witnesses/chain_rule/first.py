"""First derivatives by the chain rule, in NumPy: the gradient of the loss, and the Jacobian of f.

The gradient is read off the second-order sweep, which carries g = ∂L/∂z. The Jacobian has a
backward sweep of its own, with a row for each output instead of the one row of the loss:

    output        J_K = diag(σ′_K)                               ∂f/∂z_K
    dense, then   J_k = (J_{k+1} W_{k+1}ᵀ) diag(σ′_k)            ∂f/∂z_k, (N, c, units)
    activation
    kernel        ∂L/∂W = Σ_n a_n g_nᵀ       ∂f_n[o]/∂W[i,h] = a_n[i] J_n[o,h]
    bias          the same with a_n = 1
    input         ∂L/∂x_n = W_1 g_n          ∂f_n/∂x_n       = J_n W_1ᵀ
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hesscli.nodes.activations import derivatives
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.jacobian import JacobianBlock
from hesscli.witnesses.layout import input_example, layer_of, layout_of


class ChainFirst:
    """The chain rule's first derivatives, of the problem of its second ones."""

    def __init__(self, engine: ChainRule) -> None:
        self.problem = engine.problem
        self.nodes = engine.nodes

    def gradient(self, parameter: str) -> Array:
        layout_of(self.problem, parameter)
        example = input_example(parameter)
        # Overflow is reported by who compares the entries, not by NumPy's warnings.
        with np.errstate(over="ignore", invalid="ignore"):
            if example is not None:
                return np.asarray(self.problem.layers[0].kernel @ self.nodes[0].g_z[example])
            parts = [a.T @ self.nodes[k].g_z for k, a in self._factors(parameter)]
        return np.concatenate([part.reshape(-1) for part in parts])

    def jacobian(self, parameter: str) -> JacobianBlock:
        layout_of(self.problem, parameter)
        example = input_example(parameter)
        if example is not None:
            J, W = self._at_pre_activations[0], self.problem.layers[0].kernel
            return _InputJacobian(self.problem, parameter, J, W)
        factors = [(a, self._at_pre_activations[k]) for k, a in self._factors(parameter)]
        return _ParameterJacobian(self.problem, parameter, factors)

    def _factors(self, parameter: str) -> list[tuple[int, Array]]:
        """For each layer in the block its index, and what its parameters multiply: a, 1 or both."""
        factors = []
        for segment in layout_of(self.problem, parameter).segments:
            index = self.problem.layer_index(layer_of(segment.tensors[0].name))
            a = self.nodes[index].a
            ones = np.ones((len(a), 1), dtype=a.dtype)
            parts = [ones if tensor.is_vector else a for tensor in segment.tensors]
            factors.append((index, np.concatenate(parts, axis=1)))
        return factors

    @cached_property
    def _at_pre_activations(self) -> tuple[Array, ...]:
        """J = ∂f/∂z, (N, c, units), at every layer."""
        layers = self.problem.layers
        with np.errstate(over="ignore", invalid="ignore"):
            slopes = [
                derivatives(layer.activation).first(node.z)
                for layer, node in zip(layers, self.nodes, strict=True)
            ]
            J = slopes[-1][:, :, None] * np.eye(layers[-1].units, dtype=self.problem.dtype)
            sweep = [J]
            for k in reversed(range(len(layers) - 1)):
                J = (J @ layers[k + 1].kernel.T) * slopes[k][:, None, :]
                sweep.append(J)
        return tuple(reversed(sweep))


class _ParameterJacobian(JacobianBlock):
    """∂f_n[o]/∂W[i,h] = a_n[i] J_n[o,h], layer by layer."""

    def __init__(
        self, problem: Problem, parameter: str, factors: list[tuple[Array, Array]]
    ) -> None:
        super().__init__(problem, parameter)
        self._factors = factors

    def rows(self, start: int, stop: int) -> Array:
        n, o = self._examples_and_outputs(start, stop)
        with np.errstate(over="ignore", invalid="ignore"):
            parts = [a[n][:, :, None] * J[n, o][:, None, :] for a, J in self._factors]
        return np.concatenate([part.reshape(len(n), -1) for part in parts], axis=1)


class _InputJacobian(JacobianBlock):
    """∂f_n/∂x_n = J_n W_1ᵀ."""

    def __init__(self, problem: Problem, parameter: str, J: Array, W: Array) -> None:
        super().__init__(problem, parameter)
        self._J = J
        self._W = W

    def rows(self, start: int, stop: int) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            rows: Array = self._J[self._examples_and_outputs(start, stop)] @ self._W.T
        return rows
