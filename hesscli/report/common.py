"""Functions and fields that the reports of several studies share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from hesscli.report.document import Case, Document, Drawing, Table, scientific, verdict_text
from hesscli.report.fields import Field, data_of, named, plain
from hesscli.studies.context import BatchLoss, Environment, ProblemSummary
from hesscli.studies.finitechecks import DECISIVE, SLOPES
from hesscli.studies.judge import Check
from hesscli.studies.verdict import Verdict
from hesscli.system.devices import CPU_NAME

# Losses of more activations are in the JSON only.
_LOSSES_SHOWN = 2
# The widths of more layers fill more than a line.
_WIDTHS_SHOWN = 8


def heading(problem: ProblemSummary, environment: Environment) -> str:
    """One line on what was analysed, and one for each of the problem's notes."""
    examples = f"{problem.examples:,} example{'' if problem.examples == 1 else 's'}"
    # A trained network's results must not look like those of the network that the seed draws, and
    # arrays that were given were drawn with no seed.
    origin = "" if problem.seed is None else f" · seed {problem.seed}"
    if problem.weights is not None:
        origin = f" · weights {os.path.basename(problem.weights)}"
    network = f"{_network_text(problem)} · {problem.parameters:,} parameters"
    size = f"{network} · {examples} · {environment.dtype}"
    parts = [] if environment.workers == 1 else [f"{environment.workers} processes"]
    parts += [] if problem.chunk is None else [f"{problem.chunk:,} examples at a time"]
    parts += [] if environment.device == CPU_NAME else [f"on {environment.device}"]
    shared = (" · ".join(parts),) if parts else ()
    return "\n".join((f"{size}{origin}", *shared, _batch_text(problem), *problem.notes))


def _network_text(problem: ProblemSummary) -> str:
    """The widths; of many, the layers by their kind."""
    widths = problem.widths
    if len(widths) <= _WIDTHS_SHOWN:
        return "-".join(map(str, widths))
    counted = ", ".join(f"{count} {kind}" for kind, count in problem.kinds.items())
    return f"{widths[0]} → {counted} → {widths[-1]}"


def _batch_text(problem: ProblemSummary) -> str:
    """One line on the loss, the accuracy and the inputs."""
    parts = []
    # Those of many activations fill more than a line.
    if 1 <= len(problem.losses) <= _LOSSES_SHOWN:
        several = len(problem.losses) > 1
        is_loss = problem.output is None
        name = "loss" if is_loss else f"{problem.reduction} of output {problem.output}"
        parts = [_loss_text(loss, name, several) for loss in problem.losses]
    largest = problem.largest_input
    reach = f" (up to {largest:.4g})" if largest is not None and largest > 1 else ""
    return " · ".join((*parts, f"inputs {problem.inputs or 'as given'}{reach}"))


def _loss_text(loss: BatchLoss, name: str, several: bool) -> str:
    penalty = f" (data {loss.data:.4g} + penalty {loss.penalty:.4g})" if loss.penalty else ""
    right = "" if loss.accuracy is None else f" · accuracy {loss.accuracy:.1%}"
    of = f" by {loss.activation}" if several else ""
    return f"{name}{of} {loss.total:.4g}{penalty}{right}"


# What rows of blocks begin with.
ROW = (Field("activation"), named("layer", "layer"), Field("block"))
SIZE = Field("size", title="block", text=lambda size: f"{size:,}²")
STATUS = Field("status", lambda row: row.verdict)
_CHECK = (
    Field("method"),
    Field("compared"),
    Field("confidence"),
    Field("max_abs_residual"),
    Field("max_abs_entry"),
    Field("relative_residual"),
    Field("rtol"),
    Field("rounding_floor", lambda check: check.floor),
    Field("limited_by_rounding"),
    Field("worst_entry", lambda check: check.worst),
)


@plain.register
def _(check: Check) -> dict[str, Any]:
    return data_of(_CHECK, check)


