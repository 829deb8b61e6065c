"""The spectral density of the Hessian and its Gauss–Newton term, drawn side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hesscli.report.common import by_activation
from hesscli.report.document import Drawing
from hesscli.report.plotstyle import GREY, RED, TERM_BARS, TERM_NAMES
from hesscli.studies.spectra.measures import Density
from hesscli.studies.spectra.terms import TermSpectrum
from hesscli.studies.spectrum import BlockSpectrum, Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

_TERMS = ("hessian", "gauss_newton")
_PANEL_HEIGHT = 2.1
_MARGIN_HEIGHT = 0.7
# Counts below this are not drawn: bins of an estimate may hold a fraction of an eigenvalue.
_FLOOR = 0.3
# How wide the bin around zero is, in powers of ten.
_ZERO_WIDTH = 0.8


def spectrum_drawings(result: Spectrum) -> tuple[Drawing, ...]:
    """One drawing for each activation: a row for each block, H on the left, G on the right.

    Blocks of which only eigenpairs were asked for have no density, and are left out.
    """
    known = [row for row in result.results if row.hessian.density is not None]
    return tuple(
        Drawing(
            title=f"{activation}: spectra of the {_blocks(rows)}",
            caption=_CAPTION,
            draw=partial(_draw, rows),
            height=_PANEL_HEIGHT * len(rows) + _MARGIN_HEIGHT,
        )
        for activation, rows in by_activation(known)
    )


_CAPTION = (
    "Eigenvalues in each bin of a symmetric-logarithmic axis, of the Hessian and of its "
    "Gauss–Newton term. The bin in the middle holds zero; ticks below are single eigenvalues, "
    "triangles outliers, and bars hold with 95 %."
)


def _blocks(rows: Sequence[BlockSpectrum]) -> str:
    first = rows[0].block
    return first if first == "network" else f"{first} blocks"


def _draw(rows: Sequence[BlockSpectrum], figure: FigureBase) -> None:
    panels = figure.subplots(len(rows), len(_TERMS), sharex="row", sharey=True, squeeze=False)
    for row, axes in zip(rows, panels, strict=True):
        for term, axis in zip(_TERMS, axes, strict=True):
            _panel(axis, term, getattr(row, term))
            axis.set_title(f"{row.parameter}: {TERM_NAMES[term]}")
        axes[0].set_ylabel("eigenvalues")
    for axis in panels[-1]:
        axis.set_xlabel("λ")
    most = max(_density(getattr(row, term)).counts.max() for row in rows for term in _TERMS)
    panels[0, 0].set_ylim(_FLOOR, 2 * most)


def _density(found: TermSpectrum) -> Density:
    # Only blocks that have one are drawn.
    assert found.density is not None
    return found.density


def _panel(axis: Axes, term: str, found: TermSpectrum) -> None:
    density = _density(found)
    edges, counts = density.edges, density.counts
    lowest, highest = float(edges[density.zero + 1]), float(edges[-1])
    axis.set_xscale("symlog", linthresh=lowest, linscale=_ZERO_WIDTH / 2)
    axis.set_yscale("log", nonpositive="clip")
    axis.stairs(counts, edges, baseline=_FLOOR, fill=True, **TERM_BARS[term], alpha=0.55)
    axis.stairs(counts, edges, baseline=_FLOOR, color=TERM_BARS[term]["color"], linewidth=0.8)
    if density.errors is not None:
        _error_bars(axis, edges, counts, density.errors)
    if found.eigenvalues is not None:
        # A tick at λ for every eigenvalue, below the bins.
        axis.plot(
            found.eigenvalues,
            np.full(len(found.eigenvalues), 0.03),
            "|",
            color=GREY,
            markersize=4,
            markeredgewidth=0.4,
            transform=axis.get_xaxis_transform(),
        )
    if found.outliers is not None and len(found.outliers):
        axis.plot(
            found.outliers,
            np.full(len(found.outliers), 0.14),
            "v",
            color=RED,
            markeredgecolor="black",
            markeredgewidth=0.5,
            markersize=5,
            linestyle="none",
            transform=axis.get_xaxis_transform(),
            label=f"{len(found.outliers)} outlier{'' if len(found.outliers) == 1 else 's'}",
        )
        axis.legend(loc="upper left", handletextpad=0.2, borderpad=0.1)
    axis.set_xticks(_ticks(lowest, highest), minor=False)
    axis.minorticks_off()
    axis.set_xlim(-1.6 * highest, 1.6 * highest)


def _error_bars(
    axis: Axes,
    edges: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    counts: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    errors: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> None:
    low, high = edges[:-1], edges[1:]
    # The middle on a logarithmic scale; of the bin around zero, zero.
    middle = np.where(low * high > 0, np.sign(low) * np.sqrt(np.abs(low * high)), 0.0)
    shown = counts > _FLOOR
    axis.errorbar(
        middle[shown],
        counts[shown],
        yerr=(np.minimum(errors, counts - _FLOOR / 2)[shown], errors[shown]),
        fmt="none",
        ecolor="black",
        elinewidth=0.7,
        capsize=1.2,
    )


def _ticks(lowest: float, highest: float) -> list[float]:
    """Zero, and powers of ten on either side, few enough to be read."""
    first, last = int(np.ceil(np.log10(lowest))), int(np.floor(np.log10(highest)))
    powers = [10.0**power for power in range(last, first - 1, -3)]
    return [*(-power for power in powers), 0.0, *reversed(powers)]
