"""A block with the penalties of its parameters, which add to its diagonal.

A penalty is a sum over numbers, so its Hessian is diagonal; each witness finds the diagonal itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hesscli.problem.graph import Array, Penalty
from hesscli.problem.network import Problem
from hesscli.system import xp
from hesscli.witnesses.block import HessianBlock, flat_of
from hesscli.witnesses.layout import layout_of
from hesscli.witnesses.ondevice import on_host
from hesscli.witnesses.solution import Exact

# What a penalty gives for each number of a tensor.
OfTensor = Callable[[Array, Penalty], Array]


def of_penalties(problem: Problem, parameter: str, of: OfTensor) -> Array | None:
    """``of`` each parameter of a block, (P,), as much of it as belongs to the problem's examples.

    0 if a tensor has no penalty; None if none has.
    """
    layout, tensors = layout_of(problem, parameter), problem.graph.tensors
    if not any(name in problem.penalties for name in layout.tensors):
        return None
    parts = {
        name: of(tensors[name], problem.penalties.get(name, Penalty()))[None, ...]
        for name in layout.tensors
    }
    found = layout.join(parts)[:, 0]
    share: Array = found * problem.share
    return share


def penalized(block: HessianBlock, problem: Problem, of: OfTensor) -> HessianBlock:
    """``block``, with the diagonal of its penalties if there are some."""
    diagonal = of_penalties(problem, block.parameter, of)
    return block if diagonal is None else PenalizedBlock(block, diagonal)


class PenalizedBlock(HessianBlock):
    """H + diag(d), d = ``added`` (P,)."""

    def __init__(self, block: HessianBlock, diagonal: Array) -> None:
        super().__init__(block.parameter, block.layout, block.dtype)
        self.in_threads, self.semidefinite = block.in_threads, block.semidefinite
        self.most_eigenvalues = block.most_eigenvalues
        self.block = block
        self.added = diagonal

    def _matmat(self, V: Array) -> Array:
        V = xp.astype(V, self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            product: Array = self.block.matmat(V) + self.added[:, None] * V
            return product

    def exactly(self, v: Array, damping: float) -> Exact | None:
        first = float(self.added[0])
        if not xp.all(self.added == first):
            return super().exactly(v, damping)
        # The same for all parameters, it is more damping.
        found = self.block.exactly(v, damping + first)
        return found and replace(found, smallest=found.smallest + first)

    @property
    def operand(self) -> Array:
        return self.block.operand

    @property
    def _like(self) -> Array:
        return self.block._like

    @property
    def row_bytes(self) -> int:
        return self.block.row_bytes

    def rows(self, start: int, stop: int) -> Array:
        rows = xp.copy(self.block.rows(start, stop))
        n, size = rows.shape
        flat = xp.reshape(rows, (n * size,))
        flat[start :: size + 1] += self.added[start : start + n]
        return xp.reshape(flat, (n, size))

    def diagonal(self) -> Array:
        diagonal: Array = self.block.diagonal() + self.added
        return diagonal

    def quadratic_form(self, v: Array) -> float:
        flat = xp.double(flat_of(v, self.dtype))
        with np.errstate(over="ignore", invalid="ignore"):
            added = float(xp.sum(xp.double(self.added) * xp.square(flat)))
            return self.block.quadratic_form(v) + added


def unpenalized(block: HessianBlock) -> HessianBlock:
    """The block of the loss over the examples alone, with its arrays on the host."""
    own = on_host(block)
    return own.block if isinstance(own, PenalizedBlock) else own
