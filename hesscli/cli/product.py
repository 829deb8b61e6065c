"""``hesscli product``."""

from __future__ import annotations

from functools import partial

import click

from hesscli.cli.command import Command
from hesscli.cli.options import (
    ProblemOptions,
    choice_option,
    layer_option,
    probe_seed_option,
    problem_options,
)
from hesscli.cli.output import OutputOptions, output_options
from hesscli.cli.progress import progress_bar
from hesscli.cli.record import record, reports
from hesscli.problem.names import BLOCKS


@click.command(
    cls=Command,
    epilog="""
    \b
    Examples:
      hesscli product --activation tanh
      hesscli product --block network --vector v.npz --save Hv.npz
      hesscli product -l dense1 --vector v.npy --save Gv.npy --term gauss-newton
    """,
)
@problem_options
@choice_option("--block", "-b", among=BLOCKS, text="kernel, input, network, …")
@layer_option
@click.option(
    "--vector",
    metavar="FILE",
    type=click.Path(),
    show_default="random",
    help="v, as .npy or .npz.",
)
@probe_seed_option("a random v")
@click.option(
    "--save", "solution_path", metavar="FILE", type=click.Path(), help="Write H·v (.npy or .npz)."
)
@choice_option(
    "--term",
    among=("hessian", "gauss-newton", "curvature"),
    text="What --save writes: hessian, gauss-newton, …",
)
@output_options
def product(
    problem: ProblemOptions,
    block: str,
    layers: tuple[str, ...],
    vector: str | None,
    probe_seed: int,
    solution_path: str | None,
    term: str,
    output: OutputOptions,
) -> int:
    """Multiply the Hessian and its terms by a vector.

    For each activation and layer, the table shows the lengths of H·v, G·v and C·v, and vᵀHv, by
    the chain rule and by autodiff, the largest residual of all numbers in the products, and PASS
    or FAIL. The vector has a number for each parameter of the block, in C order of Keras's shapes;
    .npz has an array for each tensor, by its name. --save writes the chain rule's product, which
    --vector reads again. Exits with 1 if anything fails.
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
    from hesscli.studies import product as study
    from hesscli.studies.blocks import chosen

    options = study.ProductOptions(
        block, tuple(dict.fromkeys(layers)), config.check.rtol, probe_seed
    )
    if solution_path is not None:
        blocks = len(chosen(problems[0], block, options.layers))
        require_one_file(solution_path, {"--activation": len(problems)}, blocks)
    with progress_bar() as progress:
        result = study.product(
            problems,
            options,
            None if vector is None else partial(read_vector, vector, "--vector"),
            progress,
            execution=problem.execution(problems[0]),
        )
    if solution_path is not None and reports():
        found = [row for row in result.results if row.term == term.replace("-", "_")]
        write_vectors([(row.layout, row.product) for row in found], solution_path)
    return recorded.write(document_of(result), result.passed, output)
