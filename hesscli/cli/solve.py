"""``hesscli solve``."""

from __future__ import annotations

from functools import partial

import click

from hesscli.cli.command import Command
from hesscli.cli.options import ProblemOptions, choice_option, layer_option, problem_options
from hesscli.cli.output import OutputOptions, output_options
from hesscli.cli.progress import progress_bar
from hesscli.cli.record import record, reports
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
@click.option(
    "--vector",
    metavar="FILE",
    type=click.Path(),
    show_default="the gradient",
    help="v, as .npy or .npz.",
)
@click.option(
    "--save", "solution_path", metavar="FILE", type=click.Path(), help="Write x (.npy or .npz)."
)
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
    vector: str | None,
    solution_path: str | None,
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

    from hesscli.problem.vectorfile import read_vector, require_vector_path

    # Before anything is computed that could not be written.
    if solution_path is not None:
        require_vector_path(solution_path, "--save")
    if vector is not None:
        problem.require_unwritten("--vector", vector)
    problems = problem.problems(config)
    recorded = record(config, more_files=[] if vector is None else [("vector", vector)])

    from hesscli.report.documents import document_of
    from hesscli.report.vectors import require_one_file, write_vectors
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
    if solution_path is not None:
        choices = {"--activation": len(problems), "--matrix": len(options.matrices)}
        require_one_file(solution_path, choices, len(chosen(problems[0], block, options.layers)))
    with progress_bar() as progress:
        result = study.solve(
            problems,
            options,
            None if vector is None else partial(read_vector, vector, "--vector"),
            progress,
            execution=problem.execution(problems[0]),
        )
    if solution_path is not None and reports():
        write_vectors([(row.layout, row.solution.x) for row in result.results], solution_path)
    return recorded.write(document_of(result), result.passed, output)
