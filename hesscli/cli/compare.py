"""``hesscli compare``."""

from __future__ import annotations

import click

from hesscli.cli.command import Command
from hesscli.cli.options import (
    ProblemOptions,
    WitnessOptions,
    device_option,
    problem_options,
    witness_options,
)
from hesscli.cli.output import OutputOptions, PlotOptions, output_options, plot_option
from hesscli.cli.progress import progress_bar
from hesscli.cli.record import record


@click.command(
    cls=Command,
    epilog="""
    \b
    Examples:
      hesscli compare --activation tanh
      hesscli compare --activation relu --activation tanh --activation gelu
      hesscli compare --activation all --check form --format markdown
      hesscli compare --activation all --check form --plot terms.png
    """,
)
@problem_options
@device_option
@witness_options
@plot_option
@output_options
def compare(
    problem: ProblemOptions,
    witness: WitnessOptions,
    plot: PlotOptions | None,
    output: OutputOptions,
) -> int:
    """Split the Hessians into Gauss-Newton and curvature term.

    For each activation and layer, the table shows the quadratic forms of the Hessian H, its
    Gauss-Newton term G and its curvature term C at the kernel, by both witnesses, the share of G,
    and two verdicts: whether G alone is the Hessian, and whether the whole chain rule G + C agrees
    with autodiff. Exits with 1 only if the chain rule fails.
    """
    config = problem.config()
    check = witness.check(config)
    problems = problem.problems(config)
    recorded = record(config)

    from hesscli.report.documents import document_of
    from hesscli.studies import comparison

    with progress_bar() as progress:
        result = comparison.compare(
            problems, check, progress, execution=problem.execution(problems[0])
        )
    witness.save(problems[0])
    return recorded.write(document_of(result), result.passed, output, plot)
