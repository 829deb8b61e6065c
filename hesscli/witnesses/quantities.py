"""The quantities of a network that both witnesses differentiate the loss by, node by node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hesscli.problem.network import Problem

NodeKind = Literal["loss", "activation", "dense"]


@dataclass(frozen=True)
class Quantity:
    """The input of one node of the network, (N, width): x = a_0, z_1, a_1, z_2, … a_K = f.

    ``position`` counts them from x on. ``kind`` is that of the node, ``layer`` the index of its
    layer, for the loss the number of layers.
    """

    name: str
    kind: NodeKind
    layer: int
    position: int
    width: int
    value: str


def quantities(problem: Problem) -> tuple[Quantity, ...]:
    """Every quantity, in the order of the backward sweep: from the network's output to its input.

    They are called f, z3, a2, z2 … x, by the number of the layer that makes them.
    """
    last = len(problem.layers)
    found = [Quantity("f", "loss", last, 2 * last, problem.widths[-1], problem.graph.output)]
    for index in reversed(range(last)):
        layer = problem.layers[index]
        found.append(
            Quantity(f"z{index + 1}", "activation", index, 2 * index + 1, layer.units, layer.name)
        )
        name = f"a{index}" if index else "x"
        value = f"{problem.layers[index - 1].name}/activation" if index else "input"
        found.append(Quantity(name, "dense", index, 2 * index, layer.inputs, value))
    return tuple(found)
