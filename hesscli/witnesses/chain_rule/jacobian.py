"""The chain rule's Jacobian: the c unit cotangents of each example, pulled back."""

from __future__ import annotations

from hesscli.nodes.passes import Linearized
from hesscli.problem.graph import INPUT, Array
from hesscli.problem.network import Problem
from hesscli.system import xp
from hesscli.witnesses.jacobian import JacobianBlock
from hesscli.witnesses.layout import input_example


class ChainJacobian(JacobianBlock):
    """The rows of an example are the c unit cotangents of its outputs, pulled back."""

    def __init__(self, problem: Problem, parameter: str, linearized: Linearized) -> None:
        super().__init__(problem, parameter)
        self._linearized = linearized
        in_input = input_example(parameter) is not None
        self._of = ((), (INPUT,)) if in_input else (self.layout.tensors, ())
        self._linearized.reach(*self._of)

    def rows(self, start: int, stop: int) -> Array:
        stop = min(stop, self.shape[0])
        rows = xp.empty((stop - start, self.shape[1]), like=self._linearized.f)
        for low in range(start - start % self.outputs, stop, self.outputs):
            of_example = self._of_example(self.first_example + low // self.outputs)
            inside = slice(max(start, low), min(stop, low + self.outputs))
            rows[inside.start - start : inside.stop - start, :] = of_example[
                inside.start - low : inside.stop - low, :
            ]
        return rows

    def _of_example(self, example: int) -> Array:
        tensors, values = self._of
        chosen = slice(example, example + 1)
        found = self._linearized.pulled_outputs(chosen, tensors, values)
        if values:
            (J,) = found.values.values()
            return xp.reshape(J, (self.outputs, -1))
        zeros = {
            name: xp.zeros((self.outputs, *tensor.shape), like=tensor)
            for name, tensor in self._linearized.graph.tensors.items()
            if name in tensors and name not in found.tensors
        }
        by_column = self.layout.join({**found.tensors, **zeros})
        return xp.swapaxes(by_column, 0, 1)
