"""The spectral density of the Hessian and its Gauss–Newton term, drawn over each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hesscli.report.common import by_activation
from hesscli.report.document import Drawing
from hesscli.report.plotstyle import RED, TERM_LINES, TERM_NAMES, legend_below
from hesscli.studies.spectra.measures import Density
from hesscli.studies.spectra.terms import TermSpectrum
from hesscli.studies.spectrum import BlockSpectrum, Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

_TERMS = ("hessian", "gauss_newton")
_COLUMNS = 2
_PANEL_HEIGHT = 2.4
_MARGIN_HEIGHT = 0.7
# Counts below this are not drawn: bins of an estimate may hold a fraction of an eigenvalue.
_FLOOR = 0.3
# How wide the bin around zero is, in powers of ten.
_ZERO_WIDTH = 0.8


def spectrum_drawings(result: Spectrum) -> tuple[Drawing, ...]:
    """One drawing for each activation, with a panel for each block.

    Blocks of which only eigenpairs were asked for have no density, and are left out.
    """
    known = [row for row in result.results if row.hessian.density is not None]
    return tuple(
        Drawing(
            title=f"{activation}: spectra of the {_blocks(rows)}",
            caption=_CAPTION,
            draw=partial(_draw, rows),
            height=_PANEL_HEIGHT * _grid(len(rows))[1] + _MARGIN_HEIGHT,
        )
        for activation, rows in by_activation(known)
    )


_CAPTION = (
    "Eigenvalues in each bin of a symmetric-logarithmic axis: the area is the Hessian's, the "
    "dashed line its Gauss–Newton term's. The bin in the middle holds zero; ticks are single "
    "eigenvalues, triangles outliers of the Hessian, and bars hold with 95 %."
)


def _blocks(rows: Sequence[BlockSpectrum]) -> str:
    first = rows[0].block
    return first if first == "network" else f"{first} blocks"


def _draw(rows: Sequence[BlockSpectrum], figure: FigureBase) -> None:
    columns, lines = _grid(len(rows))
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axis, row in zip(axes.flat, rows, strict=False):
        _panel(axis, row)
        axis.set_title(row.parameter)
        axis.set_xlabel("λ")
    for axis in axes.flat[len(rows) :]:
        axis.remove()
    for axis in axes[:, 0]:
        axis.set_ylabel("eigenvalues")
    most = max(_density(getattr(row, term)).counts.max() for row in rows for term in _TERMS)
    axes[0, 0].set_ylim(_FLOOR, 2 * most)
    legend_below(figure, axes.flat[: len(rows)], 3)


def _grid(panels: int) -> tuple[int, int]:
    """Columns and lines of so many panels."""
    columns = min(panels, _COLUMNS)
    return columns, math.ceil(panels / columns)


def _density(found: TermSpectrum) -> Density:
    # Only blocks that have one are drawn.
    assert found.density is not None
    return found.density


def _panel(axis: Axes, row: BlockSpectrum) -> None:
    """H and G on one axis, with a scale that holds both."""
    found = {term: getattr(row, term) for term in _TERMS}
    densities = {term: _density(each) for term, each in found.items()}
    lowest = min(float(of.edges[of.zero + 1]) for of in densities.values())
    highest = max(float(of.edges[-1]) for of in densities.values())
    axis.set_xscale("symlog", linthresh=lowest, linscale=_ZERO_WIDTH / 2)
    axis.set_yscale("log", nonpositive="clip")
    for place, (term, density) in enumerate(densities.items()):
        line = TERM_LINES[term]
        axis.stairs(
            density.counts,
            density.edges,
            baseline=_FLOOR,
            fill=term == "hessian",
            color=line["color"],
            alpha=0.3 if term == "hessian" else 1.0,
            linestyle=line["linestyle"],
            linewidth=1.2,
            label=TERM_NAMES[term],
        )
        if density.errors is not None:
            _error_bars(axis, density.edges, density.counts, density.errors, line["color"])
        eigenvalues = found[term].eigenvalues
        if eigenvalues is not None:
            # A tick at λ for every eigenvalue, those of H below those of G.
            axis.plot(
                eigenvalues,
                np.full(len(eigenvalues), 0.03 + 0.05 * place),
                "|",
                color=line["color"],
                markersize=4,
                markeredgewidth=0.4,
                transform=axis.get_xaxis_transform(),
            )
    outliers = found["hessian"].outliers
    if outliers is not None and len(outliers):
        axis.plot(
            outliers,
            np.full(len(outliers), 0.16),
            "v",
            color=RED,
            markeredgecolor="black",
            markeredgewidth=0.5,
            markersize=5,
            linestyle="none",
            transform=axis.get_xaxis_transform(),
            label="outliers of H",
        )
    axis.set_xticks(_ticks(lowest, highest), minor=False)
    axis.minorticks_off()
    axis.set_xlim(-1.6 * highest, 1.6 * highest)


def _error_bars(
    axis: Axes,
    edges: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    counts: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    errors: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    color: str,
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
        ecolor=color,
        elinewidth=0.7,
        capsize=1.2,
    )


def _ticks(lowest: float, highest: float) -> list[float]:
    """Zero, and powers of ten on either side, few enough to be read."""
    first, last = int(np.ceil(np.log10(lowest))), int(np.floor(np.log10(highest)))
    powers = [10.0**power for power in range(last, first - 1, -3)]
    return [*(-power for power in powers), 0.0, *reversed(powers)]
