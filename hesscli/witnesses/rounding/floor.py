"""How far apart two correct witnesses may be: the floor below which a residual is rounding.

A tolerance relative to the largest entry is not enough. Where a unit is saturated, an entry is
the product of a σ′ such as 1 − tanh² that has been *subtracted*: it is wrong by the rounding of
what it was subtracted from, however small it is itself. So the floor is measured: the chain rule
is run REPLICAS times over in float64 with every node perturbed by as much as rounding may change
it (noise.py), and

    floor = SAFETY · the largest deviation from the run that is not perturbed.

What is large is not formed for that. The floor of a dense layer's entries follows from the
deviations e_a and e_S of its input a and of S at its output,

    Σ_n a_n² e_S + (2 a_n e_a + e_a²)(|S_n| + e_S) + √N u √Σ (a_n² S_n)² + N · tiny

at the largest input, for each pair (h, l) of units; between two layers likewise.

A residual passes when it is at most rtol · scale + floor. In a network that is not saturated the
floor is some hundred u of the largest entry and decides nothing; in a saturated one it is what
the two witnesses cannot know. A wrong formula there is off by the terms themselves, not by u
times them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from threading import Lock

import numpy as np

from hesscli.nodes.passes import GAUSS_NEWTON, HESSIAN, Linearized, Moved, Term, unchecked
from hesscli.problem.graph import DENSE, INPUT, Array
from hesscli.problem.network import Problem
from hesscli.system.errors import NumericalError
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.blocks import InputsBlock, ProductBlock
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.chain_rule.network import NetworkBlock
from hesscli.witnesses.jacobian import JacobianBlock
from hesscli.witnesses.rounding.noise import Noise, noisy_calculus, noisy_loss, steady_calculus
from hesscli.witnesses.rounding.terms import loss_terms

# Perturbed runs. Of so many independent deviations the largest is hardly ever below a tenth of a
# typical one; where a slope is in doubt they are not small ones, and more are needed to see how
# far they go.
REPLICAS, REPLICAS_IN_DOUBT = 8, 32
# Of the runs in doubt every such one perturbs products alone, at values as they are: logits that
# are equal in every witness stay equal.
_STILL = 4
# A σ′ whose effect is open by this share of the largest one may be quite another one.
_OPEN = 1e-3
# Perturbations are already larger than rounding (noise.AMPLITUDE). In doubt numbers may be of any
# size, of which so few runs do not see the largest.
SAFETY, SAFETY_IN_DOUBT = 8.0, 64.0
# Runs that take no more than this together are kept for the next question.
_KEPT_BYTES = 2**26
# What a run keeps for each number of a value, in doubles.
_DOUBLES = 8


# Values, and their errors.
_Uncertain = tuple[Sequence[Array], Sequence[Array]]


@dataclass(frozen=True)
class _Doubt:
    """What is known of the activations' slopes, and of the loss's Hessian.

    ``of_slopes``: some σ′ may be wrong by more than rounding itself, so that the curvature term
    may cancel what Gauss–Newton's error is. ``of_kinks``: it may be quite another one, at a kink
    or behind a sum that cancels, or the loss's Hessian may be, as at equal logits of 1e20; then
    there are more runs.
    """

    of_slopes: bool
    of_kinks: bool


class RoundingFloor:
    """The floors of every block of one problem.

    (All but the block of all inputs at once: between two examples it is 0 without rounding.)

    Raises NumericalError where the errors themselves leave the range of float64.
    """

    def __init__(self, engine: ChainRule) -> None:
        self.problem = engine.problem
        self._loss = engine.linearized.loss
        self._limits = np.finfo(engine.problem.dtype)
        self._kept: dict[int, Linearized] = {}
        self._lock = Lock()
        self._entry_floors: dict[str, Array] = {}
        self._form_floors: dict[tuple[str, bytes], float] = {}

    @cached_property
    def exact(self) -> ChainRule:
        """The chain rule in float64, unperturbed."""
        problem = _in_float64(self.problem)
        return ChainRule(problem, calculus=steady_calculus, loss=self._loss, check=unchecked)

    def node(self, value: str, start: int, stop: int) -> tuple[Array, Array]:
        """The floors of g (n, d) and S (n, d, d) at one value, for some of the examples."""
        chosen = slice(start, stop)
        exact = self.exact.gradient_at(value)[chosen], _second(self.exact, value, chosen)
        e_g, e_S = self._deviations(
            exact, lambda run: (run.gradient_at(value)[chosen], _second(run, value, chosen))
        )
        return self._safe(e_g, value).reshape(len(e_g), -1), self._safe(e_S, value)

    def entries(self, parameter: str) -> Array:
        """The floor of the block's entries for each pair of groups, (groups, groups).

        It holds for the entries of the Gauss–Newton term as well.
        """
        if parameter not in self._entry_floors:
            with np.errstate(over="ignore", invalid="ignore"):
                floor = self._entries(parameter, HESSIAN)
                if self._doubt.of_slopes:
                    floor = np.maximum(floor, self._entries(parameter, GAUSS_NEWTON))
                self._entry_floors[parameter] = self._safe(floor, parameter)
        return self._entry_floors[parameter]

    def _entries(self, parameter: str, term: Term) -> Array:
        block = self.exact.block(parameter, term)
        if isinstance(block, DenseBlock):
            return self._dense_entries(block)
        if isinstance(block, NetworkBlock):
            return self._network_entries(block)
        return self._entries_by_rows(block)

    @cached_property
    def _doubt(self) -> _Doubt:
        moved = _pushed(self.exact)
        errors = self._largest(moved, _pushed, REPLICAS)
        *pairs, at_loss = zip(errors, moved, strict=True)
        return _Doubt(
            of_slopes=any((error > math.sqrt(self._u) * np.abs(R)).any() for error, R in pairs),
            of_kinks=any(
                (error > _OPEN * np.abs(R).max(initial=0)).any() for error, R in [*pairs, at_loss]
            ),
        )

    def _safe(self, deviation: Array, what: str) -> Array:
        """The floor by the largest deviation; NumericalError where it leaves the range."""
        with np.errstate(over="ignore"):
            floor = (SAFETY_IN_DOUBT if self._doubt.of_kinks else SAFETY) * deviation
        return _in_range(floor, what)

    def quadratic_form(self, parameter: str, v: Array) -> float:
        """The floor of vᵀ H v for v of the block's size."""
        v = v.astype(np.float64).reshape(-1)
        key = parameter, v.tobytes()
        if key not in self._form_floors:
            self._form_floors[key] = self._form_floor(parameter, v)
        return self._form_floors[key]

    def _form_floor(self, parameter: str, v: Array) -> float:
        exact = tuple(self._products(self.exact, parameter, v))
        errors = self._deviations(
            tuple(v @ Hv for Hv in exact),
            lambda run: tuple(v @ Hv for Hv in self._products(run, parameter, v)),
        )
        # The last sum is rounded, and H v may underflow before v multiplies it.
        of_sum = [self._u * _root_of_squares(v * Hv) * math.sqrt(v.size) for Hv in exact]
        vanished = self.problem.examples * self._tiny * (1 + np.abs(v).sum())
        floor = max(float(e) + float(s) for e, s in zip(errors, of_sum, strict=True)) + vanished
        return float(self._safe(np.asarray(floor), parameter))

    def _products(self, run: ChainRule, parameter: str, v: Array) -> list[Array]:
        """H v, and G v where the two may have errors of their own: by the passes."""
        terms = [HESSIAN, GAUSS_NEWTON] if self._doubt.of_slopes else [HESSIAN]
        return [run.products(parameter, term) @ v for term in terms]

    def product_norm(self, parameter: str, V: Array) -> float:
        """The Frobenius norm of what rounding leaves uncertain of H V, for V (P, k)."""
        floor = self.product(parameter, V)
        largest = float(floor.max(initial=0.0))
        norm = largest * float(np.linalg.norm(floor / largest)) if largest > 0 else 0.0
        return float(_in_range(np.asarray(norm), parameter))

    def product(self, parameter: str, V: Array, term: Term = HESSIAN) -> Array:
        """The floors of the numbers of H V, or of one of its terms, for V (P, k)."""
        V = V.astype(np.float64)
        exact = self.exact.products(parameter, term) @ V
        (error,) = self._deviations((exact,), lambda run: (run.products(parameter, term) @ V,))
        return self._safe(error + self.problem.examples * self._tiny, parameter)

    def gradient(self, parameter: str) -> Array:
        """The floor of ∂L/∂θ, (P,) for the block's parameters."""
        exact = self.exact.gradient(parameter)
        (error,) = self._deviations((exact,), lambda run: (run.gradient(parameter),))
        return self._safe(error, parameter)

    def jacobian(self, parameter: str) -> JacobianBlock:
        """The floor of ∂f/∂θ, whose rows are asked for like those of the Jacobian."""
        return _JacobianFloor(self, parameter)

    def jacobian_rows(self, parameter: str, start: int, stop: int) -> Array:
        """The floors of some rows of a Jacobian."""
        exact = self.exact.jacobian(parameter).rows(start, stop)
        (error,) = self._deviations(
            (exact,), lambda run: (run.jacobian(parameter).rows(start, stop),)
        )
        return self._safe(error, parameter)

    @property
    def _u(self) -> float:
        return float(self._limits.eps) / 2

    @property
    def _tiny(self) -> float:
        # Below the smallest normal number TensorFlow's values become zero.
        return float(self._limits.tiny)

    def _runs(self, count: int) -> Iterator[ChainRule]:
        """The perturbed runs, the same ones for every question."""
        for seed in range(count):
            # One generator for the passes that are kept, one for what each question adds: so the
            # numbers do not depend on which question comes first.
            kept, own = (np.random.default_rng((seed, of)) for of in (0, 1))
            with self._lock:
                if seed not in self._kept:
                    still = seed >= REPLICAS and seed % _STILL == 0 and self._is_small
                    run = self._run(seed, kept, still=still)
                    if not self._is_small:
                        yield run
                        continue
                    run.linearized.reach(tuple(self.problem.graph.tensors), [INPUT])
                    self._kept[seed] = run.linearized
            run = self._run(seed, own)
            run.linearized = self._kept[seed].again(run.linearized)
            yield run

    @cached_property
    def _is_small(self) -> bool:
        graph = self.problem.graph
        shapes = [graph.input_shape, *(node.shape for node in graph.nodes)]
        each = 8 * _DOUBLES * self.problem.examples * sum(map(math.prod, shapes))
        return each * REPLICAS_IN_DOUBT <= _KEPT_BYTES

    def _run(self, seed: int, generator: np.random.Generator, *, still: bool = False) -> ChainRule:
        """One run; ``still``, with noise of no size."""
        problem = self.exact.problem
        u, tiny = (0.0, 0.0) if still else (self._u, self._tiny)
        noise = Noise(generator, u, tiny, near=seed % 2 == 1)
        batch = problem.batch
        vanishing = (np.abs(batch) < self._tiny) & (batch != 0)
        if seed % 2 and vanishing.any():
            # TensorFlow takes them for zero.
            problem = replace(problem, inputs=np.where(vanishing, 0.0, batch))
        terms = loss_terms(problem.loss)
        loss = noisy_loss(self._loss, terms, noise)
        return ChainRule(problem, calculus=noisy_calculus(noise), loss=loss, check=unchecked)

    def _deviations(
        self, exact: tuple[Array, ...], of: Callable[[ChainRule], tuple[Array, ...]]
    ) -> tuple[Array, ...]:
        """The largest deviations of the runs from ``exact``, number by number."""
        count = REPLICAS_IN_DOUBT if self._doubt.of_kinks else REPLICAS
        return self._largest(exact, of, count)

    def _largest(
        self,
        exact: tuple[Array, ...],
        of: Callable[[ChainRule], tuple[Array, ...]],
        count: int,
    ) -> tuple[Array, ...]:
        errors = tuple(np.zeros_like(array, dtype=np.float64) for array in exact)
        with np.errstate(over="ignore", invalid="ignore"):
            for run in self._runs(count):
                for error, right, found in zip(errors, exact, of(run), strict=True):
                    np.maximum(error, np.abs(found - right), out=error)
        return errors

    def _dense_entries(self, block: DenseBlock) -> Array:
        exact = _of_layer(block)
        errors = self._deviations(
            exact, lambda run: _of_layer(run.block(block.parameter, block.term))
        )
        return self._within(exact, errors)

    def _within(self, exact: Sequence[Array], errors: Sequence[Array]) -> Array:
        """The floor within a layer, from S, a and g and their errors."""
        (S, a, _), (e_S, e_a, _) = exact, errors
        a_n, e_n = (values.max(axis=1)[:, None, None] for values in (np.abs(a), e_a))
        return self._summed(a_n * a_n, (2 * a_n + e_n) * e_n, np.abs(S), e_S)

    def _network_entries(self, block: NetworkBlock) -> Array:
        pairs = tuple(block.cross)
        exact = _of_network(block, pairs)
        errors = self._deviations(
            exact, lambda run: _of_network(run.block(block.parameter, block.term), pairs)
        )
        count = len(block.layers)
        of_layers = [(exact[3 * k : 3 * k + 3], errors[3 * k : 3 * k + 3]) for k in range(count)]
        floors: list[list[Array]] = [[np.empty(0)] * count for _ in range(count)]
        for k, (values, own) in enumerate(of_layers):
            floors[k][k] = self._within(values, own)
        for place, (k, upper) in enumerate(pairs):
            between = slice(3 * count + 2 * place, 3 * count + 2 * place + 2)
            floor = self._between(of_layers[k], of_layers[upper], (exact[between], errors[between]))
            floors[k][upper], floors[upper][k] = floor, floor.T
        return np.block(floors)

    def _between(self, lower: _Uncertain, upper: _Uncertain, cross: _Uncertain) -> Array:
        """The floor between two layers, from their S, a and g, and from M and B."""
        ((_, a_k, _), (_, e_k, _)), ((_, a_l, g), (_, e_l, e_g)) = lower, upper
        # (units of k, N, 1) and (units of k, N, units of l)
        a_k, a_l, e_k, e_l = (
            np.abs(values).max(axis=1)[None, :, None] for values in (a_k, a_l, e_k, e_l)
        )
        (M, B), (e_M, e_B) = cross
        M, e_M = (np.abs(values).max(axis=2)[:, :, None] for values in (M, e_M))
        g, e_g, B = np.abs(g)[None], e_g[None], np.abs(B)
        value = M * g + a_l * B
        error = e_M * (g + e_g) + M * e_g + (a_l + e_l) * e_B + e_l * B
        return self._summed(*(part.swapaxes(0, 1) for part in (a_k, e_k, value, error)))

    def _summed(self, factor: Array, e_factor: Array, value: Array, error: Array) -> Array:
        """The error of Σ_n factor · value, whose factors (N, 1, 1) and values have errors."""
        of_examples = factor * error + e_factor * (value + error)
        of_sum = self._u * np.sqrt(len(value)) * _root_of_squares(factor * value)
        return np.asarray(of_examples.sum(axis=0) + of_sum + len(value) * self._tiny)

    def _entries_by_rows(self, block: ProductBlock | InputsBlock) -> Array:
        """The largest error of an entry in each pair of groups, from all entries."""
        size, groups = block.shape[0], block.layout.groups
        group_of = block.layout.groups_of(0, size)
        floor = np.zeros((groups, groups))
        for low, high in pieces(0, size, 8 * size):
            rows = partial(_rows, block, low, high)
            (error,) = self._deviations(rows(self.exact), rows)
            np.maximum.at(floor, (group_of[low:high, None], group_of[None, :]), error)
        return floor + self.problem.examples * self._tiny


