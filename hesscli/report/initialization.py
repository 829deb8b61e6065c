"""``hesscli init``: an Initialization as a Document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from hesscli.report.common import by_activation, study_document
from hesscli.report.document import Case, Document, scientific
from hesscli.report.fields import Field, named, table
from hesscli.report.initialization_plot import initialization_drawing
from hesscli.studies.initialization import Initialization, InitializedBlock, Spread

OVERFLOW = "overflow"


def seeds_text(seeds: Sequence[int]) -> str:
    """``seed 0`` or ``seeds 0 to 4``."""
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def spread_text(spread: Spread) -> str:
    """A size and its deviation over the seeds as a share of it, as in ``2.3e+00 ±20%``."""
    mean = scientific(spread.mean)
    if spread.mean == 0 or spread.stddev is None:
        return mean
    return f"{mean} ±{spread.stddev / spread.mean:.0%}"


def spread_data(spread: Spread | None) -> Spread | Mapping[str, None]:
    """A size as the JSON schemas hold it; null if it overflowed or there is none."""
    return spread or {"mean": None, "stddev": None}


def _spread(key: str, attribute: str) -> Field:
    return Field(key, lambda row: spread_data(getattr(row, attribute)))


def _size(title: str, attribute: str) -> Field:
    def text(row: InitializedBlock) -> str:
        size: Spread | None = getattr(row, attribute)
        return OVERFLOW if row.overflowed or size is None else spread_text(size)

    return Field(None, text, title)


def _share_text(spread: Spread) -> str:
    deviation = "" if spread.stddev is None else f" ±{spread.stddev:.1%}"
    return f"{spread.mean:.1%}{deviation}"


_FIELDS = (
    Field("activation"),
    Field("scheme"),
    Field("stddev"),
    named("layer", "layer"),
    Field("block"),
    Field("size"),
    Field("range", lambda row: OVERFLOW if row.overflowed or row.frobenius is None else "finite"),
    Field("overflowed_seeds", lambda row: row.overflowed),
    _spread("kernel_stddev", "kernel_stddev"),
    _spread("spectral_norm", "spectral"),
    _spread("frobenius_norm", "frobenius"),
    _spread("gauss_newton_share", "gauss_newton_share"),
    _spread("gradient_norm", "gradient"),
    _size("‖H‖₂", "spectral"),
    _size("‖H‖_F", "frobenius"),
    Field(None, lambda row: row.gauss_newton_share, "G share", _share_text),
    _size("gradient", "gradient"),
)


def initialization_document(result: Initialization, norm: str = "frobenius") -> Document:
    """Tables, data and drawings; ``norm`` (spectral or frobenius) is the one that is drawn."""
    groups = by_activation(result.results)
    return study_document(
        result,
        "init",
        _FIELDS,
        before={"block": result.block, "seeds": result.seeds},
        tables=(
            table(
                f"{activation}: size of the Hessian of each {result.block} at initialization, "
                f"{seeds_text(result.seeds)}",
                # A scheme is named once, above its layers.
                (named(None, "scheme", _scheme_above(rows)), *_FIELDS),
                rows,
                _notes(result, activation, rows),
            )
            for activation, rows in groups
        ),
        cases=(Case(row.activation, f"{row.scheme} {row.layer}", None) for row in result.results),
        drawings=(
            initialization_drawing(result, activation, rows, norm) for activation, rows in groups
        ),
    )


def _scheme_above(rows: Sequence[InitializedBlock]) -> Callable[[InitializedBlock], str]:
    first = {row.scheme: row for row in reversed(rows)}
    return lambda row: row.scheme if first[row.scheme] is row else ""


def _notes(
    result: Initialization, activation: str, rows: Sequence[InitializedBlock]
) -> Iterator[str]:
    held = [(row.frobenius.mean, row) for row in rows if row.frobenius is not None]
    if held:
        low, high = (pick(held, key=lambda pair: pair[0]) for pick in (min, max))
        yield (
            f"{activation}: ‖H‖_F from {scientific(low[0])} ({low[1].scheme}, {low[1].layer}) to "
            f"{scientific(high[0])} ({high[1].scheme}, {high[1].layer})."
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
