"""Writes the generated parts of docs/commands.md and docs/configuration.md.

    python -m docs.tools.reference

The commands come from Click, the keys from the dataclasses of ``hesscli.config.schema``. What
stands between ``<!-- generated: NAME -->`` and ``<!-- /generated -->`` in a page is replaced, and
kept in the repository, so that the pages can be read there; a test holds them to the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import click

from hesscli.cli.command import Command, paragraphs
from hesscli.cli.main import cli
from hesscli.config.schema import Config, LayerConfig
from hesscli.problem import initializers, registry
from hesscli.problem.graph import Activation
from hesscli.problem.initializers import Initializer
from hesscli.problem.layers import SHARED
from hesscli.problem.layertypes import TYPES
from hesscli.problem.names import ACTIVATION_ALIASES, ACTIVATIONS, INITIALIZERS, LOSSES
from hesscli.system.takes import Record, keys_of

DOCS = Path(__file__).parents[2] / "docs"
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
    "output": "f_K with K = `index`, one output in place of a loss; it takes no targets",
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
    """What ``--help`` prints, of each command, and what it has no room for."""
    settings = {**cli.context_settings, "terminal_width": 80}
    parts = []
    with click.Context(cli, info_name="hesscli", **settings) as root:
        for name, command in cli.commands.items():
            assert isinstance(command, Command)
            text = command.get_help(click.Context(command, root, info_name=name))
            lines = [line.rstrip() for line in text.splitlines()]
            parts += [f"## {name}\n", "```text", *lines, "```", ""]
            parts += [f"{_cell(text)}\n" for text in paragraphs(command)[1:]]
            parts += ["```text", *command.examples, "```", ""]
    return "\n".join(parts)


def _wrapped_options(text: str) -> str:
    """Options as code, so that two hyphens stay two; words in angle brackets as text."""
    text = re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", text)
    return text.replace("<", "\\<")


def configuration() -> str:
    """Every key of the configuration, section by section."""
    parts = ["## Keys\n", *_rows_of_keys(Config, ""), ""]
    for name, key in keys_of(Config).items():
        if isinstance(key.takes, Record):
            parts += [f"### {name}\n", *_rows_of_keys(key.takes.kind, f"{name}."), ""]
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


def _rows_of_keys(kind: Any, prefix: str) -> list[str]:
    rows = ["| key | takes | default | |", "|---|---|---|---|"]
    for name, key in keys_of(kind).items():
        if key.prose:
            takes, prose = _cell(key.takes.described()), _cell(key.prose)
            rows.append(f"| `{prefix}{name}` | {takes} | {_default(key.default)} | {prose} |")
        else:
            rows.append(f"| `{name}` | the keys [below](#{name}) | | |")
    return rows


def _default(value: Any) -> str:
    if value in (MISSING, None, ()):
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
    """Options as code, so that two hyphens stay two."""
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", text.replace("|", "\\|"))


if __name__ == "__main__":
    main()
