"""What came of running a report again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from hesscli.report.document import Case, Document
from hesscli.report.formats import render
from hesscli.report.invocation import Invocation
from hesscli.report.recorded import Report
from hesscli.system.errors import shown

_COMPARED = ("environment", "invocation", "replay", "checkpoint")
# Where a result came from and what was kept of it, not the result.
_NOT_COMPARED = ("environment", "invocation", "replay", "checkpoint")
# Where no memory is given the free memory decides it; a change is said with the versions.
_CHUNK = "problem.chunk"
# Parts of a whole: what they may differ by is not relative to what stands beside them.
_RELATIVE = frozenset({"relative", "share", "ratio", "confidence", "accuracy", "rtol"})
_NAMES = {
    "tensorflow": "TensorFlow",
    "numpy": "NumPy",
    "scipy": "SciPy",
    "python": "Python",
    "blas": "BLAS",
}
# What a report that does not say it was made with.
_UNSAID = {"workers": 1}
# Names and versions are not put in quotation marks.
_SHORT = 30


@dataclass(frozen=True)
class Difference:
    """The first number, or other value, that is not the same."""

    where: str
    then: Any
    now: Any


@dataclass(frozen=True)
class Replay:
    """What came of running ``report`` again.

    ``rows`` are those of its results, of which ``identical`` are as they were; ``numbers`` were
    compared in all. ``rtol`` None holds them to the bit; otherwise ``changes`` says why not: what
    is not as it was, in words.
    """

    report: str
    rows: int
    identical: int
    numbers: int
    changes: tuple[str, ...]
    rtol: float | None
    difference: Difference | None

    @property
    def passed(self) -> bool:
        return self.difference is None

    @property
    def text(self) -> str:
        """One line for people."""
        same = "identical" if self.rtol is None else f"within {self.rtol:g}"
        how = ", bit for bit" if self.rtol is None else ""
        counted = f"{self.identical} of {self.rows} row{'' if self.rows == 1 else 's'} {same}"
        under = f" ({'; '.join(self.changes)})" if self.changes else ""
        if self.difference is None:
            return f"replayed {self.report}{under}: {counted}, {self.numbers:,} numbers{how}."
        first = self.difference
        return (
            f"replayed {self.report}{under}: {counted}. The first that differs: {first.where} "
            f"was {_text(first.then)}, is {_text(first.now)}."
        )


def replayed(
    report: Report, document: Document, invocation: Invocation, rtol: float
) -> tuple[Document, Replay]:
    """``document`` with what is to be said about it beside ``report``; and that.

    Every number must be the same to the bit; where versions, machine, threads or chunks of
    examples are others than the report's, the same to ``rtol`` of the largest number that stands
    beside it.
    """
    now = json.loads(render(document, "json"))
    changes = tuple(_changes(report.data, {**now, "invocation": asdict(invocation)}))
    replay = _compared(report, now, changes, rtol if changes else None)
    said = {**asdict(replay), "status": "pass" if replay.passed else "fail"}
    *tables, last = document.tables
    last = replace(last, notes=(*last.notes, replay.text))
    case = Case("replay", report.path, None if replay.passed else replay.text)
    return (
        replace(
            document,
            tables=(*tables, last),
            data={**document.data, "replay": said},
            cases=(*document.cases, case),
        ),
        replay,
    )


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What is not as it was, of what the last bits of a number depend on."""
    invocation = _section(then, "invocation")
    for versions_then, versions_now in (
        (_section(then, "environment"), now["environment"]),
        (_section(invocation, "versions"), now["invocation"]["versions"]),
    ):
        for name, value in versions_now.items():
            was = versions_then.get(name, _UNSAID.get(name))
            if was != value:
                yield f"{_NAMES.get(name, name)} {_text(value)}, was {_text(was)}"
    if invocation.get("machine") != now["invocation"]["machine"]:
        yield "another machine"
    was, chunk = (_section(data, "problem").get("chunk") for data in (then, now))
    if was != chunk:
        yield f"{_chunk_text(chunk)} examples at a time, was {_chunk_text(was)}"