class _JacobianFloor(JacobianBlock):
    def __init__(self, floor: RoundingFloor, parameter: str) -> None:
        super().__init__(floor.problem, parameter)
        self._floor = floor

    def rows(self, start: int, stop: int) -> Array:
        return self._floor.jacobian_rows(self.parameter, start, stop)


def _pushed(run: ChainRule) -> tuple[Array, ...]:
    """How the values of activations move along all inputs at once, and ∂²L/∂f² times a vector."""
    graph = run.problem.graph
    ones = np.ones((run.problem.examples, 1, *graph.input_shape))
    R = run.linearized.pushed(Moved(values={INPUT: ones}))
    moved = [R[node.name] for node in graph.nodes if node.kind != DENSE and node.name in R]
    v = np.random.default_rng(0).standard_normal((1, 1, run.linearized.f.shape[1]))
    return *moved, run.linearized.through_loss(np.repeat(v, run.problem.examples, axis=0))


def _rows(
    block: ProductBlock | InputsBlock, low: int, high: int, run: ChainRule
) -> tuple[Array, ...]:
    return (run.block(block.parameter, block.term).rows(low, high),)


def _of_layer(block: HessianBlock) -> tuple[Array, ...]:
    """S, a and g of a dense layer."""
    assert isinstance(block, DenseBlock)  # runs have the structure of the exact one
    return block.S, block.a, block.g


