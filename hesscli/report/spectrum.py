"""``hesscli spectrum``: a Spectrum as a Document."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from hesscli.report.bars import sparkline
from hesscli.report.classes import CLASSES, class_failure, class_table
from hesscli.report.common import (
    ROW,
    STATUS,
    block_cases,
    by_activation,
    listed,
    study_document,
)
from hesscli.report.document import Document, Table, scientific, to_digits
from hesscli.report.fields import Field, data_of, named, parts, table
from hesscli.report.spectrum_plot import spectrum_drawings
from hesscli.studies.spectra.measures import BINS_PER_DECADE, OUTLIER_RATIO, Density, Measured
from hesscli.studies.spectra.terms import CurvatureNorms, SpectrumCheck, TermSpectrum
from hesscli.studies.spectrum import BlockSpectrum, Spectrum

_TERMS = ("hessian", "gauss_newton")
# Powers of ten on either side of zero that the bars next to the numbers show.
_BARS = 6
_LETTERS = {"hessian": "H", "gauss_newton": "G", "curvature": "C"}


@dataclass(frozen=True)
class _Line:
    """One term of a block; a block is named in its first line."""

    row: BlockSpectrum
    term: str

    @property
    def found(self) -> TermSpectrum | CurvatureNorms:
        found: TermSpectrum | CurvatureNorms = getattr(self.row, self.term)
        return found

    @property
    def name(self) -> str:
        return self.row.layer if self.term == _TERMS[0] else ""

    @property
    def size(self) -> str:
        return f"{self.row.size:,}" if self.term == _TERMS[0] else ""

    @property
    def letter(self) -> str:
        return _LETTERS[self.term]


def _column(title: str, name: str, text: Callable[[float], str]) -> Field:
    """A number of a line's term; the curvature term has norms only."""
    return Field(
        None,
        lambda line: getattr(line.found, name, _NO_NUMBER),
        title,
        lambda number: "" if number is _NO_NUMBER else text(number.value),
    )


def _diagonal(title: str, place: int) -> Field:
    def text(line: _Line) -> str | None:
        if isinstance(line.found, CurvatureNorms):
            return ""
        return None if line.found.diagonal is None else scientific(line.found.diagonal[place], 5)

    return Field(None, text, title)


_NO_NUMBER = Measured(math.nan)
_EIGENVALUES = (
    named("name", "layer"),
    named("letter", ""),
    _column("rank", "rank", "{:,.0f}".format),
    _column("largest", "largest", to_digits(5)),
    _column("smallest", "smallest", to_digits(5)),
    _column("negative", "negative", "{:,.0f}".format),
    _column("eff. rank", "effective_rank", "{:,.2f}".format),
    Field("found.density", None, "− spectrum +", lambda density: density_bars(density), False),
)
_NORMS = (
    named("name", "layer"),
    Field("size", title="size"),
    named("letter", ""),
    _column("trace", "trace", to_digits(5)),
    _diagonal("diagonal from", 0),
    _diagonal("to", 1),
    _column("‖·‖_F", "frobenius_norm", to_digits(5)),
    _column("‖·‖₂", "spectral_norm", to_digits(5)),
)


_NUMBERS = (
    *("rank", "effective_rank", "largest", "smallest", "negative"),
    *("trace", "frobenius_norm", "spectral_norm"),
)


def _measured(name: str) -> Field:
    return Field(name, lambda found: attrgetter(name)(found) or {"value": None, "error": None})


_TERM = (
    *(_measured(name) for name in _NUMBERS),
    Field("diagonal.smallest", lambda found: found.diagonal and found.diagonal[0]),
    Field("diagonal.largest", lambda found: found.diagonal and found.diagonal[1]),
    Field("tolerance"),
    Field("outliers"),
    Field("top.eigenvalues", lambda found: () if found.top is None else found.top.values),
    Field("top.residuals", lambda found: () if found.top is None else found.top.residuals),
)
_CHECK = (
    Field("method"),
    Field("relative_residual", lambda check: check.residual),
    Field("rtol"),
)
_FIELDS = (
    *ROW,
    Field("size"),
    Field("span"),
    Field("exact"),
    *(parts(term, _TERM) for term in _TERMS),
    _measured("curvature.frobenius_norm"),
    _measured("curvature.spectral_norm"),
    parts("check", _CHECK),
    parts("classes", CLASSES),
    STATUS,
)
_SPECTRUM = (
    Field("activation", lambda line: line.row.activation),
    Field("layer", lambda line: line.row.layer),
    Field("block", lambda line: line.row.block),
    Field("term"),
    Field("eigenvalues", lambda line: line.found.eigenvalues),
    Field("density", lambda line: line.found.density),
)


