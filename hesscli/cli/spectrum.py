"""``hesscli spectrum``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

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
from hesscli.cli.record import reports
from hesscli.system.errors import InputError
from hesscli.system.files import check_writable

if TYPE_CHECKING:
    from hesscli.problem.network import Problem


def _density_for_plots(context: click.Context, _: click.Parameter, given: bool) -> bool:
    """--plot needs the density, so it is computed and recorded as asked for."""
    # Options that were typed come before those that were not, so that --plot is known by now.
    return given or context.params.get("plot") is not None


@command(
    "hesscli spectrum --activation tanh",
    "hesscli spectrum --activation tanh --block network --plot spectrum.png",
    "hesscli spectrum --batch-size 512 --layer dense1 --probes 20",
    "hesscli spectrum --top 5 --eigenvectors vectors.npz",
    "hesscli spectrum --block network --batch-size 256 --top 1",
    "hesscli spectrum --block network --classes --top 10",
)
@problem_options()
@device_options
@choice_option("--block", "-b", among=("kernel", "bias", "layer", "network"))
@layer_option
@whole_option("--top", 1, metavar="K", help="Show K eigenvalues of H and of G.")
@choice_option("--which", among=("magnitude", "ends"))
@click.option(
    "--density",
    is_flag=True,
    callback=_density_for_plots,
    help="With --top: rank, trace, norms, density as well.",
)
@click.option("--classes", is_flag=True, help="Which classes' gradients make trace and λ of G.")
@click.option(
    "--eigenvectors", "vectors_path", metavar="FILE", help="Write the eigenvectors of --top (.npz)."
)
@probes_option(10)
@whole_option("--steps", 1, default=80, help="Lanczos steps from each vector.")
@probe_seed_option("the random vectors")
@plot_option
@output_options
def spectrum(
    problem: ProblemOptions,
    top: int | None,
    which: str,
    vectors_path: str | None,
    probe_seed: int,
    plot: PlotOptions | None,
    output: OutputOptions,
    **options: Any,
) -> int:
    """Eigenvalues of the Hessian and its Gauss-Newton term.

    For each activation and layer, the table shows for both terms the rank, the largest and
    smallest eigenvalue, the number of negative ones, the effective rank, trace, range of the
    diagonal, Frobenius and spectral norm. Everything is exact if at most 4,000 eigenvalues can
    differ from zero. If there are more, the ends of the spectrum come from Lanczos and sums over
    it from stochastic Lanczos quadrature, and every estimate has an error bar. With --top alone,
    only the K eigenvalues of a block of more than 256 are computed, in seconds instead of
    minutes. Exits with 1 if the numbers contradict each other.
    """
    if vectors_path is not None:
        if top is None:
            raise InputError("--eigenvectors: there are none without --top; add --top 5")
        if not vectors_path.lower().endswith(".npz"):
            raise InputError(f"--eigenvectors {vectors_path}: the suffix must be .npz")
        check_writable(vectors_path)

    def ask(problems: tuple[Problem, ...], **how: Any) -> Any:
        from hesscli.studies.spectra.subject import SpectrumOptions
        from hesscli.studies.spectrum import spectrum

        chosen = SpectrumOptions(top=top or 0, ends=which == "ends", seed=probe_seed, **options)
        result = spectrum(problems, chosen, **how)
        if vectors_path is not None and reports():
            from hesscli.report.eigenvectors import write_eigenvectors

            write_eigenvectors(result, vectors_path)
        return result

    return answered(problem, problem.config(), ask, output, plot)
