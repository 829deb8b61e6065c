"""Writes the generated parts of docs/commands.md and docs/configuration.md.

    python -m docs.tools.reference

The commands come from Click, the keys from the dataclasses of ``hesscli.config.schema``. What
stands between ``<!-- generated: NAME -->`` and ``<!-- /generated -->`` in a page is replaced, and
kept in the repository, so that the pages can be read there; a test holds them to the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import click

from hesscli.cli.main import cli
from hesscli.config.schema import Config, LayerConfig
from hesscli.problem import initializers, registry
from hesscli.problem.graph import Activation
from hesscli.problem.initializers import Initializer
from hesscli.problem.layers import SHARED
from hesscli.problem.layertypes import TYPES
from hesscli.problem.names import ACTIVATION_ALIASES, ACTIVATIONS, INITIALIZERS, LOSSES

DOCS = Path(__file__).parents[2] / "docs"
# An option of as many commands, the same in each, is shown once for all of them.
_SHARED_BY = 3
_LOSSES = {
    "sparse_categorical_crossentropy": "−log softmax(f)[y], from logits; y is a class label",
    "categorical_crossentropy": "−Σ_h y_h log softmax(f)_h, from logits; y has c probabilities",
    "binary_crossentropy": "the mean over outputs of −y log s(f) − (1 − y) log(1 − s(f)), from "
    "logits; s is the sigmoid",
    "categorical_focal_crossentropy": "−`alpha` Σ_h y_h (1 − p_h)^`gamma` log p_h, from logits; "
    "p is their softmax, limited to 1e-7 … 1 − 1e-7",
    "mean_squared_error": "the mean over outputs of (f − y)²",
    "mean_absolute_error": "the mean over outputs of |f − y|",
    "huber": "the mean over outputs of e²/2 where |e| ≤ `delta`, else of `delta` |e| − `delta`²/2; "
    "e = f − y",
    "log_cosh": "the mean over outputs of log cosh(f − y)",
    "kl_divergence": "Σ_h y_h log(y_h/f_h), both limited to 1e-7 … 1",
    "poisson": "the mean over outputs of f − y log(f + 1e-7)",
    "sum_of_squares": "Σ_h f_h²; it takes no targets",
    "sum": "Σ_h f_h; it takes no targets",
}
_SECTION = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def main() -> None:
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        current = filled(text)
        if current != text:
            path.write_text(current, encoding="utf-8")


def filled(page: str) -> str:
    """``page`` with every generated section as the code has it now."""
    return _SECTION.sub(lambda match: f"{match[1]}\n{SECTIONS[match[2]]()}\n{match[3]}", page)


def commands() -> str:
    """Every command with its arguments, options and examples, and the options that they share."""
    shared = _shared_options()
    parts = [
        "## Options that commands share\n",
        *_rows_of_options(shared.values()),
        "",
    ]
    for name, command in cli.commands.items():
        parts += _command(name, command, shared)
    return "\n".join(parts)


def configuration() -> str:
    """Every key of the configuration, section by section."""
    parts = ["## Keys\n", *_rows_of_keys(Config, ""), ""]
    for field in fields(Config):
        kind = get_type_hints(Config)[field.name]
        if is_dataclass(kind):
            parts += [f"### {field.name}\n", *_rows_of_keys(kind, f"{field.name}."), ""]
    parts += ["### A layer of model.layers\n", *_rows_of_keys(LayerConfig, ""), ""]
    parts += [
        "### Types of layers\n",
        "| type | Keras | keys, Keras's arguments | tensors |",
        "|---|---|---|---|",
        *(
            f"| `{name}` | {of.keras} | {_code(of.arguments)} | {_code(of.roles)} |"
            for name, of in TYPES.items()
        ),
        f"| `{SHARED}` | a layer called again | `of`, a layer before this one | its own |",
        "",
    ]
    return "\n".join(parts)


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def names() -> str:
    """What the keys choose among: activations, initializers and losses, with their parameters."""
    aliases = {name: alias for alias, name in ACTIVATION_ALIASES.items()}
    parts = [
        "| activation | parameters |",
        "|---|---|",
        *(
            f"| `{name}`{f' (`{aliases[name]}`)' if name in aliases else ''} "
            f"| {_parameters(registry.parameter_defaults(name))} |"
            for name in ACTIVATIONS
        ),
        "",
        "| initializer | parameters |",
        "|---|---|",
        *(
            f"| `{name}` | {_parameters(initializers.parameter_defaults(name))} |"
            for name in INITIALIZERS
        ),
        "",
        "| loss | ℓ(f, y) |",
        "|---|---|",
        *(f"| `{name}` | {_LOSSES[name]} |" for name in LOSSES),
        "",
    ]
    return "\n".join(parts)


SECTIONS: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "configuration": configuration,
    "names": names,
}


def _command(name: str, command: click.Command, shared: Mapping[Any, click.Option]) -> list[str]:
    own = [option for option in _options(command) if _key(option) not in shared]
    others = [option for option in _options(command) if _key(option) in shared]
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join(
        ["hesscli", name, *(p.make_metavar(click.Context(command)) for p in arguments)]
    )
    parts = [f"## {name}\n", f"`{usage} [OPTIONS]`\n", _paragraphs(command.help), ""]
    if own:
        parts += [*_rows_of_options(own), ""]
    if others:
        shown = ", ".join(f"`{max(option.opts, key=len)}`" for option in others)
        parts += [f"Shared options: {shown}.", ""]
    examples = _examples(command.epilog)
    return [*parts, "```text", *examples, "```", ""] if examples else parts


def _shared_options() -> dict[Any, click.Option]:
    found: dict[Any, list[click.Option]] = {}
    for command in cli.commands.values():
        for option in _options(command):
            found.setdefault(_key(option), []).append(option)
    return {key: same[0] for key, same in found.items() if len(same) >= _SHARED_BY}


def _options(command: click.Command) -> list[click.Option]:
    return [p for p in command.params if isinstance(p, click.Option) and not p.hidden]


def _key(option: click.Option) -> tuple[tuple[str, ...], str | None, str]:
    return tuple(option.opts), option.help, _takes(option)


def _takes(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return ", ".join(str(choice) for choice in option.type.choices)
    return option.type.name.upper()


def _rows_of_options(options: Any) -> list[str]:
    return [
        "| option | takes | |",
        "|---|---|---|",
        *(
            f"| {', '.join(f'`{name}`' for name in sorted(option.opts, key=len, reverse=True))} "
            f"| {_cell(_takes(option))} | {_cell(option.help or '')} |"
            for option in options
        ),
    ]


def _paragraphs(text: str | None) -> str:
    paragraphs = re.split(r"\n\s*\n", (text or "").replace("\b\n", "").strip())
    return "\n\n".join(_wrapped_options(" ".join(paragraph.split())) for paragraph in paragraphs)


def _wrapped_options(text: str) -> str:
    """Options as code, so that two hyphens stay two; words in angle brackets as text."""
    text = re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", text)
    return text.replace("<", "\\<")


def _examples(epilog: str | None) -> list[str]:
    lines = [line.strip() for line in (epilog or "").splitlines()]
    return [line for line in lines if line.startswith("hesscli ")]


def _rows_of_keys(kind: Any, prefix: str) -> list[str]:
    hints = get_type_hints(kind, include_extras=True)
    rows = ["| key | takes | default | |", "|---|---|---|---|"]
    for field in fields(kind):
        hint = hints[field.name]
        if get_origin(hint) is Annotated:
            _, takes, about = get_args(hint)
            rows.append(
                f"| `{prefix}{field.name}` | {_cell(takes)} | {_default(field)} | {_cell(about)} |"
            )
        elif not is_dataclass(hint):
            raise TypeError(f"{kind.__name__}.{field.name} is not annotated with what it is")
        else:
            rows.append(f"| `{field.name}` | the keys [below](#{field.name}) | | |")
    return rows


def _default(field: Field[Any]) -> str:
    value = field.default
    if value is MISSING:
        return ""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Activation | Initializer):
        return value.name
    if isinstance(value, tuple):
        return "-".join(str(layer.units) for layer in value) + " units"
    return str(value)


def _parameters(defaults: Mapping[str, float]) -> str:
    return ", ".join(f"`{name}` ({value:g})" for name, value in defaults.items())


def _cell(text: str) -> str:
    return _wrapped_options(text.replace("|", "\\|"))


if __name__ == "__main__":
    main()
