"""Faults that hide: each is wrong in one place only, and ``verify`` as it comes sees it."""

from __future__ import annotations

import pytest
from hidden_faults import KINDS, MARKS
from mutants import DOCUMENT, DTYPES

from hesscli.studies.verdict import Verdict


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_in_one_place_alone_is_seen(
    kind: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = KINDS[kind]
    assert fault.verdict(dtype) is Verdict.PASS
    fault.apply(monkeypatch)
    changed = dtype in fault.dtypes
    assert fault.verdict(dtype) is (Verdict.FAIL if changed else Verdict.PASS)


def test_the_page_says_of_every_fault_that_verify_saw_it() -> None:
    marked = DOCUMENT.read_text(encoding="utf-8").partition(f"<!-- {MARKS[0]}:")[2]
    lines = [line.strip("| ").split(" | ") for line in marked.partition("<!-- end")[0].splitlines()]
    assert {cells[0]: cells[-1] for cells in lines[3:]} == dict.fromkeys(KINDS, "FAIL")
