"""A Record as tables: what was measured, what is asked of it, and under which conditions."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.claims import Claim, claims
from benchmarks.results import Case, Measurement, Record
from hesscli.report.document import UNKNOWN, Column, Document, Table
from hesscli.system.memory import readable_size

# What these keys of a case have are words.
_WORDS = ("block", "network", "dtype")


def document(record: Record) -> Document:
    """The tables of one benchmark, for the terminal and for Markdown alike."""
    return Document(
        heading=heading(record), tables=(times_table(record), claims_table(record)), data={}
    )


def heading(record: Record) -> str:
    """One line on the problem and one on the machine."""
    conditions = record.conditions
    machine = conditions.machine
    memory = [readable_size(float(machine["memory_bytes"]))] if "memory_bytes" in machine else []
    parts = [
        str(machine["processor"]),
        f"{machine['cores']} cores",
        *memory,
        f"{conditions.threads} threads",
        *([str(machine["gpu"])] if "gpu" in machine else []),
        conditions.date,
    ]
    about = f"{record.benchmark}: {conditions.network} · {conditions.dtype}"
    return f"{about}\n{' · '.join(parts)}"


def times_table(record: Record) -> Table:
    """Median and range of every measurement, with its process's peak memory."""
    keys = list(dict.fromkeys(key for m in record.measurements for key in m.case))
    of_processor = any(measurement.processor for measurement in record.measurements)
    columns = [
        *(Column(key, numeric=key not in _WORDS) for key in keys),
        Column("who", numeric=False),
        Column("what", numeric=False),
        Column("median"),
        Column("range"),
        *([Column("processor")] if of_processor else []),
        Column("peak"),
    ]
    rows = [
        (
            *(str(measurement.case.get(key, "")) for key in keys),
            measurement.subject,
            measurement.what,
            time_text(measurement.median),
            _range(measurement),
            *([_processor(measurement)] if of_processor else []),
            _size(measurement.peak_bytes),
        )
        for measurement in record.measurements
    ]
    runs = f"medians of {record.conditions.runs} runs after one to warm up"
    return Table(f"Times: {runs}", tuple(columns), tuple(rows), tuple(_notes(record)))


def claims_table(record: Record) -> Table:
    """Every ratio, what is asked of it and whether it is met."""
    return Table(
        "Ratios: ours ÷ theirs, less is better",
        (
            Column("what", numeric=False),
            Column("case", numeric=False),
            Column("measured"),
            Column("asked"),
            Column("met", numeric=False),
        ),
        tuple(_claim_row(claim) for claim in claims(record)),
    )


def time_text(seconds: float) -> str:
    """Three digits in the unit that suits: ``7.52 s``, ``3.60 ms``, ``690 µs``."""
    unit, size = _unit(seconds)
    return f"{_digits(seconds / size)} {unit}"


def value_text(value: float | None, unit: str) -> str:
    """A claim's value or limit in its unit."""
    if value is None:
        return UNKNOWN
    if unit == "B":
        return readable_size(value)
    if unit == "/s":
        return f"{value:,.0f} a second"
    if unit == "s":
        return time_text(value)
    return f"{_digits(value)}×"


def _digits(value: float) -> str:
    """Three significant digits without an exponent."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(0, 3 - whole)}f}"


def _range(measurement: Measurement) -> str:
    unit, size = _unit(measurement.median)
    low, high = min(measurement.seconds), max(measurement.seconds)
    return f"{_digits(low / size)} – {_digits(high / size)} {unit}"


def _processor(measurement: Measurement) -> str:
    found = measurement.processor
    return time_text(statistics.median(found)) if found else UNKNOWN


def _unit(seconds: float) -> tuple[str, float]:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if abs(seconds) >= size:
            return unit, size
    return "µs", 1e-6


def _size(size: int | None) -> str:
    return UNKNOWN if size is None else readable_size(size)


def _claim_row(claim: Claim) -> tuple[str, ...]:
    met = {True: "yes", False: "NO", None: ""}[claim.met]
    limit = "" if claim.limit is None else value_text(claim.limit, claim.unit)
    return (claim.what, claim.case, value_text(claim.value, claim.unit), limit, met)


def _notes(record: Record) -> Iterator[str]:
    for missing in record.missing:
        # A command is called by its own name.
        who = "" if missing.what.startswith(missing.subject) else f"{missing.subject} "
        yield f"Not measured: {who}{missing.what}{_of(missing.case)}: {missing.reason}"
    if record.agreements:
        worst = max(record.agreements, key=lambda agreement: agreement.relative / agreement.rtol)
        numbers = sum(agreement.compared for agreement in record.agreements)
        yield (
            f"Before timing, {numbers:,} numbers were compared with hesscli's; the closest call "
            f"was {worst.subject}'s {worst.what}, {worst.relative:.0e} of the largest number, "
            f"allowed {worst.rtol:.0e}."
        )
    if record.conditions.versions:
        yield "Versions: " + "; ".join(_versions(record))


def _versions(record: Record) -> Iterator[str]:
    for subject, packages in record.conditions.versions.items():
        yield f"{subject}: " + ", ".join(f"{name} {number}" for name, number in packages.items())


def _of(case: Case) -> str:
    return "".join(f", {key} {value}" for key, value in case.items())
