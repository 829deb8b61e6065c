"""A block whose small matrix is at hand (hesscli.studies.spectra.span): its systems are exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hesscli.problem.graph import Array
from hesscli.studies.spectra.span import Span, layer_span, network_span, small_matrix
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.network import NetworkBlock
from hesscli.witnesses.ondevice import DeviceBlock
from hesscli.witnesses.penalized import PenalizedBlock
from hesscli.witnesses.solution import Exact, of_matrix

# Up to this size the eigenvectors of the small matrix take some seconds.
_MOST = 2500


def spanned(block: HessianBlock) -> HessianBlock:
    """``block``, with the eigenvalues of its small matrix if there is one, and not too large."""
    if isinstance(block, PenalizedBlock):
        return PenalizedBlock(spanned(block.block), block.added)
    if isinstance(block, DeviceBlock):
        return DeviceBlock(block.block, block.device, lambda: spanned(block.held))
    own: tuple[DenseBlock, ...]
    if isinstance(block, DenseBlock):
        own, span = (block,), layer_span(block)
    elif isinstance(block, NetworkBlock):
        own, span = block.layers, network_span(block.layers)
    else:
        return block
    small = block.most_eigenvalues < block.shape[0] and span.size <= _MOST
    return _Spanned(block, span, own) if small else block


class _Spanned(HessianBlock):
    """H = Z K Zᵀ, K = Zᵀ H Z."""

    def __init__(self, block: HessianBlock, span: Span, own: Sequence[DenseBlock]) -> None:
        super().__init__(block.parameter, block.layout, block.dtype)
        self.block, self.span, self.own = block, span, own

    def _matmat(self, V: Array) -> Array:
        return np.asarray(self.block.matmat(V))

    def exactly(self, v: Array, damping: float) -> Exact:
        # (H + λI)⁻¹ v = Z (K + λI)⁻¹ Zᵀv + (v − Z Zᵀv)/λ
        inside = self.span.restrict(v[:, None])
        K = small_matrix(self.block, self.span, self.own)
        found = of_matrix(self.block, K, inside[:, 0], damping)
        x = self.span.lift(found.x[:, None], v.dtype)[:, 0]
        outside = self.shape[0] - self.span.size
        if outside == 0:
            return replace(found, x=x)
        smallest = min(found.smallest, 0.0)
        if damping == 0:
            return replace(found, x=x, smallest=smallest, null=found.null + outside)
        rest = v - self.span.lift(inside, v.dtype)[:, 0]
        return replace(found, x=x + rest / damping, smallest=smallest)
