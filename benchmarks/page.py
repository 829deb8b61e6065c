"""Writes the stored measurements into docs/performance.md, between its markers.

A benchmark called NAME stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; what has not
been measured keeps what is there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from benchmarks.measurements import BENCHMARKS
from benchmarks.results import Record, read_records
from benchmarks.tables import document
from hesscli.report.formats import render
from hesscli.system.files import replacing

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def with_tables(text: str, record: Record) -> str:
    """``text`` with the record's tables between its markers; ValueError where there are none."""
    name = re.escape(record.benchmark)
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", flags=re.DOTALL)
    tables = render(document(record), "markdown")
    written, count = pattern.subn(lambda found: f"{found[1]}\n{tables}\n{found[2]}", text)
    if count != 1:
        raise ValueError(f"the markers of {record.benchmark} stand {count} times; once is needed")
    return written


def main() -> int:
    """Rewrites the page; 0."""
    text = PAGE.read_text(encoding="utf-8")
    for record in read_records(tuple(BENCHMARKS)):
        text = with_tables(text, record)
    with replacing(str(PAGE)) as stream:
        stream.write(text.encode("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
