"""The one call of SciPy's Lanczos: its two ends, an operator that is zero, and its error."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from hesscli.studies.eigen import Search, lanczos
from hesscli.system.errors import NumericalError

SEARCH = Search(rtol=1e-10, remedy="use fewer")
START = np.random.default_rng(0).standard_normal(100)


def diagonal(values: np.ndarray) -> LinearOperator:
    return aslinearoperator(np.diag(values))


@pytest.mark.parametrize(("which", "expected"), [("LM", [-5.0, 4.0]), ("LA", [4.0, 3.0])])
def test_it_finds_the_end_that_it_is_sent_to(which: str, expected: list[float]) -> None:
    operator = diagonal(np.concatenate([[-5.0, 4.0, 3.0], np.linspace(-1, 1, 97)]))
    values, vectors = lanczos(operator, "H", SEARCH, START, count=2, which=which)
    assert sorted(values) == pytest.approx(sorted(expected), rel=1e-12)
    np.testing.assert_allclose(operator @ vectors, vectors * values, atol=1e-8)


def test_an_operator_that_is_zero_has_zeros_and_orthonormal_vectors() -> None:
    values, vectors = lanczos(diagonal(np.zeros(100)), "H", SEARCH, START, count=3)
    assert values.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(vectors.T @ vectors, np.eye(3))


def test_what_does_not_converge_names_the_block_and_what_to_do() -> None:
    search = Search(rtol=1e-14, remedy="use fewer", vectors=4, restarts=2)
    operator = diagonal(np.linspace(0.999, 1, 100))
    with pytest.raises(NumericalError, match=r"one/kernel: Lanczos .* of 2 .*; use fewer"):
        lanczos(operator, "one/kernel", search, START, count=2)


def test_no_other_module_calls_eigsh() -> None:
    """Errors, starts and tolerances of SciPy's solver are decided in one place."""
    package = Path(__file__).parent.parent / "hesscli"
    callers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and any(name.name == "eigsh" for name in node.names)
    }
    assert callers == {"studies/eigen.py"}
