"""Two results of the same command, compared field by field."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hesscli.report.document import Case, Document
from hesscli.report.fields import Field, data_of, named, table
from hesscli.studies.verdict import Judged, Verdict
from hesscli.system.errors import shown

# Where a result came from and what was kept of it, not the result.
_NOT_COMPARED = ("environment", "invocation", "replay", "checkpoint")
# The free memory decides it if none is given; a change is reported with the versions.
_CHUNK = "problem.chunk"
# Parts of a whole: the allowed difference is not relative to the numbers next to them.
_RELATIVE = frozenset({"relative", "share", "ratio", "confidence", "accuracy", "rtol"})
_NAMES = {
    "tensorflow": "TensorFlow",
    "numpy": "NumPy",
    "scipy": "SciPy",
    "python": "Python",
    "blas": "BLAS",
}
# The values of what a report does not record.
_UNSAID = {"workers": 1, "device": "cpu"}
# Names and versions are not put in quotation marks.
_SHORT = 30
# More are counted, but neither kept nor shown.
_MOST, _SHOWN = 1000, 20


@dataclass(frozen=True)
class Difference:
    """A number, or another value, that is not the same."""

    where: str
    then: Any
    now: Any


@dataclass(frozen=True)
class Match(Judged):
    """The outcome of comparing two results.

    Of the ``rows`` of the second one ``identical`` are as in the first; ``numbers`` were compared
    in all. ``rtol`` None holds them to the bit; otherwise ``changes`` says why not: what the last
    bits of a number depend on, and is not as it was. ``differences`` are the first ones.
    """

    rows: int
    identical: int
    numbers: int
    changes: tuple[str, ...]
    rtol: float | None
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> Verdict:
        return Verdict.of(not self.differences)

    @property
    def difference(self) -> Difference | None:
        return self.differences[0] if self.differences else None

    def text(self, what: str) -> str:
        """One line for people about ``what`` was compared."""
        same = "identical" if self.rtol is None else f"within {self.rtol:g}"
        how = ", bit for bit" if self.rtol is None else ""
        counted = f"{self.identical} of {self.rows} row{'' if self.rows == 1 else 's'} {same}"
        under = f" ({'; '.join(self.changes)})" if self.changes else ""
        first = self.difference
        if first is None:
            return f"{what}{under}: {counted}, {self.numbers:,} numbers{how}."
        return (
            f"{what}{under}: {counted}. The first that differs: {first.where} "
            f"was {_text(first.then)}, is {_text(first.now)}."
        )


_DIFFERENCE = (
    named("where", "where"),
    Field("then", title="first", text=lambda value: _text(value)),
    Field("now", title="second", text=lambda value: _text(value)),
)
_MATCH = (
    *(Field("rows"), Field("identical"), Field("numbers"), Field("changes"), Field("rtol")),
    Field("difference"),
    Field("status", lambda match: match.verdict),
)


def match_document(match: Match, first: str, second: str) -> Document:
    """The report of ``hesscli diff`` on the results in two files."""
    text = match.text(f"{first} and {second}")
    shown_here = match.differences[:_SHOWN]
    left = len(match.differences) - len(shown_here)
    more = (f"{left} more; --format json or csv holds the first {_MOST:,}.",) if left else ()
    title = "What differs" if match.differences else "Nothing differs between the two results"
    return Document(
        heading=f"{first} · {second}",
        tables=(table(title, _DIFFERENCE, shown_here, (*more, text)),),
        data={
            "schema": "hesscli/diff/1",
            "first": first,
            "second": second,
            **data_of(_MATCH, match),
            "results": [data_of(_DIFFERENCE, found) for found in match.differences],
        },
        cases=(Case("diff", f"{first} {second}", None if match.passed else text),),
    )


def with_match(document: Document, match: Match, report: str) -> Document:
    """The ``document`` of a replay, with the outcome of comparing it with ``report``."""
    text = match.text(f"replayed {report}")
    *tables, last = document.tables
    return replace(
        document,
        tables=(*tables, replace(last, notes=(*last.notes, text))),
        data={**document.data, "replay": {"report": report, **data_of(_MATCH, match)}},
        cases=(*document.cases, Case("replay", report, None if match.passed else text)),
    )


def matched(then: Mapping[str, Any], now: Mapping[str, Any], rtol: float) -> Match:
    """The result ``now`` compared with ``then``, both as their JSON documents hold them.

    Every number must be the same to the bit; if versions, machine, threads or chunks of examples
    are others, the same to ``rtol`` of the largest number that stands next to it.
    """
    changes = tuple(_changes(then, now))
    comparison = _Comparison(rtol if changes else None)
    rows_then, rows_now = then["results"], now["results"]
    found: list[Difference] = []
    identical = 0
    for index, (was, row) in enumerate(zip(rows_then, rows_now, strict=False)):
        new = list(comparison.differences(was, row, f"results[{index}]"))
        identical += not new
        found += [replace(each, where=f"{each.where}{_name_of(row)}") for each in new]
    if len(rows_then) != len(rows_now):
        found.append(Difference("the number of rows", len(rows_then), len(rows_now)))
    kept = [key for key in now if key not in ("results", *_NOT_COMPARED)]
    others = {key: then.get(key) for key in kept}
    found += comparison.differences(others, {key: now[key] for key in kept}, "")
    found += comparison.differences(_files(then), _files(now), "invocation.files")
    return Match(
        rows=len(rows_now),
        identical=identical,
        numbers=comparison.numbers,
        changes=changes,
        rtol=comparison.rtol,
        differences=tuple(found[:_MOST]),
    )


def _files(data: Mapping[str, Any]) -> list[Any]:
    """The key that each file was read for, and its digest."""
    files = _section(data, "invocation").get("files")
    found = files if isinstance(files, list) else []
    return [
        [file.get("key"), file.get("sha256")] if isinstance(file, dict) else file for file in found
    ]


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The changes among the facts that the last bits of a number depend on."""
    before, after = (_section(data, "invocation") for data in (then, now))
    for versions_then, versions_now in (
        (_section(then, "environment"), _section(now, "environment")),
        (_section(before, "versions"), _section(after, "versions")),
    ):
        for name, value in versions_now.items():
            was = versions_then.get(name, _UNSAID.get(name))
            if was != value:
                yield f"{_NAMES.get(name, name)} {_text(value)}, was {_text(was)}"
    if before.get("machine") != after.get("machine"):
        yield "another machine"
    was, chunk = (_section(data, "problem").get("chunk") for data in (then, now))
    if was != chunk:
        yield f"{_chunk_text(chunk)} examples at a time, was {_chunk_text(was)}"


def _chunk_text(chunk: Any) -> str:
    return "all" if chunk is None else _text(chunk)


def _section(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


class _Comparison:
    """Compares plain values, and counts the numbers among them."""

    def __init__(self, rtol: float | None) -> None:
        self.rtol = rtol
        self.numbers = 0

    def differences(
        self, then: Any, now: Any, where: str, scale: float = 0.0
    ) -> Iterator[Difference]:
        """All of them in order; ``scale`` is the largest number next to them."""
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
    """The largest number in a mapping and its lists, without those that are parts of a whole."""
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
    """The names that a row is about, for people."""
    keys = ("activation", "initializer", "layer", "node", "term")
    texts = [row[key] for key in keys if isinstance(row, dict) and isinstance(row.get(key), str)]
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
