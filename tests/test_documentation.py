"""README and docs: their commands run and print what is shown, their reference is complete."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import click
import pytest
import yaml
from PIL import Image

from docs.tools import gallery, reference, screenshots
from docs.tools.pages import (
    ELLIPSIS,
    PAGES,
    ROOT,
    Block,
    Step,
    arguments_of,
    blocks,
    make_folder,
    run,
)
from hesscli.cli.main import cli
from hesscli.config.schema import Config, LayerConfig
from hesscli.problem.names import ACTIVATIONS, INITIALIZERS, LOSSES

DOCS = ROOT / "docs"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BLOCKS = tuple(block for page in PAGES for block in blocks(page))
SHELL = tuple(block for block in BLOCKS if block.language in ("console", "sh"))
# Rounding differs from machine to machine, so only the size of a residual is not compared (of
# finite differences that is 1e-7 or so), and neither is what is free on a disk.
ROUNDING = re.compile(
    r"-?\b\d(\.\d+)?e-([1-9]\d|0[89])\b|(?<![\d.,])0(?![\d.,])|\d+\.\d [GT]B free"
)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:hesscli|make|mpiexec|srun) [^`]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SLOW_AT_MOST = 12
# What draws the gallery is run by test_gallery, which looks at the images, wherever it is shown.
DRAWING = frozenset(gallery.commands(gallery.PAGE.read_text(encoding="utf-8")))
# Pages whose examples other tests run: test_api and test_first_derivatives.
EXAMPLES_RUN_ELSEWHERE = ("api.md", "derivatives.md")


def masked(text: str) -> list[str]:
    """Lines with rounding-sized numbers and the padding around them replaced."""
    return [re.sub(r"\s+", " ", ROUNDING.sub("~0", line)).strip() for line in text.splitlines()]


def draws_the_gallery(block: Block) -> bool:
    """Whether nothing but an image comes of it: of a console block the output is compared here."""
    return block.language == "sh" and all(
        tuple(shlex.split(step.command, comments=True)) in DRAWING for step in block.steps
    )


# By page, because one block reads what another wrote; a page is one test.
RUN = {
    page: found
    for page in PAGES
    if (
        found := tuple(
            block
            for block in BLOCKS
            if block.page == page
            and block.language in ("console", "sh", "python")
            and not draws_the_gallery(block)
        )
    )
}
WITH_SLOW = tuple(page for page, found in RUN.items() if any(block.slow for block in found))


# Keras's own, where it saves a model.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in RUN])
def test_what_is_shown_runs(page: Path, tmp_path: Path) -> None:
    """Commands print what is shown below them; programs in Python run to their end."""
    require_run((block for block in RUN[page] if not block.slow), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in WITH_SLOW])
def test_what_is_shown_and_takes_long_runs(page: Path, tmp_path: Path) -> None:
    require_run((block for block in RUN[page] if block.slow), tmp_path)


def require_run(found: Iterable[Block], folder: Path) -> None:
    """Fails where a block does. What one writes, the next of the page may read."""
    make_folder(folder)
    for block in found:
        if block.parsed_only:
            if block.language == "python":
                compile(block.text, block.name, "exec")
        elif block.language == "python":
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                exec(compile(block.text, block.name, "exec"), {})
        else:
            for step in block.steps:
                if step.command.startswith(("hesscli ", "mpiexec ")):
                    require_printed(block, step, folder)


def require_printed(block: Block, step: Step, folder: Path) -> None:
    out, err, code = run(step.command, folder)
    assert code == block.exit_code, f"{block.name}: {step.command}: {err}"
    # A console block shows both streams, as a terminal does.
    if block.language == "console":
        expected, actual = masked(step.shown), masked(out + err)
        if ELLIPSIS in expected:
            head = expected.index(ELLIPSIS)
            expected, actual = expected[:head], actual[:head]
        assert actual == expected, f"{block.name}: {step.command}"


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in SHELL])
def test_a_shown_command_exists_with_its_options(block: Block) -> None:
    """Also of the slow ones, which the quick tests do not run."""
    for step in block.steps:
        require_parsed(step.command)


def test_a_command_in_the_text_exists_with_its_options() -> None:
    """In a sentence or a table, and the examples that --help ends in."""
    examples = [
        line.strip()
        for block in blocks(DOCS / "commands.md")
        for line in block.text.splitlines()
        if line.strip().startswith("hesscli ")
    ]
    inline = [
        found
        for page in PAGES
        for found in INLINE.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    ]
    assert len(examples) > 20
    assert len(inline) > 20
    for command in (*examples, *inline):
        program, name, *rest = command.split()
        if program == "hesscli" and not rest:
            assert name in cli.commands or name.startswith("-") or name == "COMMAND", command
        elif not re.search(r"…|\[OPTIONS\]|COMMAND", command):
            require_parsed(" ".join(command.split()))


def test_no_block_is_overlooked() -> None:
    """Whatever looks like a block of code is one that the tests above know.

    In bash is what needs more than one machine: of that the commands are parsed.
    """
    for block in BLOCKS:
        if block.language == "bash":
            lines = [line for line in block.text.splitlines() if "hesscli " in line]
            assert lines, block.name
            for line in lines:
                require_parsed(line[line.index("hesscli ") :])
    assert {block.language for block in BLOCKS} <= {
        "bash",
        "console",
        "sh",
        "python",
        "yaml",
        "json",
        "math",
        "text",
    }
    for page in PAGES:
        rest = FENCED.sub("", page.read_text(encoding="utf-8"))
        assert "```" not in rest, page.name
        assert re.sub(r"`[^`]*`", "", rest).count("$") % 2 == 0, f"{page.name}: a formula is open"
        assert not re.search(r"^\s+\$ ", rest, re.MULTILINE), page.name


def require_parsed(command: str) -> None:
    """Fails where the command line, the Makefile or the repository has no such command."""
    program, *words = shlex.split(command, comments=True)
    if program in ("mpiexec", "srun"):
        require_parsed(command[command.index("hesscli ") :])
    elif program == "hesscli":
        arguments, _ = arguments_of(command)
        if not arguments or arguments[0].startswith("-"):
            return
        found = cli.commands[arguments[0]]
        # Raises for an option that does not exist. Plugins are read, and forgotten at the end.
        root = click.Context(cli, info_name="hesscli", **cli.context_settings)
        with root, found.make_context(arguments[0], arguments[1:], parent=root):
            pass
    elif program == "make":
        targets = [word for word in words if "=" not in word]
        assert targets
        for target in targets:
            assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE), target
    elif program == "python":
        (script,) = [word for word in words if word.endswith(".py")]
        assert (ROOT / script).is_file(), script
    else:
        assert (program, words[0]) == ("pip", "install"), command


def test_few_commands_are_too_slow_to_be_run_each_time() -> None:
    assert len([block for block in SHELL if block.slow]) <= SLOW_AT_MOST
    assert {mark.split("=")[0] for block in BLOCKS for mark in block.marks} <= {
        "slow",
        "exit",
        "parse",
    }


def test_examples_in_python_are_run() -> None:
    found = {page.name for page in PAGES if ">>> " in page.read_text(encoding="utf-8")}
    assert found == set(EXAMPLES_RUN_ELSEWHERE)


def test_yaml_blocks_are_configurations(tmp_path: Path) -> None:
    from hesscli.config.load import load_config
    from hesscli.nodes.plugins import forget, load_plugin

    found = [block for block in BLOCKS if block.language == "yaml"]
    assert found
    plugins = [load_plugin(str(ROOT / "docs" / "examples" / name)) for name in ("glu.py", "rms.py")]
    try:
        for block in found:
            path = tmp_path / "shown.yaml"
            path.write_text(block.text, encoding="utf-8")
            load_config(str(path))
    finally:
        for names in plugins:
            forget(names)


def test_every_page_is_what_the_code_makes_of_it() -> None:
    """The commands, options, keys and names in the reference pages are those that there are."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert reference.filled(text) == text, f"{page.name} is out of date: run make docs"


