"""``hesscli approximate``: an ApproximationStudy as a Document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING

from hesscli.report.common import (
    ROW,
    STATUS,
    activations_of,
    by_activation,
    listed,
    study_document,
)
from hesscli.report.document import Case, Document, Drawing
from hesscli.report.fields import Field, named, table
from hesscli.studies.approximation import ApproximatedBlock, ApproximationStudy
from hesscli.studies.approximations.distances import Distance

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "gauss_newton": "Gauss–Newton",
        "fisher": "Fisher",
        "monte_carlo": "Monte-Carlo Fisher",
        "empirical": "empirical Fisher",
        "block_diagonal": "G by layers",
        "block_diagonal_fisher": "Fisher by layers",
        "block_diagonal_monte_carlo": "MC Fisher by layers",
        "block_diagonal_empirical": "empirical by layers",
        "kfac": "KFAC",
        "kfac_fisher": "KFAC of the Fisher",
        "kfac_monte_carlo": "KFAC, Monte-Carlo",
        "kfac_empirical": "KFAC, empirical",
        "kfac_reduce": "KFAC-reduce",
        "kfac_reduce_fisher": "KFAC-reduce, Fisher",
        "kfac_reduce_monte_carlo": "KFAC-reduce, MC",
        "kfac_reduce_empirical": "KFAC-reduce, empirical",
        "kfra": "KFRA",
        "ekfac": "EKFAC",
        "best_kronecker": "best Kronecker",
        "diagonal": "diagonal",
    }
)


def _name(row: ApproximatedBlock) -> str:
    _, _, rank = row.method.partition("rank_")
    return _NAMES.get(row.method) or f"rank {rank.partition('_')[0]} + diagonal"


def _with_bar(
    of: Callable[[ApproximatedBlock], Distance], what: str
) -> Callable[[ApproximatedBlock], str | None]:
    def text(row: ApproximatedBlock) -> str | None:
        value, bar = getattr(of(row), what), getattr(of(row), f"{what}_error")
        if value is None:
            return None
        return f"{value:.3f}" if bar is None else f"{value:.3f} ± {bar:.3f}"

    return text


def _count(number: int) -> str:
    """``930``, ``308k``, ``277M``."""
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _trace(row: ApproximatedBlock) -> str | None:
    if row.trace_ratio is None or row.trace_ratio_error is None:
        return None if row.trace_ratio is None else f"{row.trace_ratio:.3g}"
    return f"{row.trace_ratio:.2f} ± {row.trace_ratio_error:.2f}"


def _data(block: str) -> tuple[Field, ...]:
    parts = ("distance", "distance_error", "cosine", "cosine_error")
    return tuple(Field(f"{block}.{part}") for part in parts)


_FIELDS = (
    *ROW,
    named("method", "approximation", _name),
    Field("size"),
    *_data("hessian"),
    *_data("gauss_newton"),
    Field("trace_ratio"),
    Field("trace_ratio_error"),
    Field("eigenvalue_ratio"),
    Field("angle"),
    Field("storage"),
    Field("exact"),
    STATUS,
)
_COLUMNS = (
    named(None, "layer", lambda row: row.layer),
    named(None, "approximation", _name),
    Field(None, _with_bar(attrgetter("hessian"), "distance"), "from H"),
    Field(None, _with_bar(attrgetter("hessian"), "cosine"), "cos H"),
    Field(None, _with_bar(attrgetter("gauss_newton"), "distance"), "from G"),
    Field(None, _trace, "trace"),
    Field(None, attrgetter("eigenvalue_ratio"), "λ max", "{:.3g}".format),
    Field(None, attrgetter("angle"), "angle", "{:.0f}°".format),
    Field(None, attrgetter("storage"), "numbers", _count),
)


def approximation_document(result: ApproximationStudy) -> Document:
    """Tables, data, test cases and plot of a study of approximations."""
    options = result.options
    return study_document(
        result,
        "approximate",
        _FIELDS,
        before={
            "options": options,
            "likelihood": result.likelihood,
            "left_out": result.left_out,
        },
        tables=(
            table(
                f"{activation}: approximations of the Hessian H and of Gauss–Newton G",
                _COLUMNS,
                rows,
                _notes(result, rows),
            )
            for activation, rows in by_activation(result.results)
        ),
        cases=(
            Case(row.activation, f"{row.layer}/{row.method}", _failure(row))
            for row in result.results
        ),
        drawings=(_drawing(result),),
    )


def _failure(row: ApproximatedBlock) -> str | None:
    if row.passed:
        return None
    found = row.gauss_newton.distance
    return f"Gauss–Newton out of its factors is {found:.1e} from the chain rule's"


def _notes(result: ApproximationStudy, rows: Sequence[ApproximatedBlock]) -> Iterator[str]:
    yield (
        "from H is ‖H − X‖ / ‖H‖ in the Frobenius norm, and from G likewise; trace and λ max are "
        "relative to H's; angle is between the eigenvectors of the two largest eigenvalues."
    )
    if not all(row.exact for row in rows):
        yield (
            f"± is the 99 % error bar of an estimate from {result.options.probes} random vectors "
            f"(--probe-seed {result.options.seed})."
        )
    if not result.likelihood:
        yield f"No targets can be drawn for {result.problem.loss}: there is no Monte-Carlo Fisher."
    if result.left_out:
        yield f"Left out, being neither dense nor convolutional: {listed(result.left_out)}."
    for _, group in groupby(rows, key=lambda row: row.layer):
        found = {row.method: row for row in group}
        sentence = _kept(found)
        if sentence is not None:
            yield sentence
    for row in rows:
        failure = _failure(row)
        if failure is not None:
            yield f"FAIL: {row.parameter}: {failure}."


def _kept(found: Mapping[str, ApproximatedBlock]) -> str | None:
    """The share of G that KFAC keeps, and the most any Kronecker product can: 1 − ‖G − X‖²/‖G‖²."""
    kfac, best = found["kfac"], found["best_kronecker"]
    of_kfac, of_best = kfac.gauss_newton.distance, best.gauss_newton.distance
    if of_kfac is None or of_best is None:
        return f"{kfac.layer}: Gauss–Newton is 0."
    kept, most = 1 - of_kfac**2, 1 - of_best**2
    begin = (
        f"KFAC keeps {_share(kept)} of {kfac.layer}'s Gauss–Newton"
        if kept > 0
        else f"KFAC is farther from {kfac.layer}'s Gauss–Newton than 0 is"
    )
    product = (
        "the best Kronecker product of each layer keeps"
        if kfac.block == "network"
        else "no Kronecker product keeps more than"
    )
    return f"{begin}; {product} {_share(most)} (1 − ‖G − X‖² / ‖G‖²)."


def _share(share: float) -> str:
    # 100% is for what is exact, up to rounding.
    return f"{share if share > 1 - 1e-12 else min(share, 0.999):.1%}"


def _drawing(result: ApproximationStudy) -> Drawing:
    groups = [
        (f"{activation} {layer}", list(group))
        for activation, rows in by_activation(result.results)
        for layer, group in groupby(rows, key=lambda row: row.layer)
    ]
    lines = sum(len(rows) for _, rows in groups)

    def draw(figure: FigureBase) -> None:
        from hesscli.report.plotstyle import TERM_BARS, legend_below

        heights = [len(rows) for _, rows in groups]
        axes = figure.subplots(
            len(groups), 1, sharex=True, squeeze=False, height_ratios=heights
        ).ravel()
        for ax, (title, rows) in zip(axes, groups, strict=True):
            for offset, block in ((-0.2, "hessian"), (0.2, "gauss_newton")):
                distances = [getattr(row, block) for row in rows]
                ax.barh(
                    [place + offset for place in range(len(rows))],
                    [each.distance or 0.0 for each in distances],
                    0.36,
                    xerr=[each.distance_error or 0.0 for each in distances],
                    label={"hessian": "from H", "gauss_newton": "from G"}[block],
                    **TERM_BARS[block],
                )
            ax.set_title(title)
            ax.set_yticks(range(len(rows)), [_name(row) for row in rows])
            ax.set_ylim(len(rows) - 0.4, -0.6)
            ax.grid(visible=False, axis="y")
        axes[-1].set_xlabel("relative Frobenius distance")
        legend_below(figure, axes[:1], 2)

    return Drawing(
        title=f"{activations_of(result.results)}: distance of each approximation",
        caption=(
            "The relative Frobenius distance of each approximation from the Hessian H and from "
            "its Gauss–Newton term G; with error bars if it is estimated."
        ),
        draw=draw,
        height=0.28 * lines + 0.5 * len(groups) + 0.75,
    )
