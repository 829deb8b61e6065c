"""Runs the commands of docs/gallery.md and puts what they draw into docs/plots.

    python -m docs.tools.gallery

The commands run one after the other in a folder that has ``configs/`` alone, so that the page shows
all that is needed.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "gallery.md"
CONFIGS = DOCS.parent / "configs"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_IMAGE = re.compile(r"!\[[^\]]+\]\((plots/[^)]+)\)")


def commands(page: str) -> list[tuple[str, ...]]:
    """The command lines of a page's shell blocks, in words."""
    lines = "".join(_BLOCK.findall(page)).replace("\\\n", " ").splitlines()
    return [tuple(shlex.split(line)) for line in lines if line.strip()]


def images(page: str) -> list[str]:
    """The paths of a page's images, relative to it."""
    return _IMAGE.findall(page)


def main() -> None:
    """Rewrites every image, or none where a command fails."""
    page = PAGE.read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        shutil.copytree(CONFIGS, Path(folder) / CONFIGS.name)
        for command in commands(page):
            subprocess.run((sys.executable, "-m", *command), cwd=folder, check=True)
        drawn = [(Path(folder) / Path(image).name, DOCS / image) for image in images(page)]
        missing = [source.name for source, _ in drawn if not source.exists()]
        if missing:
            sys.exit(f"{PAGE}: no command draws {', '.join(missing)}")
        for source, target in drawn:
            shutil.copyfile(source, target)


if __name__ == "__main__":
    main()
