"""``hesscli doctor``: what it finds, and that what is missing or broken is said, not a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from hesscli.cli.main import _run
from hesscli.studies import doctor
from hesscli.studies.doctor import Diagnosis, diagnose

WITHOUT = ("doctor", "--no-tensorflow")


def values(diagnosis: Diagnosis, section: str) -> dict[str, str]:
    return {fact.name: fact.value for fact in diagnosis.facts if fact.section == section}


def wrong(diagnosis: Diagnosis) -> dict[str, str]:
    return {fact.name: fact.trouble for fact in diagnosis.facts if fact.trouble}


@pytest.fixture
def tensorflow_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a module before the real TensorFlow that runs a line of Python."""

    def write(line: str) -> None:
        (tmp_path / "tensorflow.py").write_text(line)
        monkeypatch.syspath_prepend(tmp_path)

    return write


def test_versions_devices_and_data_are_those_that_there_are() -> None:
    found = diagnose()
    assert found.passed
    versions = values(found, "versions")
    for package in ("numpy", "scipy", "click", "rich"):
        assert versions[package] == version(package)
    # TensorFlow says its own version, which pip's need not be.
    assert versions["tensorflow"].split("-")[0] == version("tensorflow").split("-")[0]
    assert sys.executable in versions["python"]
    assert "CPU:0" in values(found, "machine")["devices"]
    path = values(found, "data")["embedded"].partition("5,000 images in ")[2]
    assert os.path.isfile(path)
    assert values(found, "configuration")["model"].startswith("784-30-30-10, relu, relu, linear")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("raise ImportError('no libcudart')", "cannot be imported (ImportError: no libcudart)"),
        ("import os; os.kill(os.getpid(), 4)", "ends the process with SIGILL"),
        ("import os; os._exit(0)", "gave no answer"),
        ("import time; time.sleep(60)", "not imported within 1 seconds"),
    ],
)
def test_a_tensorflow_that_cannot_be_used_is_reported(
    tensorflow_that: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    said: str,
) -> None:
    if "sleep" in line:
        monkeypatch.setattr(doctor, "_PATIENCE", 1)
    tensorflow_that(line)
    found = diagnose()
    assert list(wrong(found)) == ["tensorflow"]
    assert said in wrong(found)["tensorflow"]


def test_a_missing_tensorflow_fails_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "installed_tensorflow", lambda: None)
    monkeypatch.setattr(doctor, "_is_missing", lambda module: module == "tensorflow")
    assert _run(("doctor",)) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert "FAIL: tensorflow: " in out
    assert "pip install tensorflow" in " ".join(out.split())


def test_damaged_data_fails_and_an_absent_cache_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hesscli.problem import data

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert diagnose(tensorflow=False).passed
    assert "would download it" in values(diagnose(tensorflow=False), "data")["keras"]
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mnist.npz").write_bytes(b"PK")
    assert "delete the file" in values(diagnose(tensorflow=False), "data")["keras"]
    (tmp_path / "cut.npz").write_bytes(data._EMBEDDED_FILE.read_bytes()[:5000])
    monkeypatch.setattr(data, "_EMBEDDED_FILE", tmp_path / "cut.npz")
    found = diagnose(tensorflow=False)
    assert list(wrong(found)) == ["embedded"]
    assert not found.passed


def test_without_numpy_it_says_so() -> None:
    """It must run where the package it is asked about is missing."""
    program = (
        "import sys\n"
        "sys.modules['numpy'] = None\n"
        "from hesscli.cli.main import main\n"
        "main(['doctor', '--no-tensorflow', '--format', 'json'])\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (1, "")
    rows = {row["name"]: row["trouble"] for row in json.loads(ended.stdout)["results"]}
    assert "pip install numpy" in rows["numpy"]


@pytest.mark.parametrize("format_name", ["table", "json", "csv", "markdown", "junit", "html"])
def test_every_format_has_it(format_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run((*WITHOUT, "--format", format_name)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "numpy" in out
    if format_name == "table":
        assert max(map(len, out.splitlines())) <= 80
    if format_name == "json":
        document = json.loads(out)
        assert (document["schema"], document["status"]) == ("hesscli/doctor/1", "pass")


def test_a_terminal_is_told_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run((*WITHOUT, "-f", "json")) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    terminal = {row["name"]: row["found"] for row in rows if row["section"] == "terminal"}
    assert terminal["standard output"] == "no terminal"
    assert "encoding" in terminal
