"""First derivatives by the chain rule: the gradient of the loss, and the Jacobian of f.

Both are pulled back through the graph: the gradient from the one cotangent ∂L/∂f, the Jacobian
from the c unit cotangents of each example.
"""

from __future__ import annotations

import numpy as np

from hesscli.nodes import penalty
from hesscli.problem.graph import INPUT, Array
from hesscli.system.errors import InputError
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.jacobian import JacobianBlock
from hesscli.witnesses.layout import input_example, layout_of
from hesscli.witnesses.penalized import of_penalties


class ChainFirst:
    """The chain rule's first derivatives, of the problem of its second ones."""

    def __init__(self, engine: ChainRule) -> None:
        self.engine = engine
        self.problem = engine.problem

    def gradient(self, parameter: str) -> Array:
        """∂L/∂θ (P,) of a block; of ``input`` in all inputs, one after the other."""
        layout = layout_of(self.problem, parameter)
        example = input_example(parameter)
        if example is not None or parameter == INPUT:
            chosen = slice(None) if example is None else slice(example, example + 1)
            return self.engine.gradient_at(INPUT)[chosen].reshape(-1)
        found = self.engine.linearized.cotangents(tensors=layout.tensors).tensors
        tensors = self.problem.graph.tensors
        for name in layout.tensors:
            # The output may not depend on it.
            found.setdefault(name, np.zeros_like(tensors[name])[None])
        gradient: Array = layout.join(found)[:, 0]
        added = of_penalties(self.problem, parameter, penalty.gradient)
        return gradient if added is None else gradient + added

    def jacobian(self, parameter: str) -> JacobianBlock:
        if parameter == INPUT:
            raise InputError(
                f"{INPUT}: an output depends on its own example only; use {INPUT}[0] or another"
            )
        return _ChainJacobian(self.engine, parameter)


class _ChainJacobian(JacobianBlock):
    """The rows of an example are the c unit cotangents of its outputs, pulled back."""

    def __init__(self, engine: ChainRule, parameter: str) -> None:
        super().__init__(engine.problem, parameter)
        self._linearized = engine.linearized
        in_input = input_example(parameter) is not None
        self._of = ((), (INPUT,)) if in_input else (self.layout.tensors, ())
        self._linearized.reach(*self._of)

    def rows(self, start: int, stop: int) -> Array:
        stop = min(stop, self.shape[0])
        rows = np.empty((stop - start, self.shape[1]), dtype=self.dtype)
        for low in range(start - start % self.outputs, stop, self.outputs):
            of_example = self._of_example(self.first_example + low // self.outputs)
            inside = slice(max(start, low), min(stop, low + self.outputs))
            rows[inside.start - start : inside.stop - start] = of_example[
                inside.start - low : inside.stop - low
            ]
        return rows

    def _of_example(self, example: int) -> Array:
        tensors, values = self._of
        chosen = slice(example, example + 1)
        found = self._linearized.pulled_outputs(chosen, tensors, values)
        if values:
            (J,) = found.values.values()
            return np.asarray(J.reshape(self.outputs, -1))
        zeros = {
            name: np.zeros((self.outputs, *tensor.shape), dtype=self.dtype)
            for name, tensor in self._linearized.graph.tensors.items()
            if name in tensors and name not in found.tensors
        }
        return np.asarray(self.layout.join({**found.tensors, **zeros}).T)
