"""Norms and traces of blocks that have no structure to find them by, from random products.

With v of independent signs ±1 (Hutchinson 1990),  tr H = E vᵀHv  and  ‖H‖_F² = E ‖Hv‖². A block
with no more parameters than there are products is held whole, and all is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hesscli.problem.network import Problem
from hesscli.studies.eigen import Search, lanczos
from hesscli.studies.norms import frobenius_norms, spectral_norm
from hesscli.system.errors import NumericalError
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.penalized import unpenalized

# Their relative error is some √(2 / PRODUCTS) where the eigenvalues are of one size.
PRODUCTS, _SEED = 64, 0
_LANCZOS = Search(rtol=1e-8, remedy="use weights that are not so large, or fewer examples")


@dataclass(frozen=True)
class Size:
    """tr H and ‖H‖_F of a block."""

    trace: float
    frobenius: float


def sizes(blocks: Sequence[HessianBlock]) -> list[Size]:
    """The sizes of blocks of the same parameters, from the same random products."""
    return [_size(block) for block in blocks]


def _size(block: HessianBlock) -> Size:
    parameters = block.shape[0]
    if parameters <= PRODUCTS:
        H = block.to_dense().astype(np.float64)
        return Size(float(np.trace(H)), float(np.linalg.norm(H)))
    generator = np.random.default_rng(_SEED)
    V = np.where(generator.random((parameters, PRODUCTS)) < 0.5, -1.0, 1.0)
    HV = block.matmat(V.astype(block.dtype)).astype(np.float64)
    largest = float(np.abs(HV).max(initial=0.0))
    if not math.isfinite(largest):
        raise NumericalError(f"{block.parameter}: a product with H leaves the range of the type")
    # Relative to the largest number, so that no square overflows.
    scale = largest if largest > 0 else 1.0
    frobenius = scale * math.sqrt(float(((HV / scale) ** 2).sum()) / PRODUCTS)
    return Size(float((V * HV).sum()) / PRODUCTS, frobenius)


def has_structure(block: HessianBlock) -> bool:
    """Whether a block is a dense layer's, with or without penalties."""
    own = unpenalized(block)
    return isinstance(own, DenseBlock)


def frobenius_of(blocks: Sequence[HessianBlock]) -> list[float]:
    """‖H‖_F of blocks of the same parameters: exact where they are dense layers'."""
    if all(map(has_structure, blocks)):
        return frobenius_norms(blocks)
    return [size.frobenius for size in sizes(blocks)]


def spectral_of(block: HessianBlock) -> float:
    """‖H‖₂, by Lanczos where the block is no dense layer's."""
    if has_structure(block):
        return spectral_norm(block)
    if block.shape[0] <= PRODUCTS:
        return float(np.abs(np.linalg.eigvalsh(block.to_dense())).max())
    start = np.random.default_rng(_SEED).standard_normal(block.shape[0]).astype(block.dtype)
    values, _ = lanczos(block, block.parameter, start, _LANCZOS, which="LM")
    return float(abs(values[0]))


def estimated_note(problem: Problem, names: Sequence[str]) -> tuple[str, ...]:
    """A sentence that names the blocks whose norms and traces are estimated; none where none is."""
    engine = ChainRule(problem)
    others = [name for name in names if not engine.is_dense(name)]
    if not others:
        return ()
    return (
        f"exact norms and traces are those of dense layers; of {', '.join(others)} the Frobenius "
        f"norm and the trace are estimated from {PRODUCTS} random products",
    )