def _of_network(block: HessianBlock, pairs: Sequence[tuple[int, int]]) -> tuple[Array, ...]:
    """S, a and g of each layer, then M and B of each pair."""
    assert isinstance(block, NetworkBlock)  # runs have the structure of the exact one
    of_layers = [part for layer in block.layers for part in _of_layer(layer)]
    of_pairs = [part for pair in pairs for part in (block.cross[pair].M, block.cross[pair].B)]
    return (*of_layers, *of_pairs)


def _second(run: ChainRule, value: str, chosen: slice) -> Array:
    linear, own = run.linearized.split_second(chosen, value)
    return linear + own


def _in_float64(problem: Problem) -> Problem:
    if problem.dtype == np.float64:
        return problem
    tensors = {name: tensor.astype(np.float64) for name, tensor in problem.graph.tensors.items()}
    targets = problem.targets
    if targets.dtype.kind == "f":
        targets = targets.astype(np.float64)
    return replace(
        problem,
        graph=problem.graph.with_tensors(tensors),
        inputs=problem.batch.astype(np.float64),
        targets=targets,
    )


def _in_range(floor: Array, what: str) -> Array:
    if not np.isfinite(floor).all():
        raise NumericalError(
            f"{what}: the rounding error of its derivatives leaves the range of float64; "
            "use smaller weights"
        )
    return floor


def _root_of_squares(values: Array) -> Array:
    """√Σ values² over the first axis, of which no square overflows or vanishes."""
    largest = np.abs(values).max(axis=0)
    scale = np.where(largest > 0, largest, 1.0)
    return np.asarray(np.sqrt(np.square(values / scale).sum(axis=0)) * scale)
