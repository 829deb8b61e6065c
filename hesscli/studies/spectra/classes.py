"""Where the eigenvalues of G come from: its parts between and within the classes.

Under the cross-entropy of classes, with p = softmax(f), ∂²ℓ/∂f² = Σ_k p_k (e_k − p)(e_k − p)ᵀ. So
with the gradients g_nk = J_nᵀ (e_k − p_n) and the weights w_nk = c w_n p_nk

    G = Σ_n Σ_k w_nk g_nk g_nkᵀ

Let y be the class of example n, g_yk the weighted mean of g_nk over the examples of y, and g_y that
of g_yk over k ≠ y. Then G is the sum of

    class    Σ_y w_y g_y g_yᵀ                              w_y = Σ_{k≠y} w_yk
    cross    Σ_y Σ_{k≠y} w_yk (g_yk − g_y)(g_yk − g_y)ᵀ    w_yk = Σ_{n of y} w_nk
    within   Σ_n Σ_{k≠y} w_nk (g_nk − g_yk)(g_nk − g_yk)ᵀ
    own      Σ_n w_ny g_ny g_nyᵀ

Source: Papyan, "Traces of class/cross-class structure pervade deep learning spectra" (Journal of
Machine Learning Research 21, 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import softmax

from hesscli.nodes.losses import LossDerivatives, loss_derivatives, of_product
from hesscli.problem.execution import Execution
from hesscli.problem.graph import Array
from hesscli.problem.names import CROSSENTROPIES
from hesscli.problem.network import Problem, Targets
from hesscli.studies.checks import DEFAULT_RTOL
from hesscli.studies.eigen import Search, largest
from hesscli.studies.verdict import Judged, Verdict
from hesscli.system.errors import InputError
from hesscli.system.memory import require_memory
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import NETWORK, layout_of
from hesscli.witnesses.summed.engine import ChainRuleEngine, Chunks, SummedEngine

PARTS = ("class", "cross", "within", "own")
# A block this small is diagonalized whole.
_DENSE_SIZE = 256
_SEARCH = Search(rtol=1e-8, remedy="use dtype float64")
# What the sums of the classes' gradients may take of the memory that there is.
_SHARE = 0.5


@dataclass(frozen=True)
class Attributed:
    """A trace or an eigenvalue of G, and what each of PARTS has of it."""

    value: float
    parts: Mapping[str, float]

    @property
    def beyond(self) -> float:
        """How far the parts are together from the whole."""
        return abs(sum(self.parts.values()) - self.value)


@dataclass(frozen=True)
class ClassParts(Judged):
    """The trace of G and its largest eigenvalues, by PARTS.

    An eigenvalue λ with the eigenvector v has vᵀXv of the part X. ``residual`` is how far the
    parts are together from vᵀGv, or from the trace, relative to the largest eigenvalue or the
    trace; it passes up to ``rtol``.
    """

    trace: Attributed
    eigenvalues: tuple[Attributed, ...]
    residual: float
    rtol: float

    @property
    def verdict(self) -> Verdict:
        return Verdict.of(self.residual <= self.rtol)


class Outer(HessianBlock):
    """Q Qᵀ, Q (P, k)."""

    def __init__(self, like: HessianBlock, Q: Array) -> None:
        super().__init__(like.parameter, like.layout, like.dtype)
        self.Q = Q

    def _matmat(self, V: Array) -> Array:
        return np.asarray(self.Q @ (self.Q.T @ V)).astype(self.dtype, copy=False)

    def diagonal(self) -> Array:
        return np.asarray(np.square(self.Q).sum(axis=1))


class Rest(HessianBlock):
    """``whole`` without ``taken``."""

    in_threads = False

    def __init__(self, whole: HessianBlock, taken: tuple[HessianBlock, ...]) -> None:
        super().__init__(whole.parameter, whole.layout, whole.dtype)
        self.whole, self.taken = whole, taken

    def _matmat(self, V: Array) -> Array:
        return np.asarray(self.whole.matmat(V) - sum(of.matmat(V) for of in self.taken))

    def diagonal(self) -> Array:
        return np.asarray(self.whole.diagonal() - sum(of.diagonal() for of in self.taken))


def class_blocks(
    problem: Problem, parameter: str, execution: Execution
) -> tuple[HessianBlock, dict[str, HessianBlock]]:
    """G of a block of parameters without penalties, and its PARTS, whose sum it is.

    Raises InputError where the loss is not the cross-entropy of classes, where values have
    penalties, or where the memory is too small.
    """
    name = problem.loss.name
    if name not in CROSSENTROPIES[:2]:
        raise InputError(
            f"--classes: the parts of the classes are those of {' or '.join(CROSSENTROPIES[:2])}; "
            f"the loss is {name}"
        )
    if problem.graph.activities:
        raise InputError(
            f"--classes: {', '.join(problem.graph.activities)} have an activity_regularizer, and "
            "the parts of the classes are of the output's loss alone; use --without-regularization"
        )
    problem = replace(problem, penalties={})
    loss = loss_derivatives(problem.loss)
    engine = partial(_engine, problem, execution)
    G = engine(loss).gauss_newton(parameter)
    others = engine(_with_hessian(loss, _others)).gauss_newton(parameter)
    own = engine(_with_hessian(loss, _own)).gauss_newton(parameter)
    of_class, cross = _means(problem, parameter, execution, G)
    within = Rest(others, (of_class, cross))
    return G, dict(zip(PARTS, (of_class, cross, within, own), strict=True))


def class_parts(problem: Problem, parameter: str, execution: Execution, count: int) -> ClassParts:
    """The trace of G and its ``count`` largest eigenvalues, at least one for each class.

    Raises what ``class_blocks`` does, and NumericalError where Lanczos does not converge.
    """
    G, blocks = class_blocks(problem, parameter, execution)
    if _is_dense(problem, parameter):
        traces = {name: block.trace() for name, block in blocks.items()}
        trace = Attributed(G.trace(), traces)
    else:
        trace = _by_examples(problem, parameter, execution, blocks)
    _, vectors = largest(G, _SEARCH, count=max(count, problem.outputs), whole=_DENSE_SIZE)
    eigenvalues = tuple(
        Attributed(G.quadratic_form(v), {name: of.quadratic_form(v) for name, of in blocks.items()})
        for v in vectors.T
    )
    scale = max(abs(of.value) for of in eigenvalues)
    beyond = [
        of.beyond / size if size else of.beyond
        for of, size in [(trace, abs(trace.value)), *((of, scale) for of in eigenvalues)]
    ]
    return ClassParts(trace, eigenvalues, max(beyond), DEFAULT_RTOL[problem.dtype.name])


def _is_dense(problem: Problem, parameter: str) -> bool:
    """Whether a diagonal comes from a formula; of other layers each number takes a product."""
    names = problem.trainable_layers if parameter == NETWORK else (parameter,)
    return all(map(ChainRule(problem.part(0, 1)).is_dense, names))


def _by_examples(
    problem: Problem, parameter: str, execution: Execution, blocks: Mapping[str, HessianBlock]
) -> Attributed:
    """The traces out of each example's gradients, Σ w_nk ‖g_nk‖²."""
    own, others = Chunks(problem, execution).sum(partial(_squares, parameter)).tolist()
    of_class, cross = blocks["class"].trace(), blocks["cross"].trace()
    traces = (of_class, cross, others - of_class - cross, own)
    return Attributed(own + others, dict(zip(PARTS, traces, strict=True)))