def study_document(
    result: Any,
    schema: str,
    fields: Sequence[Field],
    *,
    tables: Iterable[Table],
    cases: Iterable[Case],
    rows: Iterable[Any] | None = None,
    before: Mapping[str, Any] = MappingProxyType({}),
    after: Mapping[str, Any] = MappingProxyType({}),
    drawings: Iterable[Drawing] = (),
    how: str = "",
) -> Document:
    """The document of a study's ``result``, whose ``rows`` are its results unless given.

    ``before`` and ``after`` stand around the rows in JSON; ``how`` ends the heading.
    """
    return Document(
        heading=heading(result.problem, result.environment) + how,
        tables=tuple(tables),
        data={
            "schema": f"hesscli/{schema}/1",
            "status": plain(getattr(result, "verdict", Verdict.PASS)),
            "environment": plain(result.environment),
            "problem": plain(result.problem),
            **plain(before),
            "results": [data_of(fields, row) for row in (result.results if rows is None else rows)],
            **plain(after),
        },
        cases=tuple(cases),
        drawings=tuple(drawings),
    )


def block_cases(rows: Iterable[Any], failure: Callable[[Any], str | None]) -> Iterator[Case]:
    """A test case for each activation and block."""
    for row in rows:
        yield Case(row.activation, f"{row.layer}/{row.block}", failure(row))


def verdict_cell(row: Any, limited: Callable[[Any], Check | None]) -> str:
    """The verdict; a dagger marks a row that passed only by the rounding floor of a check."""
    return verdict_text(row.verdict) + ("" if limited(row) is None else "†")


def verdict_column(limited: Callable[[Any], Check | None]) -> Field:
    return named(None, "verdict", lambda row: verdict_cell(row, limited))


def limited_of(row: Any) -> Check | None:
    """The row's check if it passed only by its rounding floor."""
    return row.check if row.check.limited_by_rounding else None


def outcome(
    activation: str,
    rows: Sequence[Any],
    verdict_of: Callable[[Any], Verdict],
    wrong: Callable[[Sequence[Any]], str],
    right: Callable[[Sequence[Any]], str],
) -> Iterator[str]:
    """A sentence on the rows that fail, or, if none does, on those that pass."""
    failed, passed = (
        [row for row in rows if verdict_of(row) is verdict]
        for verdict in (Verdict.FAIL, Verdict.PASS)
    )
    # A layer may have several rows, and fails in any of them.
    fallen = dict.fromkeys(row.layer for row in failed)
    held = [layer for layer in dict.fromkeys(row.layer for row in passed) if layer not in fallen]
    if failed:
        also = f", PASS on {listed(held)}" if held else ""
        yield f"{activation}: FAIL on {listed(fallen)}{also}: {wrong(failed)}."
    elif passed:
        yield f"{activation}: PASS on {listed(held)}: {right(passed)}."


def methods_text(checks: Sequence[Check]) -> str:
    """How much was compared in all of the checks: ``every entry or 32 probes``."""
    texts = {
        "entries": "every entry",
        "products": "products of several vectors",
        "form": "quadratic forms only",
    }
    return " or ".join(
        dict.fromkeys(
            _products(check) if check.method == "probes" else texts[check.method]
            for check in checks
        )
    )


def relative_text(check: Check) -> str:
    """The relative residual, as a bound if it is known with a confidence."""
    return _bound(check, check.relative_residual)


def residual_text(check: Check) -> str:
    """The residual that the relative one is made of."""
    return _bound(check, check.max_abs_residual)


def _bound(check: Check, residual: float) -> str:
    bound = "" if check.confidence is None or check.max_abs_residual == 0 else "<"
    return f"{bound}{scientific(residual)}"


def compared_text(checks: Sequence[Check]) -> str:
    """How much the checks compared, and how closely it agreed."""
    exact = [check for check in checks if check.confidence is None]
    parts: list[str] = []
    if exact:
        entries = any(check.method == "entries" for check in exact)
        count = sum(check.compared for check in exact)
        one, many = ("entry", "entries") if entries else ("quadratic form", "quadratic forms")
        largest = max(check.relative_residual for check in exact)
        parts.append(
            f"in {count:,} {one if count == 1 else many}, to {scientific(largest)} of the largest"
        )
    random = [check for check in checks if check.confidence is not None]
    if random:
        worst = max(random, key=lambda check: check.relative_residual)
        parts.append(
            f"in {_products(worst)}: relative difference below "
            f"{scientific(worst.relative_residual)} with {worst.confidence:.1%}"
        )
    return " and ".join(parts)


def _products(check: Check) -> str:
    return f"{check.compared:,} probe{'' if check.compared == 1 else 's'}"


def seed_note(checks: Iterable[Check], seed: int) -> Iterator[str]:
    """Which random vectors were multiplied, if some were."""
    if any(check.method in ("probes", "products") for check in checks):
        yield f"Random vectors: --probe-seed {seed}."


