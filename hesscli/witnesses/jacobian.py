"""The interface of a Jacobian: its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.system.errors import InputError
from hesscli.witnesses.layout import INPUT, Layout, input_example, layout_of


def jacobian_shape(problem: Problem, parameter: str) -> tuple[int, int]:
    """(N·c, P), or (c, P) of an example's input; raises InputError for all inputs at once."""
    if parameter == INPUT:
        raise InputError(
            f"{INPUT}: an output depends on the input of its own example only; ask for the "
            f"Jacobian in {INPUT}[0] to {INPUT}[{problem.examples - 1}]"
        )
    examples = problem.examples if input_example(parameter) is None else 1
    return examples * problem.outputs, layout_of(problem, parameter).size


class JacobianBlock(ABC):
    """The Jacobian ∂f/∂θ of the network's output f (N, c) in the parameters of a block.

    Row n·c + o is the gradient of output o of example n, (N·c, P) in all. The block of one
    example's input has the c rows of that example only, because no other output depends on it;
    the block of all inputs has no Jacobian (InputError).
    """

    def __init__(self, problem: Problem, parameter: str) -> None:
        self.parameter = parameter
        self.shape = jacobian_shape(problem, parameter)
        self.layout: Layout = layout_of(problem, parameter)
        self.dtype: np.dtype[np.floating] = problem.dtype
        self.outputs = problem.outputs
        self.first_example = input_example(parameter) or 0

    @abstractmethod
    def rows(self, start: int, stop: int) -> Array:
        """Rows ``start`` to ``stop``, (stop − start, P), without ever holding all of them."""

    def row_name(self, row: int, before: int = 0) -> str:
        """The output that the row belongs to, as in ``f[3,7]``: output 7 of example 3.

        ``before`` counts the examples that come before those of the problem.
        """
        example, output = divmod(row, self.outputs)
        return f"f[{before + self.first_example + example},{output}]"

    def _examples_and_outputs(
        self, start: int, stop: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The example and the output of each row from ``start`` to ``stop``."""
        examples, outputs = np.divmod(np.arange(start, min(stop, self.shape[0])), self.outputs)
        return self.first_example + examples, outputs
