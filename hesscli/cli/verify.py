"""``hesscli verify``."""

from __future__ import annotations

from typing import Literal

import click

from hesscli.cli.options import (
    OutputOptions,
    ProblemOptions,
    WitnessOptions,
    output_options,
    problem_options,
    witness_options,
)
from hesscli.cli.progress import progress_bar


@click.command(
    epilog="""
    \b
    Examples:
      hesscli verify --activation relu
      hesscli verify --activation all --check form
      hesscli verify --activation tanh --terms gauss-newton
      hesscli verify --config mine.yaml --format junit --output report.xml
    """
)
@problem_options
@witness_options
@click.option(
    "--terms",
    type=click.Choice(("hessian", "gauss-newton")),
    default="hessian",
    help="Hold the whole chain rule (default) or its Gauss-Newton term alone against autodiff.",
)
@output_options
def verify(
    problem: ProblemOptions,
    witness: WitnessOptions,
    terms: Literal["hessian", "gauss-newton"],
    output: OutputOptions,
) -> int:
    """Hold the chain rule's Hessians against autodiff's.

    For each activation and layer: the quadratic form of the kernel's Hessian at the kernel
    itself by both witnesses, their residual, the largest residual of what was compared relative
    to the largest entry, and PASS or FAIL. Exits with 1 where anything fails.
    """
    config = problem.config()
    check = witness.check(config)
    problems = problem.problems(config)
    witness.save(problems[0])

    from hesscli.report.output import write_document
    from hesscli.report.verification import verification_document
    from hesscli.studies import verification

    with progress_bar() as progress:
        result = verification.verify(problems, check, terms, progress)
    write_document(verification_document(result), output.format_name, output.path)
    return 0 if result.passed else 1