def _chunk_text(chunk: Any) -> str:
    return "all" if chunk is None else _text(chunk)


def _section(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _compared(
    report: Report, now: Mapping[str, Any], changes: tuple[str, ...], rtol: float | None
) -> Replay:
    comparison = _Comparison(rtol)
    rows_then, rows_now = report.data["results"], now["results"]
    first, identical = None, 0
    for index, (then, row) in enumerate(zip(rows_then, rows_now, strict=False)):
        found = next(comparison.differences(then, row, f"results[{index}]"), None)
        identical += found is None
        if found is not None and first is None:
            first = replace(found, where=f"{found.where}{_name_of(row)}")
    if first is None and len(rows_then) != len(rows_now):
        first = Difference("the number of rows", len(rows_then), len(rows_now))
    kept = [key for key in now if key not in ("results", *_NOT_COMPARED)]
    if first is None:
        others = {key: report.data.get(key) for key in kept}
        first = next(comparison.differences(others, {key: now[key] for key in kept}, ""), None)
    return Replay(
        report=report.path,
        rows=len(rows_now),
        identical=identical,
        numbers=comparison.numbers,
        changes=changes,
        rtol=rtol,
        difference=first,
    )


class _Comparison:
    """Plain values beside each other, and how many numbers were among them."""

    def __init__(self, rtol: float | None) -> None:
        self.rtol = rtol
        self.numbers = 0

    def differences(
        self, then: Any, now: Any, where: str, scale: float = 0.0
    ) -> Iterator[Difference]:
        """All of them in order; ``scale`` is the largest number that stands beside."""
        if isinstance(now, dict) and isinstance(then, dict) and set(now) == set(then):
            beside = _largest(now)
            for key, value in now.items():
                below = 1.0 if _is_relative(key) else beside
                yield from self.differences(then[key], value, _joined(where, key), below)
        elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
            for index, value in enumerate(now):
                yield from self.differences(then[index], value, f"{where}[{index}]", scale)
        elif not self._same(then, now, where, scale):
            yield Difference(where, _short(then), _short(now))

    def _same(self, then: Any, now: Any, where: str, scale: float) -> bool:
        self.numbers += _is_number(now)
        # By its text a number keeps the sign of a zero, and 1 is not 1.0.
        if type(then) is type(now) and repr(then) == repr(now):
            return True
        if self.rtol is None:
            return False
        if where == _CHUNK:
            return True
        if isinstance(now, str | bool) and type(then) is type(now):
            # Which entry is the worst is a matter of rounding, a verdict is not.
            return not where.endswith("status")
        if not (_is_number(then) and _is_number(now)):
            return False
        return bool(abs(then - now) <= self.rtol * max(abs(then), abs(now), scale))


def _largest(values: Mapping[str, Any]) -> float:
    """The largest number in a mapping and its lists, of those that are no parts of a whole."""
    numbers = [0.0]
    for key, value in values.items():
        if not _is_relative(key):
            items = value if isinstance(value, list) else [value]
            numbers += [abs(item) for item in items if isinstance(item, float)]
    return max(numbers)


def _is_relative(key: str) -> bool:
    return not _RELATIVE.isdisjoint(key.split("_"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _joined(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _name_of(row: Any) -> str:
    """What a row is about, for people."""
    keys = ("activation", "initializer", "layer", "node", "term")
    texts = [row[key] for key in keys if isinstance(row.get(key), str)]
    return f" ({', '.join(texts)})" if texts else ""


def _short(value: Any) -> Any:
    """A value as the report on the replay holds it: never the inside of a collection."""
    return shown(value) if isinstance(value, dict | list) else value


def _text(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, str) and value.isprintable() and len(value) <= _SHORT:
        return value
    return shown(value)
