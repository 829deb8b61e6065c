"""The README's commands run, and print what the README shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hesscli.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# A console block: the command behind the prompt, then what it prints.
CONSOLE = re.findall(r"```console\n\$ (.+)\n((?:.*\n)*?)```", README)
# Rounding differs from machine to machine, so only the size of a residual is not compared.
ROUNDING = re.compile(r"-?\b\d(\.\d+)?e-[1-9]\d\b|(?<![\d.,])0(?![\d.,])")
# "…" on a line of its own stands for lines left out.
ELLIPSIS = "…"


def masked(text: str) -> list[str]:
    """Lines with rounding-sized numbers and the padding around them replaced."""
    return [re.sub(r"\s+", " ", ROUNDING.sub("~0", line)).strip() for line in text.splitlines()]


@pytest.mark.parametrize(("command", "shown"), CONSOLE, ids=[command for command, _ in CONSOLE])
def test_a_shown_command_prints_what_is_shown(
    command: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(command)
    assert program == "hesscli"
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert exit_.value.code == (1 if "gauss-newton" in command else 0)
    expected, actual = masked(shown), masked(printed.out)
    if ELLIPSIS in expected:
        head = expected.index(ELLIPSIS)
        expected, actual = expected[:head], actual[:head]
    assert actual == expected


def test_the_make_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = set(re.findall(r"make ([a-z]+)", README))
    assert {"verify", "test", "compare", "lint", "ci"} <= shown
    for target in shown:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_command_is_shown() -> None:
    from hesscli.cli.main import cli

    for name in cli.commands:
        assert any(command.startswith(f"hesscli {name}") for command, _ in CONSOLE), name
