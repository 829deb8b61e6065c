"""The steps that all commands share that ask a study about a problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hesscli.cli.progress import progress_bar
from hesscli.cli.record import record

if TYPE_CHECKING:
    from hesscli.cli.options import ProblemOptions
    from hesscli.cli.output import OutputOptions, PlotOptions
    from hesscli.config.schema import Config


def answered(
    problem: ProblemOptions,
    config: Config,
    ask: Callable[..., Any],
    output: OutputOptions,
    plot: PlotOptions | None = None,
    more_files: Sequence[tuple[str, str]] = (),
) -> int:
    """Asks a study about the problem of ``config`` and writes the result; returns the exit code.

    ``ask`` gets the problem once for each activation, and ``progress`` and ``execution`` by name.
    """
    problems = problem.problems(config)
    recorded = record(config, more_files=more_files)

    from hesscli.report.documents import document_of

    with progress_bar() as progress:
        result = ask(problems, progress=progress, execution=problem.execution(problems[0]))
    return recorded.write(document_of(result), result.passed, output, plot)
