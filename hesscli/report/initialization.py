"""``hesscli init``: an Initialization as a Document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hesscli.report.common import by_activation, heading, preamble
from hesscli.report.document import UNKNOWN, Case, Column, Document, Drawing, Table
from hesscli.studies.initialization import Initialization, InitializedBlock, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OVERFLOW = "overflow"
NORM_SIGNS = {"spectral": "‖H‖₂", "frobenius": "‖H‖_F"}
# A line and a marker for each layer; they are told apart without colour.
_LINES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P")


def initialization_document(result: Initialization, norm: str) -> Document:
    """Tables, data and drawings; ``norm`` (spectral or frobenius) is the one that is drawn."""
    return Document(
        heading=heading(result.problem, result.environment),
        tables=tuple(
            _table(result, activation, rows) for activation, rows in by_activation(result.results)
        ),
        data={
            **preamble("hesscli/init/1", True, result.environment, result.problem),
            "block": result.block,
            "seeds": list(result.seeds),
            "results": [_row_data(row) for row in result.results],
        },
        cases=tuple(
            Case(row.activation, f"{row.scheme} {row.layer}", None) for row in result.results
        ),
        drawings=tuple(
            _drawing(result, activation, rows, norm)
            for activation, rows in by_activation(result.results)
        ),
    )


def seeds_text(seeds: Sequence[int]) -> str:
    """``seed 0`` or ``seeds 0 to 4``."""
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def spread_text(spread: Spread) -> str:
    """A size and its deviation over the seeds as a share of it, as in ``2.32e+00 ±20%``."""
    if spread.mean == 0:
        return "0"
    if spread.stddev is None:
        return f"{spread.mean:.2e}"
    return f"{spread.mean:.2e} ±{spread.stddev / spread.mean:.0%}"


def spread_data(spread: Spread | None) -> dict[str, float | None]:
    """A size as the JSON schemas hold it; null where it overflowed or there is none."""
    if spread is None:
        return {"mean": None, "stddev": None}
    return {"mean": spread.mean, "stddev": spread.stddev}


def _table(result: Initialization, activation: str, rows: tuple[InitializedBlock, ...]) -> Table:
    return Table(
        title=f"{activation}: size of the Hessian of each {result.block} at initialization, "
        f"{seeds_text(result.seeds)}",
        columns=(
            Column("scheme", numeric=False),
            Column("layer", numeric=False),
            Column("‖H‖₂"),
            Column("‖H‖_F"),
            Column("G share"),
            Column("gradient"),
        ),
        rows=tuple(_lines(rows)),
        notes=tuple(_notes(result, activation, rows)),
    )


def _lines(rows: Sequence[InitializedBlock]) -> Iterator[tuple[str, ...]]:
    above = None
    for row in rows:
        # A scheme is named once, above its layers.
        scheme = "" if row.scheme == above else row.scheme
        above = row.scheme
        sizes = (
            _size_text(row, row.spectral),
            _size_text(row, row.frobenius),
            _share_text(row.gauss_newton_share),
            _size_text(row, row.gradient),
        )
        yield (scheme, row.layer, *sizes)


def _size_text(row: InitializedBlock, spread: Spread | None) -> str:
    if row.overflowed or spread is None:
        return OVERFLOW
    return spread_text(spread)


def _share_text(spread: Spread | None) -> str:
    if spread is None:
        return UNKNOWN
    deviation = "" if spread.stddev is None else f" ±{spread.stddev:.1%}"
    return f"{spread.mean:.1%}{deviation}"


def _notes(
    result: Initialization, activation: str, rows: Sequence[InitializedBlock]
) -> Iterator[str]:
    held = [(row.frobenius.mean, row) for row in rows if row.frobenius is not None]
    if held:
        low, high = (pick(held, key=lambda pair: pair[0]) for pick in (min, max))
        yield (
            f"{activation}: ‖H‖_F from {_mean_text(low[0])} ({low[1].scheme}, {low[1].layer}) to "
            f"{_mean_text(high[0])} ({high[1].scheme}, {high[1].layer})."
        )
    yield (
        "G share is ‖G‖_F / (‖G‖_F + ‖C‖_F); ± is the standard deviation over seeds, of sizes in "
        "percent of their mean."
        if len(result.seeds) > 1
        else "G share is ‖G‖_F / (‖G‖_F + ‖C‖_F)."
    )
    lost = {row.scheme: row.overflowed for row in rows if row.overflowed}
    if lost:
        each = ", ".join(f"{count} of {len(result.seeds)} ({name})" for name, count in lost.items())
        yield f"{OVERFLOW}: draws that leave the range of {result.environment.dtype}: {each}."


def _mean_text(mean: float) -> str:
    return "0" if mean == 0 else f"{mean:.1e}"


def _row_data(row: InitializedBlock) -> dict[str, Any]:
    return {
        "activation": row.activation,
        "scheme": row.scheme,
        "stddev": row.stddev,
        "layer": row.layer,
        "block": row.block,
        "size": row.size,
        "range": OVERFLOW if row.overflowed or row.frobenius is None else "finite",
        "overflowed_seeds": row.overflowed,
        "kernel_stddev": spread_data(row.kernel_stddev),
        "spectral_norm": spread_data(row.spectral),
        "frobenius_norm": spread_data(row.frobenius),
        "gauss_newton_share": spread_data(row.gauss_newton_share),
        "gradient_norm": spread_data(row.gradient),
    }


def _drawing(
    result: Initialization, activation: str, rows: tuple[InitializedBlock, ...], norm: str
) -> Drawing:
    widths = "-".join(str(width) for width in result.problem.widths)
    where = f"{widths}, {activation}, batch {result.problem.examples}, {seeds_text(result.seeds)}"
    lost = any(row.overflowed for row in rows)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, layer in enumerate(result.problem.layers):
            _draw_layer(axes, [row for row in rows if row.layer == layer], index, norm)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("standard deviation of the kernel's entries")
        axes.set_ylabel(f"{NORM_SIGNS[norm]} of each layer's {result.block} block")
        axes.set_title(f"Hessian at initialization\n{where}")
        axes.legend()

    return Drawing(
        title=f"Hessian at initialization: {where}",
        caption=(
            f"{NORM_SIGNS[norm]} against the standard deviation of the kernels, mean and standard "
            "deviation over seeds; lines join the normal initializers of --stddev, hollow markers "
            "are named initializers."
            + (" A × at the upper edge is a deviation at which draws overflow." if lost else "")
        ),
        draw=draw,
    )


def _draw_layer(axes: Axes, rows: Sequence[InitializedBlock], index: int, norm: str) -> None:
    line, marker = _LINES[index % len(_LINES)], _MARKERS[index % len(_MARKERS)]
    colour = f"C{index}"
    # Zero has no place on logarithmic axes.
    points = [
        (row, size, row.kernel_stddev.mean)
        for row in rows
        if (size := row.spectral if norm == "spectral" else row.frobenius) is not None
        and size.mean > 0
        and row.kernel_stddev is not None
        and row.kernel_stddev.mean > 0
    ]
    asked = sorted(
        ((row.stddev, size) for row, size, _ in points if row.stddev is not None),
        key=lambda point: point[0],
    )
    named = [(at, size) for row, size, at in points if row.stddev is None]
    for found, style, fill in ((asked, line, colour), (named, "none", "none")):
        if found:
            axes.errorbar(
                [at for at, _ in found],
                [size.mean for _, size in found],
                # A bar that reached zero would have no end on logarithmic axes.
                yerr=[
                    [min(size.stddev or 0.0, 0.9 * size.mean) for _, size in found],
                    [size.stddev or 0.0 for _, size in found],
                ],
                linestyle=style,
                marker=marker,
                markerfacecolor=fill,
                color=colour,
                capsize=3,
                label=rows[0].layer if found is (asked or named) else None,
            )
    lost = [row.stddev for row in rows if row.overflowed and row.stddev is not None]
    if lost:
        top = axes.get_xaxis_transform()
        axes.plot(lost, [0.98] * len(lost), "kx", transform=top, clip_on=False)
