"""A network's values in mpmath, example by example, node by node.

A node's function takes its inputs and its tensors, arrays of mpmath numbers in the shapes of one
example and of the parameters, and gives its value. To add a kind of node is to add its function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from mpmath import mp
from numpy.typing import NDArray

from hesscli.problem.graph import ADD, DENSE, ELEMENTWISE, SOFTMAX, Activation, Graph, Node
from hesscli.problem.network import Problem
from hesscli.problem.registry import mpmath_function
from hesscli.system.errors import InputError
from hesscli.witnesses.referee.functions import (
    ACTIVATIONS,
    CORNERS,
    ActivationFunction,
    LossFunction,
    Pieces,
    loss_function,
)

# An array of mpmath numbers.
Numbers = NDArray[Any]
NodeFunction = Callable[[Node, Sequence[Numbers], Mapping[str, Numbers], Pieces], Numbers]


def numbers(array: NDArray[Any]) -> Numbers:
    """The floating-point numbers of ``array``, exactly."""
    found = np.empty(array.size, dtype=object)
    found[:] = [mp.mpf(float(number)) for number in array.reshape(-1)]
    return found.reshape(array.shape)


def _dense(_: Node, x: Sequence[Numbers], tensors: Mapping[str, Numbers], __: Pieces) -> Numbers:
    # z = x W + b, without the inputs that are 0.
    (inputs,), W = x, tensors["kernel"]
    lit = [index for index, each in enumerate(inputs) if each != 0]
    a = [inputs[index] for index in lit]
    z = np.array([mp.fdot(a, column) for column in W[lit].T], dtype=object)
    return z + tensors["bias"] if "bias" in tensors else z


def _elementwise(
    node: Node, x: Sequence[Numbers], _: Mapping[str, Numbers], pieces: Pieces
) -> Numbers:
    assert node.activation is not None  # an elementwise node has one
    name, parameters = node.activation.name, dict(node.activation.parameters)
    function = _activation(node.activation)
    assert function is not None  # ``require_known`` came first
    if name not in ACTIVATIONS or name in CORNERS:
        pieces.extend(mp.sign(z) for z in x[0].reshape(-1))
    values = [function(z, **parameters) for z in x[0].reshape(-1)]
    return np.array(values, dtype=object).reshape(node.shape)


def _softmax(_: Node, x: Sequence[Numbers], __: Mapping[str, Numbers], ___: Pieces) -> Numbers:
    raised = [mp.exp(z - max(x[0])) for z in x[0]]
    total = mp.fsum(raised)
    return np.array([each / total for each in raised], dtype=object)


def _add(_: Node, x: Sequence[Numbers], __: Mapping[str, Numbers], ___: Pieces) -> Numbers:
    return np.asarray(reduce(np.add, x))


_NODES: Mapping[str, NodeFunction] = {
    DENSE: _dense,
    ELEMENTWISE: _elementwise,
    SOFTMAX: _softmax,
    ADD: _add,
}


def _activation(activation: Activation) -> ActivationFunction | None:
    return ACTIVATIONS.get(activation.name) or mpmath_function(activation.name)


def require_known(problem: Problem) -> LossFunction:
    """The loss; raises InputError, by name, for what the referee has no function of."""
    for node in problem.graph.nodes:
        if node.kind not in _NODES or (node.kind == SOFTMAX and len(node.shape) > 1):
            known = ", ".join(_NODES)
            raise InputError(f"the referee does not know {node.kind} ({node.name}); it has {known}")
        if node.activation is not None and _activation(node.activation) is None:
            raise InputError(
                f"activation {node.activation.name!r} has no mpmath version, which the referee "
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
        values[node.name] = _NODES[node.kind](node, inputs, roles, pieces)
    return values


def multiplications(graph: Graph) -> int:
    """About how many multiplications the values of one example take."""
    return sum(_multiplications(graph, node) for node in graph.nodes)


def _multiplications(graph: Graph, node: Node) -> int:
    # A tensor's numbers are used at every place of the output, whose last axis are the units.
    places = math.prod(node.shape[:-1])
    used = sum(graph.tensors[name].size for name in node.tensors.values())
    return places * used + math.prod(node.shape)
