"""How far an approximation is from a block: exactly, or by probes with error bars.

    distance  ‖T − X‖_F / ‖T‖_F          cosine  ⟨T, X⟩ / (‖T‖_F ‖X‖_F)

Small blocks are formed. For dense layers of any size ‖T − X‖² = ‖T‖² − 2⟨T, X⟩ + ‖X‖² out of a and
S (hesscli.studies.approximations.blocks), and if X has the same a, S − S_X. Networks of such
layers are a sum over layers and over what is between them. All else is
estimated by Hutchinson's E‖(T − X)v‖² = ‖T − X‖_F² over normal v, the same for every X, with an
error bar by the jackknife (Efron and Stein, Annals of Statistics 9, 1981).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from hesscli.studies.approximations.blocks import (
    DENSE_SIZE,
    BlockDiagonal,
    Fisher,
    Structured,
)
from hesscli.studies.norms import frobenius_work, squared_norms
from hesscli.studies.spectra.moments import diagonal
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.layout import NETWORK
from hesscli.witnesses.ondevice import on_host

# Multiplications for the norms of a dense layer's blocks: a few seconds.
_WORK = 1e11
# Of few probes the jackknife's quantiles are short: these hold in 99 % of 1,000 seeds.
_CONFIDENCE = 0.999

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Distance:
    """Of one approximation from one block; error bars (99 %) are None if it is exact.

    Both are None if the block is 0, and the cosine also if the approximation is.
    """

    distance: float | None
    cosine: float | None
    distance_error: float | None = None
    cosine_error: float | None = None


@dataclass(frozen=True)
class Products:
    """‖T − X‖², ⟨T, X⟩, ‖T‖² and ‖X‖² in Frobenius norm."""

    residual: float
    product: float
    T: float
    X: float

    @property
    def distance(self) -> Distance:
        # Rounding may leave less than nothing.
        residual, T, X = (math.sqrt(max(each, 0.0)) for each in (self.residual, self.T, self.X))
        if T == 0:
            return Distance(None, None)
        return Distance(residual / T, self.product / T / X if X > 0 else None)


class Images:
    """The numbers of an approximation that distances need, for all blocks it is compared with.

    ``probes`` (P, k) are the random vectors if no distance is exact.
    """

    def __init__(self, probes: Doubles) -> None:
        self.probes = probes
        # Of the last one alone: an approximation is measured against H, and then against G.
        self.dense = lru_cache(maxsize=1)(_dense)
        self.products = lru_cache(maxsize=1)(partial(_products, V=probes))


class Target:
    """The block T that approximations are measured against, and its trace.

    ``trace_error`` is the trace's error bar (99 %), None if it is exact; it is estimated if
    it is not that of a matrix at hand, and ``trace`` does not know it.
    """

    trace: float
    trace_error: float | None = None

    def __init__(
        self,
        block: HessianBlock,
        images: Images,
        *,
        held: bool,
        trace: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._images = images
        size, layer = block.shape[0], on_host(block)
        self._dense: Doubles | None = None
        self._dense_layer: DenseBlock | None = None
        if size <= DENSE_SIZE:
            self._dense = _dense(block)
            self.trace = float(np.trace(self._dense))
        elif held and isinstance(layer, DenseBlock) and needs_no_probes(layer):
            self._dense_layer = layer
            self._a, self._S = layer.a.astype(np.float64), layer.S.astype(np.float64)
            (self._squared,) = squared_norms(self._a, [self._S])
            self.trace = diagonal(layer).trace
        else:
            self._products = _products(block, images.probes)
            known = trace()
            if known is not None:
                self.trace = known
                return
            forms = _columns(images.probes, self._products)
            self.trace = float(forms.mean())
            self.trace_error = (
                _quantile(len(forms)) * float(forms.std(ddof=1)) / math.sqrt(len(forms))
            )

    @property
    def exact(self) -> bool:
        return self._dense is not None or self._dense_layer is not None

    def distance(self, X: HessianBlock) -> Distance:
        if self.exact:
            return self.products(X).distance
        XV = self._images.products(X)
        T, R = self._products, self._products - XV
        squares = np.stack([_columns(T, T), _columns(XV, XV), _columns(T, XV), _columns(R, R)])
        return _estimated(squares)

    def products(self, X: HessianBlock) -> Products:
        """The products that an exact distance is made of."""
        if self._dense is not None:
            dense = self._images.dense(X)
            residual = _square(self._dense - dense)
            product = float(np.vdot(self._dense, dense))
            return Products(residual, product, _square(self._dense), _square(dense))
        a, S = self._a, self._S
        if isinstance(X, Fisher):
            delta = X.made(X.chunks.problem).delta[:, :, 0].astype(np.float64)
            S_X = np.swapaxes(delta, 1, 2) @ delta
            of_X, residual = squared_norms(a, [S_X, S - S_X])
            product = (self._squared + of_X - residual) / 2
        else:
            assert isinstance(X, Structured)  # of a dense layer there are no others
            of_X = X.squared_norm
            product = float(np.vdot(S, X.contracted(a)))
            residual = self._squared - 2 * product + of_X
        return Products(residual, product, self._squared, of_X)


def needs_no_probes(block: DenseBlock) -> bool:
    """Whether distances from a dense layer's block, all examples held, are exact."""
    work = frobenius_work(len(block.a), block.inputs, block.units)
    return block.shape[0] <= DENSE_SIZE or work <= _WORK


