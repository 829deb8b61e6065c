"""The commands that the README and docs show: found, run, and their output filled in.

    python -m docs.tools.pages README.md docs/checks.md

runs every console block of these pages and puts what is printed in the place of what was shown. The
tests run the same blocks and compare.

A fenced block may follow a comment that says how it is run: ``<!-- test: slow, exit=1 -->``.
``slow`` leaves it to `make docs-test`, ``exit=N`` is the exit code, 0 without it, and ``parse`` is
for commands that need what a test does not have: they are held against the command line only.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
# "…" on a line of its own stands for the rest of what is printed.
ELLIPSIS = "…"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARKS = re.compile(r"<!-- test: (.+) -->\n$")
_PROMPT = "$ "
_MPIEXEC = "mpiexec "


@dataclass(frozen=True)
class Step:
    """One command of a block and what is shown of its output."""

    command: str
    shown: str


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is in its page, in which language, and how it is to be run."""

    page: Path
    line: int
    language: str
    text: str
    marks: frozenset[str]

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def slow(self) -> bool:
        return "slow" in self.marks

    @property
    def parsed_only(self) -> bool:
        return "parse" in self.marks

    @property
    def exit_code(self) -> int:
        (code,) = [mark for mark in self.marks if mark.startswith("exit=")] or ["exit=0"]
        return int(code.removeprefix("exit="))

    @property
    def steps(self) -> tuple[Step, ...]:
        """The commands of a console block with what each prints; those of a shell block."""
        if self.language == "sh":
            lines = (line.strip() for line in self.text.replace("\\\n", " ").splitlines())
            return tuple(Step(line, "") for line in lines if line and not line.startswith("#"))
        found: list[list[str]] = []
        for line in self.text.splitlines(keepends=True):
            if line.startswith(_PROMPT):
                found.append([line.removeprefix(_PROMPT).rstrip("\n")])
            else:
                found[-1].append(line)
        return tuple(Step(command, "".join(shown)) for command, *shown in found)


def blocks(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return tuple(_block(page, text, match) for match in _FENCE.finditer(text))


def _block(page: Path, text: str, match: re.Match[str]) -> Block:
    before = text[: match.start()]
    marks = _MARKS.search(before)
    names = marks[1].split(",") if marks else []
    return Block(
        page,
        before.count("\n") + 1,
        match[1],
        match[2],
        frozenset(name.strip() for name in names),
    )


def make_folder(folder: Path) -> None:
    """Gives ``folder`` what the commands of a page expect to stand in the repository."""
    for name in ("configs", "docs"):
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)


def run(command: str, folder: Path) -> tuple[str, str, int]:
    """Standard output, standard error and exit code of a ``hesscli`` command, run in ``folder``.

    Behind ``mpiexec -n N`` it runs in processes of its own.
    """
    from hesscli.cli.main import main

    if command.startswith(_MPIEXEC):
        return _run_on_ranks(shlex.split(command), folder)
    arguments, target = arguments_of(command)
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(arguments)
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    finally:
        os.chdir(before)
    if target is not None:
        (folder / target).write_text(out.getvalue(), encoding="utf-8")
        return "", err.getvalue(), code
    return out.getvalue(), err.getvalue(), code


def _run_on_ranks(words: list[str], folder: Path) -> tuple[str, str, int]:
    at = words.index("hesscli")
    launcher = [str(Path(sys.executable).parent / words[0]), *words[1:at]]
    program = [*launcher, sys.executable, "-m", *words[at:]]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        program, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout, done.stderr, done.returncode


def arguments_of(command: str) -> tuple[list[str], str | None]:
    """The arguments behind ``hesscli``, and the file that the output is redirected to."""
    words = shlex.split(command, comments=True)
    if words[0] != "hesscli":
        raise ValueError(f"{command}: not a command of hesscli")
    if ">" in words:
        at = words.index(">")
        return words[1:at], words[at + 1]
    return words[1:], None


def _filled(page: Path, folder: Path) -> str:
    text = page.read_text(encoding="utf-8")

    def fill(match: re.Match[str]) -> str:
        block = _block(page, text, match)
        if block.language != "console" or block.parsed_only or ELLIPSIS in block.text.splitlines():
            return match[0]
        return f"```console\n{''.join(_outputs(block, folder))}```"

    return _FENCE.sub(fill, text)


def _outputs(block: Block, folder: Path) -> Iterator[str]:
    for step in block.steps:
        out, err, code = run(step.command, folder)
        if code != block.exit_code:
            raise SystemExit(f"{block.name}: {step.command}: exit code {code}\n{err}")
        yield f"{_PROMPT}{step.command}\n{out}{err}"


def main() -> None:
    for name in sys.argv[1:]:
        page = Path(name).resolve()
        with tempfile.TemporaryDirectory() as folder:
            make_folder(Path(folder))
            page.write_text(_filled(page, Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
