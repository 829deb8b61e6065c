"""``hesscli verify --plugin``: a Trial as a Document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hesscli.report.common import STATUS, listed, relative_text, study_document, what_happened
from hesscli.report.document import Case, Document, verdict_text
from hesscli.report.fields import Field, named, table
from hesscli.studies.trial import Trial, Tried
from hesscli.studies.verdict import Verdict

_FIELDS = (
    named(None, "defined", lambda row: f"{row.kind} {row.name}"),
    Field("kind"),
    Field("name"),
    named("function", "function"),
    named("method", "is"),
    Field("widths", title="network", text=lambda widths: "-".join(map(str, widths))),
    Field("examples"),
    Field("check", title="relative", text=relative_text),
    STATUS,
    named(None, "verdict", lambda row: verdict_text(row.verdict)),
)


def trial_document(result: Trial) -> Document:
    """A table of every function, data and test cases."""
    names = dict.fromkeys((row.kind, row.name) for row in result.results)
    tried = listed(f"{kind} {name}" for kind, name in names)
    document = study_document(
        result,
        "trial",
        _FIELDS,
        before={"probe_seed": result.probe_seed},
        tables=[
            table("What the plugin defines, on its own", _FIELDS, result.results, _notes(result))
        ],
        cases=(
            Case(f"{row.kind} {row.name}", row.function, _failure(row)) for row in result.results
        ),
    )
    heading = f"{tried}, each in a small random network of its own · float64"
    return replace(document, heading=heading)


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
