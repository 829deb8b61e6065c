"""``hesscli replay`` and ``hesscli diff``: is a result what it was?"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

import click
from click.core import ParameterSource

from hesscli.cli.command import command
from hesscli.cli.options import plugin_option, threads_option
from hesscli.cli.output import OutputOptions, output_options
from hesscli.cli.record import DECIDING, PLUGIN, plugins, run_again
from hesscli.system.errors import InputError, shown

if TYPE_CHECKING:
    from hesscli.report.recorded import Report


@command(
    "hesscli verify --activation tanh --output report.json",
    "hesscli replay report.json",
    "hesscli replay report.json --format json --output again.json",
)
@click.argument("report_path", metavar="REPORT")
@plugin_option
@threads_option
@output_options
@click.pass_context
def replay(context: click.Context, report_path: str, output: OutputOptions) -> int:
    """Repeat the command that a JSON report records, and compare.

    REPORT is what another command wrote with --output REPORT.json. The files that it was made from
    must be the same, by their SHA-256; plugins must be given again with --plugin. The result is
    printed as the command prints it, with a line on whether every number is the same: to the bit,
    or to the tolerance if versions, machine or threads differ. Exits with 1 if a number differs or
    a check fails.
    """
    from hesscli.report.recorded import read_report, require_unchanged

    report = read_report(report_path)
    if report.command not in DECIDING:
        raise InputError(
            f"{report.path}: invocation.command: {shown(report.command)}; replayed are reports of "
            f"{', '.join(DECIDING)}"
        )
    root = context.find_root()
    _, command, _ = cast(click.Group, root.command).resolve_command(root, [report.command])
    assert command is not None
    _require_plugins(report)
    if report.workers > 1 and root.obj is None:
        # One process adds up in another order, and estimates from other random vectors.
        raise click.UsageError(
            f"{report.path} was made by {report.workers} processes; replay it by as many, with "
            f"mpiexec -n {report.workers}"
        )
    require_unchanged(report, but=PLUGIN)
    if context.get_parameter_source("threads") is not ParameterSource.COMMANDLINE:
        _use_as_many_threads(report)
    return cast(int, run_again(context, command, report, output))


def _require_plugins(report: Report) -> None:
    """A report runs no code: the plugins it was made with are given again."""
    from hesscli.system.files import sha256_of

    recorded = [file for file in report.files if file.key == PLUGIN]
    given = [sha256_of(path) for path in plugins()]
    if given == [file.sha256 for file in recorded]:
        return
    if not recorded:
        raise click.UsageError(f"{report.path} was made without a plugin; leave --plugin out")
    again = " ".join(f"--plugin {file.path}" for file in recorded)
    if not given:
        wrong = "a plugin is code, which no report runs; give it again, with"
    else:
        wrong = (
            "the plugins are not the files that the report was made with (their SHA-256 is "
            "another); give them again as they were, with"
        )
    raise InputError(f"{report.path}: {wrong} {again}")


def _use_as_many_threads(report: Report) -> None:
    """As many as the report was made with, if this machine has them; else it is said."""
    from hesscli.system.threads import cores, thread_count, use_threads

    count = report.threads
    if count is None or count == thread_count() or not 1 <= count <= cores():
        return
    # If NumPy is loaded, in a program that calls this one, its number of threads stays.
    with suppress(InputError):
        use_threads(count)


@command(
    "hesscli diff before.json after.json",
    "hesscli diff here.json there.json --rtol 1e-8",
)
@click.argument("first", metavar="A.json")
@click.argument("second", metavar="B.json")
@click.option(
    "--rtol",
    metavar="X",
    type=click.FloatRange(min=0),
    help="Largest relative difference allowed.",
)
@output_options
def diff(first: str, second: str, rtol: float | None, output: OutputOptions) -> int:
    """Compare two JSON reports of the same command.

    They are compared field by field: to the bit, or to a tolerance if versions, machine or threads
    differ. Exits with 1 if anything differs.
    """
    from hesscli.report.difference import match_document, matched
    from hesscli.report.recorded import read_results
    from hesscli.studies.checks import DEFAULT_RTOL

    then, now = read_results(first), read_results(second)
    if then["schema"] != now["schema"]:
        raise InputError(
            f"{second}: schema: {now['schema']}; {first} has {then['schema']}, and two reports of "
            "the same command are compared"
        )
    if rtol is None:
        environment = now.get("environment")
        dtype = environment.get("dtype") if isinstance(environment, dict) else None
        rtol = DEFAULT_RTOL["float32" if dtype == "float32" else "float64"]
    match = matched(then, now, rtol)
    output.write(match_document(match, first, second))
    return 0 if match.passed else 1
