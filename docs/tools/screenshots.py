"""Draws what the commands print in a terminal as PNG, for the README and docs/screens.md.

    python -m docs.tools.screenshots [NAME]

Each command runs in a process of its own as in a colour terminal of 80 columns. The letters are
DejaVu Sans Mono, which comes with matplotlib. The printed text is kept in the image's metadata: for
who cannot see it, and for the test that compares it with what the command prints now.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from rich.color import Color
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
SCREENSHOTS = MappingProxyType(
    {
        "verify.png": "hesscli verify --activation relu",
        "compare.png": "hesscli compare --activation tanh",
        "sweep.png": "hesscli sweep --activation tanh",
        "entry.png": "hesscli entry 'dense1/kernel[300,4]' 'dense2/bias[7]' --activation tanh",
        "spectrum.png": "hesscli spectrum --activation tanh",
        "init.png": "hesscli init --activation tanh --seeds 3",
        "train.png": "hesscli train --steps 200 --examples 2000",
    }
)
# Those that take less than some seconds, which a test runs again.
QUICK = ("sweep.png", "entry.png")
# The key of the text in the metadata.
TEXT = "Description"
_COLUMNS = 80
_THEME = SVG_EXPORT_THEME
# Pixels: large enough for screens of twice the resolution.
_SIZE, _LINE, _MARGIN = 26, 34, 30


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or SCREENSHOTS:
        command = SCREENSHOTS[name]
        save(f"$ {command}\n{printed(command)}", FOLDER / name)


def printed(command: str) -> str:
    """What ``command`` writes to a colour terminal, with its escape sequences."""
    terminal = {"FORCE_COLOR": "1", "COLUMNS": str(_COLUMNS), "TERM": "xterm-256color"}
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    done = subprocess.run(
        f"{sys.executable} -m {command}",
        shell=True,
        env={**environment, **terminal},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return done.stdout


def save(text: str, path: Path) -> None:
    """Draws ``text`` with escape sequences as on a dark terminal."""
    shown = Text.from_ansi(text.rstrip())
    lines = shown.split(allow_blank=True)
    regular, bold = (_font(name) for name in ("DejaVuSansMono", "DejaVuSansMono-Bold"))
    advance = regular.getlength("M")
    width = max(_COLUMNS, *(line.cell_len for line in lines)) * advance + 2 * _MARGIN
    size = (round(width), len(lines) * _LINE + 2 * _MARGIN)
    image = Image.new("RGB", size, tuple(_THEME.background_color))
    draw = ImageDraw.Draw(image)
    console = Console(width=500, force_terminal=True, color_system="standard")
    for row, line in enumerate(lines):
        column = 0
        for segment in line.render(console):
            style = segment.style
            font = bold if style is not None and style.bold else regular
            colour = None if style is None else style.color
            # A letter at a time: the font's own widths differ by fractions of a pixel.
            for sign in segment.text:
                place = (_MARGIN + column * advance, _MARGIN + row * _LINE)
                draw.text(place, sign, font=font, fill=_rgb(colour))
                column += 1
    information = PngInfo()
    information.add_itxt(TEXT, shown.plain)
    few = image.quantize(32)
    few.save(path, format="png", optimize=True, pnginfo=information)


def _rgb(colour: Color | None) -> tuple[int, ...]:
    return tuple(
        _THEME.foreground_color if colour is None else colour.get_truecolor(_THEME, foreground=True)
    )


def _font(name: str) -> ImageFont.FreeTypeFont:
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), _SIZE)


if __name__ == "__main__":
    main()
