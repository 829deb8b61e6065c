"""The parts of G between and within the classes, as a table and as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hesscli.report.document import Table, scientific, to_digits
from hesscli.report.fields import Field, named, table
from hesscli.studies.spectra.classes import PARTS, Attributed, ClassParts
from hesscli.studies.spectrum import BlockSpectrum

CLASSES = (
    Field("trace"),
    Field("eigenvalues"),
    Field("relative_residual", lambda found: found.residual),
    Field("rtol"),
)
_LEGEND = (
    "G is the sum of p_nk g_nk g_nkᵀ: g_nk is the gradient of example n if its class were k, and "
    "p_nk is the probability of k. own is the part in which k is the true class. The others are "
    "the wrong k: class is the part of each true class's mean gradient, cross is the spread of "
    "the means for each k about it, and within is the spread of the examples about those. The "
    "share of part X in an eigenvalue λ is vᵀXv/λ."
)


@dataclass(frozen=True)
class _Line:
    layer: str
    name: str
    of: Attributed


def _lines(rows: Sequence[BlockSpectrum]) -> Iterator[_Line]:
    for row in rows:
        assert row.classes is not None  # they were asked for
        yield _Line(row.layer, "trace", row.classes.trace)
        for index, value in enumerate(row.classes.eigenvalues, start=1):
            yield _Line("", f"λ{index}", value)


def _share(part: str) -> Field:
    return Field(
        None,
        lambda line: line.of.parts[part] / line.of.value if line.of.value else None,
        part,
        "{:.1%}".format,
    )


_FIELDS = (
    named(None, "layer", lambda line: line.layer),
    named(None, "", lambda line: line.name),
    Field(None, lambda line: line.of.value, "of G", to_digits(5)),
    *(_share(part) for part in PARTS),
)


def class_table(activation: str, rows: Sequence[BlockSpectrum]) -> Table:
    """The trace of G and its largest eigenvalues, each with the share of every part."""
    failures = [(row.layer, class_failure(row.classes)) for row in rows]
    return table(
        f"{activation}: what the classes have of G, its trace and largest eigenvalues",
        _FIELDS,
        _lines(rows),
        (_LEGEND, *(f"FAIL {layer}: {failure}." for layer, failure in failures if failure)),
    )


def class_failure(found: ClassParts | None) -> str | None:
    """Why the parts are not all of G, if they are not."""
    if found is None or found.passed:
        return None
    return (
        f"the parts of the classes do not add up to G: relative residual "
        f"{scientific(found.residual)}, allowed {found.rtol:.0e}"
    )
