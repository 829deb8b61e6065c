"""What must come without TensorFlow comes without it, and no import hides from import-linter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import hesscli
from hesscli.report import documents
from hesscli.studies import doctor

WITHOUT = [
    "hesscli.witnesses.chain_rule.engine",
    "hesscli.witnesses.chain_rule.jacobian",
    "hesscli.witnesses.rounding.floor",
    "hesscli.witnesses.finite.engine",
    "hesscli.witnesses.chain_rule.descent",
    "hesscli.config.build",
    "hesscli.studies.training",
    "hesscli.report.training",
    "hesscli.studies.verification",
    "hesscli.studies.export",
    "hesscli.studies.tuning",
    "hesscli.report.verification",
    "hesscli.report.tuning",
    "hesscli.cli.main",
    "hesscli.api.questions",
    "hesscli.studies.doctor",
    "hesscli.report.notebook",
    "hesscli.cli.together",
]


@pytest.mark.parametrize("module", WITHOUT)
def test_a_module_that_needs_no_autodiff_imports_no_tensorflow(module: str) -> None:
    program = f"import sys, {module}\nsys.exit(bool({{'tensorflow', 'keras'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# import-linter sees import statements. These import by a name, or run what holds the statements.
FROM_LIBRARIES = frozenset({"importlib", "pkgutil", "runpy", "imp", "zipimport"})
BY_NAME = frozenset(
    {
        "__import__",
        "eval",
        "exec",
        "exec_module",
        "find_spec",
        "import_module",
        "load_module",
        "module_from_spec",
        "resolve_name",
        "run_module",
        "run_path",
        "spec_from_file_location",
    }
)
# These say what is installed and read files.
HARMLESS = frozenset({"importlib.metadata", "importlib.resources"})
# The modules that may, each with what it uses.
ALLOWED: Mapping[str, frozenset[str]] = {
    "hesscli": frozenset({"import_module"}),
    "hesscli.report.documents": frozenset({"resolve_name"}),
    "hesscli.studies.doctor": frozenset({"importlib.util", "find_spec", "import_module"}),
    # The user's own file, which imports what it likes.
    "hesscli.nodes.plugins": frozenset({"exec", "sys.modules"}),
    # These look whether a library is there already.
    "hesscli.cli.outcome": frozenset({"sys.modules"}),
    "hesscli.system.threads": frozenset({"sys.modules"}),
}
# The names that those with import_module or resolve_name get, from the tables that hold them.
NAMES: Mapping[str, Iterable[str]] = {
    "hesscli": hesscli._HOMES,  # type: ignore[attr-defined]  # not there for a type checker
    "hesscli.report.documents": (
        *documents._BUILDERS,
        *(f"hesscli.report.{name}" for name in documents._BUILDERS.values()),
    ),
    "hesscli.studies.doctor": doctor._NEEDED.values(),
}
PACKAGE = Path(hesscli.__file__).parent


def imports_by_name(source: str) -> frozenset[str]:
    """By what a module may import what none of its import statements names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            found |= {name for name in names if name.partition(".")[0] in FROM_LIBRARIES}
        elif isinstance(node, ast.ImportFrom) and node.module not in HARMLESS:
            module, names = node.module or "", {alias.name for alias in node.names}
            if module.partition(".")[0] in FROM_LIBRARIES:
                found |= {name for name in names if f"{module}.{name}" not in HARMLESS}
            elif module == "sys" and "modules" in names:
                found.add("sys.modules")
            found |= names & BY_NAME
        elif isinstance(node, ast.Attribute):
            if node.attr in BY_NAME:
                found.add(node.attr)
            elif ast.unparse(node) == "sys.modules":
                found.add("sys.modules")
        elif isinstance(node, ast.Name) and node.id in BY_NAME:
            found.add(node.id)
    return frozenset(found)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_only_these_modules_import_by_name() -> None:
    found = {module_name(path): imports_by_name(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {module: used for module, used in found.items() if used} == ALLOWED


def test_what_is_imported_by_name_is_no_tensorflow() -> None:
    importing = {"import_module", "resolve_name"}
    assert set(NAMES) == {module for module, used in ALLOWED.items() if used & importing}
    for names in NAMES.values():
        roots = {name.partition(".")[0] for name in names}
        assert roots
        assert not roots & {"tensorflow", "keras"}
    for module in ("hesscli", "hesscli.report.documents"):
        assert all(name.startswith("hesscli.") for name in NAMES[module])


@pytest.mark.parametrize(
    "source",
    [
        "import importlib\ntf = importlib.import_module('tensorflow')",
        "import importlib as library\nload = getattr(library, 'import_' + 'module')",
        "from importlib import import_module as load\ntf = load('tensorflow')",
        "import importlib.util\nspec = importlib.util.find_spec('tensorflow')",
        "def tf():\n    from importlib.util import find_spec, module_from_spec",
        "tf = __import__('tensorflow')",
        "import builtins\ntf = builtins.__import__('tensorflow')",
        "from builtins import __import__ as load\ntf = load('tensorflow')",
        "exec('import tensorflow')",
        "from pkgutil import resolve_name\nconstant = resolve_name('tensorflow:constant')",
        "import sys\ntf = sys.modules['tensorflow']",
        "from sys import modules\ntf = modules['tensorflow']",
    ],
)
def test_an_import_of_tensorflow_by_name_is_found(source: str) -> None:
    assert imports_by_name(source)


@pytest.mark.parametrize(
    "source",
    [
        "from importlib.metadata import version\nversion('tensorflow')",
        "from importlib import resources",
        "import re, sys\nre.compile('x'), sys.stdout",
    ],
)
def test_what_imports_nothing_is_let_alone(source: str) -> None:
    assert not imports_by_name(source)
