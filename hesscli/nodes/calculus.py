"""The calculus of each kind of node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hesscli.nodes.activations import derivatives
from hesscli.nodes.add import Add
from hesscli.nodes.dense import Dense
from hesscli.nodes.elementwise import Elementwise
from hesscli.nodes.node import Calculus
from hesscli.nodes.softmax import Softmax
from hesscli.problem.graph import ADD, DENSE, ELEMENTWISE, SOFTMAX, Node

# What finds a node's calculus.
Dispatch = Callable[[Node], Calculus]


def calculus_of(node: Node) -> Calculus:
    """The calculus of ``node``; raises InputError for an activation that is not known."""
    return _CALCULI[node.kind](node)


def _elementwise(node: Node) -> Calculus:
    assert node.activation is not None  # an elementwise node has one
    return Elementwise(derivatives(node.activation))


_CALCULI: Mapping[str, Callable[[Node], Calculus]] = MappingProxyType(
    {
        DENSE: lambda _: Dense(),
        ELEMENTWISE: _elementwise,
        SOFTMAX: lambda _: Softmax(),
        ADD: lambda _: Add(),
    }
)