def what_failed(check: Check) -> str:
    """Where a check that failed is worst and by how much."""
    if check.confidence is not None:
        return (
            f"{_products(check)}: the difference may be {relative_text(check)} of the Hessian in "
            f"Frobenius norm; allowed is {check.rtol:.0e}"
        )
    if check.worst is not None:
        where, of_what = f"∂²L/∂{check.worst[0]} ∂{check.worst[1]}", "largest entry"
    elif check.method == "products":
        where, of_what = "a product H·v", "largest number in it"
    elif check.method == SLOPES:
        where = "the gradient that finite differences use is not the slope of the loss"
        of_what = "slope"
    else:
        where, of_what = "the quadratic form", "form"
    return beyond(check, where, of_what)


def beyond(check: Check, where: str, of_what: str = "largest entry") -> str:
    """By how much a check fails at ``where``."""
    bar = f" beyond the error bar of {scientific(check.error_bar)}" if check.error_bar else ""
    return (
        f"{where}: residual {scientific(check.max_abs_residual)}, "
        f"{scientific(check.relative_residual)} of the {of_what}; "
        f"allowed is {check.rtol:.0e}{bar}"
    )


def what_happened(*checks: Check) -> str | None:
    """Where the first failing check fails, or why one is undecided; None if all passed."""
    check = max(checks, key=lambda check: (check.failed, not check.passed))
    if check.passed:
        return None
    return what_failed(check) if check.failed else f"undecided: {why_open(check)}"


def undecided_notes(activation: str, checks: Iterable[tuple[str, Check]]) -> list[str]:
    """A sentence for each place with an undecided check: on the first one if there are several."""
    doubtful: dict[str, str] = {}
    for name, check in checks:
        if check.verdict is Verdict.UNDECIDED:
            doubtful.setdefault(name, why_open(check))
    return [f"{activation}: UNDECIDED on {name}: {why}." for name, why in doubtful.items()]


def why_open(check: Check) -> str:
    """Whether rounding or error bars keep a check from being decided, in words."""
    if check.open_by_rounding:
        return (
            f"the residual {scientific(check.max_abs_residual)} may be rounding, which leaves "
            f"an uncertainty of {scientific(check.floor)} next to {_scale_text(check)}"
        )
    looked_at = check.undecided + check.compared
    how_many = (
        "of the quadratic form"
        if check.method == "form"
        else f"of {check.undecided:,} of {looked_at:,} numbers"
    )
    return (
        f"the error bars {how_many} exceed {DECISIVE:.0%} of the scale "
        f"{scientific(check.max_abs_entry)}, by rounding or at a corner"
    )


def _scale_text(check: Check) -> str:
    scale = {"entries": "a largest entry", "entry": "a largest entry", "probes": "a Frobenius norm"}
    return f"{scale.get(check.method, '|G| + |C|')} of {scientific(check.max_abs_entry)}"


def rounding_note(name: str, check: Check, where: str = "in this layer") -> str:
    """A sentence on why a residual beyond the relative tolerance passes."""
    return (
        f"† {name}: the residual {scientific(check.max_abs_residual)} is rounding: "
        f"the subtractions {where} leave an uncertainty of {scientific(check.floor)}, "
        f"next to {_scale_text(check)}."
    )


def rounding_notes(rows: Iterable[Any], limited: Callable[[Any], Check | None]) -> Iterator[str]:
    """A note for each row with a dagger."""
    for row in rows:
        check = limited(row)
        if check is not None:
            yield rounding_note(row.layer, check)


class _Row(Protocol):
    @property
    def activation(self) -> str: ...


Row = TypeVar("Row", bound=_Row)


def by_activation(rows: Iterable[Row]) -> list[tuple[str, tuple[Row, ...]]]:
    """The rows of each activation, in the order of the rows."""
    return [
        (activation, tuple(group))
        for activation, group in groupby(rows, key=lambda row: row.activation)
    ]


def activations_of(rows: Iterable[Row]) -> str:
    """The rows' activations as a title names them: up to four, or how many."""
    names = list(dict.fromkeys(row.activation for row in rows))
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} activations"


def listed(names: Iterable[str]) -> str:
    """Names as a sentence lists them: ``a``, ``a and b``, ``a, b and c``."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
