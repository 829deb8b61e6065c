"""``hesscli entry``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hesscli.cli.answer import answered
from hesscli.cli.command import command
from hesscli.cli.options import ProblemOptions, device_options, problem_options
from hesscli.cli.output import OutputOptions, output_options

if TYPE_CHECKING:
    from hesscli.problem.network import Problem


@command(
    "hesscli entry 'dense1/kernel[300,4]' 'dense2/bias[7]'",
    "hesscli entry 'dense1/kernel[300,4]' --activation tanh",
    "hesscli entry 'dense2/kernel[3,4]' --activation tanh --referee",
    "hesscli entry 'input[0][300]' 'input[0][301]' --format json",
)
@click.argument("first", metavar="NAME")
@click.argument("second", metavar="[NAME]", required=False)
@problem_options()
@device_options
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

    def ask(problems: tuple[Problem, ...], **how: Any) -> Any:
        from hesscli.studies.entry import entry

        names = first, first if second is None else second
        return entry(problems, *names, config.check.rtol, referee=referee, **how)

    return answered(problem, config, ask, output)
