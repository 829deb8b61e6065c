"""``hesscli train``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from hesscli.cli.command import command
from hesscli.cli.interrupt import INTERRUPTED, say_interrupted, stop_requested
from hesscli.cli.options import ProblemOptions, device_options, problem_options
from hesscli.cli.output import OutputOptions, PlotOptions, output_options, plot_option
from hesscli.cli.progress import training_display
from hesscli.cli.record import record, reports
from hesscli.system.files import check_writable

if TYPE_CHECKING:
    from hesscli.config.load import Override


@command(
    "hesscli train",
    "hesscli train --learning-rate 0.05 --momentum 0.9 --examples 4000",
    "hesscli train --checkpoint trained.npz --plot training.png",
    "hesscli train --resume trained.npz --checkpoint trained.npz --steps 4000",
    "hesscli verify --check form --set model.weights=trained.npz",
)
@problem_options(batch_help="Examples in a mini-batch, or all.", batch_default="64")
@device_options
@click.option(
    "--learning-rate", metavar="X", type=float, help="Learning rate of SGD.", show_default="0.1"
)
@click.option(
    "--momentum", metavar="X", type=float, help="0 or more and below 1.", show_default="0"
)
@click.option("--steps", metavar="N", type=int, help="Steps in all.", show_default="2000")
@click.option("--examples", metavar="N", help="Train on the first N examples.", show_default="all")
@click.option(
    "--every", metavar="K", type=int, help="Measure the curvature every K steps.", show_default="20"
)
@click.option("--measure-examples", metavar="N", help="Measure on the first N.", show_default="256")
@click.option("--checkpoint", metavar="FILE", help="Write the state (.npz), at the end as well.")
@click.option(
    "--checkpoint-every", metavar="K", type=int, help="Write it every K steps.", show_default="200"
)
@click.option("--resume", metavar="FILE", help="Go on from a checkpoint, to --steps in all.")
@output_options
@plot_option
def train(
    problem: ProblemOptions,
    checkpoint: str | None,
    resume: str | None,
    output: OutputOptions,
    plot: PlotOptions | None,
    **given: float | int | str | None,
) -> int:
    """Train by SGD, and measure the curvature on the way.

    It trains on all of the configured data, from data.offset on; data.batch_size, the batch of
    the other commands, is ignored. Every K steps it measures on a fixed batch: loss and accuracy;
    the sharpness, which is the largest eigenvalue of the whole network's Hessian, compared with
    2/learning rate; and for each layer the largest eigenvalue, the trace, the share of the
    Gauss-Newton term and the curvature along the gradient. The options override the keys of the
    same names in the section train of the configuration. Ctrl-C stops the training after the
    current step; the report and the checkpoint are written, and the exit code is 130.
    """
    problem.require_one_activation("one network is trained")
    if checkpoint is not None:
        # Before anything is trained that could not be kept.
        check_writable(checkpoint)
    overrides = list(_overrides({"batch_size": problem.batch_size, **given}))
    config = replace(problem, batch_size=None).config_of_one("one network is trained", overrides)

    from hesscli.config.training import build_training_data
    from hesscli.report.documents import document_of
    from hesscli.studies import training as study
    from hesscli.studies.agreement import agreed

    problem.require_plugins_used(config)
    with problem.naming_the_file():
        data = build_training_data(config, problem.workers)
        agreed(data.problem)
    more_files = [] if resume is None else [("resume", resume)]
    # Before a checkpoint takes the place of the file that is resumed.
    recorded = record(config, held_out=True, more_files=more_files)
    with stop_requested() as stopped, training_display(config.train.steps) as watch:
        result = study.train(
            data,
            config.train,
            checkpoint=checkpoint if reports() else None,
            resume=resume,
            watch=watch,
            stopped=stopped,
            execution=problem.execution(data.problem),
        )
    code = recorded.write(document_of(result), True, output, plot)
    if not result.completed and reports():
        say_interrupted(f" after step {result.steps}")
        return INTERRUPTED
    return code


def _overrides(given: dict[str, float | int | str | None]) -> Iterator[Override]:
    from hesscli.config.load import Override, whole_number

    for key, value in given.items():
        if value is not None:
            number = whole_number(value) if isinstance(value, str) else value
            yield Override(("train", key), number, f"--{key.replace('_', '-')}")
