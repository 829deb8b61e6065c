"""The loss and its gradient at moved points, in float64: all that finite differences see.

A point is θ + h v, and h may differ for each of k directions v, which are taken at once. What the
block does not move is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hesscli.nodes.calculus import calculus_of
from hesscli.nodes.losses import loss_derivatives, loss_pieces
from hesscli.nodes.node import Calculus
from hesscli.nodes.passes import activity, backward, forward, loss_cotangents
from hesscli.problem.graph import ADD, DENSE, ELEMENTWISE, INPUT, LOG_SOFTMAX, SOFTMAX, Array, Node
from hesscli.problem.network import Problem, Targets
from hesscli.system import xp
from hesscli.system.arrays import dtype_of
from hesscli.system.errors import NumericalError
from hesscli.witnesses.finite.stacked import (
    ELEMENTARY,
    Known,
    Perturbed,
    Stacked,
    StackedDense,
    Stepped,
)
from hesscli.witnesses.layout import Layout, input_example, layout_of
from hesscli.witnesses.rounding.noise import Noise

# Where activations have a jump in σ′ or σ″. Nothing smooth can be said across it.
CORNERED: Mapping[str, tuple[float, ...]] = {
    **dict.fromkeys(("relu", "leaky_relu", "elu", "selu", "softsign"), (0.0,)),
    "relu6": (0.0, 6.0),
    "hard_sigmoid": (-3.0, 3.0),
}
# Nodes whose numbers are not sums of many terms.
_UNSUMMED = frozenset({ELEMENTWISE, SOFTMAX, LOG_SOFTMAX, ADD})
# Losses that subtract numbers as large as the outputs are, as log Σ exp f − f_y.
_SUBTRACTING = frozenset(
    {"sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"}
)
# Ten times what the longest step of engine.py moves anything by.
_FAR = 0.1

# k directions by tensor, (k, *shape), or in all inputs, (k, n, *shape) by the name ``input``.
Directions = Mapping[str, Array]


@dataclass(frozen=True)
class Point:
    """What is found at points: the loss (…, k), its gradient (…, k, P), and what went too far.

    ``crossed`` (…, k) says along which directions a corner was crossed, or a value that a nonlinear
    node reads moved by more than steps do.
    """

    loss: Array
    gradient: Array
    crossed: NDArray[np.bool_]


class MovedLoss:
    """The loss as a function of the parameters of one block; UnknownBlockError for no name of one.

    Raises NumericalError where the network's output leaves the range of float64.
    """

    def __init__(self, problem: Problem, parameter: str) -> None:
        self.layout: Layout = layout_of(problem, parameter)
        example = input_example(parameter)
        if example is not None:
            problem = problem.part(example, example + 1)
        graph = problem.graph
        tensors = {name: xp.double(tensor) for name, tensor in graph.tensors.items()}
        self._graph = graph = graph.with_tensors(tensors)
        self._x: Array = graph.shaped(xp.double(problem.batch))
        self._targets: Targets = problem.targets
        if dtype_of(self._targets).kind == "f":
            self._targets = xp.double(self._targets)
        if problem.loss.name == "categorical_crossentropy":
            # They sum to one up to the digits of the problem's type.
            self._targets = self._targets / xp.sum(self._targets, axis=1, keepdims=True)
        self._loss = loss_derivatives(problem.loss)
        self._subtracts = problem.loss.name in _SUBTRACTING
        self._piece = loss_pieces(problem.loss)
        self._scales = xp.asarray(problem.scales, like=self._x)
        self.shapes = (
            {INPUT: self._x.shape}
            if example is not None or parameter == INPUT
            else {name: tensors[name].shape for name in self.layout.tensors}
        )
        self._inputs = [INPUT] if INPUT in self.shapes else []
        self._tensors = [name for name in self.shapes if name != INPUT]
        self._moved = graph.downstream(self._inputs, self._tensors)
        names = [*self._inputs, *(node.name for node in self._moved)]
        # What may not move by much: what other nodes than linear ones read, and the loss.
        of_loss = {graph.output, *graph.activities}
        self._read = [
            name
            for name in names
            if name in of_loss or any(node.kind != DENSE for node in graph.readers[name])
        ]
        self._penalized = [name for name in names if name in graph.activities]
        self._of_activity = problem.of_activity
        self._records: dict[str, object] = {}
        self._rest = {INPUT: self._x}
        with np.errstate(all="ignore"):
            f, self._records, penalized = forward(
                graph, self._x, self._moved, check=self._keep_rest
            )
            self.at_rest = float(xp.sum(self._scales * self._loss.value(f, self._targets)))
            penalized = {name: penalized[name] for name in self._penalized}
            self.at_rest += float(xp.sum(activity(graph, penalized, self._of_activity)))
            if self._piece is not None:
                self._own_piece = xp.reshape(self._piece(f, self._targets), (1, -1))
        if not xp.all(xp.isfinite(f)):
            raise NumericalError(
                f"{parameter}: the network's output leaves the range of float64; "
                "use smaller weights"
            )

    def _keep_rest(self, node: Node, _: str, y: Array) -> None:
        self._rest[node.name] = y

    @property
    def bytes_each(self) -> int:
        """What one direction takes: its gradient and the values that move."""
        values = sum(self._rest[node.name].size for node in self._moved)
        return int(8 * max(self.layout.size, values))

    def directions(self, V: Array) -> Directions:
        """The rows of V (k, P) as directions."""
        parts, low = {}, 0
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            rows = V[:, low : low + size].reshape(-1, *shape)
            parts[name] = xp.asarray(rows, like=self._x)
            low += size
        return parts

    def at(
        self, directions: Directions, h: Array, noise: Noise | None = None, *, slopes: bool = True
    ) -> Point:
        """The loss and its gradient at θ + h v, for steps h (…, k) along each direction.

        With ``noise``, as rounding may change them. Without ``slopes`` no derivative is asked
        for, and the gradient is empty.
        """
        calculi = self._calculi(directions, h, noise)
        values, records = self._values(directions, h, calculi)
        crossed = np.zeros(h.size, dtype=bool)
        for rest, moved in self._margins(values):
            crossed |= _any(xp.sign(moved) != xp.sign(rest))
        for name in self._read:
            # NaN counts as far.
            crossed |= _any(~(xp.abs(values[name] - self._rest[name]) <= _FAR))
        f = values[self._graph.output]
        f = xp.reshape(f, (-1, f.shape[-1]))
        targets, scales = (xp.concat([of] * h.size) for of in (self._targets, self._scales))
        if self._piece is not None:
            piece = xp.reshape(self._piece(f, targets), (h.size, -1))
            crossed |= _any(piece != self._own_piece)
        if noise is not None:
            f = noise.operand(f, 1)
        losses = self._loss.value(f, targets)
        if noise is not None:
            terms = xp.abs(losses) + self._subtracted(f)
            losses = losses + noise.of_size(ELEMENTARY * terms)
        penalized = {
            name: xp.reshape(values[name], (-1, *self._rest[name].shape[1:]))
            for name in self._penalized
        }
        added = xp.asarray(activity(self._graph, penalized, self._of_activity), like=f)
        if noise is not None:
            added = added + noise.of_size(ELEMENTARY * added)
        loss = xp.sum(xp.reshape(scales * losses + added, (h.size, -1)), axis=-1)
        loss = xp.on_host(loss).reshape(h.shape)
        if not slopes:
            return Point(loss, np.empty((*h.shape, 0)), crossed.reshape(h.shape))
        g = scales[:, None] * self._loss.gradient(f, targets)
        if noise is not None:
            g = g + noise.of_size(ELEMENTARY * xp.abs(g))
        pulled = backward(
            self._graph,
            records,
            loss_cotangents(self._graph, g, penalized, self._of_activity),
            self._tensors,
            self._inputs,
            lambda node: calculi[node.name],
        )
        found = {**pulled.tensors, **pulled.values}
        parts = [
            # The output may not depend on it.
            xp.reshape(found[name], (h.size, -1))
            if name in found
            else xp.zeros((h.size, math.prod(shape)), like=f)
            for name, shape in self.shapes.items()
        ]
        whole = xp.concat(parts, axis=-1) if len(parts) > 1 else parts[0]
        gradient = xp.on_host(whole).reshape(*h.shape, -1)
        return Point(loss, gradient, crossed.reshape(h.shape))

    def _subtracted(self, f: Array) -> Array:
        """The numbers that each example's loss is a difference of."""
        if self._subtracts:
            return xp.max(xp.abs(f), axis=-1)
        return xp.zeros((f.shape[0],), like=f)

    def reach(self, directions: Directions, h: Array) -> tuple[Array, Array]:
        """How far a step h (k,) moves what moves most, and how far the nearest corner is, (k,).

        The corner, in units of v, is where a pre-activation that goes on as it did is zero:
        infinite where there is none, zero on a corner.
        """
        values, _ = self._values(directions, h, self._calculi(directions, h, None))
        moves = {
            name: xp.reshape(xp.abs(values[name] - self._rest[name]), (len(h), -1))
            for name in self._read
        }
        farthest = np.max([xp.on_host(xp.max(move, axis=1)) for move in moves.values()], axis=0)
        corner = np.full(len(h), np.inf)
        for rest, moved in self._margins(values):
            move = xp.reshape(xp.abs(moved - rest), (len(h), -1))
            steps = xp.where(move > 0, xp.reshape(xp.abs(rest), (1, -1)) / move, math.inf)
            corner = np.minimum(corner, h * xp.on_host(xp.min(steps, axis=1)))
        return np.where(np.isnan(farthest), np.inf, farthest), corner

    def _margins(self, values: Mapping[str, Array]) -> Iterator[tuple[Array, Array]]:
        """What changes its sign at a kink, at rest (n, …) and after the steps (k, n, …)."""
        for name in self._penalized:
            if self._graph.activities[name].l1:
                yield self._rest[name], values[name]
        for node in self._moved:
            if node.activation is not None:
                (name,) = node.inputs
                for corner in CORNERED.get(node.activation.name, ()):
                    yield self._rest[name] - corner, values[name] - corner
                continue
            if not any(name in values for name in node.inputs):
                # Only its parameters move, and kinks are where its inputs are.
                continue
            calculus, at = calculus_of(node), self._records[node.name]
            rest = calculus.margins(at, [self._rest[name] for name in node.inputs])
            if rest is None:
                continue
            x = [values.get(name, self._rest[name][None, ...]) for name in node.inputs]
            count = max(value.shape[0] for value in x)
            every = [xp.broadcast_to(v, (count, *v.shape[1:])) for v in x]
            moved = calculus.margins(at, [xp.reshape(v, (-1, *v.shape[2:])) for v in every])
            assert moved is not None  # as there
            yield rest, xp.reshape(moved, (count, *rest.shape))

    def lengths(self, directions: Directions) -> Array:
        """The largest number of each direction (k,), 1 where all are zero."""
        found = [_largest(V) for V in directions.values()]
        lengths = np.max(found, axis=0)
        return np.where(lengths > 0, lengths, 1.0)

    def own_size(self, directions: Directions) -> Array:
        """How far one may go along each direction (k,) before a kernel has moved by its own size.

        Of kernels whose input moves too: what lies below them sees the kernel itself.
        """
        moving = {*self._inputs, *(node.name for node in self._moved)}
        count = next(iter(directions.values())).shape[0]
        far = np.full(count, np.inf)
        for node in self._moved:
            for name in node.tensors.values():
                largest = float(xp.max(xp.abs(self._graph.tensors[name])))
                is_kernel = name in directions and len(self.shapes[name]) > 1 and largest > 0
                if is_kernel and moving.intersection(node.inputs):
                    far = np.minimum(far, largest / _largest(directions[name]))
        return far

    def _values(
        self, directions: Directions, h: Array, calculi: Mapping[str, Calculus]
    ) -> tuple[dict[str, Array], dict[str, object]]:
        """The values that matter, (k, n, *shape), and what the nodes that move need again."""
        k, n = h.size, self._x.shape[0]
        x = self._x
        if INPUT in directions:
            moved = xp.reshape(_times(h, directions[INPUT]), (-1, *x.shape))
            x = xp.reshape(x + moved, (-1, *x.shape[1:]))
        values = {INPUT: xp.reshape(x, (-1, *self._x.shape))}

        def keep(node: Node, _: str, y: Array) -> None:
            if node.name in self._read:
                values[node.name] = xp.reshape(y, (k, n, *y.shape[1:]))

        passed = forward(self._graph, x, self._moved, lambda node: calculi[node.name], keep)
        return values, passed.records

    def _calculi(
        self, directions: Directions, h: Array, noise: Noise | None
    ) -> dict[str, Calculus]:
        """What each node computes at the points θ + h v."""
        calculi: dict[str, Calculus] = {
            node.name: Known(self._rest[node.name]) for node in self._graph.nodes
        }
        n, k = self._x.shape[0], h.size
        for node in self._moved:
            calculus = calculus_of(node)
            steps = {
                role: _times(h, directions[name])
                for role, name in node.tensors.items()
                if name in directions
            }
            # Elsewhere each example is on its own, at whichever point it is; but the last digits
            # of a matrix product depend on how many there are.
            if steps or len(node.inputs) > 1 or (node.tensors and noise is None):
                stacked = StackedDense if node.kind == DENSE else Stacked
                calculus = stacked(calculus, n, k, steps)
            if noise is not None:
                calculus = Perturbed(calculus, noise, n, sums=node.kind not in _UNSUMMED)
            calculi[node.name] = Stepped(calculus, steps) if steps else calculus
        return calculi


def _times(h: Array, V: Array) -> Array:
    """The steps h (…, k) along V (k, *shape), one after the other."""
    steps = xp.asarray(h.reshape(*h.shape, *[1] * (V.ndim - 1)), like=V)
    return xp.reshape(steps * V, (-1, *V.shape[1:]))


def _largest(V: Array) -> Array:
    """The largest number (k,) of each direction (k, *shape)."""
    return xp.on_host(xp.max(xp.reshape(xp.abs(V), (V.shape[0], -1)), axis=1))


def _any(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return xp.on_host(xp.any(xp.reshape(found, (found.shape[0], -1)), axis=1))
