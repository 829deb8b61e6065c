"""``hesscli spectrum``: a Spectrum as a Document."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from hesscli.report.bars import sparkline
from hesscli.report.common import by_activation, heading, listed, preamble
from hesscli.report.document import (
    UNKNOWN,
    Case,
    Column,
    Document,
    Table,
    scientific,
)
from hesscli.report.spectrum_plot import spectrum_drawings
from hesscli.studies.spectra.measures import BINS_PER_DECADE, OUTLIER_RATIO, Density, Measured
from hesscli.studies.spectra.terms import SpectrumCheck, TermSpectrum
from hesscli.studies.spectrum import BlockSpectrum, Spectrum
from hesscli.studies.verdict import Verdict

_TERMS = ("hessian", "gauss_newton")
# Powers of ten on either side of zero that the bars beside the numbers show.
_BARS = 6
_LETTERS = {"hessian": "H", "gauss_newton": "G"}


def spectrum_document(result: Spectrum) -> Document:
    """Tables, data, test cases and drawings of a spectrum."""
    return Document(
        heading=heading(result.problem, result.environment),
        tables=tuple(_tables(result)),
        data={
            **preamble(
                "hesscli/spectrum/1", Verdict.of(result.passed), result.environment, result.problem
            ),
            "quadrature": {
                "probes": result.options.probes,
                "steps": result.options.steps,
                "seed": result.options.seed,
            },
            "results": [_row_data(row) for row in result.results],
            "spectra": [_spectrum_data(row, term) for row in result.results for term in _TERMS],
        },
        cases=tuple(
            Case(row.activation, f"{row.layer}/{row.block}", _failure(row.check))
            for row in result.results
        ),
        drawings=spectrum_drawings(result),
    )


def _tables(result: Spectrum) -> Iterator[Table]:
    for activation, rows in by_activation(result.results):
        # Of blocks with nothing but eigenpairs the table of these is all there is to say.
        if any(row.hessian.density is not None for row in rows):
            yield _eigenvalue_table(result, activation, rows)
            yield _norm_table(activation, rows)
        if result.options.top > 0:
            yield _top_table(result, activation, rows)


def _eigenvalue_table(result: Spectrum, activation: str, rows: Sequence[BlockSpectrum]) -> Table:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        for term in _TERMS:
            found: TermSpectrum = getattr(row, term)
            numbers = (found.rank, found.largest, found.smallest, found.negative)
            texts = (_count_text, _value_text, _value_text, _count_text)
            name = row.layer if term == _TERMS[0] else ""
            lines.append(
                (
                    name,
                    _LETTERS[term],
                    *(text(number) for text, number in zip(texts, numbers, strict=True)),
                    _text(found.effective_rank, ",.2f"),
                    UNKNOWN if found.density is None else density_bars(found.density),
                )
            )
            lines += _error_line((*numbers, found.effective_rank), before=2, after=1)
    return Table(
        title=f"{activation}: eigenvalues of the Hessian H and its Gauss–Newton term G "
        f"({result.options.block})",
        columns=(
            Column("layer", numeric=False),
            Column("", numeric=False),
            Column("rank"),
            Column("largest"),
            Column("smallest"),
            Column("negative"),
            Column("eff. rank"),
            Column("− spectrum +", numeric=False),
        ),
        rows=tuple(lines),
        notes=(_where_from(result, rows), *_outlier_notes(rows), *_failures(rows), _LEGEND),
    )


_LEGEND = (
    "Rank and negative count what lies beyond the tolerance; eff. rank is Σ|λ|/max|λ|; the bars "
    "count eigenvalues on a logarithmic scale, in powers of ten of ‖·‖₂: six negative ones, zero "
    "and what is near it, six positive ones."
)


def _norm_table(activation: str, rows: Sequence[BlockSpectrum]) -> Table:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        for term in _TERMS:
            found: TermSpectrum = getattr(row, term)
            low, high = found.diagonal or (math.nan, math.nan)
            name, size = (row.layer, f"{row.size:,}") if term == _TERMS[0] else ("", "")
            lines.append(
                (
                    name,
                    size,
                    _LETTERS[term],
                    _value_text(found.trace),
                    _number_text(low),
                    _number_text(high),
                    _value_text(found.frobenius_norm),
                    _value_text(found.spectral_norm),
                )
            )
            norms = (found.frobenius_norm, found.spectral_norm)
            lines += _error_line((found.trace, None, None, *norms), before=3)
        C = row.curvature
        of_C = (C.frobenius_norm, C.spectral_norm)
        lines.append(("", "", "C", "", "", "", *(_value_text(norm) for norm in of_C)))
        lines += _error_line(of_C, before=6)
    return Table(
        title=f"{activation}: their size, and that of the curvature term C = H − G",
        columns=(
            Column("layer", numeric=False),
            Column("size"),
            Column("", numeric=False),
            Column("trace"),
            Column("diagonal from"),
            Column("to"),
            Column("‖·‖_F"),
            Column("‖·‖₂"),
        ),
        rows=tuple(lines),
    )


def _top_table(result: Spectrum, activation: str, rows: Sequence[BlockSpectrum]) -> Table:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        pairs = [getattr(row, term).top for term in _TERMS]
        for index in range(result.options.top):
            cells = [
                text
                for found in pairs
                for text in (
                    _number_text(float(found.values[index])),
                    scientific(float(found.residuals[index])),
                )
            ]
            lines.append((row.layer if index == 0 else "", str(index + 1), *cells))
    which = "at both ends" if result.options.ends else "of largest magnitude"
    # Where there is no other table, this one tells what failed.
    alone = [row for row in rows if row.hessian.density is None]
    notes = tuple(_failures(rows)) if len(alone) == len(rows) else ()
    if alone:
        notes += (
            f"{listed(row.layer for row in alone)}: eigenvalues by Lanczos, within the residual; "
            "--density adds rank, trace, norms and the density of the spectrum.",
        )
    return Table(
        title=f"{activation}: eigenvalues {which}, with residuals ‖Hv − λv‖",
        columns=(
            Column("layer", numeric=False),
            Column(""),
            Column("λ of H"),
            Column("residual"),
            Column("λ of G"),
            Column("residual"),
        ),
        rows=tuple(lines),
        notes=notes,
    )


def density_bars(density: Density) -> str:
    """A sign for each power of ten, higher for more eigenvalues; a gap where there are none.

    Zero is in the middle, with all that is more than _BARS powers of ten below the largest.
    """
    negative, positive = (
        density.counts[side].reshape(-1, BINS_PER_DECADE).sum(axis=1)
        for side in (slice(density.zero), slice(density.zero + 1, None))
    )
    near = float(negative[_BARS:].sum() + density.counts[density.zero] + positive[:-_BARS].sum())
    # Negative bins begin with the largest magnitude, positive ones end with it. Powers of ten
    # that are not told apart from zero are gaps.
    gaps = [0.0] * (_BARS - len(negative))
    counts = [*negative[:_BARS], *gaps, near, *gaps, *positive[-_BARS:]]
    # Estimates may be fractions of one eigenvalue.
    heights = [math.log10(1 + count) if count > 0 else math.nan for count in counts]
    return sparkline(heights, low=0.0)


def _where_from(result: Spectrum, rows: Sequence[BlockSpectrum]) -> str:
    exact = [row for row in rows if row.exact]
    others = [row for row in rows if not row.exact and row.hessian.density is not None]
    sentences = []
    if exact:
        spans = listed(f"{row.span:,} of {row.size:,} in {row.layer}" for row in exact)
        sentences.append(f"Exact: all eigenvalues that can differ from zero, {spans}.")
    if others:
        options = result.options
        sentences.append(
            f"{listed(row.layer for row in others)}: ends by Lanczos, ± the residual; sums by "
            f"quadrature with {options.probes} probes of {options.steps} steps, ± bars that "
            "hold with 95%; numbers without ± are exact."
        )
    tolerances = [
        scientific(row.hessian.tolerance / row.hessian.spectral_norm.value)
        for row in rows
        if row.hessian.tolerance is not None and row.hessian.spectral_norm.value > 0
    ]
    if tolerances:
        sentences.append(f"Tolerance: {listed(dict.fromkeys(tolerances))} of ‖H‖₂.")
    return " ".join(sentences)


def _outlier_notes(rows: Sequence[BlockSpectrum]) -> Iterator[str]:
    for term in _TERMS:
        found = [
            f"{len(outliers)} in {row.layer}, |λ| ≥ {min(map(abs, outliers)):.2e}"
            for row in rows
            if (outliers := getattr(row, term).outliers) is not None and len(outliers)
        ]
        if found:
            yield (
                f"Outliers of {_LETTERS[term]}, above the widest gap among the largest "
                f"(a ratio of {OUTLIER_RATIO:g} or more): {'; '.join(found)}."
            )


def _failures(rows: Sequence[BlockSpectrum]) -> Iterator[str]:
    for row in rows:
        failure = _failure(row.check)
        if failure is not None:
            yield f"FAIL {row.layer}: {failure}."


def _failure(check: SpectrumCheck | None) -> str | None:
    if check is None or check.passed:
        return None
    what = (
        "the sum of the eigenvalues is not the trace of the diagonal"
        if check.method == "trace"
        else "an eigenpair of Lanczos does not satisfy H v = λ v"
    )
    return f"{what}: relative residual {scientific(check.residual)}, allowed {check.rtol:.0e}"


def _error_line(
    numbers: Sequence[Measured | None], before: int, after: int = 0
) -> list[tuple[str, ...]]:
    """A line of error bars below numbers of which one at least is an estimate."""
    errors = [None if number is None else number.error for number in numbers]
    if all(error is None for error in errors):
        return []
    texts = ("" if error is None else f"± {scientific(error)}" for error in errors)
    return [("",) * before + tuple(texts) + ("",) * after]


def _count_text(number: Measured | None) -> str:
    return _text(number, ",.0f")


def _text(number: Measured | None, form: str) -> str:
    return UNKNOWN if number is None else f"{number.value:{form}}"


def _value_text(number: Measured | None) -> str:
    return UNKNOWN if number is None else _number_text(number.value)


def _number_text(value: float) -> str:
    return UNKNOWN if math.isnan(value) else scientific(value, 5)


def _row_data(row: BlockSpectrum) -> dict[str, Any]:
    return {
        "activation": row.activation,
        "layer": row.layer,
        "block": row.block,
        "size": row.size,
        "span": row.span,
        "exact": row.exact,
        **{term: _term_data(getattr(row, term)) for term in _TERMS},
        "curvature": {
            "frobenius_norm": _measured_data(row.curvature.frobenius_norm),
            "spectral_norm": _measured_data(row.curvature.spectral_norm),
        },
        "check": None
        if row.check is None
        else {
            "method": row.check.method,
            "relative_residual": row.check.residual,
            "rtol": row.check.rtol,
        },
        "status": Verdict.of(row.passed).value,
    }


def _term_data(found: TermSpectrum) -> dict[str, Any]:
    smallest, largest = found.diagonal or (None, None)
    return {
        **{
            name: _measured_data(getattr(found, name))
            for name in (
                "rank",
                "effective_rank",
                "largest",
                "smallest",
                "negative",
                "trace",
                "frobenius_norm",
                "spectral_norm",
            )
        },
        "diagonal": {"smallest": smallest, "largest": largest},
        "tolerance": found.tolerance,
        "outliers": None if found.outliers is None else found.outliers.tolist(),
        "top": {
            "eigenvalues": [] if found.top is None else found.top.values.tolist(),
            "residuals": [] if found.top is None else found.top.residuals.tolist(),
        },
    }


def _measured_data(number: Measured | None) -> dict[str, float | None]:
    if number is None:
        return {"value": None, "error": None}
    return {"value": number.value, "error": number.error}


def _spectrum_data(row: BlockSpectrum, term: str) -> dict[str, Any]:
    found: TermSpectrum = getattr(row, term)
    density = found.density
    return {
        "activation": row.activation,
        "layer": row.layer,
        "block": row.block,
        "term": term,
        "eigenvalues": None if found.eigenvalues is None else found.eigenvalues.tolist(),
        "density": None
        if density is None
        else {
            "edges": density.edges.tolist(),
            "counts": density.counts.tolist(),
            "errors": None if density.errors is None else density.errors.tolist(),
        },
    }
