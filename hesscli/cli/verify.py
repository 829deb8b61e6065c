"""``hesscli verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from hesscli.cli.answer import answered
from hesscli.cli.command import choice_option, command
from hesscli.cli.options import (
    ProblemOptions,
    WitnessOptions,
    device_options,
    problem_options,
    witness_options,
)
from hesscli.cli.output import OutputOptions, PlotOptions, output_options, plot_option
from hesscli.cli.progress import progress_bar
from hesscli.cli.record import plugins, record, replayed_report
from hesscli.problem.names import DEFAULT_WITNESSES, WITNESSES
from hesscli.system.near import nearest

if TYPE_CHECKING:
    from hesscli.problem.network import Problem


def _witness_names(
    context: click.Context, parameter: click.Parameter, text: str
) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in WITNESSES:
            hint = nearest(name, WITNESSES, str, "choose from")
            raise click.BadParameter(f"{name!r} is unknown{hint}", context, parameter)
    if len(set(names)) != len(names) or len(names) < 2:
        raise click.BadParameter(
            f"{text!r}: name two or three different ones of {', '.join(WITNESSES)}",
            context,
            parameter,
        )
    return tuple(names)


@command(
    "hesscli verify --activation relu",
    "hesscli verify --activation all --check form",
    "hesscli verify --activation tanh --terms gauss-newton",
    "hesscli verify --of jacobian --block layer",
    "hesscli verify --activation tanh --witnesses chain_rule,autodiff,finite",
    "hesscli verify --config mine.yaml --format junit --output report.xml",
    "hesscli verify --activation all --check form --plot residuals.png",
)
@problem_options()
@device_options
@witness_options
@choice_option("--terms", among=("hessian", "gauss-newton"))
@choice_option("--of", among=("gradient", "jacobian", "hessian"), default="hessian")
@click.option(
    "--witnesses",
    default=",".join(DEFAULT_WITNESSES),
    callback=_witness_names,
    help="Two or three of chain_rule, autodiff, finite.",
    metavar="NAMES",
    show_default=False,
)
@plot_option
@output_options
def verify(
    problem: ProblemOptions,
    witness: WitnessOptions,
    terms: Literal["hessian", "gauss-newton"],
    of: Literal["gradient", "jacobian", "hessian"],
    witnesses: tuple[str, ...],
    plot: PlotOptions | None,
    output: OutputOptions,
) -> int:
    """Compare the chain rule's second derivatives with autodiff's.

    For each activation and layer, the table shows the quadratic form of the kernel's Hessian at
    the kernel itself by each witness, their residual, the largest residual of what was compared
    relative to the largest entry, and PASS or FAIL. Exits with 1 if anything fails.

    First derivatives, with --of gradient or jacobian, are compared in every entry; the table shows
    their norms.

    With --plugin and no other option, everything that the plugin defines is tried by itself, and a
    FAIL names the function that is wrong.

    A third witness, finite differences, has error bars. If these leave most of a block open, the
    verdict is UNDECIDED, which is not a PASS: it exits with 1 as well.
    """
    if of != "hessian":
        _require_hessian_options_unused(of, witness, terms, witnesses)
    config = problem.config()
    check = witness.check(config)
    if _is_trial(problem):
        from hesscli.report.documents import document_of
        from hesscli.studies.trial import try_plugins

        with progress_bar() as progress:
            trial = try_plugins(check.seed, progress)
        return record(config).write(document_of(trial), trial.passed, output, plot)

    def ask(problems: tuple[Problem, ...], **how: Any) -> Any:
        from hesscli.studies.first_derivatives import verify_first
        from hesscli.studies.verification import verify

        result: Any
        if of == "hessian":
            result = verify(problems, check, terms, witnesses=witnesses, **how)
        else:
            result = verify_first(problems, of, check, **how)
        witness.save(problems[0])
        return result

    return answered(problem, config, ask, output, plot)


def _is_trial(problem: ProblemOptions) -> bool:
    """Whether plugins are given and nothing that they could be used in."""
    report = replayed_report()
    if report is not None:
        return str(report.data["schema"]).startswith("hesscli/trial/")
    chosen = (
        *(problem.config_path, problem.model_path, problem.data, problem.loss),
        *(problem.layer_sizes, problem.activations, problem.assignments),
    )
    return bool(plugins()) and not any(chosen)


def _require_hessian_options_unused(
    of: str, witness: WitnessOptions, terms: str, witnesses: tuple[str, ...]
) -> None:
    if witnesses != DEFAULT_WITNESSES:
        raise click.UsageError(
            f"--of {of} --witnesses {','.join(witnesses)}: first derivatives have the witnesses "
            f"{','.join(DEFAULT_WITNESSES)}; leave --witnesses out"
        )
    if terms != "hessian":
        raise click.UsageError(
            f"--of {of} --terms {terms}: only the Hessian has a Gauss-Newton term; "
            "use one of the two options"
        )
    if witness.method in ("form", "probes"):
        raise click.UsageError(
            f"--of {of} --check {witness.method}: first derivatives are compared in every entry; "
            "use --check entries"
        )
