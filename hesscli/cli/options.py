"""Options that several commands share, defined once.

Only names are imported here: ``--help`` and wrong usage must not wait for NumPy.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from hesscli.cli.command import (
    Option,
    choice_option,
    file_option,
    gathered,
    whole_option,
)
from hesscli.cli.record import note_plugins, plugins, replayed_report
from hesscli.problem.names import (
    ACTIVATION_ALIASES,
    ACTIVATIONS,
    BLOCKS,
    CHECK_METHODS,
    DTYPES,
    MOST_PROBES,
    OUTPUT,
)
from hesscli.problem.registry import loss_names, plugin_names
from hesscli.system.devices import DEVICES, Device, open_device
from hesscli.system.errors import HesscliError, InputError
from hesscli.system.files import check_writable, expanded
from hesscli.system.near import nearest
from hesscli.system.seeds import fresh_seed
from hesscli.workers.share import ALONE, Workers, with_all_examples

if TYPE_CHECKING:
    from hesscli.config.load import Override
    from hesscli.config.schema import Config
    from hesscli.problem.execution import Execution
    from hesscli.problem.network import Problem
    from hesscli.report.recorded import Report
    from hesscli.studies.witnesses import CheckOptions

ALL = "all"
# The options that name a file which is written, by parameter.
_WRITTEN = {
    "path": "--output",
    "paths": "--output",
    "plot": "--plot",
    "save_path": "--save-problem",
    "solution_path": "--save",
    "checkpoint": "--checkpoint",
}
# The options that stand for one key of the configuration, by parameter.
_KEYS = {
    "model_path": ("model.keras", "--model"),
    "registered_names": ("model.registered_names", "--registered-name"),
    "data": ("data.source", "--data"),
    "loss": ("loss.name", "--loss"),
    "batch_size": ("data.batch_size", "--batch-size"),
    "memory": ("data.memory", "--memory"),
    "seed": ("seed", "--seed"),
    "dtype": ("dtype", "--dtype"),
}


def _choices() -> tuple[str, ...]:
    return (*ACTIVATIONS, *ACTIVATION_ALIASES, *plugin_names(), ALL)


def _load_plugins(
    context: click.Context, _: click.Parameter, paths: tuple[str, ...]
) -> tuple[str, ...]:
    # Completing a command line must not run a file.
    if not paths or context.resilient_parsing:
        return paths
    from hesscli.system.memory import require_room_for_libraries

    require_room_for_libraries()
    from hesscli.nodes.plugins import forget, load_plugin

    loaded: dict[str, tuple[str, ...]] = {}
    for path in paths:
        try:
            loaded[path] = load_plugin(path)
        except InputError as error:
            raise InputError(f"--plugin: {error}") from error
        # The root is closed even if the rest of the command line is wrong.
        context.find_root().call_on_close(functools.partial(forget, loaded[path]))
    note_plugins(context, loaded)
    return paths


def _drawn_seed(context: click.Context, _: click.Parameter, given: int | None) -> int | None:
    if given is not None or context.resilient_parsing:
        return given
    seed, ranks = fresh_seed(), context.find_root().obj
    # All of them take the first one's.
    return seed if ranks is None else int(ranks.gather(seed)[0])


def _use_threads(context: click.Context, _: click.Parameter, count: int | None) -> None:
    if count is None or context.resilient_parsing:
        return
    from hesscli.system.threads import use_threads

    try:
        use_threads(count)
    except InputError as error:
        raise InputError(f"--threads: {error}") from error


def _activation_names(
    context: click.Context, parameter: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    for name in names:
        if name not in _choices():
            hint = nearest(name, _choices(), str)
            raise click.BadParameter(f"{name!r} is unknown{hint}", context, parameter)
    if ALL in names:
        return (*ACTIVATIONS, *plugin_names())
    return tuple(dict.fromkeys(ACTIVATION_ALIASES.get(name, name) for name in names))


def complete_layer(context: click.Context, _: click.Parameter, text: str) -> list[str]:
    """The layers of the configuration, if it can be read, and of Keras's file none."""
    from hesscli.config.load import load_config, parse_override

    given = context.params
    if given.get("config_path") == "-" or given.get("model_path"):
        return []
    try:
        overrides = [parse_override(each) for each in given.get("assignments") or ()]
        config = load_config(given.get("config_path"), overrides)
    except HesscliError:
        return []
    count = len(given.get("layer_sizes") or ()) - 1
    names = [layer.name for layer in config.model.layers]
    if count > 0:
        names = [f"dense{index}" for index in range(1, count + 1)]
    return _beginning(names, text)


