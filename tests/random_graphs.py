"""Small random networks that are graphs: shared layers, fan-out, sums and a softmax inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from networks import random_targets

from hesscli.problem.graph import (
    ADD,
    DENSE,
    ELEMENTWISE,
    INPUT,
    SOFTMAX,
    Activation,
    Array,
    Graph,
    Node,
)
from hesscli.problem.names import FOCAL, LOSSES
from hesscli.problem.network import Loss, Problem
from hesscli.problem.targets import fit_targets

# Smooth ones, and two with a kink, which no value hits.
FUNCTIONS = ("tanh", "sigmoid", "softplus", "gelu", "silu", "sin", "square", "relu", "elu")


@dataclass
class _Drawn:
    """A graph that grows node by node; every value but the input's is ``width`` wide."""

    generator: np.random.Generator
    width: int
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Array] = field(default_factory=dict)

    def shape_of(self, value: str) -> tuple[int, ...]:
        return next(node.shape for node in self.nodes if node.name == value)

    def node(self, name: str, kind: str, *inputs: str, activation: str | None = None) -> str:
        function = None if activation is None else Activation(activation)
        self.nodes.append(Node(name, kind, inputs, self.shape_of(inputs[0]), activation=function))
        return name

    def numbered(self, kind: str) -> str:
        """A name for one more node of this kind, as in ``add2``."""
        return f"{kind}{1 + sum(node.kind == kind for node in self.nodes)}"

    def layer(self, inputs: int, units: int) -> dict[str, str]:
        """The tensors, by role, of a new dense layer; some have no bias."""
        kernels = sum(name.endswith("/kernel") for name in self.tensors)
        name = f"dense{kernels + 1}"
        tensors = {"kernel": f"{name}/kernel"}
        normal = self.generator.standard_normal
        self.tensors[tensors["kernel"]] = normal((inputs, units)) / np.sqrt(inputs)
        if self.generator.random() < 0.75:
            tensors["bias"] = f"{name}/bias"
            self.tensors[tensors["bias"]] = 0.3 * normal(units)
        return tensors

    def dense(self, tensors: dict[str, str], value: str) -> str:
        """One more use of a layer: ``dense1``, then ``dense1/2``."""
        layer = tensors["kernel"].partition("/")[0]
        uses = 1 + sum(node.layer == layer and node.kind == DENSE for node in self.nodes)
        name = layer if uses == 1 else f"{layer}/{uses}"
        units = self.tensors[tensors["kernel"]].shape[1:]
        self.nodes.append(Node(name, DENSE, (value,), units, tensors))
        return name

    def activated(self, value: str) -> str:
        function = self.choice(FUNCTIONS)
        return self.node(f"{value}/activation", ELEMENTWISE, value, activation=function)

    def add(self, *values: str) -> str:
        return self.node(self.numbered(ADD), ADD, *values)

    def residual(self, value: str, shared: dict[str, str]) -> str:
        """Adds to x W₂ σ(W₁ x), where W₁ or W₂ is a layer that others use as well."""
        own = self.layer(self.width, self.width)
        first, second = [(shared, own), (own, shared)][int(self.generator.integers(2))]
        inner = self.dense(second, self.activated(self.dense(first, value)))
        return self.add(value, inner)

    def doubled(self, value: str, _: dict[str, str]) -> str:
        return self.add(value, value)

    def softmax(self, value: str, _: dict[str, str]) -> str:
        return self.node(self.numbered(SOFTMAX), SOFTMAX, value)

    def reused(self, value: str, shared: dict[str, str]) -> str:
        return self.activated(self.dense(shared, value))

    def merged(self, value: str, _: dict[str, str]) -> str:
        """The sum of three: the value, an earlier one, and a function of the value."""
        earlier = [node.name for node in self.nodes if node.shape == (self.width,)]
        name, function = self.numbered(ELEMENTWISE), self.choice(FUNCTIONS)
        curved = self.node(name, ELEMENTWISE, value, activation=function)
        return self.add(value, self.choice(earlier), curved)

    def skip(self, value: str, _: dict[str, str]) -> str:
        """The sum with a layer that reads the input, which another one reads as well."""
        inputs = self.tensors["dense1/kernel"].shape[0]
        return self.add(value, self.dense(self.layer(inputs, self.width), INPUT))

    def choice(self, names: Sequence[str]) -> str:
        return str(self.generator.choice(names))


def random_graph_problem(seed: int, dtype: type[np.floating] = np.float64) -> Problem:
    """A problem whose graph ``seed`` draws: at most 60 parameters, inputs 2 to 4 wide, N ≤ 4.

    In three of four there is a residual sum around two dense layers of which one is shared, in the
    others the input is read twice; in one of eight the last layer has the kernel of another layer
    and a bias of its own.
    """
    generator = np.random.default_rng(seed)
    inputs, width = int(generator.integers(2, 5)), int(generator.integers(2, 4))
    drawn = _Drawn(generator, width)
    value = drawn.activated(drawn.dense(drawn.layer(inputs, width), INPUT))
    shared = drawn.layer(width, width)
    parts: list[Callable[[str, dict[str, str]], str]] = [
        drawn.doubled,
        drawn.softmax,
        drawn.reused,
        drawn.merged,
    ]
    chosen = [parts[int(k)] for k in generator.permutation(4)[: generator.integers(1, 4)]]
    place = int(generator.integers(len(chosen) + 1))
    chosen.insert(place, drawn.residual if seed % 4 else drawn.skip)
    for part in [*chosen, drawn.reused]:
        value = part(value, shared)
    if seed % 8 == 1:
        drawn.tensors["head/bias"] = generator.standard_normal(width)
        tied = {"kernel": shared["kernel"], "bias": "head/bias"}
        drawn.nodes.append(Node("head", DENSE, (value,), (width,), tied))
    else:
        value = drawn.dense(drawn.layer(width, int(generator.integers(2, 4))), value)
        if generator.random() < 0.3:
            drawn.activated(value)
    (outputs,) = drawn.nodes[-1].shape
    examples = int(generator.integers(1, 5))
    # Every seed keeps its network: what has come since takes the place of a loss of the same kind.
    others = [name for name in LOSSES if name != FOCAL]
    loss = Loss(drawn.choice(others), drawn.choice(("mean", "sum")))
    if loss.name == "categorical_crossentropy" and seed % 3 == 0:
        loss = replace(loss, name=FOCAL, gamma=float(seed % 4))
    if loss.name == "poisson":
        # It takes no negative outputs.
        last, softplus = drawn.nodes[-1], Activation("softplus")
        name = f"{last.layer}/positive"
        drawn.nodes.append(Node(name, ELEMENTWISE, (last.name,), last.shape, activation=softplus))
    targets = random_targets(loss.name, examples, outputs, generator)
    return Problem(
        Graph(
            tuple(drawn.nodes),
            {name: tensor.astype(dtype) for name, tensor in drawn.tensors.items()},
            (inputs,),
        ),
        generator.standard_normal((examples, inputs)).astype(dtype),
        fit_targets(targets, loss.name, outputs, np.dtype(dtype), "drawn"),
        loss,
        seed,
    )
