"""``hesscli product``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hesscli.cli.answer import answered
from hesscli.cli.command import choice_option, command
from hesscli.cli.options import (
    ProblemOptions,
    device_options,
    layer_option,
    probe_seed_option,
    problem_options,
)
from hesscli.cli.output import OutputOptions, output_options
from hesscli.cli.vectors import VectorOptions, vector_options
from hesscli.problem.names import BLOCKS

if TYPE_CHECKING:
    from hesscli.problem.network import Problem


@command(
    "hesscli product --activation tanh",
    "hesscli product --block network --vector v.npz --save Hv.npz",
    "hesscli product -l dense1 --vector v.npy --save Gv.npy --term gauss-newton",
)
@problem_options()
@device_options
@choice_option("--block", "-b", among=BLOCKS, help="kernel, input, network, …")
@layer_option
@vector_options("random", "H·v")
@probe_seed_option("a random v")
@choice_option(
    "--term",
    among=("hessian", "gauss-newton", "curvature"),
    help="What --save writes: hessian, gauss-newton, …",
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

    def ask(problems: tuple[Problem, ...], **how: Any) -> Any:
        from hesscli.studies.blocks import chosen
        from hesscli.studies.product import ProductOptions, product

        blocks = len(chosen(problems[0], block, layers))
        vectors.require_one({"--activation": len(problems)}, blocks)
        options = ProductOptions(block, layers, config.check.rtol, probe_seed)
        result = product(problems, options, vectors.read, **how)
        found = [row for row in result.results if row.term == term.replace("-", "_")]
        vectors.write([(row.layout, row.product) for row in found])
        return result

    return answered(problem, config, ask, output, more_files=vectors.files)
