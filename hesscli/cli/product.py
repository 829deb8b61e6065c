"""``hesscli product``."""

from __future__ import annotations

import click

from hesscli.cli.command import Command
from hesscli.cli.options import (
    ProblemOptions,
    choice_option,
    device_option,
    layer_option,
    probe_seed_option,
    problem_options,
)
from hesscli.cli.output import OutputOptions, output_options
from hesscli.cli.progress import progress_bar
from hesscli.cli.record import record
from hesscli.cli.vectors import VectorOptions, vector_options
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
@device_option
@choice_option("--block", "-b", among=BLOCKS, text="kernel, input, network, …")
@layer_option
@vector_options("random", "H·v")
@probe_seed_option("a random v")
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
    vectors: VectorOptions,
    probe_seed: int,
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
    # Before anything is computed that could not be written.
    vectors.check(problem)
    problems = problem.problems(config)
    recorded = record(config, more_files=vectors.files)

    from hesscli.report.documents import document_of
    from hesscli.studies import product as study
    from hesscli.studies.blocks import chosen

    options = study.ProductOptions(
        block, tuple(dict.fromkeys(layers)), config.check.rtol, probe_seed
    )
    blocks = len(chosen(problems[0], block, options.layers))
    vectors.require_one({"--activation": len(problems)}, blocks)
    with progress_bar() as progress:
        result = study.product(
            problems,
            options,
            vectors.vector,
            progress,
            execution=problem.execution(problems[0]),
        )
    found = [row for row in result.results if row.term == term.replace("-", "_")]
    vectors.write([(row.layout, row.product) for row in found])
    return recorded.write(document_of(result), result.passed, output)
