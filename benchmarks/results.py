"""What a benchmark found, and its JSON: plain data, so that any Python can read it.

Schema ``hesscli/benchmark/1``: times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = "hesscli/benchmark/1"
RESULTS = Path(__file__).parent / "results"

# What tells two measurements of a benchmark apart, as in {"batch": 512, "block": "dense1/kernel"}.
Case = Mapping[str, int | str]


@dataclass(frozen=True)
class Measurement:
    """The times of one thing by one program in one case.

    ``seconds`` holds every run after the warm-up, each the mean of ``number`` calls; ``first``
    is the warm-up; ``processor`` is the processor time of each run, of all threads together.
    ``peak_bytes`` is the peak memory of the process that measured it, and of
    what else that process measured. ``numbers`` are further figures, named where they are made.
    """

    subject: str
    what: str
    case: Case
    seconds: tuple[float, ...]
    number: int = 1
    first: float | None = None
    peak_bytes: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    processor: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Agreement:
    """``compared`` numbers of a peer lie within ``rtol`` of ours.

    ``relative`` is the largest difference in units of our largest number.
    """

    subject: str
    what: str
    case: Case
    compared: int
    relative: float
    rtol: float


@dataclass(frozen=True)
class Missing:
    """What was not measured, and why."""

    subject: str
    what: str
    case: Case
    reason: str


@dataclass(frozen=True)
class Conditions:
    """Under which everything in one record was measured."""

    machine: Mapping[str, str | int]
    threads: int
    dtype: str
    network: str
    runs: int
    date: str
    versions: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Record:
    """One benchmark's outcome."""

    benchmark: str
    conditions: Conditions
    measurements: tuple[Measurement, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    missing: tuple[Missing, ...] = ()

    def find(self, subject: str, what: str, **case: int | str) -> Measurement | None:
        """The measurement of ``what`` by ``subject`` in ``case``; None where there is none."""
        for measurement in self.measurements:
            if (measurement.subject, measurement.what) == (subject, what) and dict(
                measurement.case
            ) == case:
                return measurement
        return None

    def cases(self, key: str) -> list[int | str]:
        """The values of ``key`` that were measured, each once, in their order."""
        return list(dict.fromkeys(m.case[key] for m in self.measurements if key in m.case))


def ratio(ours: Measurement | None, peer: Measurement | None) -> float | None:
    """Our median by the peer's; None where one of them was not measured."""
    return None if ours is None or peer is None else ours.median / peer.median


def processor_ratio(ours: Measurement | None, peer: Measurement | None) -> float | None:
    """The same of processor time, which other programs on the machine hardly disturb."""
    if ours is None or peer is None or not (ours.processor and peer.processor):
        return None
    return statistics.median(ours.processor) / statistics.median(peer.processor)


def to_json(record: Record) -> str:
    return json.dumps({"schema": SCHEMA, **asdict(record)}, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Record:
    """The Record of ``text``; raises ValueError where it is of another schema."""
    data: dict[str, Any] = json.loads(text)
    if data.get("schema") != SCHEMA:
        raise ValueError(f"schema is {data.get('schema')!r}; it must be {SCHEMA!r}")
    return Record(
        benchmark=data["benchmark"],
        conditions=Conditions(**data["conditions"]),
        measurements=tuple(
            Measurement(
                **{
                    **item,
                    "seconds": tuple(item["seconds"]),
                    "processor": tuple(item.get("processor", ())),
                }
            )
            for item in data["measurements"]
        ),
        agreements=tuple(Agreement(**item) for item in data["agreements"]),
        missing=tuple(Missing(**item) for item in data["missing"]),
    )


def read_records(names: Sequence[str], folder: Path = RESULTS) -> list[Record]:
    """The stored records called ``names``, those that there are."""
    paths = [folder / f"{name}.json" for name in names]
    return [from_json(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
