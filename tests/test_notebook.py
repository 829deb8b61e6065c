"""The notebook runs in Jupyter's kernel, and its saved numbers are those of today and right."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

import hesscli

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
SAVED = FOLDER / "hessian_chain_rule.ipynb"
# Rounding alone: 784 products are summed in each entry.
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("notebook") / SAVED.name
    # In a process of its own: Jupyter's event loop is none of the tests'.
    command = [sys.executable, str(FOLDER / "execute.py"), str(SAVED), str(target)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return target


def code_cells(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def key_numbers(path: Path) -> dict[str, float]:
    (cell,) = [
        cell
        for cell in nbformat.read(path, as_version=4).cells
        if "key" in cell.metadata.get("tags", ())
    ]
    numbers: dict[str, float] = json.loads(cell.outputs[0].text)
    return numbers


def outputs(path: Path) -> list[Any]:
    cells = nbformat.read(path, as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", ())]


def test_it_is_saved_with_its_outputs_and_small() -> None:
    assert SAVED.stat().st_size < 300_000
    notebook = nbformat.read(SAVED, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output.output_type for output in outputs(SAVED)}
    assert kinds == {"stream", "execute_result"}
    pages = [output.data.get("text/html", "") for output in outputs(SAVED) if "data" in output]
    assert sum("<table>" in page and "<img" in page for page in pages) == 2
    assert "/home" not in SAVED.read_text(encoding="utf-8")


@pytest.mark.slow
def test_today_it_comes_to_the_same_in_jupyter(executed: Path) -> None:
    saved, today = key_numbers(SAVED), key_numbers(executed)
    require_the_same(saved, today)
    # What a machine takes, in copies of the Hessian: more than the result itself.
    (tape,) = (name for name in saved if name.startswith("tape"))
    assert min(saved[tape], today[tape]) > 1


def test_today_its_cells_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, without measuring memory, of which nobody else may take any meanwhile."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    names: dict[str, Any] = {}
    for source in code_cells(SAVED):
        exec(source.partition('print("parameters ')[0], names)
    require_the_same(key_numbers(SAVED), names["key"])


def require_the_same(saved: dict[str, float], today: dict[str, float]) -> None:
    measured = {name for name in saved if name.startswith("tape")}
    assert saved.keys() == today.keys() | measured
    for name, number in saved.items():
        if name in measured:
            continue
        if number < ROUNDING and "eigenvalue" not in name:
            assert today[name] < ROUNDING
        else:
            assert math.isclose(today[name], number, rel_tol=1e-6), name


def test_its_numbers_are_right() -> None:
    """By finite differences, and by the small matrix that has the block's eigenvalues."""
    key = key_numbers(SAVED)
    assert max(key["relu, shortcut"], key["relu, whole"], key["tanh, whole"]) < ROUNDING
    problem = hesscli.problem_from_config(activation="tanh")
    # The shortcut lacks C, whose largest entry finite differences find as H − G.
    finite = hesscli.FiniteDifferences(problem).hessian("dense2/kernel")
    H = np.concatenate([finite.matmat(np.eye(900)[:, k : k + 90]) for k in range(0, 900, 90)], 1)
    G = hesscli.ChainRule(problem).gauss_newton("dense2/kernel").to_dense()
    assert math.isclose(np.abs(H - G).max() / np.abs(H).max(), key["tanh, shortcut"], rel_tol=1e-6)
    # spectrum(R⊗I blkdiag(S) R⊗I), R = (AAᵀ)^½, holds all non-zero eigenvalues of Σ aaᵀ ⊗ S.
    engine = hesscli.ChainRule(problem)
    A, S = problem.inputs, engine.second("dense1")
    values, vectors = np.linalg.eigh(A @ A.T)
    R = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    small = np.einsum("an,nhl,nb->ahbl", R, S, R, optimize=True).reshape(960, 960)
    eigenvalues = np.linalg.eigvalsh(small)
    assert math.isclose(eigenvalues[0], key["tanh, lowest eigenvalue"], rel_tol=1e-8)
    assert math.isclose(eigenvalues[-1], key["tanh, highest eigenvalue"], rel_tol=1e-8)
    negative = int((eigenvalues < -1e-12 * eigenvalues[-1]).sum())
    assert negative == key["tanh, negative eigenvalues"]
    assert key["tanh, negative eigenvalues of Gauss-Newton"] == 0