def _beginning(names: Iterable[str], text: str) -> list[str]:
    return [name for name in names if name.startswith(text)]


def _written() -> tuple[tuple[str, str], ...]:
    values = click.get_current_context().params
    given = ((option, values.get(name)) for name, option in _WRITTEN.items())
    return tuple(
        (option, path)
        for option, paths in given
        for path in (paths if isinstance(paths, tuple) else (paths,))
        if path is not None
    )


def _workers() -> Workers:
    return click.get_current_context().find_root().obj or ALONE


@dataclass(frozen=True)
class ProblemOptions:
    """The options about the problem, or the report that is replayed.

    ``activations`` are those asked for, each once; none if the configuration's own stand.
    ``workers`` have a share of the examples each. ``written`` are the files that the command will
    write, each with its option.
    """

    config_path: str | None
    model_path: str | None
    data: str | None
    loss: str | None
    layer_sizes: tuple[int, ...]
    activations: tuple[str, ...]
    batch_size: str | None
    memory: str | None
    seed: int | None
    dtype: str | None
    assignments: tuple[str, ...]
    without_regularization: bool
    registered_names: tuple[str, ...]
    output_index: int | None
    device_name: str = DEVICES[0]
    tf32: bool = False
    replayed: Report | None = field(default_factory=replayed_report)
    workers: Workers = field(default_factory=_workers)
    written: tuple[tuple[str, str], ...] = field(default_factory=_written)

    @functools.cached_property
    def device(self) -> Device:
        """Where the chain rule computes."""
        return open_device(self.device_name, tf32=self.tf32)

    def config(self, more: Iterable[Override] = ()) -> Config:
        """The configuration with everything but ``--activation`` applied, and ``more``.

        Raises InputError if it reads a file that the command would write.
        """
        config = self._config(more)
        if self.written:
            from hesscli.config.inputs import files_read

            with self.naming_the_file():
                for key, path in files_read(config, held_out=True):
                    self.require_unwritten(key, path)
        return config

    def require_one_activation(self, why: str) -> None:
        """Raises InputError for several activations; ``why`` says what there is room for."""
        if len(self.activations) > 1:
            names = ", ".join(self.activations)
            raise InputError(f"--activation: {names}; {why}, so give one")

    def config_of_one(self, why: str, more: Iterable[Override] = ()) -> Config:
        """The configuration with ``--activation`` applied, of which there is one at most."""
        self.require_one_activation(why)
        config = self.config(more)
        if not self.activations:
            return config
        from hesscli.config.build import with_hidden_activation
        from hesscli.problem.graph import Activation

        return with_hidden_activation(config, Activation(self.activations[0]))

    def require_unwritten(self, key: str, path: str) -> None:
        """Raises InputError if the command would write over a file that it reads."""
        for option, other in self.written:
            if os.path.realpath(expanded(other)) == os.path.realpath(expanded(path)):
                raise InputError(
                    f"{key}: {path} is read, and {option} {other} would write over it; name "
                    "another file to write"
                )

    def _config(self, more: Iterable[Override]) -> Config:
        from hesscli.system.memory import keep_freed_memory, require_room_for_libraries

        # Before NumPy is imported.
        require_room_for_libraries()
        keep_freed_memory()
        # Before anything is computed for a GPU that is not there.
        _ = self.device
        from hesscli.config.load import config_of, load_config, parse_override

        if self.replayed is not None:
            return config_of(self.replayed.configuration, origin=self.replayed.path)
        overrides = [parse_override(text) for text in self.assignments]
        return load_config(self.config_path, [*overrides, *self._named_overrides(), *more])

    def problems(self, config: Config) -> tuple[Problem, ...]:
        """The problem of ``config``, once for each activation asked for."""
        from hesscli.config.build import build_problem
        from hesscli.problem.graph import Activation
        from hesscli.studies.agreement import agreed

        self.require_plugins_used(config)
        with self.naming_the_file():
            problem = build_problem(config, workers=self.workers)
            problem = agreed(problem)
        names = self.activations
        return tuple(problem.with_activation(Activation(name)) for name in names) or (problem,)

    def require_plugins_used(self, config: Config) -> None:
        """Raises InputError for a plugin of which nothing is part of the problem."""
        layers = config.model.layers
        used = {name for layer in layers for name in (layer.type, layer.activation.name)}
        used |= {config.loss.name, *self.activations}
        for path, names in plugins().items():
            if not used.intersection(names):
                raise InputError(
                    f"--plugin {path}: nothing that it defines is used ({', '.join(names)}); name "
                    "it with --activation, --loss or as a type in model.layers, or try the plugin "
                    f"alone with hesscli verify --plugin {path}"
                )

    def execution(self, problem: Problem) -> Execution:
        """How ``problem`` is run: in chunks if its inputs are stored, by the workers, and where."""
        from hesscli.problem.execution import execution_of

        return execution_of(problem, self.workers, self.device)

    def with_all_examples(self) -> ProblemOptions:
        """The same if every worker has all examples."""
        return replace(self, workers=with_all_examples(self.workers))

    def _named_overrides(self) -> Iterator[Override]:
        from hesscli.config.load import Override, whole_number

        for name, (key, option) in _KEYS.items():
            given = getattr(self, name)
            if given not in (None, ()):
                value = list(given) if isinstance(given, tuple) else given
                value = whole_number(given) if name == "batch_size" else value
                yield Override(tuple(key.split(".")), value, option)
        if self.output_index is not None:
            if self.loss is not None:
                raise InputError(
                    f"--output-index {self.output_index}: an output stands in place of the loss; "
                    "leave --loss out"
                )
            yield Override(("loss", "name"), OUTPUT, "--output-index")
            yield Override(("loss", "index"), self.output_index, "--output-index")
            # Penalties belong to no output.
            yield Override(("loss", "regularization"), False, "--output-index")
        if self.layer_sizes:
            inputs, *units = self.layer_sizes
            layers = [{"units": count} for count in units]
            yield Override(("model", "inputs"), inputs, "--layers")
            yield Override(("model", "layers"), layers, "--layers")
        if self.without_regularization:
            yield Override(("loss", "regularization"), False, "--without-regularization")

    @contextmanager
    def naming_the_file(self) -> Iterator[None]:
        """Puts the configuration's file before what an InputError says."""
        try:
            yield
        except InputError as error:
            path = self.config_path if self.replayed is None else self.replayed.path
            if path is None:
                raise
            raise InputError(f"{path}: {error}") from error


