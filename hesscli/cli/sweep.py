"""``hesscli sweep``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hesscli.cli.answer import answered
from hesscli.cli.command import command
from hesscli.cli.options import ProblemOptions, problem_options
from hesscli.cli.output import OutputOptions, PlotOptions, output_options, plot_option

if TYPE_CHECKING:
    from hesscli.problem.network import Problem


@command(
    "hesscli sweep --activation tanh",
    "hesscli sweep --activation relu --activation tanh --format markdown",
    "hesscli sweep --config configs/square_net.yaml --block input",
    "hesscli sweep --activation tanh --plot curvature.svg",
)
@problem_options()
@click.option(
    "--block",
    "-b",
    type=click.Choice(("input",)),
    help="input: print gradient and Hessian in the input.",
    metavar="NAME",
)
@plot_option
@output_options
def sweep(
    problem: ProblemOptions, block: str | None, plot: PlotOptions | None, output: OutputOptions
) -> int:
    """Follow gradient and Hessian backwards, node by node.

    From the loss back through every activation and dense layer to the input, the table shows the
    norms over all examples of the gradient g, of the linear part I = J'SJ that the node passes on,
    of the curvature part O that the node adds, and of the Hessian S = I + O. It also shows the
    larger of the residuals of g and S against autodiff at that node, relative to the largest
    entry, and PASS or FAIL. For relu every O is 0; for tanh the table shows where curvature
    enters. With a wrong derivative, its node is the first to fail. Exits with 1 if anything fails.
    """
    config = problem.config()

    def ask(problems: tuple[Problem, ...], **how: Any) -> Any:
        from hesscli.studies.sweep import sweep

        return sweep(problems, config.check.rtol, block == "input", **how)

    return answered(problem, config, ask, output, plot)
