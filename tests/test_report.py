"""Reports: the contract of every format, on results made by hand."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from hesscli.problem.names import DEFAULT_WITNESSES
from hesscli.report.comparison import comparison_document
from hesscli.report.document import Column, Document, Table
from hesscli.report.formats import format_of, render
from hesscli.report.output import write_document
from hesscli.report.verification import verification_document
from hesscli.studies.comparison import ComparedBlock, Comparison, SplitForm
from hesscli.studies.context import Environment, ProblemSummary
from hesscli.studies.judge import Check
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import (
    Terms,
    Verification,
    VerifiedBlock,
    VerifiedForm,
    WitnessPair,
)
from hesscli.system.errors import InputError

LAYERS = ("dense1", "dense2", "dense3")
ENVIRONMENT = Environment("0.1", "2.20.0", "2.1.0", "1.15.0", "float64", 2)
PROBLEM = ProblemSummary(32, (784, 30, 30, 10), LAYERS, 24790, "some_loss", "mean", 7)
WORST = ("dense1/kernel[3,4]", "dense1/kernel[500,6]")
WORST_IS = (
    f"∂²L/∂{WORST[0]} ∂{WORST[1]}: residual 5.0e-01, 2.5e-01 of the largest entry; allowed is 1e-10"
)


def entries(residual: float, largest: float = 2.0, floor: float = 0.0) -> Check:
    """A check of all 100 entries with rtol 1e-10."""
    passed = residual <= 1e-10 * largest + floor
    return Check("entries", 100, residual, largest, 1e-10, floor, WORST, Verdict.of(passed))


def form(residual: float) -> Check:
    return Check("form", 1, residual, 2.0, 1e-10, 0.0, None, Verdict.of(residual <= 2e-10))


GOOD, BAD, ROUNDED = entries(0.0), entries(0.5), entries(3e-9, floor=4e-9)
NOT_FINITE = entries(0.5, largest=0.0)
FORM = VerifiedForm(
    autodiff=3.0,
    chain_rule=2.5,
    finite=None,
    finite_error=None,
    gauss_newton=-1.5,
    curvature=1.0,
    residual=0.5,
)
SPLIT = SplitForm(hessian=-2.0, gauss_newton=1.0, curvature=-3.0)
ROW = {"activation": "tanh", "layer": "dense1", "block": "kernel", "size": 900}


def verified(*checks: Check, activation: str = "tanh") -> list[VerifiedBlock]:
    """Rows of as many layers as there are checks."""
    return [
        VerifiedBlock(
            activation,
            name,
            "kernel",
            900,
            FORM,
            (WitnessPair("chain_rule", "autodiff", form(0.0), check),),
        )
        for name, check in zip(LAYERS, checks, strict=False)
    ]


def verification(*rows: VerifiedBlock, terms: Terms = "hessian") -> Document:
    return verification_document(
        Verification(ENVIRONMENT, PROBLEM, terms, "kernel", "entries", DEFAULT_WITNESSES, 0, rows)
    )


def compared(
    whole: Check, alone: Check, layer: str = "dense1", split: SplitForm = SPLIT, third: float = 0.0
) -> ComparedBlock:
    autodiff = SplitForm(split.hessian / 2, split.gauss_newton, split.curvature + 1)
    forms = (form(0.0), form(0.0), form(third))
    return ComparedBlock("tanh", layer, "kernel", 900, autodiff, split, forms, whole, alone)


def comparison(*rows: ComparedBlock) -> Document:
    return comparison_document(Comparison(ENVIRONMENT, PROBLEM, "kernel", "entries", 0, rows))


def parsed(document: Document) -> Any:
    """The JSON form, by a reader that takes nothing beyond the standard."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(render(document, "json"), parse_constant=refuse)


def test_verify_follows_the_published_schema() -> None:
    document = parsed(verification(*verified(BAD, GOOD)))
    first, second = document.pop("results")
    of_form = first.pop("form_check")
    assert (of_form["method"], of_form["max_abs_residual"], of_form["worst_entry"]) == (
        "form",
        0.0,
        None,
    )
    versions = {"hesscli": "0.1", "tensorflow": "2.20.0", "numpy": "2.1.0", "scipy": "1.15.0"}
    size = {"examples": 32, "widths": [784, 30, 30, 10], "parameters": 24790, "seed": 7}
    assert document == {
        "schema": "hesscli/verify/1",
        "status": "fail",
        "terms": "hessian",
        "witnesses": ["chain_rule", "autodiff"],
        "probe_seed": 0,
        "environment": {
            **versions,
            "dtype": "float64",
            "threads": 2,
            "workers": 1,
            "device": "cpu",
        },
        "problem": {
            **size,
            "layers": list(LAYERS),
            "loss": "some_loss",
            "reduction": "mean",
            "notes": [],
            "weights": None,
            "chunk": None,
            "inputs": "",
            "losses": [],
            "largest_input": None,
            "kinds": {},
            "output": None,
        },
    }
    terms = {"autodiff": 3.0, "chain_rule": 2.5, "gauss_newton": -1.5, "curvature": 1.0}
    judged = {"max_abs_residual": 0.5, "max_abs_entry": 2.0, "relative_residual": 0.25}
    rounding = {"rounding_floor": 0.0, "limited_by_rounding": False, "worst_entry": list(WORST)}
    assert first == {
        **ROW,
        "quadratic_form": {
            **terms,
            "finite": None,
            "finite_error": None,
            "residual": 0.5,
            "relative_residual": 0.2,
        },
        "finite_check": None,
        "check": {
            "method": "entries",
            "compared": 100,
            "confidence": None,
            "rtol": 1e-10,
            **judged,
            **rounding,
        },
        "convicted": None,
        "referee": None,
        "status": "fail",
    }
    assert (second["layer"], second["status"]) == ("dense2", "pass")


