"""A Document as text: table, JSON, CSV, Markdown, JUnit or HTML."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree as ET

from rich.console import Console

from hesscli.report.document import Document
from hesscli.report.page import html_page
from hesscli.report.tables import WIDTH, print_table
from hesscli.system.errors import InputError


def render(document: Document, format_name: str) -> str:
    """The document in one of FORMATS, ending in a newline."""
    return FORMATS[format_name](document)


def format_of(path: str) -> str:
    """The format that a file's suffix stands for; raises InputError for an unknown suffix."""
    suffix = PurePath(path).suffix.lower()
    try:
        return _SUFFIXES[suffix]
    except KeyError:
        known = ", ".join(_SUFFIXES)
        raise InputError(
            f"--output {path}: the suffix {suffix!r} names no format; use {known}, or --format"
        ) from None


def _table(document: Document) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=WIDTH,
        no_color=True,
        force_terminal=False,
        # In a notebook Rich would show it there, and leave the stream empty.
        force_jupyter=False,
    )
    print_table(document, console)
    # Rich pads every line to the full width.
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def _json(document: Document) -> str:
    return json.dumps(_finite(document.data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no infinity; a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _csv(document: Document) -> str:
    rows = [dict(_flat(row)) for row in document.data["results"]]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    # Of what only some rows have, those without it hold null in place of its parts.
    header = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    stream = io.StringIO()
    if header:
        writer = csv.DictWriter(stream, header, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return stream.getvalue()


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested keys joined by dots, as in quadratic_form.residual."""
    pairs: list[tuple[str, Any]] = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            pairs.extend(_flat(inner, f"{prefix}{key}."))
        elif isinstance(inner, list | tuple):
            pairs.append((f"{prefix}{key}", " ".join(str(item) for item in inner)))
        else:
            pairs.append((f"{prefix}{key}", inner))
    return pairs


def _markdown(document: Document) -> str:
    # Two spaces at its end keep a line apart from the next.
    lines = ["  \n".join(document.heading.splitlines())]
    for table in document.tables:
        lines += ["", f"### {table.title}"]
        if table.rows:
            kinds = ("---:" if column.numeric else "---" for column in table.columns)
            head = ([column.title for column in table.columns], kinds)
            lines += ["", *(_markdown_row(row) for row in (*head, *table.rows))]
        for note in table.notes:
            lines += ["", note]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Any) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _junit(document: Document) -> str:
    command = str(document.data["schema"]).split("/")[1]
    root = ET.Element("testsuites", name=f"hesscli {command}")
    suites: dict[str, ET.Element] = {}
    for case in document.cases:
        if case.suite not in suites:
            suites[case.suite] = ET.SubElement(root, "testsuite", name=case.suite)
        element = ET.SubElement(
            suites[case.suite], "testcase", classname=f"hesscli.{command}.{case.suite}"
        )
        element.set("name", case.name)
        if case.failure is not None:
            ET.SubElement(element, "failure", message=case.failure).text = case.failure
    for element in (root, *suites.values()):
        element.set("tests", str(len(list(element.iter("testcase")))))
        element.set("failures", str(len(list(element.iter("failure")))))
        element.set("errors", "0")
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, "unicode")}\n'


FORMATS: Mapping[str, Callable[[Document], str]] = MappingProxyType(
    {
        "table": _table,
        "json": _json,
        "csv": _csv,
        "markdown": _markdown,
        "junit": _junit,
        "html": html_page,
    }
)
_SUFFIXES = {
    ".json": "json",
    ".csv": "csv",
    ".md": "markdown",
    ".xml": "junit",
    ".txt": "table",
    ".html": "html",
    ".htm": "html",
}
