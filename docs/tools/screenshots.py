"""Draws the README's tables as SVG, from what the commands print in a terminal.

    python -m docs.tools.screenshots

Each command runs in a process of its own as in a colour terminal of 80 columns; Rich turns what it
prints into an SVG. Fonts are the reader's: nothing is fetched from elsewhere.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
SCREENSHOTS = MappingProxyType(
    {
        "verify.svg": ("hesscli", "verify", "--activation", "relu"),
        "compare.svg": ("hesscli", "compare", "--activation", "tanh"),
    }
)
_COLUMNS = 80
# Rich's picture asks a server for its font; a page that is read offline has none.
_FONT_FACES = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, command in SCREENSHOTS.items():
        picture = svg(" ".join(command), printed(command), name.removesuffix(".svg"))
        (FOLDER / name).write_text(picture, encoding="utf-8")


def printed(command: tuple[str, ...]) -> str:
    """What ``command`` writes to a colour terminal, with its escape sequences."""
    terminal = {"FORCE_COLOR": "1", "COLUMNS": str(_COLUMNS), "TERM": "xterm-256color"}
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    done = subprocess.run(
        (sys.executable, "-m", *command),
        env={**environment, **terminal},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout


def svg(command: str, text: str, name: str) -> str:
    """``command`` and the ``text`` that it prints, with escape sequences, as in a terminal."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(text.rstrip()))
    picture = console.export_svg(
        title="hesscli", theme=SVG_EXPORT_THEME, unique_id=f"hesscli-{name}"
    )
    own_font = _FONT_FACES.sub("", picture).replace("Fira Code, monospace", "monospace")
    # Lines end where their text does.
    return re.sub(r"[ \t]+\n", "\n", own_font)


if __name__ == "__main__":
    main()
