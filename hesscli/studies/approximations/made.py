"""The approximations of a layer's block, each out of sums over the examples.

KFAC             A ⊗ B,  A = 1/N Σ a aᵀ,  B = 1/T Σ δ δᵀ (Martens and Grosse 2015; at T places
                 of a convolution, "expand": Grosse and Martens 2016)
KFAC-reduce      the same of the mean of a and the sum of δ over the places (Eschenhagen et al.
                 2023)
EKFAC            D = Σ (U_Aᵀ J U_B)² in the eigenvectors of A and B (George et al. 2018)
best Kronecker   the singular vectors of F rearranged (Van Loan and Pitsianis 1993)
KFRA             B by the recursion over the batch's means (Botev et al. 2017)
rank k + diagonal    the k largest eigenpairs of F, and what they leave of its diagonal
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from hesscli.nodes.calculus import calculus_of
from hesscli.nodes.node import Wanted
from hesscli.problem.execution import HELD
from hesscli.problem.graph import DENSE, ELEMENTWISE, Array, Node
from hesscli.problem.network import Problem
from hesscli.studies.approximations.blocks import (
    DENSE_SIZE,
    Approximation,
    Eigenbasis,
    Fisher,
    Kronecker,
    LowRankPlusDiagonal,
)
from hesscli.studies.approximations.factors import (
    EMPIRICAL,
    FISHER,
    GAUSS_NEWTON,
    MONTE_CARLO,
    POISSON,
    Factors,
    draws_of,
    root_of,
    seen,
)
from hesscli.studies.eigen import Search, lanczos
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import layout_of
from hesscli.witnesses.summed.engine import ChainRuleEngine, Chunks

# A and B of a Kronecker product, each out of the other.
_Toward = Callable[[Array], Array]
_SEARCH = Search(rtol=1e-10, remedy="use --rank 0")
# Power iterations for the best Kronecker product, and the change of its norm that ends them; over
# a dataset each takes a pass.
_ITERATIONS, _CHANGE = 500, 1e-15
_PASSES, _PASS_CHANGE = 12, 1e-4


KFRA = "kfra"


class Maker:
    """Makes a layer's approximations; what the examples of one process give is kept.

    If some names are ``wanted``, other kinds of Fisher matrices than theirs are left out.
    """

    def __init__(
        self, engine: ChainRuleEngine, samples: int, seed: int, wanted: Collection[str] = ()
    ) -> None:
        self._wanted = wanted
        self.problem, self.samples, self.seed = engine.problem, samples, seed
        self.held = isinstance(engine, ChainRule)
        self.chunks = (
            Chunks(engine.problem, HELD) if isinstance(engine, ChainRule) else engine.chunks.on_host
        )
        self._engine = engine if isinstance(engine, ChainRule) else None
        self._kept: dict[str, dict[str, Factors]] = {}
        self._roots: dict[str, Array] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        drawn = (MONTE_CARLO,) if draws_of(self.problem) is not None else ()
        expected = (FISHER,) if self.problem.loss.name == POISSON else ()
        others = [
            kind
            for kind in (*expected, *drawn, EMPIRICAL)
            if not self._wanted or any(name.endswith(kind) for name in self._wanted)
        ]
        return (GAUSS_NEWTON, *others)

    def factors(
        self, parameter: str, node: Node, kinds: Sequence[str], part: Problem
    ) -> dict[str, Factors]:
        """A layer's factors by kind, out of one pass over the part's examples."""
        if parameter in self._kept:
            return self._kept[parameter]
        engine = self._engine or ChainRule(part)
        of_layer = seen(engine, parameter, node)
        found = {kind: of_layer.factors(self._root(engine, kind)) for kind in kinds}
        if self.held:
            self._kept[parameter] = found
        return found

    def _root(self, engine: ChainRule, kind: str) -> Array:
        if kind in self._roots:
            return self._roots[kind]
        found = root_of(engine, kind, self.samples, self.seed)
        if self.held:
            self._roots[kind] = found
        return found

    def _of_kind(self, parameter: str, node: Node, kind: str, part: Problem) -> Factors:
        return self.factors(parameter, node, (kind,), part)[kind]

    def _sum(
        self, of: Callable[[Problem], tuple[Array, ...]], like: tuple[tuple[int, ...], ...]
    ) -> list[Array]:
        """The sums over all examples of several arrays at once."""
        if self.held:
            return [np.asarray(x, dtype=np.float64) for x in of(self.problem)]
        total = self.chunks.sum(lambda part: np.concatenate([x.reshape(-1) for x in of(part)]))
        ends = np.cumsum([int(np.prod(shape)) for shape in like])
        parts = np.split(total, ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, like, strict=True)]

    def made(
        self, parameter: str, node: Node, rank: int, kfra: Array | None
    ) -> Iterator[tuple[str, Approximation]]:
        """(name, approximation) of each, Gauss–Newton first."""
        layout = layout_of(self.problem, parameter)
        (segment,) = layout.segments
        rows, units, kinds = segment.rows, segment.units, self.kinds
        names = ("kfac",) if node.kind == DENSE else ("kfac", "kfac_reduce")
        shapes = (
            *[(rows, rows)] * len(names),
            *[(units, units)] * len(names) * len(kinds),
            *[(rows, units)] * len(kinds),
        )
        kronecker = partial(Kronecker, parameter, layout)

        def sums(part: Problem) -> tuple[Array, ...]:
            found = list(self.factors(parameter, node, kinds, part).values())
            forms = [found, [each.reduced() for each in found]][: len(names)]
            # All kinds have the same a.
            return (
                *(form[0].A() for form in forms),
                *(each.B() for form in forms for each in form),
                *(each.diagonal() for each in found),
            )

        totals = iter(self._sum(sums, shapes))
        As = [next(totals) / self.problem.total for _ in names]
        Bs = {(name, kind): next(totals) for name in names for kind in kinds}
        fishers = [
            (
                kind,
                Fisher(
                    parameter,
                    layout,
                    self.chunks,
                    partial(self._of_kind, parameter, node, kind),
                    next(totals).reshape(-1),
                ),
            )
            for kind in kinds
        ]
        factored = [
            (
                name if kind == GAUSS_NEWTON else f"{name}_{kind}",
                kronecker(A, Bs[name, kind]),
            )
            for kind in kinds
            for name, A in zip(names, As, strict=True)
        ]
        yield from fishers
        yield from factored
        F, KFAC = fishers[0][1], factored[0][1]
        if kfra is not None:
            yield KFRA, kronecker(KFAC.A, kfra)
        (_, U_A), (_, U_B) = np.linalg.eigh(KFAC.A), np.linalg.eigh(KFAC.B)
        D = self.chunks.sum(lambda part: F.made(part).rotated(U_A, U_B).diagonal())
        yield "ekfac", Eigenbasis(parameter, layout, U_A, U_B, D)
        yield "best_kronecker", kronecker(*self._best(F, KFAC))
        d = F.diagonal()
        none = np.zeros((len(d), 0))
        yield "diagonal", LowRankPlusDiagonal(parameter, layout, none, none[0], d)
        if self.held and 0 < rank < len(d):
            values, Q = lanczos(F, parameter, _SEARCH, count=rank, which="LA")
            rest = d - np.square(Q) @ values
            yield f"rank_{rank}_diagonal", LowRankPlusDiagonal(parameter, layout, Q, values, rest)

    def _best(self, F: Fisher, start: Kronecker) -> tuple[Array, Array]:
        """A and B of the Kronecker product nearest to F, by alternating: each step is optimal."""
        toward_A, toward_B = self._rearranged(F, start)
        exact = self.held or F.shape[0] <= DENSE_SIZE
        iterations, change = (_ITERATIONS, _CHANGE) if exact else (_PASSES, _PASS_CHANGE)
        A, B, before = start.A, start.B, 0.0
        for _ in range(iterations):
            size = float(np.linalg.norm(A))
            if size == 0:
                return A, B
            A = A / size
            B = toward_B(A)
            sigma = float(np.linalg.norm(B))
            if sigma <= before * (1 + change):
                break
            before = sigma
            A = toward_A(B / sigma)
        return A, B

    def _rearranged(self, F: Fisher, like: Kronecker) -> tuple[_Toward, _Toward]:
        """B ↦ R vec B and A ↦ Rᵀ vec A, R[(i,j), (u,v)] = F[(i,u), (j,v)]."""
        rows, units = len(like.A), len(like.B)
        if F.shape[0] > DENSE_SIZE:
            sums = self.chunks.sum
            return (
                lambda B: sums(lambda part: F.made(part).toward_A(B)),
                lambda A: sums(lambda part: F.made(part).toward_B(A)),
            )
        R = F.dense.reshape(rows, units, rows, units).swapaxes(1, 2).reshape(rows**2, units**2)
        return (
            lambda B: np.asarray(R @ B.reshape(-1)).reshape(rows, rows),
            lambda A: np.asarray(A.reshape(-1) @ R).reshape(units, units),
        )

    def kfra(self) -> dict[str, Array]:
        """B of each dense node by KFRA's recursion; empty if the network is not such a chain."""
        nodes = self.problem.graph.nodes
        if self._wanted and KFRA not in self._wanted:
            return {}
        chained = all(
            len(node.inputs) == 1 and node.kind in (DENSE, ELEMENTWISE) for node in nodes
        ) and all(node.inputs[0] == below.name for below, node in pairwise(nodes))
        if not chained:
            return {}
        curved = [node for node in nodes if node.kind == ELEMENTWISE]
        shapes = [(node.shape[-1],) * 2 for node in [nodes[-1], *curved]]

        def sums(part: Problem) -> tuple[Array, ...]:
            engine = self._engine or ChainRule(part)
            linearized = engine.linearized
            m = self._root(engine, GAUSS_NEWTON).reshape(-1, shapes[0][0])
            linearized.reach(values=[nodes[0].name])
            slopes = []
            for node in curved:
                ones = np.ones((part.examples, 1, *node.shape), dtype=part.dtype)
                pulled = calculus_of(node).pull(
                    linearized.at(node.name, slice(None)), ones, Wanted((True,))
                )
                (slope,) = pulled.inputs
                assert slope is not None  # it was wanted
                slopes.append(slope[:, 0])
            return (m.T @ m, *(slope.T @ slope for slope in slopes))

        B, *means = self._sum(sums, tuple(shapes))
        by_name = {
            node.name: mean / self.problem.total for node, mean in zip(curved, means, strict=True)
        }
        found = {}
        for node in reversed(nodes):
            if node.kind == ELEMENTWISE:
                B = B * by_name[node.name]
                continue
            found[node.name] = B
            W = self.problem.graph.tensors[node.tensors["kernel"]]
            B = W @ B @ W.T
        return found
