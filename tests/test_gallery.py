"""The gallery's commands are commands, its images are what they draw."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from docs.tools.gallery import CONFIGS, DOCS, PAGE, commands, images
from hesscli.cli.main import _run, cli

TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = commands(TEXT)
IMAGES = images(TEXT)
# Those that are trained, the spectra beside them, and all activations in both terms, take longer:
# make docs-test.
SLOW = (
    "spectrum-untrained.png",
    "spectrum-trained.png",
    "spectrum-lenet5-untrained.png",
    "spectrum-lenet5-trained.png",
    "training.png",
    "edge.png",
    "compare.png",
)
QUICK = tuple(name for image in IMAGES if (name := Path(image).name) not in SLOW)
LARGEST = 150_000
# Images are compared in squares of so many pixels, in which another version's letters look alike.
SQUARE = 20
# Of 255 levels. What lines another plot has shows in dozens.
TOLERANCE = 24.0
# Residuals are rounding, another one on every machine, and their range is the axis's; rows of
# squares stay alike, because every activation keeps its line.
RESIDUALS = "verify.png"
# So that TOLERANCE is for means over rows as well: two machines differ by 7.
ROW_WEIGHT = 8.0


def option(command: tuple[str, ...], name: str) -> str | None:
    """What stands behind ``name`` in a command line, or behind ``name=``."""
    for index, word in enumerate(command):
        if word == name:
            return command[index + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def squares(path: Path) -> NDArray[np.float64]:
    """An image's mean grey in squares, (rows, columns)."""
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L"), dtype=np.float64)
    height, width = (size // SQUARE for size in grey.shape)
    cut = grey[: height * SQUARE, : width * SQUARE]
    return cut.reshape(height, SQUARE, width, SQUARE).mean(axis=(1, 3))


def command_of(image: str) -> tuple[str, ...]:
    (found,) = (words for words in COMMANDS if option(words, "--plot") == image)
    return found


def test_every_command_that_draws_is_there_and_every_image_has_its_command() -> None:
    drawing = {
        name
        for name, command in cli.commands.items()
        if any(parameter.name == "plot" for parameter in command.params)
    }
    assert {words[1] for words in COMMANDS if option(words, "--plot")} == drawing
    plots = [option(words, "--plot") for words in COMMANDS if option(words, "--plot")]
    assert sorted(f"plots/{name}" for name in plots) == sorted(IMAGES)
    # An image stands below the command that makes it.
    for image in IMAGES:
        name = Path(image).name
        assert TEXT.index(f"--plot {name}") < TEXT.index(f"({image})")


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_there_and_small(image: str) -> None:
    with Image.open(DOCS / image) as found:
        assert (found.format, found.width) == ("PNG", 1400)
    assert (DOCS / image).stat().st_size < LARGEST


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_line_is_one(words: tuple[str, ...]) -> None:
    program, name, *arguments = words
    assert program == "hesscli"
    context = cli.commands[name].make_context(name, list(arguments))
    context.close()


def test_files_are_made_before_they_are_read() -> None:
    made: set[str | None] = set()
    read = 0
    for words in COMMANDS:
        for file in re.findall(r"[\w-]+\.npz", " ".join(words)):
            if file == option(words, "--checkpoint"):
                continue
            read += 1
            assert file in made, words
        made.add(option(words, "--checkpoint"))
    assert read


def difference(drawn: Path, shown: Path) -> float:
    """How far two images are from each other, beside ``TOLERANCE``."""
    found, expected = squares(drawn), squares(shown)
    if shown.name == RESIDUALS:
        # A mean over a row of seventy squares hides dots that moved, and a missing line shows.
        found, expected = (ROW_WEIGHT * each.mean(axis=1) for each in (found, expected))
    return float(np.abs(found - expected).max())


def require_drawn(image: str, folder: Path) -> None:
    """Fails where the image in ``folder`` is not that of the page."""
    assert difference(folder / image, DOCS / "plots" / image) < TOLERANCE, image


@pytest.mark.parametrize("image", QUICK)
def test_a_quick_command_draws_its_image(
    image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(command_of(image)[1:]) == 0
    assert capsys.readouterr().err == ""
    require_drawn(image, tmp_path)


@pytest.mark.slow
def test_all_other_commands_draw_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, because the spectrum is that of what was trained."""
    shutil.copytree(CONFIGS, tmp_path / CONFIGS.name)
    monkeypatch.chdir(tmp_path)
    for words in COMMANDS:
        if option(words, "--plot") not in QUICK:
            assert _run(words[1:]) == 0
    for image in SLOW:
        require_drawn(image, tmp_path)


def test_the_comparison_tells_two_spectra_apart() -> None:
    relu, tanh = (DOCS / "plots" / f"spectrum-{name}.png" for name in ("relu", "tanh"))
    assert difference(relu, tanh) > 2 * TOLERANCE


def test_the_comparison_of_residuals_sees_a_line_that_is_missing(tmp_path: Path) -> None:
    shown = DOCS / "plots" / RESIDUALS
    with Image.open(shown) as image:
        grey = np.array(image.convert("L"))
    assert difference(shown, shown) == 0
    # The line of one activation, label and marks.
    middle = grey.shape[0] // 2 // SQUARE * SQUARE
    grey[middle - 2 * SQUARE : middle + 2 * SQUARE] = 255
    Image.fromarray(grey).save(tmp_path / RESIDUALS)
    assert difference(tmp_path / RESIDUALS, shown) > TOLERANCE
