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

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

from hesscli.problem.graph import Array
from hesscli.system import xp

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

    ``bends_in_x`` is False if y is linear in x for fixed θ, at least piece by piece: ``bend`` adds
    nothing then, unless the node's own parameters move or are asked for.

    ``at`` is an ``At`` of the calculus's own; what ``forward`` returns may be given to ``push``
    and ``pull``, and what ``curved`` makes of it to all methods.
    """

    bends_in_x = True

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

    def second(self, at: Any, S: Array, position: int, inputs: int, *, bent: bool) -> Array:
        """The Hessian at an input out of S at y: Jᵀ S J, and ``bend`` if bent.

        S is (n, d, *out), its d rows being the numbers of y; the result is (n, d, *in) likewise.
        By two pulls, I = pull(pull(S)ᵀ)ᵀ, and unit directions for ``bend``. ``inputs`` is how
        many the node has.
        """
        wanted = Wanted(tuple(index == position for index in range(inputs)))
        half = _only(self.pull(at, S, wanted), position)
        d = math.prod(half.shape[2:])
        n, units = half.shape[:2]
        rows = xp.contiguous(xp.swapaxes(xp.reshape(half, (n, units, d)), 1, 2))
        whole = self.pull(at, xp.reshape(rows, (n, d, *S.shape[2:])), wanted)
        if bent:
            units = unit_directions(_only(whole, position))
            Rx = [units if index == position else None for index in range(inputs)]
            self.bend(at, Rx, {}, whole)
        return _only(whole, position)

    def fan(self, x: Sequence[Array], theta: Tensors) -> int:
        """How many products or terms a number of y is the sum of."""
        return 1

    def margins(self, at: Any, x: Sequence[Array]) -> Array | None:
        """Numbers (m, …) at inputs x (m, *in) that change their sign where F has a kink.

        ``at`` is from where F is looked at, its examples one after the other m / n times.
        """
        return None


def added(parts: Iterable[Array]) -> Array:
    """The sum of one array or more; of one, itself."""
    return reduce(operator.add, parts)


def over(function: Callable[[Array], Array], x: Array) -> Array:
    """A function of arrays (m, …), each on its own, of x (n, k, …)."""
    n, k = x.shape[:2]
    y = function(xp.reshape(x, (n * k, *x.shape[2:])))
    return xp.reshape(y, (n, k, *y.shape[1:]))


def unit_directions(like: Array) -> Array:
    """The unit directions (n, d, *shape) of a value of d numbers, d = Π shape."""
    d = math.prod(like.shape[2:])
    units = xp.reshape(xp.eye(d, like=like), (d, *like.shape[2:]))
    return xp.broadcast_to(units, (like.shape[0], *units.shape))


def _only(pulled: Pulled, position: int) -> Array:
    found = pulled.inputs[position]
    assert found is not None  # it was wanted
    return found
