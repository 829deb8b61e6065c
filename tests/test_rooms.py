"""What must come without TensorFlow comes without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = [
    "hesscli.witnesses.chain_rule.engine",
    "hesscli.witnesses.chain_rule.first",
    "hesscli.witnesses.rounding.floor",
    "hesscli.witnesses.finite.engine",
    "hesscli.witnesses.chain_rule.backpropagation",
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
    "hesscli.cli.launched",
    "hesscli.workers.team",
]


@pytest.mark.parametrize("module", WITHOUT)
def test_a_module_that_needs_no_autodiff_imports_no_tensorflow(module: str) -> None:
    program = f"import sys, {module}\nsys.exit(bool({{'tensorflow', 'keras'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