def test_every_command_and_option_is_documented() -> None:
    """From Click's own list, not from the program that writes the page."""
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    _, *sections = re.split(r"^## ", page, flags=re.MULTILINE)
    by_command = {section.split("\n")[0]: section for section in sections}
    assert set(by_command) == set(cli.commands)
    for name, command in cli.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                longest = max(parameter.opts, key=len)
                assert re.search(rf"^  .*{longest}\b", by_command[name], re.MULTILINE), longest


def test_every_key_is_documented() -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    for field in fields(Config):
        kind = get_type_hints(Config)[field.name]
        if is_dataclass(kind):
            names = [f"{field.name}.{inner.name}" for inner in fields(kind)]
        else:
            names = [field.name]
        for name in names:
            assert f"\n| `{name}` |" in page, name
    for field in fields(LayerConfig):
        assert f"\n| `{field.name}` |" in page, field.name
    for name in (*ACTIVATIONS, *INITIALIZERS, *LOSSES):
        assert f"\n| `{name}`" in page, name


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, target


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MkDocs have it for words of ASCII."""
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def test_every_page_is_in_the_menu() -> None:
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = set(re.findall(r"[\w/]+\.md", json.dumps(menu)))
    assert listed == {str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS)}


def test_a_broken_link_ends_the_build() -> None:
    """MkDocs counts warnings, and so is strict, only where it may print them."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["strict"] is True
    for section in settings["validation"].values():
        assert set(section.values()) == {"warn"}
    builds = re.findall(r"mkdocs build.*", MAKEFILE)
    assert builds == ["mkdocs build"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in screenshots.QUICK else pytest.mark.slow)
        for name in screenshots.SCREENSHOTS
    ],
)
def test_a_screenshot_shows_what_the_command_prints(name: str, tmp_path: Path) -> None:
    command = screenshots.SCREENSHOTS[name]
    out, _, _ = run(command, tmp_path)
    with Image.open(screenshots.FOLDER / name) as picture:
        picture.load()
        assert masked(picture.text[screenshots.TEXT]) == masked(f"$ {command}\n{out.rstrip()}")


def test_every_screenshot_is_shown() -> None:
    page = (DOCS / "screens.md").read_text(encoding="utf-8")
    for name, command in screenshots.SCREENSHOTS.items():
        assert f"({screenshots.FOLDER.name}/{name})" in page
        arguments, _ = arguments_of(command)
        cli.commands[arguments[0]].make_context(
            arguments[0], arguments[1:], click.Context(cli, **cli.context_settings)
        )
