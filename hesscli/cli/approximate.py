"""``hesscli approximate``."""

from __future__ import annotations

import click

from hesscli.cli.command import Command
from hesscli.cli.options import (
    ProblemOptions,
    choice_option,
    device_option,
    layer_option,
    probe_seed_option,
    probes_option,
    problem_options,
)
from hesscli.cli.output import OutputOptions, PlotOptions, output_options, plot_option
from hesscli.cli.progress import progress_bar
from hesscli.cli.record import record
from hesscli.problem.names import MOST_PROBES


@click.command(
    cls=Command,
    epilog="""
    \b
    Examples:
      hesscli approximate --activation tanh
      hesscli approximate --block network --activation relu
      hesscli approximate --samples 10 --layer dense2 --plot distances.png
    """,
)
@problem_options
@device_option
@choice_option("--block", "-b", among=("kernel", "layer", "network"))
@layer_option
@click.option(
    "--samples",
    metavar="N",
    type=click.IntRange(1, MOST_PROBES),
    default=1,
    help="Targets drawn for each example.",
)
@click.option(
    "--rank",
    metavar="K",
    type=click.IntRange(min=0),
    default=10,
    help="Eigenpairs of rank K plus diagonal.",
)
@probes_option(32)
@probe_seed_option("samples and random vectors")
@plot_option
@output_options
def approximate(
    problem: ProblemOptions,
    block: str,
    layers: tuple[str, ...],
    samples: int,
    rank: int,
    probes: int,
    probe_seed: int,
    plot: PlotOptions | None,
    output: OutputOptions,
) -> int:
    """Distances of Fisher, KFAC and other approximations from the Hessian.

    For each activation and layer, it compares Gauss-Newton, Monte-Carlo and empirical Fisher, KFAC
    from each of them, KFRA, EKFAC, the best Kronecker product, the diagonal and rank K plus
    diagonal with the Hessian H and with Gauss-Newton G: relative Frobenius distance, cosine,
    trace, largest eigenvalue and storage. Distances are exact for dense layers and small blocks,
    and have error bars otherwise. Exits with 1 only if Gauss-Newton, formed from its factors,
    differs from the chain rule's.
    """
    config = problem.config()
    problems = problem.problems(config)
    recorded = record(config)

    from hesscli.report.documents import document_of
    from hesscli.studies import approximation as study

    options = study.ApproximationOptions(
        block=block,
        layers=tuple(dict.fromkeys(layers)),
        samples=samples,
        rank=rank,
        probes=probes,
        seed=probe_seed,
    )
    with progress_bar() as progress:
        result = study.approximate(
            problems, options, progress, execution=problem.execution(problems[0])
        )
    return recorded.write(document_of(result), result.passed, output, plot)
