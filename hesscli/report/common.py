"""What the reports of several studies have in common."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, Protocol, TypeVar

from hesscli.report.document import residual_text
from hesscli.studies.context import BatchLoss, Environment, ProblemSummary
from hesscli.studies.finitechecks import DECISIVE, SLOPES
from hesscli.studies.judge import Check
from hesscli.studies.verdict import Verdict

# Losses of more activations are in the JSON only.
_LOSSES_SHOWN = 2


def heading(problem: ProblemSummary, environment: Environment) -> str:
    """One line on what was analysed, and one for each of the problem's notes."""
    widths = "-".join(str(width) for width in problem.widths)
    examples = f"{problem.examples:,} example{'' if problem.examples == 1 else 's'}"
    # A trained network's results must not pass for those of the network that the seed draws, and
    # arrays that were given were drawn with no seed.
    origin = "" if problem.seed is None else f" · seed {problem.seed}"
    if problem.weights is not None:
        origin = f" · weights {os.path.basename(problem.weights)}"
    size = f"{widths} · {problem.parameters:,} parameters · {examples} · {environment.dtype}"
    parts = [] if environment.workers == 1 else [f"{environment.workers} processes"]
    parts += [] if problem.chunk is None else [f"{problem.chunk:,} examples at a time"]
    shared = (" · ".join(parts),) if parts else ()
    return "\n".join((f"{size}{origin}", *shared, _batch_text(problem), *problem.notes))


def _batch_text(problem: ProblemSummary) -> str:
    """One line on the loss, the accuracy and the inputs."""
    parts = []
    # Those of many activations fill more than a line.
    if 1 <= len(problem.losses) <= _LOSSES_SHOWN:
        several = len(problem.losses) > 1
        parts = [_loss_text(loss, several) for loss in problem.losses]
    largest = problem.largest_input
    reach = f" (up to {largest:.4g})" if largest is not None and largest > 1 else ""
    return " · ".join((*parts, f"inputs {problem.inputs or 'as given'}{reach}"))


def _loss_text(loss: BatchLoss, several: bool) -> str:
    penalty = f" (data {loss.data:.4g} + penalty {loss.penalty:.4g})" if loss.penalty else ""
    right = "" if loss.accuracy is None else f" · accuracy {loss.accuracy:.1%}"
    of = f" by {loss.activation}" if several else ""
    return f"loss{of} {loss.total:.4g}{penalty}{right}"


def preamble(
    schema: str, verdict: Verdict, environment: Environment, problem: ProblemSummary
) -> dict[str, Any]:
    """The part of a JSON document that every schema begins with."""
    return {
        "schema": schema,
        "status": verdict.value,
        "environment": asdict(environment),
        "problem": asdict(problem),
    }


def check_data(check: Check) -> dict[str, Any]:
    """A check as the JSON schemas hold it."""
    return {
        "method": check.method,
        "compared": check.compared,
        "confidence": check.confidence,
        "max_abs_residual": check.max_abs_residual,
        "max_abs_entry": check.max_abs_entry,
        "relative_residual": check.relative_residual,
        "rtol": check.rtol,
        "rounding_floor": check.floor,
        "limited_by_rounding": check.limited_by_rounding,
        "worst_entry": None if check.worst is None else list(check.worst),
    }


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
    """The relative residual, as a bound where it is known with a confidence."""
    bound = "" if check.confidence is None or check.max_abs_residual == 0 else "<"
    return f"{bound}{residual_text(check.relative_residual)}"


def compared_text(checks: Sequence[Check]) -> str:
    """What the checks compared, and how closely it agreed."""
    exact = [check for check in checks if check.confidence is None]
    parts: list[str] = []
    if exact:
        unit = "entries" if any(check.method == "entries" for check in exact) else "quadratic forms"
        largest = max(check.relative_residual for check in exact)
        parts.append(
            f"in {sum(check.compared for check in exact):,} {unit}, to "
            f"{residual_text(largest)} of the largest"
        )
    random = [check for check in checks if check.confidence is not None]
    if random:
        worst = max(random, key=lambda check: check.relative_residual)
        parts.append(
            f"in {_products(worst)}: relative difference below "
            f"{residual_text(worst.relative_residual)} with {worst.confidence:.1%}"
        )
    return " and ".join(parts)


def _products(check: Check) -> str:
    return f"{check.compared:,} probe{'' if check.compared == 1 else 's'}"


def seed_note(checks: Iterable[Check], seed: int) -> Iterator[str]:
    """Which random vectors were multiplied, where some were."""
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
    bar = f" beyond the error bar of {residual_text(check.error_bar)}" if check.error_bar else ""
    return (
        f"{where}: residual {residual_text(check.max_abs_residual)}, "
        f"{residual_text(check.relative_residual)} of the {of_what}; "
        f"allowed is {check.rtol:.0e}{bar}"
    )


def what_happened(*checks: Check) -> str | None:
    """Where the first check that fails does, or why one is open; None where all passed."""
    check = max(checks, key=lambda check: (check.failed, not check.passed))
    if check.passed:
        return None
    return what_failed(check) if check.failed else f"undecided: {why_open(check)}"


def undecided_notes(activation: str, checks: Iterable[tuple[str, Check]]) -> list[str]:
    """A sentence for each place whose check is open, the first one where there are several."""
    doubtful: dict[str, str] = {}
    for name, check in checks:
        if check.verdict is Verdict.UNDECIDED:
            doubtful.setdefault(name, why_open(check))
    return [f"{activation}: UNDECIDED on {name}: {why}." for name, why in doubtful.items()]


def why_open(check: Check) -> str:
    """What keeps a check from being decided: rounding, or error bars."""
    if check.open_by_rounding:
        return (
            f"the residual {residual_text(check.max_abs_residual)} may be rounding, which leaves "
            f"{residual_text(check.floor)} uncertain beside {_scale_text(check)}"
        )
    looked_at = check.undecided + check.compared
    how_many = (
        "of the quadratic form"
        if check.method == "form"
        else f"of {check.undecided:,} of {looked_at:,} numbers"
    )
    return (
        f"the error bars {how_many} exceed {DECISIVE:.0%} of the scale "
        f"{residual_text(check.max_abs_entry)}, by rounding or at a corner"
    )


def _scale_text(check: Check) -> str:
    scale = {"entries": "a largest entry", "entry": "a largest entry", "probes": "a Frobenius norm"}
    return f"{scale.get(check.method, '|G| + |C|')} of {residual_text(check.max_abs_entry)}"


def rounding_note(name: str, check: Check) -> str:
    """Why a residual beyond the relative tolerance passes."""
    return (
        f"† {name}: the residual {residual_text(check.max_abs_residual)} is rounding: "
        f"what was subtracted in this layer leaves {residual_text(check.floor)} uncertain, "
        f"beside {_scale_text(check)}."
    )


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
