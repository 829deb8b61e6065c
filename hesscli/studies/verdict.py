"""The three verdicts. It runs without NumPy, as ``hesscli doctor`` must."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Verdict(Enum):
    """Whether witnesses agree; UNDECIDED where rounding or error bars are too wide to tell."""

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
