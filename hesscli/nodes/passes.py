"""The passes over a graph, each once: forward, backward, R-operator, S at a value.

    forward    y = F(x; θ), node by node
    backward   cotangents from the output down: pull; a value that is read twice adds its own up
    product    H·V: push up, Rg_f = c ∂²ℓ/∂f² Rf at the loss, then pull(Rg) + bend(g, R·) down
               (likewise Rg_v = ∂²P/∂v² Rv at every value v with a penalty P)
    second     S = ∂²L/∂v² at a value v, example by example: I = pull(pull(S)ᵀ)ᵀ, O = bend

Gauss–Newton is the product without any ``bend``; the curvature term is the rest, with Rg_f = 0.
Everything is (n, k, …): n examples, k directions or cotangents at once, nothing units × units but
S itself.

Source: Pearlmutter, "Fast exact multiplication by the Hessian" (Neural Computation 6, 1994), and
Schraudolph, "Fast curvature matrix-vector products" (Neural Computation 14, 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from hesscli.nodes import penalty
from hesscli.nodes.calculus import Dispatch, calculus_of
from hesscli.nodes.losses import HessianProduct, LossDerivatives
from hesscli.nodes.node import Calculus, Pulled, Wanted, unit_directions
from hesscli.problem.graph import INPUT, Array, Graph, Node
from hesscli.problem.network import Targets
from hesscli.system import xp

# Called with a node, the name of the pass, and the numbers that it has just given.
Check = Callable[[Node, str, Array], None]
# Called with each node and the cotangent g (n, k, *out) of its value.
Visit = Callable[[Node, Array], None]


def unchecked(node: Node, where: str, numbers: Array) -> None:
    """For passes whose numbers somebody else judges."""


@dataclass(frozen=True)
class Term:
    """One term of the Hessian: ``seeded`` with the loss's own, ``bent`` by the nodes.

    If they are kept ``apart``, a product has the seeded and the bent part one after the other.
    """

    name: str
    seeded: bool
    bent: bool
    apart: bool = False


HESSIAN = Term("hessian", seeded=True, bent=True)
GAUSS_NEWTON = Term("gauss_newton", seeded=True, bent=False)
CURVATURE = Term("curvature", seeded=False, bent=True)
BOTH = Term("both", seeded=True, bent=True, apart=True)


@dataclass(frozen=True)
class Moved:
    """Directions, or what they are worth: (k, *shape) by tensor, (n, k, *shape) by value."""

    tensors: dict[str, Array] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)


class Passed(NamedTuple):
    """What a forward pass gives: the output f (n, *shape), and of nodes what they need again.

    ``penalized`` are the values (n, *shape) that have a penalty.
    """

    f: Array
    records: dict[str, object]
    penalized: dict[str, Array]


def forward(
    graph: Graph,
    inputs: Array,
    keep: Collection[Node],
    calculus: Dispatch = calculus_of,
    check: Check = unchecked,
) -> Passed:
    """The pass up the graph; what the nodes in ``keep`` need again is kept by their names."""
    values = {INPUT: inputs}
    penalized = dict(values) if INPUT in graph.activities else {}
    unread = {value: len(readers) for value, readers in graph.readers.items()}
    records: dict[str, object] = {}
    for node in graph.nodes:
        theta = {role: graph.tensors[name] for role, name in node.tensors.items()}
        y, at = calculus(node).forward([values[value] for value in node.inputs], theta)
        check(node, "forward pass", y)
        values[node.name] = y
        if node.name in graph.activities:
            penalized[node.name] = y
        if node in keep:
            records[node.name] = at
        del at
        for value in node.inputs:
            unread[value] -= 1
            if not unread[value]:
                del values[value]
    return Passed(y, records, penalized)


def activity(graph: Graph, penalized: Mapping[str, Array], scale: float) -> Array:
    """C Σ P(v) over the values of each example that have a penalty, (n,), in double precision.

    A single 0 where none has.
    """
    total: Array | None = None
    for name, value in penalized.items():
        each = scale * penalty.each(xp.double(value), graph.activities[name])
        own = xp.sum(each, axis=tuple(range(1, each.ndim)))
        total = own if total is None else total + own
    return np.zeros(()) if total is None else total


def loss_cotangents(
    graph: Graph, g: Array, penalized: Mapping[str, Array], scale: float
) -> dict[str, Array]:
    """Where backward passes begin: ∂L/∂f (n, 1, c) at the output, c ∂P at penalized values."""
    found = {graph.output: g[:, None, ...]}
    for name, value in penalized.items():
        own = scale * penalty.gradient(value, graph.activities[name])[:, None, ...]
        found[name] = found[name] + own if name in found else own
    return found


def backward(
    graph: Graph,
    records: Mapping[str, object],
    cotangents: Mapping[str, Array],
    tensors: Collection[str] = (),
    values: Collection[str] = (),
    calculus: Dispatch = calculus_of,
) -> Moved:
    """What cotangents (n, k, *shape) of some values are worth at ``tensors`` and ``values``."""
    nodes = graph.downstream(values, tensors)
    return _downward(nodes, dict(cotangents), tensors, values, calculus, records)


def _downward(
    nodes: Sequence[Node],
    cotangents: dict[str, Array],
    tensors: Collection[str],
    values: Collection[str],
    calculus: Dispatch,
    records: Mapping[str, object],
    visit: Visit | None = None,
    bend: Callable[[Node, object, Pulled], None] | None = None,
) -> Moved:
    """The way down that all passes share, through ``nodes``, of which the last one comes first.

    ``visit`` sees every one of them, ``bend`` adds a node's own curvature to its pull.
    """
    found = Moved(values={value: g for value, g in cotangents.items() if value in values})
    needed = {*values, *(node.name for node in nodes)}
    for node in reversed(nodes):
        g = cotangents.pop(node.name, None)
        if g is None:
            # The output does not depend on it.
            continue
        if visit is not None:
            visit(node, g)
        roles = frozenset(role for role, name in node.tensors.items() if name in tensors)
        wanted = Wanted(tuple(value in needed for value in node.inputs), roles)
        if not (roles or any(wanted.inputs)):
            continue
        at = records[node.name]
        pulled = calculus(node).pull(at, g, wanted)
        del g
        if bend is not None:
            bend(node, at, pulled)
        for role, part in pulled.tensors.items():
            name = node.tensors[role]
            found.tensors[name] = found.tensors[name] + part if name in found.tensors else part
        for value, asked, own in zip(node.inputs, wanted.inputs, pulled.inputs, strict=True):
            if asked and own is not None:
                total = cotangents[value] + own if value in cotangents else own
                cotangents[value] = total
                if value in values:
                    found.values[value] = total
    return found


class Linearized:
    """A network at a batch, as far up from its output as was asked for.

    Of every node that depends on the values and tensors that were asked for it holds what
    ``push``, ``pull`` and ``bend`` need; of the others nothing: at large widths that takes more
    memory than the weights. ``loss`` is that of an example, ``scales`` (N,) the factors of the sum,
    ``of_activity`` that of the penalties on values.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Callable[[], Array],
        targets: Targets,
        loss: LossDerivatives,
        scales: Array,
        of_activity: float,
        calculus: Dispatch = calculus_of,
        check: Check = unchecked,
    ) -> None:
        self.graph = graph
        self.targets = targets
        self.loss = loss
        self._scales = scales
        self.of_activity = of_activity
        self._inputs = inputs
        self._calculus = cache(calculus)
        self._check = check
        self._records: dict[str, object] = {}
        self._penalized: dict[str, Array] = {}
        self._f: Array | None = None

    def again(self, other: Linearized) -> Linearized:
        """What is held here, with the calculus and the loss of ``other`` for what is to come."""
        again = copy(self)
        again._calculus, again.loss = other._calculus, other.loss
        again.__dict__.pop("_loss_product", None)
        return again

    @cached_property
    def scales(self) -> Array:
        """The factors (N,) of the sum over the examples, like the output."""
        return xp.astype(xp.asarray(self._scales, like=self.f), self.f.dtype)

    @property
    def f(self) -> Array:
        """The network's output (N, c)."""
        if self._f is None:
            with np.errstate(over="ignore", invalid="ignore"):
                self._f = self.forward(()).f
        return self._f

    def forward(self, keep: Collection[Node]) -> Passed:
        """The output, and what the nodes in ``keep`` need again."""
        return forward(self.graph, self._inputs(), keep, self._calculus, self._check)

    def reach(self, tensors: Collection[str] = (), values: Collection[str] = ()) -> None:
        """Makes ready for products with directions in these."""
        nodes = self.graph.downstream(values, tensors)
        if all(node.name in self._records for node in nodes):
            return
        records: dict[str, object] = {}

        def curve(node: Node, g: Array) -> None:
            self._check(node, "backward sweep", g)
            records[node.name] = self._calculus(node).curved(fresh[node.name], g[:, 0, ...])

        with np.errstate(over="ignore", invalid="ignore"):
            self._f, fresh, penalized = self.forward(nodes)
            _downward(nodes, self._cotangents(penalized), (), (), self._calculus, fresh, curve)
        # A node that the loss does not depend on has no part in any product.
        self._records = {node.name: fresh[node.name] for node in nodes} | records
        self._penalized = penalized

    def _cotangents(self, penalized: Mapping[str, Array]) -> dict[str, Array]:
        """∂L/∂f, and what penalties begin with."""
        g = self.scales[:, None] * self.loss.gradient(self.f, self.targets)
        return loss_cotangents(self.graph, g, penalized, self.of_activity)

    def at(self, node: str, chosen: slice) -> object:
        """What is held of a node, for some of the examples."""
        return _part(self._records[node], chosen, self.targets.shape[0])

    def cotangents(self, tensors: Collection[str] = (), values: Collection[str] = ()) -> Moved:
        """The gradient: (1, *shape) in tensors, (N, 1, *shape) in values."""
        nodes = self.graph.downstream(values, tensors)
        # What overflows is for who judges the numbers.
        with np.errstate(over="ignore", invalid="ignore"):
            if any(node.name not in self._records for node in nodes):
                self._f, records, penalized = self.forward(nodes)
            else:
                records, penalized = self._records, self._penalized
            g = self._cotangents(penalized)
            return backward(self.graph, records, g, tensors, values, self._calculus)

    def pulled_outputs(
        self, chosen: slice, tensors: Collection[str] = (), values: Collection[str] = ()
    ) -> Moved:
        """What the unit cotangents of the c outputs of some examples are worth, k = c at once."""
        f = self.f[chosen, :]
        units = xp.broadcast_to(xp.eye(f.shape[1], like=f), (*f.shape, f.shape[1]))
        return self.pulled(units, chosen, tensors, values)

    def pulled(
        self,
        g: Array,
        chosen: slice = slice(None),
        tensors: Collection[str] = (),
        values: Collection[str] = (),
    ) -> Moved:
        """What cotangents g (n, k, c) of the outputs of some examples are worth."""
        self.reach(tensors, values)
        nodes = self.graph.downstream(values, tensors)
        records = {node.name: self.at(node.name, chosen) for node in nodes}
        with np.errstate(over="ignore", invalid="ignore"):
            of_outputs = {self.graph.output: g}
            return backward(self.graph, records, of_outputs, tensors, values, self._calculus)

    def pushed(
        self, moved: Moved, chosen: slice = slice(None), needed: Collection[str] | None = None
    ) -> dict[str, Array]:
        """How each value moves along the directions ``moved``, (n, k, *shape).

        If it is given, those in ``needed`` alone: the others are freed on the way.
        """
        self.reach(moved.tensors, moved.values)
        R = dict(moved.values)
        unread = {value: len(readers) for value, readers in self.graph.readers.items()}
        for node in self.graph.downstream(moved.values, moved.tensors):
            Rx = [R.get(value) for value in node.inputs]
            at = self.at(node.name, chosen)
            own = self._calculus(node).push(at, Rx, _directions(node, moved))
            R[node.name] = R[node.name] + own if node.name in R else own
            del own, Rx
            for value in node.inputs:
                unread[value] -= 1
                if needed is not None and not unread[value] and value not in needed:
                    R.pop(value, None)
        return R

    def product(
        self,
        moved: Moved,
        term: Term,
        tensors: Collection[str],
        values: Collection[str] = (),
        chosen: slice = slice(None),
        straight: Collection[Node] = (),
        shown: Collection[str] = (),
    ) -> tuple[Moved, dict[str, Array]]:
        """∂²L/∂· times the directions ``moved``, at ``tensors`` and ``values``.

        The second is how values move, (n, k, *shape), those in ``shown`` among them. The curvature
        of the nodes in ``straight`` is left out. Of BOTH there are 2k products: those of G, then
        those of C, by one way up.
        """
        graph, calculus = self.graph, self._calculus
        of_tensors = {*moved.tensors, *tensors}
        self.reach(of_tensors, [*moved.values, *values])
        below = graph.downstream({*moved.values, *values}, of_tensors)
        nodes = {node.name: self.at(node.name, chosen) for node in below}
        bent = {
            node
            for node in below
            if node not in straight and not _is_straight(node, calculus(node), of_tensors)
        }
        needed = {value for node in bent for value in node.inputs}
        R = self.pushed(moved, chosen, {graph.output, *graph.activities, *needed, *shown})

        def bend(node: Node, at: object, pulled: Pulled) -> None:
            if node not in bent:
                return
            Rx = [R.get(value) for value in node.inputs]
            into = _second_half(pulled) if term.apart else pulled
            calculus(node).bend(at, Rx, _directions(node, moved), into)

        Rf = R.get(graph.output)
        if Rf is None:
            f = self.f[chosen, :]
            Rf = xp.zeros((f.shape[0], _count(moved), f.shape[1]), like=f)
        Rg = {graph.output: self.through_loss(Rf, chosen) if term.seeded else xp.zeros_like(Rf)}
        del Rf
        if term.seeded:
            for value, curvature in self._curvatures.items():
                if value in R:
                    own = curvature * R[value]
                    Rg[value] = Rg[value] + own if value in Rg else own
        if term.apart:
            Rg = {value: xp.concat([g, xp.zeros_like(g)], axis=1) for value, g in Rg.items()}
        found = _downward(
            graph.downstream(values, tensors),
            Rg,
            tensors,
            values,
            calculus,
            nodes,
            bend=bend if term.bent else None,
        )
        return found, R

    def through_loss(self, Rf: Array, chosen: slice = slice(None)) -> Array:
        """∂²L/∂f² times Rf (n, k, c)."""
        Rg: Array = self.scales[chosen, None, None] * self._loss_product(chosen, Rf)
        return Rg

    @cached_property
    def _curvatures(self) -> dict[str, Array]:
        """C ∂²P/∂v², one number for each value of which the penalty has any."""
        one = xp.ones((), like=self.f)
        return {
            value: self.of_activity * penalty.curvature(one, of)
            for value, of in self.graph.activities.items()
            if of.l2
        }

    @cached_property
    def _loss_product(self) -> HessianProduct:
        return self.loss.hessian_product(self.f, self.targets)

    def second(self, chosen: slice, term: Term, down_to: str) -> Iterator[tuple[str, Array]]:
        """(v, S) of one term at each value v from the output to ``down_to``, S (n, d, d).

        What is held at a time grows with the examples ``chosen`` and not with the batch. A value
        that only one node reads has S by the node's own ``second``; beyond a value that several
        read it is the product with unit directions.
        """
        graph = self.graph
        self.reach(values=[down_to])
        # What overflows is for who judges the numbers.
        with np.errstate(over="ignore", invalid="ignore"):
            S = {graph.output: self._second_at_output(chosen, term)}
            yield graph.output, S[graph.output]
            if down_to == graph.output:
                return
            order = [INPUT, *(node.name for node in graph.nodes)]
            depending = {down_to, *(node.name for node in graph.downstream([down_to], []))}
            for value in reversed(order[order.index(down_to) : -1]):
                readers = graph.readers[value]
                if value not in depending:
                    continue
                # What the output does not depend on has no record, and S = 0.
                if len(readers) == 1 and readers[0].name in S and value in graph.effective:
                    (node,) = readers
                    above = S[node.name] if len(node.inputs) > 1 else S.pop(node.name)
                    below = self._second_below(node, value, above, chosen, bent=term.bent)
                    S[value] = self._penalized_second(below, value, term)
                    del above, below
                    self._check(node, "backward sweep", S[value])
                else:
                    S[value] = self._second_by_units(chosen, term, value)
                yield value, S[value]

    def split_second(self, chosen: slice, value: str) -> tuple[Array, Array]:
        """(I, O), each (n, d, d), whose sum is S of the Hessian at a value.

        O is the curvature of the nodes that read the value, I all that is above them. At the
        network's output I is the loss's Hessian.
        """
        readers = self.graph.readers[value]
        self.reach(values=[value])
        with np.errstate(over="ignore", invalid="ignore"):
            if value == self.graph.output:
                linear = self._second_at_output(chosen, HESSIAN)
            elif len(readers) == 1 and value in self.graph.effective:
                (node,) = readers
                *_, (_, above) = self.second(chosen, HESSIAN, node.name)
                linear = self._second_below(node, value, above, chosen, bent=False)
                linear = self._penalized_second(linear, value, HESSIAN)
            else:
                linear = self._second_by_units(chosen, HESSIAN, value, readers)
            n, d, _ = linear.shape
            rows = xp.zeros((n, d, *self.graph.shape_of(value)), like=linear)
            units = unit_directions(rows)
            for node in dict.fromkeys(readers):
                if not self._calculus(node).bends_in_x or node.name not in self.graph.effective:
                    continue
                Rx = [units if name == value else None for name in node.inputs]
                into = Pulled(
                    [xp.zeros_like(rows) if name == value else None for name in node.inputs], {}
                )
                self._calculus(node).bend(self.at(node.name, chosen), Rx, {}, into)
                for part in into.inputs:
                    rows = rows if part is None else rows + part
        return linear, xp.reshape(rows, linear.shape)

    def _second_below(
        self, node: Node, value: str, S: Array, chosen: slice, *, bent: bool
    ) -> Array:
        """S (n, d, d) at the only value of that name which the node reads, out of S at its own."""
        shaped = xp.reshape(S, (*S.shape[:2], *node.shape))
        at, position = self.at(node.name, chosen), node.inputs.index(value)
        below = self._calculus(node).second(at, shaped, position, len(node.inputs), bent=bent)
        width = below.shape[1]
        return xp.reshape(below, (below.shape[0], width, width))

    def _second_at_output(self, chosen: slice, term: Term) -> Array:
        S = self.loss.hessian(self.f[chosen, :], self.targets[chosen, ...])
        S = self.scales[chosen, None, None] * S if term.seeded else xp.zeros_like(S)
        return self._penalized_second(S, self.graph.output, term)

    def _penalized_second(self, S: Array, value: str, term: Term) -> Array:
        """S (n, d, d) at a value with what its own penalty has, on the diagonal."""
        if not term.seeded or value not in self._curvatures:
            return S
        return S + self._curvatures[value] * xp.eye(S.shape[1], like=S)

    def _second_by_units(
        self, chosen: slice, term: Term, value: str, straight: Collection[Node] = ()
    ) -> Array:
        f, shape = self.f[chosen, :], self.graph.shape_of(value)
        units = unit_directions(xp.empty((f.shape[0], 1, *shape), like=f))
        found, _ = self.product(Moved(values={value: units}), term, (), [value], chosen, straight)
        width = units.shape[1]
        # The output may not depend on it.
        S = found.values.get(value)
        S = xp.zeros_like(units) if S is None else S
        return xp.reshape(S, (S.shape[0], width, width))


def _is_straight(node: Node, calculus: Calculus, asked: Collection[str]) -> bool:
    """Whether the node bends nothing: none of its tensors moves or is asked for."""
    return not calculus.bends_in_x and not any(name in asked for name in node.tensors.values())


def _directions(node: Node, moved: Moved) -> dict[str, Array]:
    """The directions in a node's parameters, by role."""
    return {
        role: moved.tensors[name] for role, name in node.tensors.items() if name in moved.tensors
    }


def _second_half(pulled: Pulled) -> Pulled:
    """The same arrays from the middle of their k cotangents on."""
    return Pulled(
        [None if g is None else g[:, g.shape[1] // 2 :, ...] for g in pulled.inputs],
        {role: g[g.shape[0] // 2 :, ...] for role, g in pulled.tensors.items()},
    )


def _count(moved: Moved) -> int:
    for V in moved.tensors.values():
        return int(V.shape[0])
    return int(next(iter(moved.values.values())).shape[1])


def _part(at: object, chosen: slice, examples: int) -> object:
    start, stop, _ = chosen.indices(examples)
    return at if (start, stop) == (0, examples) else at.part(chosen)  # type: ignore[attr-defined]
