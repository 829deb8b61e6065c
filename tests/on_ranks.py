"""Runs command lines one after the other, on every rank that mpiexec has started.

``mpiexec -n 2 python on_ranks.py FILE`` runs those in FILE, a JSON list of lists of arguments, and
writes how each of them ended to the same file: its exit code and the line that told of a failure.
Libraries are loaded once for all of them, which takes longer than to answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hesscli.cli.main import cli
from hesscli.cli.outcome import exit_code_of
from hesscli.workers.launcher import launched
from hesscli.workers.ranks import Ranks


def run_all(commands: list[list[str]], ranks: Ranks) -> list[tuple[int, list[str]]]:
    ended = []
    for arguments in commands:
        lines: list[str] = []

        def command(arguments: list[str] = arguments) -> Any:
            return cli.main(arguments, standalone_mode=False, obj=ranks)

        code = exit_code_of(command, lambda line, _, lines=lines: lines.append(line))
        ended.append((code, lines))
    return ended


def main(path: Path) -> None:
    together = launched()
    assert together is not None
    ranks = Ranks(together)
    ended = run_all(json.loads(path.read_text()), ranks)
    code = ranks.end(0, None, print)
    if ranks.first:
        path.write_text(json.dumps(ended))
    ranks.leave()
    sys.exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
