"""The ``hesscli`` command: its subcommands, and the one place where errors become exit codes."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import click

from hesscli.cli.compare import compare
from hesscli.cli.config import config
from hesscli.cli.doctor import doctor
from hesscli.cli.entry import entry
from hesscli.cli.export import export
from hesscli.cli.init import init
from hesscli.cli.interrupt import INTERRUPTED, Interrupted, say_interrupted
from hesscli.cli.spectrum import spectrum
from hesscli.cli.sweep import sweep
from hesscli.cli.train import train
from hesscli.cli.verify import verify
from hesscli.problem.errors import HesscliError, one_line, reason
from hesscli.report.bars import PLAIN
from hesscli.version import __version__

_FAILED_INPUT = 2
_WELCOME = f"""\
hesscli {__version__}: second derivatives of neural networks by witnesses that
must agree.

Try:
  hesscli verify --activation relu     is the chain rule autodiff's Hessian?
  hesscli compare --activation tanh    what Gauss-Newton alone leaves out
  hesscli spectrum --activation tanh   the Hessian's eigenvalues
  hesscli config > mine.yaml           a network of your own, for --config
  hesscli doctor                       is everything here that is needed?

hesscli --help lists all commands, hesscli COMMAND --help explains one."""
_SEE_HELP = "; hesscli --help lists what there is"


class _ReaderGoneError(Exception):
    """Who reads standard output has seen enough, as head has; not for Click, which exits with 1."""


@contextmanager
def _noticing_readers() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _ReaderGoneError from error


class _Commands(click.Group):
    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with _noticing_readers():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _noticing_readers():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="""
    Exit codes: 0 all checks pass, 1 a check fails or is undecided, 2 wrong usage, configuration
    or data, 130 interrupted.

    \b
    Examples:
      hesscli verify --activation relu
      hesscli compare --activation tanh
      hesscli entry 'dense1/kernel[300,4]' 'dense2/bias[7]'
      hesscli sweep --activation tanh
      hesscli spectrum --activation tanh
      hesscli train --checkpoint trained.npz
      hesscli config > mine.yaml
    """,
)
@click.version_option(__version__, prog_name="hesscli")
def cli() -> None:
    """Second derivatives of neural networks by independent witnesses.

    A multilayer perceptron's layer Hessians are computed by a hand-written chain rule in NumPy
    and by TensorFlow's automatic differentiation, and compared entry by entry on real MNIST
    images.
    """


for command in (verify, compare, sweep, entry, spectrum, init, train, export, config, doctor):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with the code that the documentation gives."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that cannot show a sign gets one of ASCII, not a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = cli.main(arguments, prog_name="hesscli", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError:
        # Wrong usage all the same: a script whose command came out empty must not pass.
        return _refuse(_WELCOME, "")
    except (click.exceptions.NoSuchCommand, click.exceptions.NoSuchOption) as error:
        # Click lists all that are near, by the alphabet; the nearest comes first here.
        near = f"; did you mean {error.possibilities[0]!r}?" if error.possibilities else ""
        return _refuse(one_line(f"{error.message.rstrip('.')}{near or _SEE_HELP}"))
    except click.ClickException as error:
        return _refuse(one_line(error.format_message()))
    except HesscliError as error:
        return _refuse(one_line(str(error)))
    except ImportError as error:
        return _refuse(one_line(f"{reason(error)}; hesscli doctor tells what is missing"))
    except OSError as error:
        # Of the user's files it is said where they are read and written.
        where = error.filename or "standard output"
        return _refuse(one_line(f"{where} cannot be read or written ({reason(error)})"))
    except (click.Abort, KeyboardInterrupt, Interrupted):
        say_interrupted()
        return INTERRUPTED
    except _ReaderGoneError:
        from hesscli.report.output import write_no_more

        write_no_more()
        return 0
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        return _refuse("out of memory; use a smaller batch, fewer units or dtype float32")


def _refuse(message: str, prefix: str = "hesscli: ") -> int:
    # Where standard error is closed or full there is nobody to tell.
    with suppress(OSError):
        click.echo(f"{prefix}{message}", err=True)
    return _FAILED_INPUT


def _is_out_of_memory(error: Exception) -> bool:
    """Whether it is Python, NumPy or TensorFlow that finds no memory, or the system no thread's."""
    tensorflow = sys.modules.get("tensorflow")
    if isinstance(error, MemoryError) or "can't start new thread" in str(error):
        return True
    return tensorflow is not None and isinstance(error, tensorflow.errors.ResourceExhaustedError)
