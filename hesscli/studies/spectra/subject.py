"""What a spectrum is asked of: the options, and a block with its terms and subspace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from hesscli.problem.graph import Array
from hesscli.problem.names import MOST_PROBES
from hesscli.problem.network import Problem
from hesscli.studies.norms import frobenius_norms, frobenius_work, layer_block
from hesscli.studies.spectra.moments import (
    Diagonal,
    diagonal,
    diagonal_sums,
    from_sums,
    together,
)
from hesscli.studies.spectra.span import Span, affordable, layer_span, network_span, whole_span
from hesscli.system.ranges import require_whole
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import NETWORK, layout_of
from hesscli.witnesses.summed.engine import ChainRuleEngine, Chunks

# Up to this size the small matrix is decomposed: three times 128 MB and a few seconds.
EXACT_LIMIT = 4000
# Up to this size it is where each of its rows is a product.
_PRODUCTS_LIMIT = 1000
# Up to this size it is also decomposed for a few eigenpairs: it takes no longer than Lanczos.
_CHEAP_LIMIT = 256
# For more than this share of all eigenpairs Lanczos takes longer than a decomposition.
_FEW = 0.05
# Multiplications for the Frobenius norms: a few seconds.
_FROBENIUS_WORK = 1e11
# Beyond so many units the S of every example of a dataset take longer than the whole spectrum.
_WIDE = 512


@dataclass(frozen=True)
class SpectrumOptions:
    """Which blocks, and how what is too large to be exact is estimated.

    ``top`` asks for so many eigenpairs: those of largest magnitude, or with ``ends`` half of them
    from either end (the odd one from the upper). With ``top`` alone they are the answer, and all
    other numbers come only where they are cheap; ``density`` asks for the whole spectrum beside
    them. ``probes`` and ``steps`` are those of the quadrature, ``seed`` that of its random
    vectors. ``classes`` asks which parts of G its trace and largest eigenvalues come from. No
    layers mean all of them. Raises InputError for a number out of its range.
    """

    block: str = "kernel"
    layers: tuple[str, ...] = ()
    top: int = 0
    ends: bool = False
    probes: int = 10
    steps: int = 80
    seed: int = 0
    exact_limit: int = EXACT_LIMIT
    density: bool = False
    classes: bool = False

    def __post_init__(self) -> None:
        require_whole("top", self.top, 0)
        # Of a single one there is no spread, and so no error bar.
        require_whole("probes", self.probes, 2, MOST_PROBES)
        require_whole("steps", self.steps, 1)
        require_whole("seed", self.seed, 0)

    @property
    def whole(self) -> bool:
        """Whether more than eigenpairs is asked for."""
        return self.top == 0 or self.density

    def exact(self, size: int, *, structured: bool = True) -> bool:
        """Whether a small matrix of ``size`` rows is decomposed.

        That of dense layers comes at once; of others each row is a product.
        """
        if size > (self.exact_limit if structured else min(self.exact_limit, _PRODUCTS_LIMIT)):
            return False
        return self.whole or size <= _CHEAP_LIMIT or self.top > _FEW * size


@dataclass(frozen=True)
class Subject:
    """A block to look at: its three operators, and what belongs to all of them.

    ``own`` are (H, G, C) of each layer in it: the block itself, or the network's diagonal. There
    are none where the examples come in ``chunks``, where a layer is not dense, and where a
    parameter has a penalty: that stands on the whole diagonal, and not in the subspace of the
    examples.
    """

    problem: Problem
    layer: str
    parameter: str
    hessian: HessianBlock
    gauss_newton: HessianBlock
    curvature: HessianBlock
    span: Span
    own: tuple[tuple[DenseBlock, DenseBlock, DenseBlock], ...] = ()
    chunks: Chunks | None = None

    @property
    def size(self) -> int:
        return int(self.hessian.shape[0])

    @property
    def structured(self) -> bool:
        """Whether there is more than products to find the small matrix by."""
        return bool(self.own) or self.chunks is not None

    @property
    def classes(self) -> int:
        return self.problem.outputs

    def diagonals(self) -> tuple[Diagonal, Diagonal, Diagonal] | None:
        """Those of H, G and C; None where the S_n do not fit into memory."""
        if self.chunks is not None:
            return self._summed_diagonals(self.chunks)
        if not self.own or not all(affordable(hessian) for hessian, _, _ in self.own):
            return None
        H, G, C = (
            together([diagonal(block) for block in of]) for of in zip(*self.own, strict=True)
        )
        return H, G, C

    def _summed_diagonals(self, chunks: Chunks) -> tuple[Diagonal, Diagonal, Diagonal] | None:
        names = self.problem.trainable_layers if self.parameter == NETWORK else (self.parameter,)
        first = ChainRule(self.problem.part(0, 1))
        if (
            max(self.problem.widths[1:]) > _WIDE
            or _is_penalized(self.problem, self.parameter)
            or not all(map(first.is_dense, names))
        ):
            return None
        of_layers = []
        for name in names:
            sums = chunks.on_host.for_second().sum(partial(_three_diagonals, name))
            of_layers.append([from_sums(each) for each in sums])
        H, G, C = (together(list(of)) for of in zip(*of_layers, strict=True))
        return H, G, C

    def frobenius_norms(self) -> tuple[float | None, float | None, float | None]:
        """Those of H, G and C; None where they are not affordable, and for the network."""
        if self.parameter == NETWORK or not self.own:
            return None, None, None
        block = self.own[0][0]
        work = frobenius_work(len(block.a), block.inputs, block.units)
        if work > _FROBENIUS_WORK or not affordable(block):
            return None, None, None
        H, G, C = frobenius_norms(self.own[0])
        return H, G, C


def subject_of(engine: ChainRuleEngine, layer: str, parameter: str) -> Subject:
    """The block called ``parameter`` (hesscli.witnesses.layout) of the engine's problem."""
    problem = engine.problem
    if not isinstance(engine, ChainRule) or _is_penalized(problem, parameter):
        H = engine.hessian(parameter)
        G, C = engine.gauss_newton(parameter), engine.curvature(parameter)
        span, chunks = whole_span(H.layout), getattr(engine, "chunks", None)
        return Subject(problem, layer, parameter, H, G, C, span, chunks=chunks)
    names = problem.trainable_layers if parameter == NETWORK else (parameter,)
    if not all(map(engine.is_dense, names)):
        H, G, C = (of(parameter) for of in _terms(engine))
        return Subject(problem, layer, parameter, H, G, C, whole_span(H.layout))
    H, G, C = (of(parameter) for of in _terms(engine))
    own = tuple(_own(engine, name) for name in names)
    of_layers = [hessian for hessian, _, _ in own]
    span = network_span(of_layers) if parameter == NETWORK else layer_span(*of_layers)
    return Subject(problem, layer, parameter, H, G, C, span, own)


def _is_penalized(problem: Problem, parameter: str) -> bool:
    return any(name in problem.penalties for name in layout_of(problem, parameter).tensors)


def _three_diagonals(name: str, part: Problem) -> Array:
    """Those of H, G and C, (3, P + 2)."""
    return np.stack([diagonal_sums(block) for block in _own(ChainRule(part), name)])


def _own(engine: ChainRule, name: str) -> tuple[DenseBlock, DenseBlock, DenseBlock]:
    """H, G and C of a layer's block."""
    H, G, C = (layer_block(of(name)) for of in _terms(engine))
    return H, G, C


def _terms(engine: ChainRule) -> tuple[Callable[[str], HessianBlock], ...]:
    return engine.hessian, engine.gauss_newton, engine.curvature
