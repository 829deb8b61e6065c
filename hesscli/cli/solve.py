"""``hesscli solve``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hesscli.cli.answer import answered
from hesscli.cli.command import choice_option, command, whole_option
from hesscli.cli.options import ProblemOptions, device_options, layer_option, problem_options
from hesscli.cli.output import OutputOptions, output_options
from hesscli.cli.vectors import VectorOptions, vector_options
from hesscli.problem.names import MATRICES, SOLVERS

if TYPE_CHECKING:
    from hesscli.problem.network import Problem


@command(
    "hesscli solve --activation tanh --damping 0.1",
    "hesscli solve --block network --matrix hessian --matrix kfac --matrix ekfac",
    "hesscli solve --layer dense1 --vector v.npy --save x.npy",
)
@problem_options()
@device_options
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
@whole_option("--products", 1, default=1000, help="Most steps of minres or cg.")
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
    # Before anything is computed that could not be written.
    vectors.check(problem)

    def ask(problems: tuple[Problem, ...], **how: Any) -> Any:
        from hesscli.studies.blocks import chosen
        from hesscli.studies.solve import SolveOptions, solve
        from hesscli.witnesses.solution import Asked

        of = tuple(dict.fromkeys(matrices)) or MATRICES[:1]
        choices = {"--activation": len(problems), "--matrix": len(of)}
        vectors.require_one(choices, len(chosen(problems[0], block, layers)))
        options = SolveOptions(block, layers, of, damping, Asked(method, rtol, products))
        result = solve(problems, options, vectors.read, **how)
        vectors.write([(row.layout, row.solution.x) for row in result.results])
        return result

    return answered(problem, problem.config(), ask, output, more_files=vectors.files)