def _squares(parameter: str, part: Problem) -> Array:
    """Σ_n w_nk ‖g_nk‖² of the classes k = y of the examples, and of the others."""
    engine, classes = ChainRule(part), part.outputs
    J, f = engine.jacobian(parameter), engine.linearized.f
    sums = np.zeros(2)
    for n, (p, y) in enumerate(zip(softmax(f, axis=-1), _labels(part.targets), strict=True)):
        g = (np.eye(classes) - p) @ J.rows(n * classes, (n + 1) * classes)
        squares = part.scales[n] * p * np.square(g).sum(axis=1)
        sums += squares[y], np.delete(squares, y).sum()
    return sums


def _engine(problem: Problem, execution: Execution, loss: LossDerivatives) -> ChainRuleEngine:
    if not execution.summed:
        return ChainRule(problem, loss=loss)
    return SummedEngine(Chunks(problem, execution), partial(ChainRule, loss=loss))


def _with_hessian(loss: LossDerivatives, product: object) -> LossDerivatives:
    hessian, hessian_product = of_product(product)  # type: ignore[arg-type]
    return replace(loss, hessian=hessian, hessian_product=hessian_product)


def _labels(targets: Targets) -> Array:
    """The class of each example; of probabilities the likeliest one."""
    return np.asarray(targets if targets.ndim == 1 else targets.argmax(axis=1))