def test_compare_follows_the_published_schema() -> None:
    document = parsed(comparison(compared(GOOD, BAD)))
    (row,) = document["results"]
    assert (document["schema"], document["status"]) == ("hesscli/compare/1", "pass")
    keys = {"schema", "status", "environment", "problem", "probe_seed", "results"}
    assert set(document) == keys
    alone, whole = row.pop("gauss_newton_alone"), row.pop("chain_rule")
    assert row == {
        **ROW,
        "quadratic_form": {
            "hessian": {"autodiff": -1.0, "chain_rule": -2.0},
            "gauss_newton": {"autodiff": 1.0, "chain_rule": 1.0},
            "curvature": {"autodiff": -2.0, "chain_rule": -3.0},
        },
        "gauss_newton_share": 0.25,
        "status": "pass",
    }
    assert (alone["status"], alone["check"]["relative_residual"]) == ("fail", 0.25)
    assert (whole["status"], whole["check"]["relative_residual"]) == ("pass", 0.0)
    failing = parsed(comparison(compared(GOOD, GOOD, third=0.5)))
    assert failing["status"] == failing["results"][0]["chain_rule"]["status"] == "fail"


def test_what_is_not_finite_or_not_defined_is_null_in_strict_json() -> None:
    (row,) = parsed(verification(*verified(NOT_FINITE)))["results"]
    assert (row["check"]["relative_residual"], row["check"]["max_abs_residual"]) == (None, 0.5)
    (row,) = parsed(comparison(compared(GOOD, GOOD, split=SplitForm(0.0, 0.0, 0.0))))["results"]
    assert row["gauss_newton_share"] is None


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


TWO = verification(*verified(BAD, GOOD, ROUNDED), *verified(NOT_FINITE, activation="sin"))
SPLITS = comparison(compared(BAD, BAD), compared(GOOD, BAD, split=SplitForm(1 / 3, 2e-300, 0.0)))


@pytest.mark.parametrize(
    ("document", "dotted"),
    [(TWO, "quadratic_form.residual"), (SPLITS, "quadratic_form.hessian.autodiff")],
    ids=["verify", "compare"],
)
def test_csv_is_a_header_and_a_row_of_the_same_numbers_for_each_result(
    document: Document, dotted: str
) -> None:
    header, *rows = csv.reader(io.StringIO(render(document, "csv")))
    results = [dict(leaves(result)) for result in document.data["results"]]
    assert all(header == list(result) for result in results)
    assert {"activation", "layer", dotted, "status"} <= set(header)
    for row, result in zip(rows, results, strict=True):
        for text, value in zip(row, result.values(), strict=True):
            if isinstance(value, float):
                assert float(text) == value
            else:
                plain = "" if value is None else str(value)
                assert text == (" ".join(value) if isinstance(value, list) else plain)


def cells(line: str) -> list[str]:
    assert line.startswith("| ") and line.endswith(" |")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.mark.parametrize("document", [TWO, SPLITS], ids=["verify", "compare"])
def test_markdown_tables_are_rectangles_of_the_tables_cells(document: Document) -> None:
    text = render(document, "markdown")
    # Two blanks at its end break a line.
    assert text.startswith("  \n".join(document.heading.splitlines()) + "\n")
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    for table, (titles, rule, *rows) in zip(document.tables, blocks, strict=True):
        assert f"### {table.title}\n" in text
        assert cells(titles) == [column.title for column in table.columns]
        assert cells(rule) == ["---:" if column.numeric else "---" for column in table.columns]
        assert [tuple(cells(row)) for row in rows] == list(table.rows)
        assert all(f"\n{note}\n" in text for note in table.notes)


def test_markdown_escapes_pipes() -> None:
    table = Table("title", (Column("|G|"), Column("b")), (("x|y", "|"),))
    *_, titles, _, row = render(Document("h", (table,), {}), "markdown").splitlines()
    assert (cells(titles), cells(row)) == (["|G|", "b"], ["x|y", "|"])


