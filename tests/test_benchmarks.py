"""The benchmarks' own arithmetic: medians, ratios, limits, JSON, tables. No peer is needed."""

from __future__ import annotations

import argparse
import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import page
from benchmarks.claims import claims
from benchmarks.measurements import BENCHMARKS
from benchmarks.results import (
    Agreement,
    Conditions,
    Measurement,
    Missing,
    Record,
    from_json,
    ratio,
    read_records,
    to_json,
)
from benchmarks.tables import document, time_text
from benchmarks.worker import DisagreementError, Job, forget_peak, peak_bytes
from hesscli.report.formats import WIDTH, render

CONDITIONS = Conditions(
    machine={"processor": "abacus", "cores": 2, "system": "Linux", "memory_bytes": 8 * 10**9},
    threads=2,
    dtype="float32",
    network="784-30-30-10 tanh",
    runs=5,
    date="2026-01-31",
    versions={"hesscli": {"numpy": "2.0"}},
)


def measurement(subject: str, what: str, seconds: float, **case: int | str) -> Measurement:
    # The median of five runs, one of them far off, is the middle one.
    runs = (seconds, 100 * seconds, 0.9 * seconds, 1.1 * seconds, 0.8 * seconds)
    return Measurement(subject, what, case, runs, 3, 2 * seconds, 900_000_000, {"size": 1.0})


RECORD = Record(
    "product",
    CONDITIONS,
    (
        measurement("hesscli", "product", 0.0005, batch=512),
        measurement("hesscli", "product", 0.004, batch=5000),
        measurement("curvlinops", "product", 0.005, batch=512),
        measurement("curvlinops", "product", 0.02, batch=5000),
    ),
    (Agreement("curvlinops", "dense1/kernel product", {"batch": 512}, 23520, 3e-7, 1e-4),),
    (Missing("PyTorch", "gradient", {"batch": 512}, "no environment"),),
)


def test_a_ratio_is_that_of_the_medians_and_is_held_against_its_limit() -> None:
    found = {(claim.what, claim.case): claim for claim in claims(RECORD)}
    small = found["H·v ÷ curvlinops' H·v", "batch 512"]
    large = found["H·v ÷ curvlinops' H·v", "batch 5000"]
    assert small.value == pytest.approx(0.0005 / 0.005)
    assert small.limit == pytest.approx(1 / 8)
    assert small.met is True
    # 0.004 / 0.02 = 1/5, more than the 1/6 that is asked.
    assert large.value == pytest.approx(1 / 5)
    assert large.met is False


def test_what_was_not_measured_has_no_ratio_and_meets_nothing() -> None:
    found = {(claim.what, claim.case): claim for claim in claims(RECORD)}
    missing = found["H·v ÷ one PyTorch gradient", "batch 512"]
    assert missing.value is None
    assert missing.met is None
    assert ratio(None, RECORD.measurements[0]) is None


def test_linear_time_is_a_ratio_of_one_an_example() -> None:
    sweeps = tuple(measurement("hesscli", "sweep", 1e-5 * n, batch=n) for n in (500, 5000, 60000))
    found = claims(replace(RECORD, benchmark="sweep", measurements=sweeps))
    grown = [claim.value for claim in found if claim.what.startswith("time an example")]
    assert grown == pytest.approx([1, 1])
    assert [claim.limit for claim in found if claim.unit == "B"] == [None, None, 10**9]


def test_memory_is_the_growth_by_weights_and_activations() -> None:
    numbers = {"growth_bytes": 300.0, "network_bytes": 100.0}
    one = replace(
        measurement("hesscli", "product", 1, width=30, block="dense1/kernel"), numbers=numbers
    )
    found = claims(replace(RECORD, benchmark="width", measurements=(one,)))
    assert found[0].value == 3
    assert found[0].met is False