def _own(f: Array, targets: Targets, v: Array) -> Array:
    # p_y (e_y − p)(e_y − p)ᵀ v
    p, rows, y = softmax(f, axis=-1), np.arange(len(f)), _labels(targets)
    u = -p
    u[rows, y] = 0
    # 1 − p_y through the other classes: it has no digits where p_y is nearly 1.
    u[rows, y] = -u.sum(axis=-1)
    return np.asarray(p[rows, y, None] * u * (u * v).sum(axis=-1, keepdims=True))


def _others(f: Array, targets: Targets, v: Array) -> Array:
    # Σ_{k≠y} p_k (e_k − p)(e_k − p)ᵀ v
    p = softmax(f, axis=-1)
    along = p * (v - (p * v).sum(axis=-1, keepdims=True))
    along[np.arange(len(f)), _labels(targets)] = 0
    return np.asarray(along - p * along.sum(axis=-1, keepdims=True))


def _means(
    problem: Problem, parameter: str, execution: Execution, like: HessianBlock
) -> tuple[Outer, Outer]:
    """The class and the cross part, of the sums over each class's examples."""
    classes, size = problem.outputs, like.shape[0]
    needed = 3 * 8 * classes**2 * (size + 1)
    what = f"--classes: {parameter}: the gradients of {classes**2:,} pairs of classes need"
    require_memory(needed, what, "choose a smaller block", _SHARE)
    sums = Chunks(problem, execution).sum(partial(_sums, parameter))
    M, w = sums[..., :-1], sums[..., -1]
    # Not of k = y.
    off = ~np.eye(classes, dtype=bool)
    w_y = (w * off).sum(axis=1)
    seen = w_y > 0
    g_y = np.zeros((classes, size))
    g_y[seen] = (M * off[..., None]).sum(axis=1)[seen] / w_y[seen, None]
    pairs = off & (w > 0)
    g_yk = M[pairs] / w[pairs][:, None]
    about = (g_yk - g_y[np.nonzero(pairs)[0]]) * np.sqrt(w[pairs])[:, None]
    return Outer(like, (g_y * np.sqrt(w_y)[:, None]).T), Outer(like, about.T)


def _sums(parameter: str, part: Problem) -> Array:
    """Σ_{n of y} w_nk g_nk, and behind it Σ_{n of y} w_nk: (classes, classes, P + 1)."""
    layout, classes, labels = layout_of(part, parameter), part.outputs, _labels(part.targets)
    sums = np.zeros((classes, classes, layout.size + 1))
    for y in np.unique(labels):
        of_class = part.chosen(np.flatnonzero(labels == y), of=part.total)
        linearized = ChainRule(of_class).linearized
        p = softmax(linearized.f, axis=-1)
        w = of_class.scales[:, None] * p
        directions = np.eye(classes) - p[:, None, :]
        cotangents = (w[..., None] * directions).astype(part.dtype)
        found = linearized.pulled(cotangents, tensors=layout.tensors).tensors
        for name in layout.tensors:
            shape = (classes, *part.graph.tensors[name].shape)
            found.setdefault(name, np.zeros(shape, dtype=part.dtype))
        sums[int(y), :, :-1] = layout.join(found).T
        sums[int(y), :, -1] = w.sum(axis=0)
    return sums