def test_junit_counts_and_names_what_failed() -> None:
    root = ET.fromstring(render(TWO, "junit").encode("utf-8"))
    tanh, sin = root
    assert [
        (element.get("name"), element.get("tests"), element.get("failures"), element.get("errors"))
        for element in (root, tanh, sin)
    ] == [("hesscli verify", "4", "2", "0"), ("tanh", "3", "1", "0"), ("sin", "1", "1", "0")]
    assert [case.get("name") for case in tanh] == [f"{name}/kernel" for name in LAYERS]
    assert {case.get("classname") for case in tanh} == {"hesscli.verify.tanh"}
    assert [len(case) for case in tanh] == [1, 0, 0]
    assert tanh[0][0].get("message") == tanh[0][0].text == WORST_IS


def on_one_line(document: Document) -> str:
    return " ".join(render(document, "table").split())


def test_a_failure_names_the_layers_the_worst_entry_and_by_how_much() -> None:
    alone = verification(*verified(GOOD, entries(0.25), BAD), terms="gauss-newton")
    assert (
        "tanh: FAIL on dense2 and dense3, PASS on dense1: the Gauss–Newton term alone is not "
        f"autodiff's Hessian. Worst is {WORST_IS}."
    ) in on_one_line(alone)
    rows = re.findall(r"^ (dense\d) .* (PASS|FAIL)$", render(alone, "table"), re.MULTILINE)
    assert rows == [("dense1", "PASS"), ("dense2", "FAIL"), ("dense3", "FAIL")]
    assert "tanh: PASS on dense1: the chain rule is" in on_one_line(verification(*verified(GOOD)))
    split = on_one_line(comparison(compared(GOOD, BAD), compared(BAD, GOOD, "dense2")))
    assert "tanh: Gauss–Newton alone misses dense1; the chain rule fails on dense2: " in split
    assert f"{WORST_IS}." in split


def test_a_dagger_marks_what_passes_by_rounding_only() -> None:
    def both(check: Check) -> tuple[Document, Document]:
        second = compared(check, BAD, "dense2")
        return verification(*verified(GOOD, check)), comparison(compared(GOOD, BAD), second)

    for document in both(ROUNDED):
        table = render(document, "table")
        assert re.findall(r"(dense\d) .*PASS†$", table, re.MULTILINE) == ["dense2"]
        assert (
            "† dense2: the residual 3.0e-09 is rounding: the subtractions in this layer leave "
            "an uncertainty of 4.0e-09, next to a largest entry of 2.0e+00."
        ) in on_one_line(document)
    for document in (*both(GOOD), *both(BAD)):
        assert "†" not in render(document, "table")


NUMBERS = {"-1.25000e-08", "-2.50000e-08", "1.25000e-09", "-3.00000e-08"}


@pytest.mark.parametrize("layer", ["dense1", "dense10"])
def test_a_table_of_long_numbers_fits_80_columns_and_breaks_none(layer: str) -> None:
    document = comparison(compared(ROUNDED, BAD, layer, SplitForm(-2.5e-8, 1.25e-9, -3e-8)))
    text = render(document, "table")
    assert max(map(len, text.splitlines())) <= 80
    assert set(text.split()) >= NUMBERS


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", ["", "1"])
@pytest.mark.parametrize("columns", [40, 60, 80, 140, None])
def test_no_width_breaks_a_number_or_a_name(
    columns: int | None, no_color: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table too wide is turned on its side; in a pipe (None) it is as wide as it has to be."""
    name = "l" * 20
    stream = io.StringIO() if columns is None else Terminal()
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns or 40))
    monkeypatch.setattr(sys, "stdout", stream)
    document = comparison(compared(ROUNDED, BAD, name, SplitForm(-2.5e-8, 1.25e-9, -3e-8)))
    write_document(document, "table", None)
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert {*NUMBERS, name} <= set(text.split())
    if columns is not None:
        assert max(map(len, text.splitlines())) <= columns


STREAMS = [(io.StringIO(), "", False), (Terminal(), "", True), (Terminal(), "1", False)]


@pytest.mark.parametrize(("stream", "no_color", "escapes"), STREAMS)
def test_only_a_terminal_without_no_color_gets_escape_codes(
    stream: io.StringIO, no_color: str, escapes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys, "stdout", stream)
    write_document(TWO, "table", None)
    assert "FAIL" in stream.getvalue()
    assert ("\x1b" in stream.getvalue()) == escapes


FORMATS = {".json": "json", ".csv": "csv", ".md": "markdown", ".xml": "junit", ".txt": "table"}


@pytest.mark.parametrize(("suffix", "name"), FORMATS.items())
def test_the_suffix_of_a_file_is_its_format(
    suffix: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert format_of(f"a.b{suffix}") == format_of(f"a{suffix.upper()}") == name
    path = tmp_path / f"result{suffix}"
    write_document(TWO, name, str(path))
    assert capsys.readouterr() == ("", "")
    write_document(TWO, name, None)
    assert path.read_text(encoding="utf-8") == capsys.readouterr().out == render(TWO, name)


def test_another_suffix_is_refused_with_the_known_ones() -> None:
    known = r"names no format; use \.json, \.csv, \.md, \.xml, \.txt"
    for path in ("a", "a.yaml", ".json", "json", "a.json "):
        with pytest.raises(InputError, match=known):
            format_of(path)
