"""Norms and traces of blocks that have no structure to find them by, from random products.

With v of independent signs ±1 (Hutchinson 1990),  tr H = E vᵀHv  and  ‖H‖_F² = E ‖Hv‖². Most of H
is in few directions, which a first product finds: with Q an orthonormal basis of H Ω, Ω of signs,
and w = v − Q Qᵀ v,

    tr H = tr QᵀHQ + E wᵀHw,        ‖H‖_F² = ‖HQ‖_F² + E ‖Hw‖²,

so that only the rest is left to chance. Lanczos has found such a Q where it was asked for the
largest eigenvalue. A small block is held whole, and all is exact.

Source: Meyer, Musco, Musco and Woodruff, "Hutch++: Optimal Stochastic Trace Estimation" (SOSA
2021, arXiv:2010.09649).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.eigen import Search, lanczos
from hesscli.studies.norms import Doubles, frobenius_norms, spectral_norm
from hesscli.system.errors import NumericalError
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.penalized import unpenalized

# Columns of Q, and products with the rest, whose relative error is some √(2 / REST) at worst.
_SPAN, REST, _SEED = 6, 10, 0
PRODUCTS = 2 * _SPAN + REST
# A block of so few parameters is held whole.
_DENSE_SIZE = 64
_LANCZOS = Search(rtol=1e-8, remedy="use weights that are not so large, or fewer examples")


@dataclass(frozen=True)
class Size:
    """tr H and ‖H‖_F of a block."""

    trace: float
    frobenius: float


def sizes(blocks: Sequence[HessianBlock]) -> list[Size]:
    """The sizes of blocks of the same parameters, from the same random products."""
    return [_exact_size(block) if _is_small(block) else _size(block) for block in blocks]


def term_sizes(engine: ChainRule, parameter: str, basis: Array) -> list[Size]:
    """Those of Gauss–Newton and curvature term, most of whose sum is in ``basis`` (P, k)."""
    G, C = engine.gauss_newton(parameter), engine.curvature(parameter)
    if _is_small(G):
        return [_exact_size(G), _exact_size(C)]
    Q = np.linalg.qr(basis.astype(np.float64))[0]
    W = _with_rest(Q)
    products = engine.terms(parameter, G.device.put(W.astype(G.dtype)))
    return [_of_products(W, *_relative(parameter, G.device.fetch(HW))) for HW in products]


def _is_small(block: HessianBlock) -> bool:
    return int(block.shape[0]) <= _DENSE_SIZE


def _exact_size(block: HessianBlock) -> Size:
    H = block.to_dense().astype(np.float64)
    return Size(float(np.trace(H)), float(np.linalg.norm(H)))


def _size(block: HessianBlock) -> Size:
    name, span = block.parameter, _signs(block.shape[0])[:, :_SPAN]
    largest_first, _ = _relative(name, block.matmat(span.astype(block.dtype)))
    W = _with_rest(np.linalg.qr(largest_first)[0])
    return _of_products(W, *_relative(name, block.matmat(W.astype(block.dtype))))


def _signs(parameters: int) -> Doubles:
    generator = np.random.default_rng(_SEED)
    return np.where(generator.random((parameters, _SPAN + REST)) < 0.5, -1.0, 1.0)


def _with_rest(Q: Doubles) -> Doubles:
    """Q, and REST random directions without what they have in it."""
    V = _signs(len(Q))[:, _SPAN:]
    return np.hstack([Q, V - Q @ (Q.T @ V)])


def _of_products(W: Doubles, HW: Doubles, scale: float) -> Size:
    weights = np.full(W.shape[1], 1 / REST)
    weights[:-REST] = 1
    trace = scale * float((W * HW).sum(axis=0) @ weights)
    return Size(trace, scale * math.sqrt(float((HW**2).sum(axis=0) @ weights)))


def _relative(parameter: str, product: Array) -> tuple[Doubles, float]:
    """A product relative to its largest number, so that no square overflows, and that number."""
    HV = product.astype(np.float64)
    largest = float(np.abs(HV).max(initial=0.0))
    if not math.isfinite(largest):
        raise NumericalError(f"{parameter}: a product with H leaves the range of the type")
    scale = largest if largest > 0 else 1.0
    return HV / scale, scale


def has_structure(block: HessianBlock) -> bool:
    """Whether a block is a dense layer's, with or without penalties."""
    own = unpenalized(block)
    return isinstance(own, DenseBlock)


def frobenius_of(blocks: Sequence[HessianBlock]) -> list[float]:
    """‖H‖_F of blocks of the same parameters: exact if they are dense layers'."""
    if all(map(has_structure, blocks)):
        return frobenius_norms(blocks)
    return [size.frobenius for size in sizes(blocks)]


def spectral_of(block: HessianBlock) -> float:
    """‖H‖₂, by Lanczos if the block is not a dense layer's."""
    if has_structure(block):
        return spectral_norm(block)
    if block.shape[0] <= _DENSE_SIZE:
        return float(np.abs(np.linalg.eigvalsh(block.to_dense())).max())
    start = np.random.default_rng(_SEED).standard_normal(block.shape[0]).astype(block.dtype)
    values, _ = lanczos(block, block.parameter, _LANCZOS, start, which="LM", device=block.device)
    return float(abs(values[0]))


def estimated_note(
    problem: Problem, names: Sequence[str], products: str = f"{PRODUCTS} random products"
) -> tuple[str, ...]:
    """A sentence that names the blocks whose norms and traces are estimated; none if none is.

    ``products`` says from how many products of what kind.
    """
    engine = ChainRule(problem)
    others = [name for name in names if not engine.is_dense(name)]
    if not others:
        return ()
    return (
        f"exact norms and traces are those of dense layers; of {', '.join(others)} the Frobenius "
        f"norm and the trace are estimated from {products}",
    )
