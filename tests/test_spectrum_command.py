"""``hesscli spectrum``: what it prints and writes, what it refuses, and what it leaves alone."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from commands import run as run_command
from networks import make_problem

from hesscli.problem.problemfile import save_problem
from hesscli.report.formats import render
from hesscli.report.spectrum import density_bars, spectrum_document
from hesscli.studies.spectra.measures import Density, density_edges, histogram
from hesscli.studies.spectra.subject import SpectrumOptions
from hesscli.studies.spectrum import spectrum

SMALL = (
    "--set", "model.inputs=4",
    "--set", "model.layers=[{name: one, units: 3, activation: tanh}, {name: two, units: 2}]",
    "--set", "data.inputs=[[1, 2, 3, 4], [0, 1, 0, -1]]",
    "--set", "data.targets=[0, 1]",
)  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    return replay(capsys, *arguments, command="spectrum")


def replay(
    capsys: pytest.CaptureFixture[str], *arguments: str, command: str = "replay"
) -> tuple[int, str, str]:
    return run_command([command, *arguments], capsys)


def rows_of(text: str) -> Any:
    return json.loads(text)["results"]


@pytest.mark.parametrize("block", ["kernel", "bias", "layer", "network"])
def test_the_table_fits_eighty_columns(capsys: pytest.CaptureFixture[str], block: str) -> None:
    code, out, err = run(capsys, *SMALL, "--block", block, "--top", "2")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert "λ of H" in out


def test_a_table_of_estimates_fits_eighty_columns_and_marks_them() -> None:
    problem = make_problem((30, 20, 10), "tanh", examples=20)
    for block in ("kernel", "network"):
        result = spectrum([problem], SpectrumOptions(block=block, exact_limit=1, probes=2, steps=9))
        out = render(spectrum_document(result), "table")
        assert max(map(len, out.splitlines())) <= 80
        assert "±" in out
        assert "…" not in out
        assert "2 probes of 9 steps" in " ".join(out.split())


def test_json_holds_every_number_with_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, *SMALL, "--format", "json")
    document = json.loads(out)
    assert document["schema"] == "hesscli/spectrum/1"
    assert document["status"] == "pass"
    row = document["results"][0]
    assert (row["layer"], row["block"], row["size"], row["span"]) == ("one", "kernel", 12, 6)
    assert row["hessian"]["trace"]["error"] is None
    first = document["spectra"][0]
    assert len(first["eigenvalues"]) == 6
    assert sum(first["density"]["counts"]) == 12
    assert sum(first["eigenvalues"]) == pytest.approx(row["hessian"]["trace"]["value"])


def test_estimates_in_json_have_errors() -> None:
    options = SpectrumOptions(exact_limit=1, probes=3, steps=5)
    document = spectrum_document(spectrum([make_problem((6, 5, 3), "tanh")], options))
    row = rows_of(render(document, "json"))[0]
    assert row["exact"] is False
    assert row["hessian"]["rank"]["error"] >= 0
    assert row["hessian"]["largest"]["error"] >= 0
    assert row["hessian"]["trace"]["error"] is None


def test_csv_has_a_line_for_each_block_and_activation(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, *SMALL, "-a", "relu", "-a", "tanh", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [(line["activation"], line["layer"]) for line in lines] == [
        ("relu", "one"), ("relu", "two"), ("tanh", "one"), ("tanh", "two"),
    ]  # fmt: skip
    assert all(float(line["hessian.frobenius_norm.value"]) >= 0 for line in lines)


def test_junit_has_a_case_for_each_block(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, *SMALL, "--format", "junit")
    names = [case.get("name") for case in ET.fromstring(out).iter("testcase")]
    assert names == ["one/kernel", "two/kernel"]


# 40 · 24 and 10 · 24 eigenvalues: more than a decomposition is worth for one of them, and fewer.
MIXED = (
    "--set", "model.layers=[{name: one, units: 24, activation: tanh}, {name: two, units: 10}]",
    "--batch-size", "40",
)  # fmt: skip
LITTLE = ("--probes", "2", "--steps", "5")


def test_pairs_alone_are_the_table_and_what_was_not_computed_is_null(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run(capsys, *MIXED, "--layer", "one", "--top", "2")
    assert (code, err) == (0, "")
    assert "λ of H" in out
    assert "eff. rank" not in out
    assert "--density" in out
    _, out, _ = run(capsys, *MIXED, "--layer", "one", "--top", "2", "--format", "json")
    document = json.loads(out)
    (row,) = document["results"]
    assert document["invocation"]["options"]["density"] is False
    assert row["hessian"]["rank"] == row["curvature"]["spectral_norm"]
    assert row["hessian"]["rank"] == {"value": None, "error": None}
    assert row["hessian"]["outliers"] is None
    assert row["hessian"]["tolerance"] is None
    assert row["hessian"]["spectral_norm"]["value"] == pytest.approx(
        abs(row["hessian"]["top"]["eigenvalues"][0])
    )
    assert [part["density"] for part in document["spectra"]] == [None, None]


def test_a_block_that_is_small_has_all_its_numbers_beside_one_that_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, *MIXED, "--top", "1")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    one, two = (
        next(line for line in out.splitlines() if line.split()[:2] == [name, "H"])
        for name in ("one", "two")
    )
    assert one.split()[2] == "–"
    assert int(two.split()[2]) > 0
    _, out, _ = run(capsys, *MIXED, "--top", "1", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [line["hessian.rank.value"] == "" for line in lines] == [True, False]


def test_density_adds_what_pairs_alone_leave_out(capsys: pytest.CaptureFixture[str]) -> None:
    asked = (*MIXED, "--layer", "one", "--top", "2", *LITTLE)
    code, out, _ = run(capsys, *asked, "--density")
    assert code == 0
    assert "eff. rank" in out
    assert "--density" not in out


def test_a_plot_has_the_density_computed_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    plot, report = str(tmp_path / "density.png"), str(tmp_path / "report.json")
    # Whichever comes first.
    for given in (("--plot", plot, "--top", "1"), ("--top", "1", "--plot", plot)):
        code, _, err = run(
            capsys, *MIXED, "--layer", "one", *LITTLE, *given, "-q", "--output", report
        )
        assert (code, err) == (0, "")
        document = json.loads(Path(report).read_text())
        assert document["invocation"]["options"]["density"] is True
        assert document["results"][0]["hessian"]["rank"]["value"] is not None
    code, out, _ = replay(capsys, report)
    assert code == 0
    assert "eff. rank" in out


def test_a_report_of_pairs_alone_is_replayed_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    report = str(tmp_path / "report.json")
    run(capsys, *MIXED, "--layer", "one", "--top", "1", "-q", "--output", report)
    code, out, _ = replay(capsys, report)
    assert (code, "eff. rank" in out) == (0, False)
    html = tmp_path / "report.html"
    assert replay(capsys, report, "-q", "--output", str(html))[0] == 0
    assert "<svg" not in html.read_text()


def test_a_failure_of_pairs_alone_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hesscli.studies.spectra.ends.RESIDUAL_SLACK", 0.0)
    code, out, _ = run(capsys, *MIXED, "--layer", "one", "--top", "1")
    assert code == 1
    assert "FAIL one: an eigenpair of Lanczos" in " ".join(out.split())


def test_a_failed_check_is_told_and_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = np.linalg.eigvalsh
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda K: right(K) * 1.01)
    code, out, _ = run(capsys, *SMALL)
    assert code == 1
    assert "FAIL one: the sum of the eigenvalues is not the trace" in " ".join(out.split())


def test_eigenvectors_are_written_with_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vectors.npz"
    code, out, _ = run(
        capsys, *SMALL, "--top", "2", "--eigenvectors", str(path), "--format", "json"
    )
    assert code == 0
    with np.load(path) as arrays:
        assert len(arrays.files) == 2 * 2 * 3
        name = "tanh/one/kernel/hessian"
        assert arrays[f"{name}/eigenvectors"].shape == (12, 2)
        top = rows_of(out)[0]["hessian"]["top"]
        assert arrays[f"{name}/eigenvalues"].tolist() == top["eigenvalues"]
        assert arrays[f"{name}/residuals"].tolist() == top["residuals"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--top", "0"), "--top"),
        (("--top", "13"), "--top 13: one/kernel has 6 eigenvalues to choose from; use --top 6"),
        (("--probes", "0"), "--probes"),
        (("--probes", "1"), "--probes"),
        (("--steps", "0"), "--steps"),
        (("--probe-seed", "-1"), "--probe-seed"),
        (("--layer", "three"), "--layer: 'three' is unknown; choose one, two"),
        (("--block", "input"), "--block"),
        (("--block", "network", "--layer", "one"), "--layer"),
        (("--block", "bias", "--set", "model.bias=false"), "--block bias"),
        (("--eigenvectors", "v.npz"), "--eigenvectors: there are none without --top"),
        (("--top", "2", "--eigenvectors", "v.txt"), "the suffix must be .npz"),
        (("--top", "2", "--eigenvectors", "no/such/v.npz"), "no/such/v.npz: cannot be written"),
        (("--plot", "spectrum.gif"), "--plot spectrum.gif"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *SMALL, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_tensorflow_is_never_imported() -> None:
    program = (
        "import sys\n"
        "from hesscli.cli.main import cli\n"
        f"cli.main(['spectrum', *{SMALL!r}, '--top', '1'], standalone_mode=False)\n"
        "assert 'numpy' in sys.modules\n"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_a_saved_problem_has_the_spectrum_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "problem.npz")
    problem = make_problem((4, 3, 2), "tanh")
    save_problem(problem, path)
    _, out, _ = run(
        capsys, *SMALL[:4], "--set", f"model.weights={path}", "--set", f"data.source={path}",
        "--set", "model.layers=[{name: dense1, units: 3, activation: tanh}, "
        "{name: dense2, units: 2}]", "--format", "json",
    )  # fmt: skip
    (expected, _) = spectrum([problem], SpectrumOptions()).results
    found = rows_of(out)[0]["hessian"]["largest"]["value"]
    assert found == pytest.approx(expected.hessian.largest.value)


def bars_of(eigenvalues: list[float], tolerance: float) -> str:
    edges = density_edges(1.0, tolerance)
    return density_bars(Density(edges, histogram(np.array(eigenvalues), edges), None))


def test_the_bars_have_zero_in_the_middle() -> None:
    # Three powers of ten are told apart here, and six are shown.
    bars = bars_of([-0.5] * 9 + [0.0] * 99 + [0.005], 1e-3)
    assert len(bars) == 13
    assert [place for place, sign in enumerate(bars) if sign != " "] == [0, 6, 10]
    assert bars[6] == "█"
    assert bars[0] > bars[10]


def test_the_bars_count_what_is_near_zero_as_zero() -> None:
    bars = bars_of([-1.0, -3e-7, 3e-8, 3e-6, 0.5], 1e-12)
    assert [place for place, sign in enumerate(bars) if sign != " "] == [0, 6, 7, 12]


def test_every_panel_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    problem = make_problem((30, 20, 10), "tanh", examples=20)
    for limit in (1000, 1):
        options = SpectrumOptions(exact_limit=limit, probes=2, steps=20)
        result = spectrum([problem], options)
        (drawing,) = spectrum_document(result).drawings
        assert "tanh" in drawing.title
        figure = Figure()
        drawing.draw(figure)
        assert len(figure.axes) == 2
        for axis, row in zip(figure.axes, result.results, strict=True):
            assert axis.get_xscale() == "symlog"
            assert row.parameter in axis.get_title()
            # What is drawn are the counts of the Hessian.
            drawn = axis.patches[0].get_data().values
            assert np.array_equal(drawn, row.hessian.density.counts)
        figure.savefig(tmp_path / "spectrum.png")


def test_a_hessian_of_zero_can_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "zero.png"
    linear = ("--set", "loss.name=sum", "--set", "model.layers=[{name: one, units: 3}]")
    code, _, err = run(capsys, *SMALL[:2], *SMALL[4:], *linear, "--plot", str(path))
    assert (code, err) == (0, "")
    assert path.stat().st_size > 0