plugin_option = file_option(
    "--plugin",
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_load_plugins,
    help="File of activations, losses, layers; repeatable.",
)
threads_option = whole_option(
    "--threads",
    1,
    is_eager=True,
    expose_value=False,
    callback=_use_threads,
    help="Cores to use.",
    show_default="all",
)

layer_option = click.option(
    "--layer",
    "-l",
    "layers",
    metavar="NAME",
    multiple=True,
    callback=lambda *given: tuple(dict.fromkeys(given[-1])),
    shell_complete=complete_layer,
    help="Only this layer; repeatable.",
)


def device_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds where the chain rule computes, below ``problem_options``."""
    device = choice_option(
        "--device", "device_name", among=DEVICES, help="cpu or gpu, for the chain rule."
    )
    tf32 = click.option(
        "--tf32", is_flag=True, help="Faster float32 on a GPU, to 11 binary digits."
    )
    added: Callable[..., Any] = device(tf32(function))
    return added


def probes_option(default: int) -> Option[Any]:
    """``--probes`` of an estimate with an error bar: of a single one there is no spread."""
    text = "Random vectors of an estimate."
    return whole_option("--probes", 2, MOST_PROBES, default=default, help=text)


def probe_seed_option(seeded: str) -> Option[Any]:
    """``--probe-seed`` of what is drawn alike in every run unless it is given."""
    return whole_option("--probe-seed", 0, default=0, help=f"Seed of {seeded}.")


def _layer_sizes(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, ...]:
    if text is None:
        return ()
    sizes = text.split("-")
    # Longer numbers are not sizes, and Python takes long to read them.
    if len(sizes) < 2 or not all(re.fullmatch("[1-9][0-9]{0,8}", size) for size in sizes):
        raise click.BadParameter(
            f"{text!r}; write the number of inputs and of each layer's units, as in 784-30-10",
            context,
            parameter,
        )
    return tuple(map(int, sizes))


def problem_options(
    batch_help: str = "Number of examples, or all.", batch_default: str = "32"
) -> Option[Any]:
    """Adds the options that choose the problem; the command gets them as ``problem``."""
    return gathered(
        ProblemOptions,
        "problem",
        click.option(
            "--config",
            "-c",
            "config_path",
            metavar="FILE",
            type=click.Path(allow_dash=True),
            help="YAML configuration; - is standard input.",
        ),
        file_option("--model", "model_path", help="Trained Keras model (.keras or .h5)."),
        click.option(
            "--data",
            metavar="SOURCE",
            type=click.Path(),
            show_default="embedded",
            help="Name, file or folder.",
        ),
        click.option(
            "--loss",
            metavar="NAME",
            shell_complete=lambda *given: _beginning(loss_names(), given[-1]),
            help="Loss, as in mean_squared_error.",
        ),
        click.option(
            "--output-index",
            metavar="K",
            type=click.IntRange(min=0),
            help="Output K in place of a loss.",
        ),
        click.option(
            "--layers",
            "layer_sizes",
            metavar="SIZES",
            callback=_layer_sizes,
            help="Inputs and units of each layer: 784-30-10.",
        ),
        click.option(
            "--registered-name",
            "registered_names",
            metavar="K=NAME",
            multiple=True,
            help="Keras name and plugin name, if they differ.",
        ),
        click.option(
            "--activation",
            "-a",
            "activations",
            metavar="NAME",
            multiple=True,
            callback=_activation_names,
            shell_complete=lambda *given: _beginning(_choices(), given[-1]),
            help="Hidden activation, or all; repeatable.",
        ),
        plugin_option,
        click.option(
            "--batch-size", "-n", metavar="N", help=batch_help, show_default=batch_default
        ),
        click.option("--seed", metavar="N", type=int, help="Seed of parameters and shuffle."),
        click.option(
            "--dtype",
            metavar="NAME",
            type=click.Choice(DTYPES),
            help="float32 or float64.",
            show_default="float64",
        ),
        click.option(
            "--memory", metavar="SIZE", show_default="a quarter", help="For the examples: 2GB."
        ),
        threads_option,
        click.option(
            "--set",
            "assignments",
            metavar="KEY=VALUE",
            multiple=True,
            help="Any key of the configuration; repeatable.",
        ),
        click.option(
            "--without-regularization", is_flag=True, help="Leave the regularizers out of the loss."
        ),
    )


@dataclass(frozen=True)
class WitnessOptions:
    """How much is compared, and whether the problem is saved."""

    method: str | None
    probes: int | None
    block: str
    layers: tuple[str, ...]
    save_path: str | None
    probe_seed: int

    def __post_init__(self) -> None:
        if self.save_path is not None:
            ranks = click.get_current_context().find_root().obj
            if ranks is not None:
                raise click.UsageError(
                    f"--save-problem: none of {ranks.count} processes has all examples; start one"
                )
            check_writable(self.save_path)

    def check(self, config: Config) -> CheckOptions:
        """The check that ``config`` and the command line ask for."""
        from hesscli.studies.witnesses import CheckOptions

        known = [layer.name for layer in config.model.layers]
        for name in self.layers:
            if name not in known:
                raise InputError(f"--layer: {name!r} is unknown; choose {', '.join(known)}")
        method = self.method or config.check.method
        probes = self.probes or config.check.probes
        return CheckOptions(
            method, config.check.rtol, self.layers, self.block, probes, self.probe_seed
        )

    def save(self, problem: Problem) -> None:
        """Writes the problem where ``--save-problem`` says, if it does."""
        if self.save_path is not None:
            from hesscli.problem.problemfile import save_problem

            save_problem(problem, self.save_path)


# What the commands with two witnesses share; a command gets it as ``witness``.
witness_options = gathered(
    WitnessOptions,
    "witness",
    click.option(
        "--check",
        "method",
        metavar="NAME",
        type=click.Choice(CHECK_METHODS),
        help="auto, form, probes or entries.",
        show_default="auto",
    ),
    whole_option("--probes", 1, MOST_PROBES, show_default="32", help="Random products of probes."),
    choice_option("--block", "-b", among=BLOCKS, help="kernel, input, network, …"),
    layer_option,
    whole_option(
        "--probe-seed",
        0,
        callback=_drawn_seed,
        show_default="drawn",
        help="Seed of the random vectors.",
    ),
    file_option("--save-problem", "save_path", help="Write parameters and batch as a file (.npz)."),
)
