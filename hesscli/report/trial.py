"""``hesscli verify --plugin``: a Trial as a Document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hesscli.report.common import check_data, listed, preamble, relative_text, what_happened
from hesscli.report.document import UNKNOWN, Case, Column, Document, Table, verdict_text
from hesscli.studies.trial import Trial, Tried
from hesscli.studies.verdict import Verdict


def trial_document(result: Trial) -> Document:
    """A table of every function, data and test cases."""
    names = dict.fromkeys((row.kind, row.name) for row in result.results)
    tried = listed(f"{kind} {name}" for kind, name in names)
    return Document(
        heading=f"{tried}, each in a small random network of its own · float64",
        tables=(
            Table(
                title="What the plugin defines, on its own",
                columns=(
                    Column("defined", numeric=False),
                    Column("function", numeric=False),
                    Column("is", numeric=False),
                    Column("network"),
                    Column("relative"),
                    Column("verdict", numeric=False),
                ),
                rows=tuple(_cells(row) for row in result.results),
                notes=tuple(_notes(result)),
            ),
        ),
        data={
            **preamble("hesscli/trial/1", result.verdict, result.environment, result.problem),
            "probe_seed": result.probe_seed,
            "results": [_row_data(row) for row in result.results],
        },
        cases=tuple(
            Case(f"{row.kind} {row.name}", row.function, _failure(row)) for row in result.results
        ),
    )


def _cells(row: Tried) -> tuple[str, ...]:
    return (
        f"{row.kind} {row.name}",
        row.function,
        row.method,
        "-".join(map(str, row.widths)),
        UNKNOWN if row.check is None else relative_text(row.check),
        verdict_text(row.verdict),
    )


def _notes(result: Trial) -> Iterator[str]:
    for row in result.results:
        failure = _failure(row)
        if failure is not None:
            sizes = f"{'-'.join(map(str, row.widths))}, {row.examples} examples"
            yield (
                f"{row.kind} {row.name}: {verdict_text(row.verdict)} of {row.function} "
                f"({row.method}) in {sizes}: {failure}."
            )
    if result.passed:
        yield "PASS: every function is what the witnesses find."
    yield f"Random networks: --probe-seed {result.probe_seed}."


def _failure(row: Tried) -> str | None:
    if row.verdict is Verdict.PASS or row.check is None:
        return None
    return what_happened(row.check) or "a third witness disagrees"


def _row_data(row: Tried) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "name": row.name,
        "function": row.function,
        "method": row.method,
        "widths": list(row.widths),
        "examples": row.examples,
        "check": None if row.check is None else check_data(row.check),
        "status": row.verdict.value,
    }
