"""``hesscli compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hesscli.cli.answer import answered
from hesscli.cli.command import command
from hesscli.cli.options import (
    ProblemOptions,
    WitnessOptions,
    device_options,
    problem_options,
    witness_options,
)
from hesscli.cli.output import OutputOptions, PlotOptions, output_options, plot_option

if TYPE_CHECKING:
    from hesscli.problem.network import Problem


@command(
    "hesscli compare --activation tanh",
    "hesscli compare --activation relu --activation tanh --activation gelu",
    "hesscli compare --activation all --check form --format markdown",
    "hesscli compare --activation all --check form --plot terms.png",
)
@problem_options()
@device_options
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

    def ask(problems: tuple[Problem, ...], **how: Any) -> Any:
        from hesscli.studies.comparison import compare

        result = compare(problems, check, **how)
        witness.save(problems[0])
        return result

    return answered(problem, config, ask, output, plot)
