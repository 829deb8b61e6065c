"""The three verdicts. It runs without NumPy, as ``hesscli doctor`` must."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Protocol


class Verdict(Enum):
    """Whether witnesses agree; UNDECIDED if rounding or error bars are too wide to tell."""

    PASS = "pass"
    UNDECIDED = "undecided"
    FAIL = "fail"

    @classmethod
    def of(cls, passed: bool) -> Verdict:
        return cls.PASS if passed else cls.FAIL


def joint(verdicts: Iterable[Verdict]) -> Verdict:
    """That of several: one FAIL is one of all, and nothing else lets what is open pass."""
    found = set(verdicts)
    return next(v for v in (Verdict.FAIL, Verdict.UNDECIDED, Verdict.PASS) if v in found)


class HasVerdict(Protocol):
    @property
    def verdict(self) -> Verdict: ...


class HasResults(Protocol):
    @property
    def results(self) -> Sequence[HasVerdict]: ...


class Judged:
    """What has a verdict."""

    @property
    def passed(self: HasVerdict) -> bool:
        return self.verdict is Verdict.PASS


class JudgedRows(Judged):
    """What a study found, row by row: its verdict is that of all ``results``."""

    @property
    def verdict(self: HasResults) -> Verdict:
        return joint(row.verdict for row in self.results)