def _lines(rows: Iterable[BlockSpectrum], terms: Iterable[str] = _TERMS) -> list[_Line]:
    return [_Line(row, term) for row in rows for term in terms]


def spectrum_document(result: Spectrum) -> Document:
    """Tables, data, test cases and drawings of a spectrum."""
    options = result.options
    return study_document(
        result,
        "spectrum",
        _FIELDS,
        tables=_tables(result),
        before={
            "quadrature": {"probes": options.probes, "steps": options.steps, "seed": options.seed}
        },
        after={"spectra": [data_of(_SPECTRUM, line) for line in _lines(result.results)]},
        cases=block_cases(
            result.results, lambda row: _failure(row.check) or class_failure(row.classes)
        ),
        drawings=spectrum_drawings(result),
    )


def _tables(result: Spectrum) -> Iterator[Table]:
    for activation, rows in by_activation(result.results):
        # Of blocks with nothing but eigenpairs the table of these is all there is to say.
        if any(row.hessian.density is not None for row in rows):
            yield _with_errors(
                f"{activation}: eigenvalues of the Hessian H and its Gauss–Newton term G "
                f"({result.options.block})",
                _EIGENVALUES,
                _lines(rows),
                (_where_from(result, rows), *_outlier_notes(rows), *_failures(rows), _LEGEND),
            )
            yield _with_errors(
                f"{activation}: their size, and that of the curvature term C = H − G",
                _NORMS,
                _lines(rows, _LETTERS),
            )
        if result.options.top > 0:
            yield _top_table(result, activation, rows)
        if result.options.classes:
            yield class_table(activation, rows)


def _with_errors(
    title: str, fields: Sequence[Field], lines: Sequence[_Line], notes: Sequence[str] = ()
) -> Table:
    """A table with a line of error bars below numbers of which one at least is an estimate."""
    rows: list[tuple[str, ...]] = []
    for line, row in zip(lines, (whole := table(title, fields, lines, notes)).rows, strict=True):
        errors = [getattr(field.of(line), "error", None) for field in fields]
        rows.append(row)
        if any(error is not None for error in errors):
            rows.append(tuple("" if bar is None else f"± {scientific(bar)}" for bar in errors))
    return replace(whole, rows=tuple(rows))


_LEGEND = (
    "Rank and negative count what lies beyond the tolerance; eff. rank is Σ|λ|/max|λ|; the bars "
    "count eigenvalues on a logarithmic scale, in powers of ten of ‖·‖₂: six negative ones, zero "
    "and what is near it, six positive ones."
)


def _top_table(result: Spectrum, activation: str, rows: Sequence[BlockSpectrum]) -> Table:
    which = "at both ends" if result.options.ends else "of largest magnitude"
    # If there is no other table, this one reports failures.
    alone = [row for row in rows if row.hessian.density is None]
    notes = tuple(_failures(rows)) if len(alone) == len(rows) else ()
    if alone:
        notes += (
            f"{listed(row.layer for row in alone)}: eigenvalues by Lanczos, within the residual; "
            "--density adds rank, trace, norms and the density of the spectrum.",
        )
    fields = (
        named(None, "layer", lambda place: place[0].layer if place[1] == 0 else ""),
        Field(None, lambda place: place[1] + 1, ""),
        *(
            column
            for term in _TERMS
            for column in (
                _of_pair(f"{term}.top.values", f"λ of {_LETTERS[term]}", 5),
                _of_pair(f"{term}.top.residuals", "residual", 2),
            )
        ),
    )
    places = [(row, index) for row in rows for index in range(result.options.top)]
    return table(
        f"{activation}: eigenvalues {which}, with residuals ‖Hv − λv‖", fields, places, notes
    )


def _of_pair(numbers: str, title: str, digits: int) -> Field:
    find = attrgetter(numbers)
    return Field(None, lambda place: float(find(place[0])[place[1]]), title, to_digits(digits))


def density_bars(density: Density) -> str:
    """A sign for each power of ten, higher for more eigenvalues; a gap if there are none.

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
