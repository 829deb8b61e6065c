"""``hesscli approximate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hesscli.cli.answer import answered
from hesscli.cli.command import choice_option, command, whole_option
from hesscli.cli.options import (
    ProblemOptions,
    device_options,
    layer_option,
    probe_seed_option,
    probes_option,
    problem_options,
)
from hesscli.cli.output import OutputOptions, PlotOptions, output_options, plot_option
from hesscli.problem.names import MOST_PROBES

if TYPE_CHECKING:
    from hesscli.problem.network import Problem


@command(
    "hesscli approximate --activation tanh",
    "hesscli approximate --block network --activation relu",
    "hesscli approximate --samples 10 --layer dense2 --plot distances.png",
)
@problem_options()
@device_options
@choice_option("--block", "-b", among=("kernel", "layer", "network"))
@layer_option
@whole_option("--samples", 1, MOST_PROBES, default=1, help="Targets drawn for each example.")
@whole_option("--rank", 0, metavar="K", default=10, help="Eigenpairs of rank K plus diagonal.")
@probes_option(32)
@probe_seed_option("samples and random vectors")
@plot_option
@output_options
def approximate(
    problem: ProblemOptions,
    probe_seed: int,
    plot: PlotOptions | None,
    output: OutputOptions,
    **options: Any,
) -> int:
    """Distances of Fisher, KFAC and other approximations from the Hessian.

    For each activation and layer, it compares Gauss-Newton, Monte-Carlo and empirical Fisher, KFAC
    from each of them, KFRA, EKFAC, the best Kronecker product, the diagonal and rank K plus
    diagonal with the Hessian H and with Gauss-Newton G: relative Frobenius distance, cosine,
    trace, largest eigenvalue and storage. Distances are exact for dense layers and small blocks,
    and have error bars otherwise. Exits with 1 only if Gauss-Newton, formed from its factors,
    differs from the chain rule's.
    """

    def ask(problems: tuple[Problem, ...], **how: Any) -> Any:
        from hesscli.studies import approximation as study

        chosen = study.ApproximationOptions(seed=probe_seed, **options)
        return study.approximate(problems, chosen, **how)

    return answered(problem, problem.config(), ask, output, plot)
