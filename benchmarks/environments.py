"""The peers' virtual environments: one for each file in ``requirements/``.

``python -m benchmarks.environments`` makes those that are missing or whose requirements have
changed. Each is used with the Python that makes it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).parent
ENVIRONMENTS = FOLDER / ".venvs"
REQUIREMENTS = FOLDER / "requirements"
# PyTorch's index of builds without CUDA, which are a tenth of the size; asked for PyTorch alone.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class MissingEnvironmentError(Exception):
    """A peer's environment is not there."""


def python_of(name: str) -> Path:
    """The Python of the environment ``name``; raises MissingEnvironmentError."""
    folder = ENVIRONMENTS / name
    if not (folder / _STAMP).is_file():
        raise MissingEnvironmentError(f"{name}: no environment; run make bench-setup")
    return _python(folder)


def set_up(requirements: Path) -> bool:
    """Makes the environment of ``requirements``, anew where they have changed.

    Returns whether there was anything to do; raises CalledProcessError where pip fails.
    """
    folder = ENVIRONMENTS / requirements.stem
    stamp, wanted = folder / _STAMP, requirements.read_text(encoding="utf-8")
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(_python(folder)), "-m", "pip", "install"]
    for line in wanted.splitlines():
        if line.startswith("torch=="):
            _run([*pip, "--no-deps", "--extra-index-url", CPU_INDEX, line])
    _run([*pip, "--requirement", str(requirements)])
    # Last, so that an environment that was broken off is made again.
    stamp.write_text(wanted, encoding="utf-8")
    return True


_STAMP = ".requirements"


def _python(folder: Path) -> Path:
    # Not resolved: the link in the environment is what makes Python use it.
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _run(command: list[str]) -> None:
    # What pip says is shown only where it fails: an index that cannot be reached is no trouble
    # where another one has the file.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()


def main() -> int:
    """Makes what is missing; 1 where an environment cannot be made."""
    failed = []
    for requirements in sorted(REQUIREMENTS.glob("*.txt")):
        try:
            done = set_up(requirements)
        except subprocess.CalledProcessError:
            failed.append(requirements.stem)
            continue
        sys.stdout.write(f"{requirements.stem}: {'made' if done else 'up to date'}\n")
    for name in failed:
        sys.stderr.write(f"{name}: pip could not install benchmarks/requirements/{name}.txt\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
