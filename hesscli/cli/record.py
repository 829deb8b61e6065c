"""A command line as it is recorded in its JSON report, and what is run again from one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from hesscli.system.errors import InputError

if TYPE_CHECKING:
    from hesscli.cli.output import OutputOptions, PlotOptions
    from hesscli.config.schema import Config
    from hesscli.report.document import Document
    from hesscli.report.invocation import Invocation
    from hesscli.report.recorded import Report
    from hesscli.workers.ranks import Ranks

_REPLAYED, _PLUGINS = "hesscli.replayed", "hesscli.plugins"
PLUGIN = "plugin"
_SHARED = ("activations", "block", "layers", "probe_seed", "probes")
# The parameters of each command, next to the configuration, that decide what is computed. They
# are recorded, and only they are taken from a report: a report must not make a command write files
# or run code.
DECIDING: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "verify": (*_SHARED, "method", "terms", "of", "witnesses"),
        "compare": (*_SHARED, "method"),
        "approximate": (*_SHARED, "samples", "rank"),
        "solve": (
            *("activations", "block", "layers"),
            *("matrices", "damping", "vector", "method", "rtol", "products"),
        ),
        "product": ("activations", "block", "layers", "probe_seed", "vector"),
        "sweep": ("activations", "block"),
        "entry": ("first", "second", "activations", "referee"),
        "spectrum": (*_SHARED, "top", "which", "density", "classes", "steps"),
        "init": (
            *("activations", "initializers", "stddevs", "seeds", "block"),
            *("tune", "target", "norm"),
        ),
        "train": ("activations", "resume"),
    }
)
# Each rank iterates by itself: if one rounds otherwise, it may take another step.
_ITERATED = ("approximate", "solve", "spectrum", "init")


def replayed_report() -> Report | None:
    """The report that is run again, if one is."""
    report: Report | None = _meta().get(_REPLAYED, (None, None))[0]
    return report


def plugins() -> Mapping[str, tuple[str, ...]]:
    """The plugins of the command line, which are files that it read, with what they define."""
    found: Mapping[str, tuple[str, ...]] = _meta().get(_PLUGINS, {})
    return found


def note_plugins(context: click.Context, loaded: Mapping[str, tuple[str, ...]]) -> None:
    context.meta[_PLUGINS] = loaded


def _meta() -> Mapping[str, Any]:
    context = click.get_current_context(silent=True)
    return {} if context is None else context.meta


def reports() -> bool:
    """Whether this process shows and writes what is found: of several the first one."""
    ranks: Ranks | None = click.get_current_context().find_root().obj
    return ranks is None or ranks.first


def record(
    config: Config, *, held_out: bool = False, more_files: Sequence[tuple[str, str]] = ()
) -> Record:
    """Records what the running command depends on, with the files as they are now.

    ``held_out`` says that the test split is read as well; ``more_files`` are those that no key of
    ``config`` names.
    """
    from hesscli.config.inputs import files_read
    from hesscli.config.load import to_document
    from hesscli.report.invocation import InputFile, Invocation, this_machine, versions
    from hesscli.system.files import sha256_of

    context = click.get_current_context()
    paths = (
        *files_read(config, held_out=held_out),
        *more_files,
        *((PLUGIN, path) for path in plugins()),
    )
    invocation = Invocation(
        command=context.command.name or "",
        options={
            label: _plain(param, context.params[param.name or ""])
            for label, param in deciding(context.command).items()
        },
        configuration=to_document(config),
        files=tuple(InputFile(key, path, sha256_of(path)) for key, path in paths),
        versions=versions(),
        machine=this_machine(),
    )
    ranks: Ranks | None = context.find_root().obj
    if ranks is not None:
        ranks.agree(_facts(invocation))
    return Record(invocation, config, ranks)


@dataclass(frozen=True)
class Record:
    """The facts that a command's result depends on, to be written with it."""

    invocation: Invocation
    config: Config
    ranks: Ranks | None

    def write(
        self,
        document: Document,
        passed: bool,
        output: OutputOptions,
        plot: PlotOptions | None = None,
    ) -> int:
        """Writes the result where the options say; the exit code.

        Of several ranks only the first one writes.
        """
        if self.ranks is not None:
            self.ranks.before_the_report()
            if not self.ranks.first:
                return 0
        from hesscli.report.invocation import with_invocation

        document = with_invocation(document, self.invocation)
        report, output = _meta().get(_REPLAYED, (None, output))
        if report is not None and document.data["status"] != "interrupted":
            import json

            from hesscli.report.difference import matched, with_match
            from hesscli.report.formats import render
            from hesscli.studies.checks import rtol_for

            rtol = rtol_for(self.config.dtype, self.config.check.rtol)
            match = matched(report.data, json.loads(render(document, "json")), rtol)
            document = with_match(document, match, report.path)
            passed = passed and match.passed
        if plot is not None:
            from hesscli.report.plots import write_plot

            write_plot(document, plot.path, plot.style, plot.size)
        output.write(document)
        return 0 if passed else 1


def run_again(
    context: click.Context, command: click.Command, report: Report, output: OutputOptions
) -> Any:
    """Runs ``command`` with the options of ``report``; its result goes to ``output``."""
    context.meta[_REPLAYED] = report, output
    try:
        inner = command.make_context(command.name, list(_arguments(command, report)), context)
        with inner:
            return command.invoke(inner)
    except click.UsageError as error:
        message = error.format_message()
        raise InputError(f"{report.path}: invocation.options: {message}") from error


def deciding(command: click.Command) -> dict[str, click.Parameter]:
    """The parameters that are recorded, by what the report calls them: their long names."""
    return {
        max(param.opts, key=len).lstrip("-").replace("-", "_"): param
        for param in command.params
        if param.name in DECIDING[command.name or ""]
    }


def _arguments(command: click.Command, report: Report) -> Iterator[str]:
    """The options of a report as if they had been typed."""
    params = deciding(command)
    names = []
    for label, value in report.options.items():
        where = f"{report.path}: invocation.options.{label}"
        param = params.get(label)
        if param is None:
            raise InputError(f"{where}: unknown; choose {', '.join(params)}")
        if value is None:
            continue
        if isinstance(param, click.Option) and param.is_flag:
            if not isinstance(value, bool):
                raise InputError(f"{where}: it must be true or false")
            yield from (max(param.opts, key=len),) * value
            continue
        if param.multiple and not isinstance(value, list):
            raise InputError(f"{where}: it must be a list")
        for item in value if param.multiple else [value]:
            if isinstance(item, bool) or not isinstance(item, str | int | float):
                raise InputError(f"{where}: it must be text or a number")
            if isinstance(param, click.Option):
                yield f"{max(param.opts, key=len)}={item}"
            else:
                names.append((command.params.index(param), str(item)))
    yield "--"
    yield from (name for _, name in sorted(names))


def _plain(param: click.Parameter, value: Any) -> Any:
    """A value as JSON holds it."""
    if isinstance(value, tuple):
        # One option that was parted at its commas.
        return list(value) if param.multiple else ",".join(str(item) for item in value)
    return value


def _facts(invocation: Invocation) -> dict[str, Any]:
    """The facts that must be the same on all ranks, as messages name them."""
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
