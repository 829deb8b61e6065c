"""The page for users of other libraries: the programs run, and print what the others printed."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from docs.tools.pages import ROOT, blocks, run

PAGE = ROOT / "docs" / "peers.md"
PEERS = ROOT / "docs" / "examples" / "peers"


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


def test_the_page_shows_lines_of_the_programs() -> None:
    """What stands in the page was run, as part of a script."""
    lines = {
        line.strip()
        for path in PEERS.glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
    }
    for block in blocks(PAGE):
        if block.language == "python":
            for line in block.text.splitlines():
                assert line.strip() in lines, line
