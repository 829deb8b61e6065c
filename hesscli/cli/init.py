"""``hesscli init``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hesscli.cli.command import choice_option, command, whole_option
from hesscli.cli.options import ALL, ProblemOptions, problem_options
from hesscli.cli.output import OutputOptions, PlotOptions, output_options, plot_option
from hesscli.cli.progress import progress_bar
from hesscli.cli.record import record
from hesscli.problem.names import CONFIGURED, INITIALIZERS, MOST_SEEDS
from hesscli.system.files import check_writable, replacing

if TYPE_CHECKING:
    from hesscli.config.schema import Config, ModelConfig
    from hesscli.problem.execution import Execution
    from hesscli.problem.network import Problem
    from hesscli.report.document import Document
    from hesscli.studies.initialization import Scheme

# A deviation that makes the Hessian vanish, the notebooks' usual one, and one that explodes.
_STDDEVS = (1e-5, 0.01, 1.0)


def _deviations(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[float, ...]:
    values: list[float] = []
    for part in (part.strip() for text in texts for part in text.split(",")):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise click.BadParameter(
                f"{part!r} is not a standard deviation; give numbers above 0, as in 1e-5,0.01,1",
                context,
                parameter,
            )
        values.append(value)
    return tuple(dict.fromkeys(values))


@command(
    "hesscli init --activation relu --activation tanh",
    "hesscli init -a tanh --stddev 1e-5,1e-3,0.01,0.1,1,10 --plot norms.png",
    "hesscli init --initializer he_normal --initializer glorot_normal --seeds 20",
    "hesscli init --activation tanh --tune --write tuned.yaml",
)
@problem_options()
@click.option(
    "--initializer",
    "-i",
    "initializers",
    metavar="NAME",
    multiple=True,
    type=click.Choice((*INITIALIZERS, CONFIGURED, ALL)),
    help="Initializer, configured or all; repeatable.",
)
@click.option(
    "--stddev",
    "stddevs",
    metavar="NUMBERS",
    multiple=True,
    callback=_deviations,
    help="random_normal with these deviations; repeatable.",
)
@whole_option("--seeds", 1, MOST_SEEDS, default=5, help="Draws of each.")
@choice_option("--block", "-b", among=("kernel", "bias", "layer"))
@click.option("--tune", is_flag=True, help="Find the scale of each layer's initializer.")
@click.option(
    "--target", metavar="X", type=float, help="Norm that --tune aims for.", show_default="1"
)
@choice_option("--norm", among=("frobenius", "spectral"))
@click.option("--write", "write_path", metavar="FILE", help="Write the tuned configuration (YAML).")
@plot_option
@output_options
def init(
    problem: ProblemOptions,
    initializers: tuple[str, ...],
    stddevs: tuple[float, ...],
    seeds: int,
    block: str,
    tune: bool,
    target: float | None,
    norm: str,
    write_path: str | None,
    plot: PlotOptions | None,
    output: OutputOptions,
) -> int:
    """The size of the Hessian at initialization.

    For each initializer (or standard deviation) and layer, over several seeds: the spectral and
    Frobenius norm of the Hessian, the share of its Gauss-Newton term, and the norm of the
    gradient. If the weights are too small the Hessian vanishes, and if they are too large it
    explodes. With --tune, the command finds the scale of each layer's initializer at which that
    layer's Hessian has the norm --target, for all layers together, verifies it by drawing the
    weights again, and prints the section for a configuration. Exits with 1 if no such scales are
    found.
    """
    _require_tuned(tune, {"--target": target, "--write": write_path})
    if tune and (initializers or stddevs):
        raise click.UsageError(
            "--tune takes the initializers of the configuration; give another with "
            "--set model.initializer=NAME, without --initializer and --stddev"
        )
    if target is not None and not 0 < target < math.inf:
        raise click.BadParameter(
            f"{target:g}; it must be a number above 0", param_hint="'--target'"
        )
    if write_path is not None:
        check_writable(write_path)
        problem.require_one_activation("a configuration contains one")
    config = problem.config()

    from hesscli.studies.initialization import require_drawn

    require_drawn(config.model)
    problems = problem.with_all_examples().problems(config)
    recorded = record(config)
    execution = problem.execution(problems[0])
    if tune:
        passed, document = _tuned(
            problems, execution, config, target or 1.0, norm, block, seeds, write_path
        )
    else:
        schemes = _schemes(config.model, initializers, stddevs)
        passed = True
        document = _measured(problems, execution, config, schemes, norm, block, seeds)
    return recorded.write(document, passed, output, plot)


def _announce(expected: float, problem: Problem) -> None:
    """Announces a computation that will take long."""
    from hesscli.cli.outcome import complain
    from hesscli.studies.norm_cost import WORTH_SAYING, duration_text

    if expected >= WORTH_SAYING:
        complain(
            f"hesscli: the norms over {problem.examples:,} examples will take about "
            f"{duration_text(expected)}; a smaller --batch-size or fewer --seeds take less"
        )


def _require_tuned(tune: bool, options: dict[str, object]) -> None:
    for name, value in options.items():
        if value is not None and not tune:
            raise click.UsageError(f"{name} belongs to --tune; give both or neither")


def _schemes(
    model: ModelConfig, initializers: tuple[str, ...], stddevs: tuple[float, ...]
) -> tuple[Scheme, ...]:
    from hesscli.studies.initialization import schemes_of, usual_schemes

    if ALL in initializers or not (initializers or stddevs):
        return usual_schemes(model, stddevs or _STDDEVS)
    return schemes_of(tuple(dict.fromkeys(initializers)), stddevs)


def _measured(
    problems: Sequence[Problem],
    execution: Execution,
    config: Config,
    schemes: tuple[Scheme, ...],
    norm: str,
    block: str,
    seeds: int,
) -> Document:
    from hesscli.report.initialization import initialization_document
    from hesscli.studies.initialization import (
        expected_seconds,
        initialization,
        require_pairs,
        seeds_from,
    )

    draws = seeds_from(config.seed, seeds)
    require_pairs(problems[0], execution)
    _announce(expected_seconds(problems, schemes, draws, block), problems[0])
    with progress_bar() as progress:
        result = initialization(
            problems,
            config.model,
            schemes,
            draws,
            block,
            progress,
            execution=execution,
        )
    return initialization_document(result, norm)


def _tuned(
    problems: Sequence[Problem],
    execution: Execution,
    config: Config,
    target: float,
    norm: str,
    block: str,
    seeds: int,
    write_path: str | None,
) -> tuple[bool, Document]:
    from hesscli.report.tuning import tuned_configuration, tuning_document
    from hesscli.studies.initialization import require_pairs, seeds_from
    from hesscli.studies.tuning import expected_seconds, tune

    if norm == "frobenius":
        require_pairs(problems[0], execution)
    _announce(expected_seconds(problems, seeds_from(config.seed, seeds), norm, block), problems[0])
    with progress_bar() as progress:
        result = tune(
            problems,
            config.model,
            seeds_from(config.seed, seeds),
            target=target,
            norm=norm,
            block=block,
            progress=progress,
            execution=execution,
        )
    if write_path is not None and result.passed and execution.workers.index == 0:
        with replacing(write_path) as stream:
            stream.write(tuned_configuration(result, config).encode("utf-8"))
    return result.passed, tuning_document(result)
