"""The page for users of other libraries: the programs run, and print what the others printed."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import make_problem
from scipy.sparse.linalg import eigsh

import hesscli
from docs.tools.pages import ROOT, arguments_of, blocks, run
from hesscli.cli.main import cli

PAGE = ROOT / "docs" / "peers.md"
PEERS = ROOT / "docs" / "examples" / "peers"
ROW = re.compile(r"^\|.*\|(.*)\|(.*)\|$", re.MULTILINE)
CALL = re.compile(r"`([^`]+)`")


@pytest.fixture(scope="module")
def saved_problem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers")
    run("hesscli compare --activation tanh --check form --save-problem problem.npz", folder)
    return folder / "problem.npz"


@pytest.fixture(scope="module")
def ours(saved_problem: Path) -> dict[str, Any]:
    return printed_by("with_hesscli.py", saved_problem)


def printed_by(script: str, problem: Path) -> dict[str, Any]:
    """What a program prints, in this process: TensorFlow takes seconds to import."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("sys.argv", [script, str(problem)])
        runpy.run_path(str(PEERS / script), run_name="__main__")
    found: dict[str, Any] = json.loads(printed.getvalue())
    return found


def agree(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    assert theirs
    for quantity, value in theirs.items():
        if quantity.endswith("(estimate)"):
            # Random probes of a few hundred: near, and no more than that.
            assert value == pytest.approx(ours[quantity.removesuffix(" (estimate)")], rel=0.1)
        else:
            # Power iteration ends at 1e-5, the others at rounding.
            assert value == pytest.approx(ours[quantity], rel=1e-5), quantity


def test_our_side_prints_what_the_others_printed(ours: dict[str, Any]) -> None:
    """The numbers in results.json are those of other libraries, not of any code here."""
    recorded = json.loads((PEERS / "results.json").read_text(encoding="utf-8"))
    assert set(recorded) == {path.name for path in PEERS.glob("with_*.py")} - {"with_hesscli.py"}
    for result in recorded.values():
        agree(result["found"], ours)


def test_tape_jacobian_prints_the_same(saved_problem: Path, ours: dict[str, Any]) -> None:
    agree(printed_by("with_tape_jacobian.py", saved_problem), ours)


def test_our_calls_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the two columns of ours, in a program and on the command line."""
    monkeypatch.chdir(tmp_path)
    problem = make_problem((3, 4, 2), "tanh")
    engine = hesscli.ChainRule(problem)
    H, G = engine.hessian("network"), engine.gauss_newton("network")
    names = {"hesscli": hesscli, "eigsh": eigsh, "problem": problem}
    names |= {"engine": engine, "H": H, "G": G, "start": 0, "stop": 2}
    tables, _, _ = PAGE.read_text(encoding="utf-8").partition("## The same numbers")
    programs, commands = zip(*ROW.findall(tables), strict=True)
    calls = set(CALL.findall("".join(programs)))
    assert len(calls) > 10
    for call in calls:
        text = call.replace("(…)", '("dense2/kernel")')
        block = re.search(r'engine\.\w+\("([^"]+)"\)', text)
        size = engine.hessian(block[1]).shape[1] if block else H.shape[1]
        assert eval(text, {**names, "v": np.ones(size)}) is not None, call
    lines = set(CALL.findall("".join(commands)))
    assert len(lines) > 5
    for line in lines:
        (name, *options), _ = arguments_of(f"hesscli {line}")
        with cli.commands[name].make_context(name, options):
            pass


def test_the_page_shows_lines_of_the_programs() -> None:
    """What stands in the page was run, as part of a script."""
    lines = {
        line.strip()
        for path in PEERS.glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
    }
    shown = [block.text for block in blocks(PAGE) if block.language == "python"]
    assert len(shown) == len(list(PEERS.glob("with_*.py")))
    for line in "".join(shown).splitlines():
        assert line.strip() in lines, line
