"""``hesscli init``: an Initialization as a Document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hesscli.report.common import by_activation, heading, preamble
from hesscli.report.document import UNKNOWN, Case, Column, Document, Table
from hesscli.report.initialization_plot import initialization_drawing
from hesscli.studies.initialization import Initialization, InitializedBlock, Spread
from hesscli.studies.verdict import Verdict

OVERFLOW = "overflow"


def initialization_document(result: Initialization, norm: str = "frobenius") -> Document:
    """Tables, data and drawings; ``norm`` (spectral or frobenius) is the one that is drawn."""
    return Document(
        heading=heading(result.problem, result.environment),
        tables=tuple(
            _table(result, activation, rows) for activation, rows in by_activation(result.results)
        ),
        data={
            **preamble("hesscli/init/1", Verdict.PASS, result.environment, result.problem),
            "block": result.block,
            "seeds": list(result.seeds),
            "results": [_row_data(row) for row in result.results],
        },
        cases=tuple(
            Case(row.activation, f"{row.scheme} {row.layer}", None) for row in result.results
        ),
        drawings=tuple(
            initialization_drawing(result, activation, rows, norm)
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
