"""The one place where errors become exit codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

import click

from hesscli.problem.errors import HesscliError

FAILED_INPUT = 2
INTERRUPTED = 130
_SEE_HELP = "; hesscli --help lists what there is"

# Called with the line that a command ends with, and the exit code.
Tell = Callable[[str, int], None]


def show(line: str, _code: int = FAILED_INPUT, stream: IO[str] | None = None) -> None:
    """One line on standard error."""
    click.echo(f"hesscli: {' '.join(line.split())}", file=stream, err=True)


def exit_code_of(run: Callable[[], object], tell: Tell = show) -> int:
    """The exit code of what ``run`` does; an error that the user can mend is told in one line."""
    try:
        code = run()
        return code if isinstance(code, int) else 0
    except (click.exceptions.NoSuchCommand, click.exceptions.NoSuchOption) as error:
        # Click lists all that are near, by the alphabet; the nearest comes first here.
        near = f"; did you mean {error.possibilities[0]!r}?" if error.possibilities else ""
        return _ended(tell, f"{error.message.rstrip('.')}{near or _SEE_HELP}")
    except click.ClickException as error:
        return _ended(tell, error.format_message())
    except HesscliError as error:
        return _ended(tell, str(error))
    except MemoryError:
        return _ended(tell, "out of memory; use a smaller batch, fewer units or dtype float32")
    except (click.Abort, KeyboardInterrupt):
        return _ended(tell, "interrupted", INTERRUPTED)


def _ended(tell: Tell, line: str, code: int = FAILED_INPUT) -> int:
    tell(line, code)
    return code
