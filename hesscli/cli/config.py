"""``hesscli config``."""

from __future__ import annotations

import click

from hesscli.cli.command import Command
from hesscli.cli.options import ProblemOptions, problem_options
from hesscli.system.errors import InputError


@click.command(
    cls=Command,
    epilog="""
    \b
    Examples:
      hesscli config > mine.yaml
      hesscli config --config mine.yaml --activation gelu --set data.offset=100
    """,
)
@problem_options
def config(problem: ProblemOptions) -> int:
    """Print the effective configuration as YAML.

    It is what the other commands would use with the same options, every key spelled out, and
    can be given back with --config.
    """
    effective = problem.config()
    names = problem.activations
    if len(names) > 1:
        raise InputError(f"--activation: {', '.join(names)}; a configuration holds one")

    from hesscli.config.build import with_hidden_activation
    from hesscli.config.load import to_yaml
    from hesscli.problem.graph import Activation
    from hesscli.report.output import write_text

    if names:
        effective = with_hidden_activation(effective, Activation(names[0]))
    write_text(to_yaml(effective))
    return 0
