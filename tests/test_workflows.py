"""The workflows' commands exist, and the one for users' repositories does what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click
import pytest
import yaml

from hesscli.cli.main import _run, cli

ROOT = Path(__file__).parent.parent
OURS = ROOT / ".github" / "workflows" / "ci.yml"
WEEKLY = ROOT / ".github" / "workflows" / "soak.yml"
THEIRS = ROOT / "docs" / "examples" / "github-workflow.yml"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def workflow(path: Path) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


def commands(path: Path) -> Iterator[list[str]]:
    """Every command line of every step, without redirections."""
    for step in steps(path):
        for line in step.get("run", "").splitlines():
            yield shlex.split(line.partition(" >> ")[0])


@pytest.mark.parametrize("path", [OURS, WEEKLY, THEIRS], ids=["ours", "weekly", "theirs"])
def test_a_workflow_is_one_of_github(path: Path) -> None:
    document = workflow(path)
    # YAML 1.1 reads the key `on` as true.
    assert set(document) - {"concurrency"} == {"name", True, "permissions", "jobs"}
    assert document["permissions"] == {"contents": "read"}
    for job in document["jobs"].values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


@pytest.mark.parametrize("path", [OURS, THEIRS], ids=["ours", "theirs"])
def test_every_command_exists(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A plugin is run where its option is read.
    (tmp_path / "activations").mkdir()
    shutil.copy(ROOT / "docs" / "examples" / "cube.py", tmp_path / "activations")
    monkeypatch.chdir(tmp_path)
    ran: set[str] = set()
    for program, *arguments in commands(path):
        name = os.path.basename(program)
        ran.add(name)
        if name == "make":
            target, *variables = arguments
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
            assert variables == ["PYTHON=python"]
        elif name == "hesscli":
            command, *options = arguments
            with click.Context(cli) as parent:
                cli.commands[command].make_context(command, options, parent)
        else:
            assert name in ("python", "pip", "cd"), program
    assert "hesscli" in ran


def test_ours_tests_the_oldest_and_the_newest_versions_and_lints_and_installs_a_wheel() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (low, beyond) = re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', project)[0]
    jobs = workflow(OURS)["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == [f"3.{low}", f"3.{int(beyond) - 1}"]
    (python,) = (
        step["with"]["python-version"] for step in jobs["oldest"]["steps"] if "with" in step
    )
    assert python == f"3.{low}"
    run = list(commands(OURS))
    assert ["make", "test-oldest", "PYTHON=python"] in run
    assert {line[1] for line in run if line[0] == "make"} >= {"lint", "test", "verify", "wheel"}
    assert any("dist/*.whl" in line for line in run)


def test_new_networks_and_new_bad_input_are_drawn_every_week() -> None:
    soaked, fuzzed = (step["run"] for step in steps(WEEKLY) if "run" in step)
    found = re.fullmatch(
        r"make soak PYTHON=python NETWORKS=(\d+) SEED=\$\(\(GITHUB_RUN_NUMBER \* (\d+)\)\)", soaked
    )
    assert found is not None
    assert found[1] == found[2]
    found = re.fullmatch(
        r'make fuzz PYTHON=python FUZZ="--seed \$\(\(GITHUB_RUN_NUMBER \* (\d+)\)\)"', fuzzed
    )
    assert found is not None
    # There are fewer cases of every kind.
    assert int(found[1]) == 100_000
    for target in ("soak", "fuzz"):
        assert re.search(rf"^{target}:.*developing", MAKEFILE, re.MULTILINE)


# Stands in for the command in a runner's shell: what it is given, and output of its own.
STAND_IN = """\
#!{python}
import json, os, sys
with open("given.jsonl", "a") as file:
    print(json.dumps([os.getcwd(), *sys.argv[1:]]), file=file)
print("printed by", sys.argv[1])
"""


def test_the_users_workflow_reports_in_junit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its hesscli steps as the runner's shell reads them, in a repository with the file they name.

    The commands themselves run in this process: each alone would import TensorFlow again.
    """
    program = tmp_path / "bin" / "hesscli"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    for step in steps(THEIRS):
        if step.get("run", "").startswith("hesscli "):
            shell = ["bash", "-e", "-c", step["run"]]
            assert subprocess.run(shell, cwd=tmp_path, env=environment).returncode == 0
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == "printed by compare\n"
    given = (tmp_path / "given.jsonl").read_text(encoding="utf-8").splitlines()
    folders, lines = zip(*((words[0], words[1:]) for words in map(json.loads, given)), strict=True)
    assert set(folders) == {str(tmp_path.resolve())}
    assert [line[0] for line in lines] == ["verify", "compare"]

    monkeypatch.chdir(tmp_path)
    (tmp_path / "activations").mkdir()
    cube = (ROOT / "docs" / "examples" / "cube.py").read_text(encoding="utf-8")
    (tmp_path / "activations" / "cube.py").write_text(cube)
    assert [_run(line) for line in lines] == [0, 0]
    report = ET.parse(tmp_path / "hessians.xml").getroot()
    assert (report.get("tests"), report.get("failures")) == ("2", "0")
    assert "### cube: quadratic forms" in capsys.readouterr().out
    # A wrong second derivative fails the job, and the report says where.
    assert "6 * z" in cube
    (tmp_path / "activations" / "cube.py").write_text(cube.replace("6 * z", "5 * z"))
    assert [_run(line) for line in lines] == [1, 1]
    failed = ET.parse(tmp_path / "hessians.xml").getroot()
    assert failed.get("failures") == "1"
    assert "dense2/kernel" in [case.get("name") for case in failed.iter("testcase")]
