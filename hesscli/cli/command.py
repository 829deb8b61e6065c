"""A command: its ``--help`` on one screen, in groups, and what an argument too many may mean."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import click

from hesscli.problem.names import ACTIVATION_ALIASES, ACTIVATIONS
from hesscli.problem.registry import plugin_names

# The lines of a screen: --help shows as many examples as fit.
SCREEN = 40
_OWN = "This command"
_PROBLEM = "Network and data"
_RESULT = "Result"
# The group of each parameter that is not a command's own.
_GROUPS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                *("config_path", "model_path", "data", "loss", "layer_sizes", "activations"),
                *("plugin", "batch_size", "seed", "dtype", "memory", "threads", "assignments"),
                *("without_regularization", "device_name", "tf32"),
                *("registered_names", "output_index"),
            ),
            _PROBLEM,
        ),
        **dict.fromkeys(
            (
                *("plot", "plot_style", "plot_size", "format_name", "paths", "save_path"),
                "quiet",
            ),
            _RESULT,
        ),
    }
)
# Widest name of an option next to which its help begins.
_NAME_WIDTH = 26

Function = TypeVar("Function", bound=Callable[..., Any])
Option = Callable[[Function], Function]


class Command(click.Command):
    """A command whose ``--help`` has the first paragraph of its text, and its options in groups.

    The reference (docs/commands.md) has the other paragraphs, and all ``examples``: command lines
    that show what it is for.
    """

    def __init__(self, *arguments: Any, examples: Sequence[str], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.examples = examples

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Click leaves two columns free.
        formatter.width = min(formatter.width + 2, ctx.max_content_width or formatter.width)
        self.format_usage(ctx, formatter)
        with formatter.indentation():
            formatter.write_text(paragraphs(self)[0])
        for title in (_OWN, _PROBLEM, _RESULT):
            rows = [
                (_names(param, ctx).ljust(_NAME_WIDTH), _help_text(param, ctx))
                for param in self.get_params(ctx)
                if isinstance(param, click.Option)
                and _group(param) == title
                # The reader has found it already.
                and "--help" not in param.opts
            ]
            if rows:
                formatter.write(f"{title}:\n")
                with formatter.indentation():
                    formatter.write_dl(rows, col_max=_NAME_WIDTH)
        self._write_examples(formatter)

    def _write_examples(self, formatter: click.HelpFormatter) -> None:
        room = SCREEN - formatter.getvalue().count("\n")
        if room == 1:
            formatter.write(f"Example: {self.examples[0]}\n")
        elif room > 1:
            lines = ("Examples:", *(f"  {example}" for example in self.examples))
            formatter.write("".join(f"{line}\n" for line in lines[:room]))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        super().parse_args(ctx, args)
        if ctx.args and not ctx.resilient_parsing:
            extra = ctx.args[0]
            hint = ""
            if extra in (*ACTIVATIONS, *ACTIVATION_ALIASES, *plugin_names()):
                hint = f"; did you mean --activation {extra}?"
            ctx.fail(f"got an unexpected extra argument ({extra}){hint}")
        return ctx.args


def paragraphs(command: click.Command) -> list[str]:
    """A command's text, each paragraph on one line."""
    text = (command.help or "").replace("\b\n", "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def command(*examples: str) -> Callable[[Callable[..., int]], Command]:
    """Makes a function a command with these examples."""
    return click.command(cls=Command, examples=examples)


def gathered(made: Callable[..., Any], keyword: str, *options: Option[Any]) -> Option[Any]:
    """Adds ``options``; the command gets what ``made`` makes of their values as ``keyword``."""
    names = inspect.signature(made).parameters

    def added(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(**given: Any) -> Any:
            own = {name: given.pop(name) for name in names if name in given}
            return function(**{keyword: made(**own)}, **given)

        for option in reversed(options):
            wrapper = option(wrapper)
        return wrapper

    return added


def whole_option(
    name: str, least: int | None = None, most: int | None = None, **settings: Any
) -> Option[Any]:
    """An option that takes a whole number."""
    kind = click.IntRange(least, most)
    return click.option(name, type=kind, **{"metavar": "N", **settings})


def file_option(*names: str, **settings: Any) -> Option[Any]:
    """An option that takes the name of a file."""
    return click.option(*names, metavar="FILE", type=click.Path(), **settings)


def choice_option(
    *names: str,
    among: Sequence[str],
    default: str | None = None,
    help: str | None = None,  # noqa: A002
) -> Option[Any]:
    """An option that takes one word ``among`` several; the default is the first one."""
    return click.option(
        *names,
        metavar="NAME",
        type=click.Choice(among),
        default=default or among[0],
        help=help or f"{', '.join(among[:-1])} or {among[-1]}.",
    )


def _group(option: click.Option) -> str:
    return _RESULT if "--help" in option.opts else _GROUPS.get(option.name or "", _OWN)


def _names(option: click.Option, ctx: click.Context) -> str:
    takes = "" if option.is_flag or option.count else f" {option.make_metavar(ctx)}"
    return f"{', '.join(sorted(option.opts, key=len))}{takes}"


def _help_text(option: click.Option, ctx: click.Context) -> str:
    return " ".join((option.help or "", *_default(option, ctx)))


def _default(option: click.Option, ctx: click.Context) -> Iterator[str]:
    extra: Any = option.get_help_extra(ctx)
    if "default" in extra:
        # Click puts a default in brackets that is a text and not the option's own.
        yield f"[default: {extra['default'].strip('()')}]"
