"""A problem whose arrays are on a device: the same names and numbers."""

from __future__ import annotations

from dataclasses import replace

from hesscli.problem.graph import Graph
from hesscli.problem.network import Problem
from hesscli.system.devices import Device


def placed(problem: Problem, device: Device, graph: Graph | None = None) -> Problem:
    """``problem`` with its parameters, its constants and its examples on ``device``.

    ``graph`` is the problem's if it is there already.
    """
    there = placed_graph(problem.graph, device) if graph is None else graph
    return replace(with_examples(problem, device), graph=there, original=None)


def with_examples(problem: Problem, device: Device) -> Problem:
    """``problem`` with its inputs, which are read if they are stored, targets and weights there."""
    weights = problem.sample_weight
    return replace(
        problem,
        inputs=device.put(problem.batch),
        targets=device.put(problem.targets),
        sample_weight=None if weights is None else device.put(weights),
    )


def placed_graph(graph: Graph, device: Device) -> Graph:
    """``graph`` with its parameters and constants on ``device``."""
    nodes = tuple(
        replace(node, constants={role: device.put(array) for role, array in node.constants.items()})
        for node in graph.nodes
    )
    tensors = {name: device.put(tensor) for name, tensor in graph.tensors.items()}
    return replace(graph, nodes=nodes, tensors=tensors)
