"""``hesscli solve``."""

from __future__ import annotations

import click

from hesscli.cli.command import Command
from hesscli.cli.options import (
    ProblemOptions,
    choice_option,
    device_option,
    layer_option,
    problem_options,
)
from hesscli.cli.output import OutputOptions, output_options
from hesscli.cli.progress import progress_bar
from hesscli.cli.record import record
from hesscli.cli.vectors import VectorOptions, vector_options
from hesscli.problem.names import MATRICES, SOLVERS


@click.command(
    cls=Command,
    epilog="""
    \b
    Examples:
      hesscli solve --activation tanh --damping 0.1
      hesscli solve --block network --matrix hessian --matrix kfac --matrix ekfac
      hesscli solve --layer dense1 --vector v.npy --save x.npy
    """,
)
@problem_options
@device_option
@choice_option("--block", "-b", among=("kernel", "bias", "layer", "network"))
@layer_option
@click.option(
    "--matrix",
    "-m",
    "matrices",
    metavar="NAME",
    type=click.Choice(MATRICES),
    multiple=True,
    show_default=MATRICES[0],
    help="hessian, gauss-newton, kfac, …; repeatable.",
)
@click.option(
    "--damping", metavar="X", type=click.FloatRange(min=0), default=0.01, help="λ of H + λI."
)
@vector_options("the gradient", "x")
@choice_option("--method", among=SOLVERS)
@click.option(
    "--rtol",
    metavar="X",
    type=click.FloatRange(min=0, min_open=True),
    show_default="1e-8",
    help="Largest relative residual.",
)
@click.option(
    "--products",
    metavar="N",
    type=click.IntRange(min=1),
    default=1000,
    help="Most steps of minres or cg.",
)
@output_options
def solve(
    problem: ProblemOptions,
    block: str,
    layers: tuple[str, ...],
    matrices: tuple[str, ...],
    damping: float,
    vectors: VectorOptions,
    method: str,
    rtol: float | None,
    products: int,
    output: OutputOptions,
) -> int:
    """Solve (H + λI) x = g: the damped Newton step.

    For each activation and layer the step is Δ = −x, with the decrease of the loss that its
    quadratic model predicts and the actual one. --matrix takes Gauss-Newton, KFAC or another
    approximation in place of H, --vector a vector of your own in place of the gradient g. Small
    blocks and dense layers on few examples are solved by eigenvalues, KFAC and EKFAC by their
    factors, others by MINRES or conjugate gradients; the residual that is shown is the true one.
    If the system is singular or indefinite, the output says so and names a damping that suffices.
    Exits with 1 if a residual is too large.
    """
    config = problem.config()
    # Before anything is computed that could not be written.
    vectors.check(problem)
    problems = problem.problems(config)
    recorded = record(config, more_files=vectors.files)

    from hesscli.report.documents import document_of
    from hesscli.studies import solve as study
    from hesscli.studies.blocks import chosen
    from hesscli.witnesses.solution import Asked

    options = study.SolveOptions(
        block=block,
        layers=tuple(dict.fromkeys(layers)),
        matrices=tuple(dict.fromkeys(matrices)) or MATRICES[:1],
        damping=damping,
        asked=Asked(method, rtol, products),
    )
    choices = {"--activation": len(problems), "--matrix": len(options.matrices)}
    vectors.require_one(choices, len(chosen(problems[0], block, options.layers)))
    with progress_bar() as progress:
        result = study.solve(
            problems,
            options,
            vectors.vector,
            progress,
            execution=problem.execution(problems[0]),
        )
    vectors.write([(row.layout, row.solution.x) for row in result.results])
    return recorded.write(document_of(result), result.passed, output)