class NetworkTarget:
    """The network's T, of which H and G in the span of the examples are known.

    ``K`` is T there, ``K_G`` Gauss–Newton (hesscli.studies.spectra.span). Every approximation but
    G itself is block-diagonal, and its products with T are those of the ``layers``, all exact.
    """

    exact = True
    trace_error = None

    def __init__(self, K: Doubles, K_G: Doubles, layers: Sequence[Target]) -> None:
        self._K, self._K_G, self._layers = K, K_G, layers
        self.trace = math.fsum(layer.trace for layer in layers)

    def distance(self, X: HessianBlock) -> Distance:
        assert isinstance(X, BlockDiagonal)  # of the network there are no others
        whole = _square(self._K)
        if X.blocks[0].parameter == NETWORK:
            residual, product = _square(self._K - self._K_G), float(np.vdot(self._K, self._K_G))
            return Products(residual, product, whole, _square(self._K_G)).distance
        of_layers = [
            layer.products(block) for layer, block in zip(self._layers, X.blocks, strict=True)
        ]
        product, of_X = (
            math.fsum(values)
            for values in zip(*((each.product, each.X) for each in of_layers), strict=True)
        )
        # What is between layers, and what each layer's approximation misses.
        between = max(whole - math.fsum(each.T for each in of_layers), 0.0)
        residual = between + math.fsum(max(each.residual, 0.0) for each in of_layers)
        return Products(residual, product, whole, of_X).distance


def _square(matrix: Doubles) -> float:
    return float(np.vdot(matrix, matrix))


def _quantile(count: int) -> float:
    """Of so many values' mean, how many of its standard errors the error bar is."""
    return float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2))


def _estimated(squares: Doubles) -> Distance:
    """Out of ‖Tv‖², ‖Xv‖², ⟨Tv, Xv⟩ and ‖(T − X)v‖² of each probe, (4, k)."""
    k = squares.shape[1]
    means = squares.sum(axis=1)
    if means[0] == 0:
        return Distance(None, None)
    # The whole, and each probe left out.
    sums = np.concatenate([means[:, None], means[:, None] - squares], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.stack([np.sqrt(sums[3] / sums[0]), sums[2] / np.sqrt(sums[0] * sums[1])])
    spread = np.sqrt(
        (k - 1) / k * np.square(found[:, 1:] - found[:, 1:].mean(axis=1, keepdims=True)).sum(axis=1)
    )
    bars = spread * _quantile(k)
    if means[1] == 0:
        return Distance(float(found[0, 0]), None, float(bars[0]), None)
    return Distance(float(found[0, 0]), float(found[1, 0]), float(bars[0]), float(bars[1]))


def _columns(left: Doubles, right: Doubles) -> Doubles:
    return np.asarray((left * right).sum(axis=0))


def _dense(block: HessianBlock) -> Doubles:
    return block.to_dense().astype(np.float64)


def _products(block: HessianBlock, V: Doubles) -> Doubles:
    return np.asarray(block.matmat(V.astype(block.dtype))).astype(np.float64)
