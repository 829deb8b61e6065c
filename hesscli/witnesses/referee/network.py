"""A network's values in mpmath, example by example, node by node."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from hesscli.problem.graph import OWN_LAYER, Graph, Node
from hesscli.problem.network import Problem
from hesscli.system.errors import InputError
from hesscli.witnesses.referee.functions import LossFunction, Pieces, loss_function
from hesscli.witnesses.referee.nodes import (
    NODES,
    Numbers,
    activation_function,
    layer_function,
)


def require_known(problem: Problem) -> LossFunction:
    """The loss; raises InputError, by name, for what the referee has no function of."""
    for node in problem.graph.nodes:
        if node.kind not in NODES:
            known = ", ".join(NODES)
            raise InputError(f"the referee does not know {node.kind} ({node.name}); it has {known}")
        if node.activation is not None and activation_function(node) is None:
            raise InputError(
                f"activation {node.activation.name!r} has no mpmath version, which the referee "
                "needs; give its plugin one under the key mpmath"
            )
        if node.kind == OWN_LAYER and layer_function(node) is None:
            raise InputError(
                f"layer {node.attributes['layer']!r} has no mpmath version, which the referee "
                "needs; give its plugin one under the key mpmath"
            )
    loss = loss_function(problem.loss)
    if loss is None:
        raise InputError(
            f"loss {problem.loss.name!r} has no mpmath version, which the referee needs; give its "
            "plugin one under the key mpmath"
        )
    return loss


def values_of(
    nodes: Iterable[Node],
    known: Mapping[str, Numbers],
    tensors: Mapping[str, Numbers],
    pieces: Pieces,
) -> dict[str, Numbers]:
    """The values of some ``nodes`` in order for one example, and those that are ``known``."""
    values = dict(known)
    for node in nodes:
        roles = {role: tensors[name] for role, name in node.tensors.items()}
        inputs = [values[name] for name in node.inputs]
        values[node.name] = NODES[node.kind](node, inputs, roles, pieces)
    return values


def multiplications(graph: Graph) -> int:
    """About how many multiplications the values of one example take."""
    return sum(_multiplications(graph, node) for node in graph.nodes)


def _multiplications(graph: Graph, node: Node) -> int:
    # A tensor's numbers are used at every place of the output, whose last axis are the units.
    places = math.prod(node.shape[:-1])
    used = sum(graph.tensors[name].size for name in node.tensors.values())
    return places * used + math.prod(node.shape)
