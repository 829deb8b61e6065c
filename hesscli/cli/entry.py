"""``hesscli entry``."""

from __future__ import annotations

import click

from hesscli.cli.command import Command
from hesscli.cli.options import ProblemOptions, device_option, problem_options
from hesscli.cli.output import OutputOptions, output_options
from hesscli.cli.progress import progress_bar
from hesscli.cli.record import record


@click.command(
    cls=Command,
    epilog="""
    \b
    Examples:
      hesscli entry 'dense1/kernel[300,4]' 'dense2/bias[7]'
      hesscli entry 'dense1/kernel[300,4]' --activation tanh
      hesscli entry 'dense2/kernel[3,4]' --activation tanh --referee
      hesscli entry 'input[0][300]' 'input[0][301]' --format json
    """,
)
@click.argument("first", metavar="NAME")
@click.argument("second", metavar="[NAME]", required=False)
@problem_options
@device_option
@click.option("--referee", is_flag=True, help="Compute it in arithmetic of 50 digits as well.")
@output_options
def entry(
    first: str,
    second: str | None,
    problem: ProblemOptions,
    referee: bool,
    output: OutputOptions,
) -> int:
    """One second-order partial derivative of the loss.

    NAME is a single parameter, <layer>/kernel[i,h] or <layer>/bias[h], or a single value of an
    example's input, input[n][i]. With one name it is the pure second derivative. The table shows
    the Hessian's entry and its Gauss-Newton and curvature terms by both witnesses, with the
    residuals, and the Hessian's entry by finite differences with its error bar. Exits with 1 if a
    residual is too large.
    """
    config = problem.config()
    problems = problem.problems(config)
    recorded = record(config)

    from hesscli.report.documents import document_of
    from hesscli.studies import entry as study

    with progress_bar() as progress:
        result = study.entry(
            problems,
            first,
            first if second is None else second,
            config.check.rtol,
            progress,
            referee=referee,
            execution=problem.execution(problems[0]),
        )
    return recorded.write(document_of(result), result.passed, output)
