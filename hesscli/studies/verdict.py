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
    """The verdict on several: FAIL if one fails, otherwise UNDECIDED if one is undecided."""
    found = set(verdicts)
    return next(v for v in (Verdict.FAIL, Verdict.UNDECIDED, Verdict.PASS) if v in found)


class HasVerdict(Protocol):
    @property
    def verdict(self) -> Verdict: ...


class HasResults(Protocol):
    @property
    def results(self) -> Sequence[HasVerdict]: ...


class Judged:
    """The base of everything that has a verdict."""

    @property
    def passed(self: HasVerdict) -> bool:
        return self.verdict is Verdict.PASS


class JudgedRows(Judged):
    """The base of a study's result; its verdict is that of all its rows, the ``results``."""

    @property
    def verdict(self: HasResults) -> Verdict:
        return joint(row.verdict for row in self.results)
