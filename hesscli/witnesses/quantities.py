"""The quantities of a network that both witnesses differentiate the loss by, node by node."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hesscli.problem.graph import DENSE, ELEMENTWISE, INPUT, Graph, Node
from hesscli.problem.network import Problem


@dataclass(frozen=True)
class Quantity:
    """A value of the graph, (N, width), that some of its nodes or the loss read.

    ``value`` is its name in the graph, ``name`` that in print: f is the output, x the input, z3
    the value of the third dense node, a3 that of the elementwise node behind it; other nodes keep
    theirs. ``label`` says what its reader does, as in ``dense2 tanh``, or which they are, as in
    ``dense2 + add``; ``kind`` is the reader's: loss, activation, dense …, or ``dense+add``.
    """

    name: str
    value: str
    label: str
    kind: str
    width: int


def quantities(problem: Problem) -> tuple[Quantity, ...]:
    """Every value that is read, in the order of the backward sweep: from the output to the input.

    In a chain they are f, z3, a2, z2 … x.
    """
    graph, names = problem.graph, _names(problem.graph)
    found = [Quantity("f", graph.output, "loss", "loss", problem.outputs)]
    for value in (*(node.name for node in reversed(graph.nodes[:-1])), INPUT):
        readers = list({node.name: node for node in graph.readers[value]}.values())
        if not readers:
            continue
        label = " + ".join(node.name for node in readers) if readers[1:] else _label(readers[0])
        kind = "+".join(dict.fromkeys(_kind(node) for node in readers))
        width = prod(graph.shape_of(value))
        found.append(Quantity(names[value], value, label, kind, width))
    return tuple(found)


def _names(graph: Graph) -> dict[str, str]:
    """The printed names of all values."""
    names = {INPUT: "x", **{node.name: node.name for node in graph.nodes}}
    dense = [node.name for node in graph.nodes if node.kind == DENSE]
    numbers = {name: number for number, name in enumerate(dense, start=1)}
    names.update({name: f"z{number}" for name, number in numbers.items()})
    for node in graph.nodes:
        if node.kind == ELEMENTWISE and node.inputs[0] in numbers:
            # Of several behind one dense node the first has the number.
            names[node.name] = f"a{numbers.pop(node.inputs[0])}"
    return {**names, graph.output: "f"}


def _kind(node: Node) -> str:
    return "activation" if node.kind == ELEMENTWISE else node.kind


def _label(node: Node) -> str:
    """The node's layer and what it does there, as in ``dense2 tanh``."""
    layer = node.name.removesuffix("/activation")
    does = str(node.activation or node.attributes.get("layer", node.kind))
    return layer if layer == does else f"{layer} {does}"
