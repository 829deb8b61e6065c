"""The README is short, and shows the commands that there are."""

from __future__ import annotations

import re

from docs.tools.pages import ROOT
from hesscli.cli.main import cli

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_make_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = set(re.findall(r"make ([a-z]+)", README))
    assert {"verify", "test", "compare", "lint", "ci", "docs"} <= shown
    for target in shown:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_command_is_shown() -> None:
    for name in cli.commands:
        assert f"`hesscli {name}" in README, name


def test_it_can_be_read_in_minutes() -> None:
    assert len(README.splitlines()) <= 160
