"""What a node's calculus is: four methods, and the records that they pass on.

A node is y = F(x_1 … x_m; θ), applied to each of n examples on its own. Shapes are those of
arrays with leading axes n and, for k directions or cotangents at once, k:

    forward   y                                         x (n, *in) → y (n, *out)
    push      J (Rx, V), how y moves along directions   Rx (n, k, *in), V (k, *θ) → (n, k, *out)
    pull      Jᵀ g, of k cotangents g of y              g (n, k, *out) → (n, k, *in), (k, *θ)
    bend      Σ_h g[h] ∂²F_h (Rx, V)                    of one g (n, *out) → like pull

``forward`` returns a frozen record ``at`` of what the other three need again; a calculus itself
holds no state of an example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hesscli.problem.graph import Array

# Parameters, or directions in them, by the role that they have in the node.
Tensors = Mapping[str, Array]
# How each input moves; None for one that does not.
Moves = Sequence[Array | None]


class At(Protocol):
    """What ``forward`` keeps of some examples."""

    def part(self, chosen: slice) -> At:
        """The same of fewer examples."""
        ...


@dataclass(frozen=True)
class Wanted:
    """What is asked of ``pull``: which of the inputs, and the parameters by their roles."""

    inputs: tuple[bool, ...]
    tensors: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Pulled:
    """What cotangents are worth at the inputs, and at the parameters by role; None if not wanted.

    Arrays of a node that has a ``bend`` are new ones, so that it can add to them.
    """

    inputs: list[Array | None]
    tensors: dict[str, Array]


class Calculus(ABC):
    """The calculus of one node. ``curved`` and ``second`` have general definitions.

    ``at`` is an ``At`` of the calculus's own; what ``forward`` returns may be given to ``push``
    and ``pull``, and what ``curved`` makes of it to all methods.
    """

    @abstractmethod
    def forward(self, x: Sequence[Array], theta: Tensors) -> tuple[Array, Any]: ...

    @abstractmethod
    def push(self, at: Any, Rx: Moves, V: Tensors) -> Array: ...

    @abstractmethod
    def pull(self, at: Any, g: Array, wanted: Wanted) -> Pulled: ...

    def curved(self, at: Any, g: Array) -> Any:
        """``at`` with what ``bend`` needs of the cotangent g (n, *out) of the loss."""
        return at

    def bend(self, at: Any, Rx: Moves, V: Tensors, into: Pulled) -> None:
        """Adds the node's own curvature to what ``pull`` gave: nothing for a linear node."""
        return

    def second(self, at: Any, S: Array, position: int, *, bent: bool) -> Array:
        """The Hessian at an input out of S (n, *out, *out) at y: Jᵀ S J, and ``bend`` if bent.

        By two pulls, I = pull(pull(S)ᵀ)ᵀ, and unit directions for ``bend``.
        """
        wanted = Wanted(tuple(index == position for index in range(position + 1)))
        half = _only(self.pull(at, S, wanted), position)
        whole = self.pull(at, np.ascontiguousarray(half.swapaxes(1, 2)), wanted)
        if bent:
            linear = _only(whole, position)
            units = np.broadcast_to(np.eye(linear.shape[-1], dtype=linear.dtype), linear.shape)
            self.bend(at, [*[None] * position, units], {}, whole)
        return _only(whole, position)


def _only(pulled: Pulled, position: int) -> Array:
    found = pulled.inputs[position]
    assert found is not None  # it was wanted
    return found
