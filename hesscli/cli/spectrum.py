"""``hesscli spectrum``."""

from __future__ import annotations

import click

from hesscli.cli.command import Command
from hesscli.cli.options import (
    ProblemOptions,
    choice_option,
    layer_option,
    probe_seed_option,
    probes_option,
    problem_options,
)
from hesscli.cli.output import OutputOptions, PlotOptions, output_options, plot_option
from hesscli.cli.progress import progress_bar
from hesscli.cli.record import record, reports
from hesscli.system.errors import InputError
from hesscli.system.files import check_writable


def _density_for_plots(context: click.Context, _: click.Parameter, given: bool) -> bool:
    """What --plot draws is computed, and recorded as asked for."""
    # Options that were typed come before those that were not, so that --plot is known by now.
    return given or context.params.get("plot") is not None


@click.command(
    cls=Command,
    epilog="""
    \b
    Examples:
      hesscli spectrum --activation tanh
      hesscli spectrum --activation tanh --block network --plot spectrum.png
      hesscli spectrum --batch-size 512 --layer dense1 --probes 20
      hesscli spectrum --top 5 --eigenvectors vectors.npz
      hesscli spectrum --block network --batch-size 256 --top 1
      hesscli spectrum --block network --classes --top 10
    """,
)
@problem_options
@choice_option("--block", "-b", among=("kernel", "bias", "layer", "network"))
@layer_option
@click.option(
    "--top", metavar="K", type=click.IntRange(min=1), help="Show K eigenvalues of H and of G."
)
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
@click.option(
    "--steps",
    metavar="N",
    type=click.IntRange(min=1),
    default=80,
    help="Lanczos steps from each vector.",
)
@probe_seed_option("the random vectors")
@plot_option
@output_options
def spectrum(
    problem: ProblemOptions,
    block: str,
    layers: tuple[str, ...],
    top: int | None,
    which: str,
    density: bool,
    classes: bool,
    vectors_path: str | None,
    probes: int,
    steps: int,
    probe_seed: int,
    plot: PlotOptions | None,
    output: OutputOptions,
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
    config = problem.config()
    problems = problem.problems(config)
    recorded = record(config)

    from hesscli.report.documents import document_of
    from hesscli.studies import spectrum as study
    from hesscli.studies.spectra.subject import SpectrumOptions

    options = SpectrumOptions(
        block=block,
        layers=tuple(dict.fromkeys(layers)),
        top=top or 0,
        ends=which == "ends",
        probes=probes,
        steps=steps,
        seed=probe_seed,
        density=density,
        classes=classes,
    )
    with progress_bar() as progress:
        result = study.spectrum(
            problems, options, progress, execution=problem.execution(problems[0])
        )
    if vectors_path is not None and reports():
        from hesscli.report.eigenvectors import write_eigenvectors

        write_eigenvectors(result, vectors_path)
    return recorded.write(document_of(result), result.passed, output, plot)
