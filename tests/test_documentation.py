"""README and docs: their commands run and print what is shown, their reference is complete."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints
from xml.etree import ElementTree as ET

import click
import pytest
import yaml

from docs.tools import gallery, reference, screenshots
from docs.tools.pages import ELLIPSIS, PAGES, ROOT, Block, arguments_of, blocks, make_folder, run
from hesscli.cli.main import cli
from hesscli.config.schema import Config, LayerConfig
from hesscli.problem.names import ACTIVATIONS, INITIALIZERS, LOSSES

DOCS = ROOT / "docs"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BLOCKS = tuple(block for page in PAGES for block in blocks(page))
SHELL = tuple(block for block in BLOCKS if block.language in ("console", "sh"))
PROGRAMS = tuple(block for block in BLOCKS if block.language in ("console", "sh", "python"))
# Rounding differs from machine to machine, so only the size of a residual is not compared (of
# finite differences that is 1e-7 or so), and neither is what is free on a disk.
ROUNDING = re.compile(
    r"-?\b\d(\.\d+)?e-([1-9]\d|0[89])\b|(?<![\d.,])0(?![\d.,])|\d+\.\d [GT]B free"
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SLOW_AT_MOST = 12
# What draws the gallery is run by test_gallery, which looks at the images, wherever it is shown.
DRAWING = frozenset(gallery.commands(gallery.PAGE.read_text(encoding="utf-8")))
# Pages whose examples other tests run: test_api and test_first_derivatives.
EXAMPLES_RUN_ELSEWHERE = ("api.md", "derivatives.md")


def masked(text: str) -> list[str]:
    """Lines with rounding-sized numbers and the padding around them replaced."""
    return [re.sub(r"\s+", " ", ROUNDING.sub("~0", line)).strip() for line in text.splitlines()]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder for each page: what one command writes, the next ones of the page read."""

    @cache
    def folder(page: Path) -> Path:
        path = tmp_path_factory.mktemp(page.stem)
        make_folder(path)
        return path

    return folder


def draws_the_gallery(block: Block) -> bool:
    """Whether nothing but an image comes of it: of a console block the output is compared here."""
    return block.language == "sh" and all(
        tuple(shlex.split(step.command, comments=True)) in DRAWING for step in block.steps
    )


def parameter(block: Block) -> Any:
    marks = (pytest.mark.slow,) if block.slow else ()
    return pytest.param(block, id=block.name, marks=marks)


# Keras's own, where it saves a model.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    "block",
    [parameter(block) for block in PROGRAMS if not draws_the_gallery(block)],
)
def test_what_is_shown_runs(block: Block, folder_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands print what is shown below them; programs in Python run to their end."""
    folder = folder_of(block.page)
    if block.language == "python":
        program = compile(block.text, block.name, "exec")
        monkeypatch.chdir(folder)
        if not block.parsed_only:
            exec(program, {})
        return
    for step in block.steps:
        if not step.command.startswith("hesscli ") or block.parsed_only:
            continue
        out, err, code = run(step.command, folder)
        assert code == block.exit_code, err
        # A console block shows both streams, as a terminal does.
        if block.language == "console":
            expected, actual = masked(step.shown), masked(out + err)
            if ELLIPSIS in expected:
                head = expected.index(ELLIPSIS)
                expected, actual = expected[:head], actual[:head]
            assert actual == expected


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in SHELL])
def test_a_shown_command_exists_with_its_options(block: Block) -> None:
    """Also of the slow ones, which the quick tests do not run."""
    for step in block.steps:
        require_parsed(step.command)


def require_parsed(command: str) -> None:
    """Fails where the command line, the Makefile or the repository has no such command."""
    program, *words = shlex.split(command, comments=True)
    if program == "hesscli":
        arguments, _ = arguments_of(command)
        if not arguments or arguments[0].startswith("-"):
            return
        found = cli.commands[arguments[0]]
        # Raises for an option that does not exist. Plugins are read, and forgotten at the end.
        with found.make_context(arguments[0], arguments[1:]):
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

    found = [block for block in BLOCKS if block.language == "yaml"]
    for block in found:
        path = tmp_path / "shown.yaml"
        path.write_text(block.text, encoding="utf-8")
        load_config(str(path))


def test_every_page_is_what_the_code_makes_of_it() -> None:
    """The commands, options, keys and names in the reference pages are those that there are."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert reference.filled(text) == text, f"{page.name} is out of date: run make docs"


def test_every_command_and_option_is_documented() -> None:
    """From Click's own list, not from the program that writes the page."""
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    shared, *sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    by_command = {section.split("\n")[0]: section for section in sections}
    assert set(by_command) == set(cli.commands)
    for name, command in cli.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                longest = max(parameter.opts, key=len)
                assert f"`{longest}`" in by_command[name], (name, longest)
                if f"\n| `{longest}`" not in by_command[name]:
                    assert f"\n| `{longest}`" in shared, (name, longest)


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
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
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


@pytest.mark.parametrize("name", screenshots.SCREENSHOTS)
def test_a_screenshot_shows_what_the_command_prints(name: str, tmp_path: Path) -> None:
    command = screenshots.SCREENSHOTS[name]
    out, _, _ = run(shlex.join(command), tmp_path)
    picture = ET.parse(screenshots.FOLDER / name).getroot()
    lines: dict[float, str] = {}
    for element in picture.iter("{http://www.w3.org/2000/svg}text"):
        if "clip-path" in element.attrib:
            text = "".join(element.itertext()).replace("\xa0", " ").rstrip("\n")
            y = float(element.attrib["y"])
            lines[y] = lines.get(y, "") + text
    shown = "\n".join(lines[y] for y in sorted(lines))
    # A picture sets text at its place, without the spaces between.
    printed = masked(f"$ {' '.join(command)}\n{out}")
    assert [line.replace(" ", "") for line in masked(shown)] == [
        line.replace(" ", "") for line in printed
    ]


def test_a_screenshot_needs_nothing_from_elsewhere() -> None:
    for name in screenshots.SCREENSHOTS:
        text = (screenshots.FOLDER / name).read_text(encoding="utf-8")
        assert "url(http" not in text
        assert "@font-face" not in text