def test_processor_time_has_ratios_of_its_own_where_it_was_measured() -> None:
    case = {"network": "lenet5", "dtype": "float64"}
    ours, peer = (measurement(who, "H·v", 1.0, **case) for who in ("hesscli", "JAX"))
    timed = (replace(ours, processor=(1.0, 3.0, 2.0)), replace(peer, processor=(4.0, 4.0, 40.0)))
    record = replace(RECORD, benchmark="conv", measurements=timed)
    found = {(claim.what, claim.case): claim for claim in claims(record)}
    claim = found["H·v ÷ jax.jvp(jax.grad), processor time", "lenet5, float64"]
    assert claim.value == 0.5
    assert claim.met is True
    assert "2.00 s" in render(document(record), "table")
    untimed = claims(replace(record, measurements=(ours, peer)))
    assert all(claim.value is None for claim in untimed if "processor" in claim.what)
    assert from_json(to_json(record)) == record


def test_json_gives_back_the_record() -> None:
    assert from_json(to_json(RECORD)) == RECORD
    with pytest.raises(ValueError, match="hesscli/benchmark/1"):
        from_json('{"schema": "hesscli/verify/1"}')


def test_the_tables_fit_a_terminal_and_say_what_is_missing() -> None:
    lines = render(document(RECORD), "table").splitlines()
    assert max(map(len, lines)) <= WIDTH
    text = " ".join(" ".join(lines).split())
    assert "Not measured: PyTorch gradient, batch 512: no environment" in text
    assert "500 µs 400 – 50000 µs 900.0 MB" in text
    assert "NO" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7.518, "7.52 s"),
        (0.0036, "3.60 ms"),
        (0.00069, "690 µs"),
        (12.34, "12.3 s"),
        (-2, "-2.00 s"),
    ],
)
def test_times_have_three_digits(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def job(tmp_path: Path, **expected: list[float]) -> Job:
    path = tmp_path / "expected.npz"
    np.savez(path, **{f"dense1/kernel|{name}": np.array(x) for name, x in expected.items()})
    return Job(
        argparse.Namespace(
            problem=None, expected=str(path), block="dense1/kernel", runs=5, option=[]
        )
    )


def test_a_peer_that_agrees_is_noted(tmp_path: Path) -> None:
    task = job(tmp_path, product=[1.0, -2.0])
    task.agree("product", [1.0, -2.0001])
    assert task.agreements[0]["compared"] == 2
    assert task.agreements[0]["relative"] == pytest.approx(5e-5)


@pytest.mark.parametrize(
    "found", [[1.0, -2.001], [1.0, float("nan")], [1.0], [[1.0, -2.0]]], ids=str
)
def test_a_peer_with_other_numbers_is_refused(tmp_path: Path, found: list[float]) -> None:
    with pytest.raises(DisagreementError, match="dense1/kernel product"):
        job(tmp_path, product=[1.0, -2.0]).agree("product", found)


def test_zeros_prove_no_agreement(tmp_path: Path) -> None:
    with pytest.raises(DisagreementError):
        job(tmp_path, product=[0.0, 0.0]).agree("product", [0.0, 0.0])


def test_every_run_is_kept_and_divided_by_what_it_did(tmp_path: Path) -> None:
    task, calls = job(tmp_path), []
    task.measure("nothing", lambda: calls.append(1), per=4)
    timing = task.timings["nothing"]
    assert len(timing["seconds"]) == 5
    # Two calls to warm up, then five runs.
    assert len(calls) == 2 + 5 * timing["number"]
    assert all(0 < seconds < 0.1 for seconds in timing["seconds"])


def test_the_peak_sees_an_array_that_is_gone() -> None:
    # Garbage of other tests that is collected meanwhile would make room for the array.
    gc.collect()
    before = forget_peak()
    np.ones(2 * 10**7, dtype=np.float32).sum()
    assert peak_bytes() - before > 7 * 10**7


def test_the_page_has_a_place_for_every_benchmark_and_shows_what_is_stored() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for name in BENCHMARKS:
        assert f"<!-- {name} -->" in text
        assert "abacus" in page.with_tables(text, replace(RECORD, benchmark=name, measurements=()))
    for record in read_records(tuple(BENCHMARKS)):
        assert page.with_tables(text, record) == text, f"{record.benchmark}: run make bench-docs"


def test_a_page_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="product"):
        page.with_tables("no markers", RECORD)
