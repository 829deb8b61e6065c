"""``--replay``: a command run again as its JSON report says, and the two results compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hesscli.system.errors import InputError

if TYPE_CHECKING:
    from hesscli.cli.options import OutputOptions
    from hesscli.config.schema import Config
    from hesscli.report.document import Document
    from hesscli.report.invocation import Invocation
    from hesscli.report.recorded import Report
    from hesscli.workers.ranks import Ranks

_REPORT, _PLUGINS = "hesscli.replay", "hesscli.plugins"
# What may stand beside --replay: none of it decides what is computed, or it is said that it does.
_BESIDE = ("replay", "plugin", "format_name", "path", "plot", "threads")
_PLUGIN = "plugin"
# Each rank iterates by itself: where one rounds otherwise, it may take another step.
_ITERATED = ("spectrum", "init")


def replayed_report() -> Report | None:
    """The report that the command at work was given with ``--replay``."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_REPORT)


def note_plugins(context: click.Context, paths: tuple[str, ...]) -> None:
    """Remembers the plugins of a command line, as files that it read."""
    context.meta[_PLUGINS] = paths


class Replayable(click.Command):
    """A command with ``--replay``; its function gets a Run as ``run``.

    ``replayed`` names the parameters, beside the configuration, that decide what is computed.
    They are recorded in the JSON report, and only they are taken from one: a report must not
    make a command write files or run code.
    """

    def __init__(self, *arguments: Any, replayed: Sequence[str], **others: Any) -> None:
        super().__init__(*arguments, **others)
        self.replayed = tuple(replayed)
        self.params.append(
            click.Option(
                ["--replay"],
                metavar="FILE",
                is_eager=True,
                expose_value=False,
                callback=self._take_from_report,
                help="Run what a JSON report of this command says again, and tell whether every "
                "number is the same.",
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, args)
        except click.BadParameter as error:
            report: Report | None = ctx.meta.get(_REPORT)
            name = error.param.name if error.param else None
            if report is None or name is None or not _is_from_report(ctx, name):
                raise
            # A plugin that is missing explains an unknown activation.
            _require_plugins(ctx, report)
            raise InputError(
                f"{report.path}: invocation.options: {error.format_message()}"
            ) from error
        report = ctx.meta.get(_REPORT)
        if report is not None:
            self._require_nothing_beside(ctx)
            _require_plugins(ctx, report)
            _require_ranks(ctx, report)
            from hesscli.report.recorded import require_unchanged

            require_unchanged(report, keys_given_anew=(_PLUGIN,))
        ctx.params["run"] = Run(
            command=self.name or "",
            options={
                _label(param): _plain(param, ctx.params[param.name])
                for param in self.params
                if param.name in self.replayed
            },
            plugins=ctx.meta.get(_PLUGINS, ()),
            report=report,
            ranks=ctx.find_root().obj,
        )
        return rest

    def _take_from_report(
        self, context: click.Context, _: click.Parameter, path: str | None
    ) -> None:
        # Completing a command line must not wait for a file.
        if path is None or context.resilient_parsing:
            return
        from hesscli.report.recorded import read_report

        report = read_report(path, self.name or "")
        params = {_label(param): param for param in self.params if param.name in self.replayed}
        for label in report.options:
            if label not in params:
                raise InputError(
                    f"{path}: invocation.options.{label}: unknown; choose {', '.join(params)}"
                )
        context.meta[_REPORT] = report
        if context.get_parameter_source("threads") is not ParameterSource.COMMANDLINE:
            _use_as_many_threads(report)
        # Click then looks at them as it does at what is typed.
        context.default_map = {
            params[label].name or "": _typed(f"{path}: invocation.options.{label}", param, value)
            for label, value in report.options.items()
            if (param := params[label]) and value is not None
        }

    def _require_nothing_beside(self, context: click.Context) -> None:
        for param in self.params:
            given = context.get_parameter_source(param.name or "")
            if given is ParameterSource.COMMANDLINE and param.name not in _BESIDE:
                name = param.opts[0] if isinstance(param, click.Option) else param.name
                raise click.UsageError(
                    f"--replay runs what the report says; leave {name} out (--format, --output, "
                    "--plot, --plugin and --threads may stand beside it)"
                )


@dataclass(frozen=True)
class Run:
    """A command line as it is recorded; ``report`` is what it replays, if it does.

    ``ranks`` are the processes that run it, where there are several.
    """

    command: str
    options: Mapping[str, Any]
    plugins: tuple[str, ...]
    report: Report | None
    ranks: Ranks | None = None

    @property
    def reports(self) -> bool:
        """Whether this process shows and writes what is found: of several the first one."""
        return self.ranks is None or self.ranks.first

    def record(
        self,
        config: Config,
        *,
        held_out: bool = False,
        more_files: Sequence[tuple[str, str]] = (),
    ) -> Record:
        """What this run is made from, the files as they are now.

        ``held_out`` says that the test split is read as well; ``more_files`` are those that no
        key of ``config`` names. Raises InputError where a replayed report was made from others.
        """
        from hesscli.config.inputs import files_read
        from hesscli.config.load import to_document
        from hesscli.report.invocation import InputFile, Invocation, this_machine, versions
        from hesscli.system.files import sha256_of

        paths = (
            *files_read(config, held_out=held_out),
            *more_files,
            *((_PLUGIN, path) for path in self.plugins),
        )
        files = tuple(InputFile(key, path, sha256_of(path)) for key, path in paths)
        if self.report is not None:
            from hesscli.report.recorded import require_same_files

            require_same_files(self.report, files)
        invocation = Invocation(
            command=self.command,
            options=self.options,
            configuration=to_document(config),
            files=files,
            versions=versions(),
            machine=this_machine(),
        )
        if self.ranks is not None:
            self.ranks.agree(_facts(invocation))
        return Record(invocation, self.report, config, self.ranks)


@dataclass(frozen=True)
class Record:
    """What a run was made from, to be written with its result."""

    invocation: Invocation
    report: Report | None
    config: Config
    ranks: Ranks | None

    def write(
        self, document: Document, passed: bool, output: OutputOptions, plot: str | None = None
    ) -> int:
        """Writes the result where the options say; the exit code.

        Of several ranks only the first one writes.
        """
        if self.ranks is not None:
            self.ranks.before_the_report()
            if not self.ranks.first:
                return 0
        from hesscli.report.invocation import with_invocation
        from hesscli.report.output import write_document
        from hesscli.report.plots import write_plot

        recorded = with_invocation(document, self.invocation)
        if self.report is not None and document.data["status"] != "interrupted":
            from hesscli.report.replay import replayed
            from hesscli.studies.checks import DEFAULT_RTOL

            rtol = self.config.check.rtol
            rtol = DEFAULT_RTOL[self.config.dtype] if rtol is None else rtol
            recorded, replay = replayed(self.report, recorded, self.invocation, rtol)
            passed = passed and replay.passed
        if plot is not None:
            write_plot(recorded, plot)
        write_document(recorded, output.format_name, output.path)
        return 0 if passed else 1


def _require_plugins(context: click.Context, report: Report) -> None:
    """A report runs no code: the plugins it was made with are given again."""
    from hesscli.system.files import sha256_of

    recorded = [file for file in report.files if file.key == _PLUGIN]
    given = [sha256_of(path) for path in context.meta.get(_PLUGINS, ())]
    if given == [file.sha256 for file in recorded]:
        return
    if not recorded:
        raise click.UsageError(f"{report.path} was made without a plugin; leave --plugin out")
    again = " ".join(f"--plugin {file.path}" for file in recorded)
    if not given:
        raise InputError(
            f"{report.path}: a plugin is code, which no report runs; give it again, with {again}"
        )
    raise InputError(
        f"{report.path}: the plugins are not the files that the report was made with (their "
        f"SHA-256 is another); give them again as they were, with {again}"
    )


def _require_ranks(context: click.Context, report: Report) -> None:
    """One process adds up in another order, and estimates from other random vectors."""
    if report.workers > 1 and context.find_root().obj is None:
        raise click.UsageError(
            f"{report.path} was made by {report.workers} processes; replay it by as many, with "
            f"mpiexec -n {report.workers}"
        )


def _facts(invocation: Invocation) -> dict[str, Any]:
    """What the ranks must have in common, as messages name it."""
    from hesscli.studies.context import installed_versions

    facts = {"the command": invocation.command, **installed_versions()}
    facts.update(_leaves({**invocation.options, **invocation.configuration}))
    for file in invocation.files:
        facts[f"{file.key} {file.path} with SHA-256"] = file.sha256
    if invocation.command in _ITERATED:
        from hesscli.system.threads import thread_count

        blas, machine = invocation.versions["blas"], invocation.machine
        facts.update({"threads": thread_count(), "BLAS": blas, "the machine": machine})
    return facts


def _leaves(value: Any, key: str = "") -> dict[str, Any]:
    """The plain values inside mappings and lists, by their path."""
    if isinstance(value, Mapping):
        parts = [(str(name), part) for name, part in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
        parts = [(str(place), part) for place, part in enumerate(value)]
    else:
        return {key: str(value)}
    leaves: dict[str, Any] = {}
    for name, part in parts:
        leaves.update(_leaves(part, f"{key}.{name}" if key else name))
    return leaves


def _use_as_many_threads(report: Report) -> None:
    """As many as the report was made with, where this machine has them; else it is said."""
    from hesscli.system.threads import cores, thread_count, use_threads

    count = report.threads
    if count is None or count == thread_count() or not 1 <= count <= cores():
        return
    # Where NumPy is loaded, in a program that calls this one, its number of threads stays.
    with suppress(InputError):
        use_threads(count)


def _is_from_report(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.DEFAULT_MAP


def _label(param: click.Parameter) -> str:
    """A parameter as the report calls it: its long name."""
    if isinstance(param, click.Option):
        long = next(name for name in param.opts if name.startswith("--"))
        return long.removeprefix("--").replace("-", "_")
    return param.name or ""


def _plain(param: click.Parameter, value: Any) -> Any:
    """A value as JSON holds it."""
    if isinstance(value, tuple):
        # One option that was parted at its commas.
        return list(value) if param.multiple else ",".join(str(item) for item in value)
    return value


def _typed(where: str, param: click.Parameter, value: Any) -> Any:
    """A value of a report as Click takes it: text, as if it had been typed, or a flag."""
    if isinstance(param, click.Option) and param.is_flag:
        if not isinstance(value, bool):
            raise InputError(f"{where}: it must be true or false")
        return value
    if param.multiple:
        if not isinstance(value, list):
            raise InputError(f"{where}: it must be a list")
        return [_text(where, item) for item in value]
    return _text(where, value)


def _text(where: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{where}: it must be text or a number")
    return str(value)
