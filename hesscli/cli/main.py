"""The ``hesscli`` command: its subcommands, and the one place where errors become exit codes."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from hesscli import __version__
from hesscli.cli.compare import compare
from hesscli.cli.config import config
from hesscli.cli.entry import entry
from hesscli.cli.export import export
from hesscli.cli.init import init
from hesscli.cli.spectrum import spectrum
from hesscli.cli.sweep import sweep
from hesscli.cli.train import train
from hesscli.cli.verify import verify
from hesscli.problem.errors import HesscliError
from hesscli.report.bars import PLAIN

_FAILED_INPUT = 2
_INTERRUPTED = 130


@click.group(
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


for command in (verify, compare, sweep, entry, spectrum, init, train, export, config):
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
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        return _FAILED_INPUT
    except click.ClickException as error:
        return _refuse(error.format_message())
    except HesscliError as error:
        return _refuse(str(error))
    except MemoryError:
        return _refuse("out of memory; use a smaller batch, fewer units or dtype float32")
    except (click.Abort, KeyboardInterrupt):
        click.echo("hesscli: interrupted", err=True)
        return _INTERRUPTED


def _refuse(message: str) -> int:
    click.echo(f"hesscli: {' '.join(message.split())}", err=True)
    return _FAILED_INPUT
