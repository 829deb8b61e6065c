"""The ``hesscli`` command and its subcommands."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hesscli.cli.approximate import approximate
from hesscli.cli.compare import compare
from hesscli.cli.config import config
from hesscli.cli.doctor import doctor
from hesscli.cli.entry import entry
from hesscli.cli.export import export
from hesscli.cli.init import init
from hesscli.cli.outcome import FAILED_INPUT, complain, exit_code_of, noticing_readers
from hesscli.cli.product import product
from hesscli.cli.replay import diff, replay
from hesscli.cli.solve import solve
from hesscli.cli.spectrum import spectrum
from hesscli.cli.sweep import sweep
from hesscli.cli.train import train
from hesscli.cli.verify import verify
from hesscli.report.bars import PLAIN
from hesscli.version import __version__
from hesscli.workers.launcher import launched

if TYPE_CHECKING:
    from hesscli.workers.ranks import Ranks

# What several processes do together.
ON_RANKS = (
    *("verify", "compare", "approximate", "solve", "product", "spectrum", "init", "train"),
    "replay",
)
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


class _Commands(click.Group):
    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with noticing_readers():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with noticing_readers():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if ctx.obj is not None and name not in ON_RANKS:
            raise click.UsageError(
                f"{name}: {ctx.obj.count} processes were started together, and only "
                f"{', '.join(ON_RANKS)} share their work; start one"
            )
        return name, command, rest


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 80,
        "show_default": True,
    },
    epilog="""
    Exit codes: 0 all checks pass, 1 a check fails or is undecided, 2 wrong usage, configuration
    or data, 70 an error in hesscli itself, 130 interrupted.

    \b
    Examples:
      hesscli verify --activation relu
      hesscli compare --activation tanh
      hesscli entry 'dense1/kernel[300,4]' 'dense2/bias[7]'
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


for command in (
    verify,
    compare,
    approximate,
    solve,
    sweep,
    entry,
    product,
    spectrum,
    init,
    train,
    export,
    replay,
    diff,
    config,
    doctor,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with the code that the documentation gives."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file or pipe is UTF-8 whatever the locale; a terminal that cannot show it gets
            # ASCII.
            utf8 = not stream.isatty() or _is_utf8(stream.encoding)
            stream.reconfigure(encoding="utf-8" if utf8 else "ascii", errors=PLAIN)
    sys.exit(_run(arguments))


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


def _run(arguments: Sequence[str] | None) -> int:
    def command_line(ranks: Ranks | None = None) -> object:
        try:
            return cli.main(arguments, prog_name="hesscli", standalone_mode=False, obj=ranks)
        except click.exceptions.NoArgsIsHelpError:
            # Wrong usage all the same: a script whose command came out empty must not pass.
            complain(_WELCOME)
            return FAILED_INPUT

    together = launched()
    if together is None:
        return exit_code_of(command_line)
    # MPI is imported only in a process that it has started.
    from hesscli.cli.together import run_together

    return run_together(together, command_line)
