"""Command lines run in this process."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hesscli.cli.main import main


def run(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The exit code of a command line, its standard output and its standard error."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    printed = capsys.readouterr()
    return int(exit_.value.code or 0), printed.out, printed.err
