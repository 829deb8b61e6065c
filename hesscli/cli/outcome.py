"""The one place where errors become exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TextIO

import click

from hesscli.cli.interrupt import INTERRUPTED, Interrupted, say_interrupted
from hesscli.system.errors import HesscliError, one_line, reason
from hesscli.system.near import nearest_of

FAILED_INPUT = 2
# A fault of the program itself: EX_SOFTWARE of sysexits.h.
FAULT = 70
_REPORT = (
    "hesscli: this is an error in hesscli, not in what you gave it; please report it with the "
    "lines above and what hesscli doctor prints"
)

# Called with the line that a command ends with, and the exit code.
Tell = Callable[[str, int], None]


class ReaderGoneError(Exception):
    """The reader of standard output, such as head, has ended. Click would exit with 1."""


@contextmanager
def noticing_readers() -> Iterator[None]:
    """Raises ReaderGoneError if standard output is a pipe that nobody reads any more."""
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGoneError from error


def show(line: str, code: int = FAILED_INPUT, stream: IO[str] | None = None) -> None:
    """One line on standard error, or on ``stream``; of a fault its traceback."""
    if code == INTERRUPTED:
        say_interrupted()
    elif code == FAULT:
        complain(line, stream)
    else:
        complain(f"hesscli: {one_line(line)}", stream)


def complain(text: str, stream: IO[str] | None = None) -> None:
    """Writes ``text`` to standard error, or to ``stream``."""
    try:
        click.echo(text, file=stream, err=True)
    except OSError:
        # If standard error is closed or full there is nobody to tell.
        _write_no_more(sys.stderr)


def exit_code_of(run: Callable[[], object], tell: Tell = show) -> int:
    """The exit code of what ``run`` does; an error that the user can mend is told in one line."""
    try:
        code = run()
        return code if isinstance(code, int) else 0
    except (click.exceptions.NoSuchCommand, click.exceptions.NoSuchOption) as error:
        return _ended(tell, f"{error.message.rstrip('.')}{_instead(error)}")
    except click.ClickException as error:
        return _ended(tell, error.format_message())
    except HesscliError as error:
        return _ended(tell, str(error))
    except ImportError as error:
        from hesscli.system.memory import out_of_address_space

        remedy = out_of_address_space(error) or "hesscli doctor tells what is missing"
        return _ended(tell, f"{reason(error)}; {remedy}")
    except (ReaderGoneError, BrokenPipeError):
        _write_no_more(sys.stdout)
        return 0
    except OSError as error:
        # Of the user's files it is said where they are read and written.
        where = error.filename
        if where is None:
            where = "standard output"
            _write_no_more(sys.stdout)
        return _ended(tell, f"{where} cannot be read or written ({reason(error)})")
    except (click.Abort, KeyboardInterrupt, Interrupted):
        return _ended(tell, "interrupted", INTERRUPTED)
    except Exception as error:
        # Before Python 3.12 a RuntimeError stands for it if it comes out of a __set_name__.
        if isinstance(error.__cause__, KeyboardInterrupt | Interrupted):
            return _ended(tell, "interrupted", INTERRUPTED)
        if _is_out_of_memory(error):
            return _ended(tell, "out of memory; use a smaller batch, fewer units or dtype float32")
        import traceback

        return _ended(tell, f"{traceback.format_exc()}{_REPORT}", FAULT)


def _instead(error: click.exceptions.NoSuchCommand | click.exceptions.NoSuchOption) -> str:
    """A name that may be meant by one that does not exist, or where to find the names."""
    name, kind = getattr(error, "option_name", ""), "options"
    if isinstance(error, click.exceptions.NoSuchCommand):
        name, kind = error.command_name, "commands"
    near = nearest_of(name, error.possibilities or ())
    path = "hesscli" if error.ctx is None else error.ctx.command_path
    return f"; {path} --help lists the {kind}" if near is None else f"; did you mean {near!r}?"


def _ended(tell: Tell, line: str, code: int = FAILED_INPUT) -> int:
    tell(line, code)
    return code


def _write_no_more(stream: TextIO) -> None:
    from hesscli.report.output import write_no_more

    write_no_more(stream)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether it is Python, NumPy or TensorFlow that finds no memory, or the system no thread's."""
    tensorflow = sys.modules.get("tensorflow")
    if isinstance(error, MemoryError) or "can't start new thread" in str(error):
        return True
    return tensorflow is not None and isinstance(error, tensorflow.errors.ResourceExhaustedError)
