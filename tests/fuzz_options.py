"""Every option of every command with every kind of wrong value.

What there is of commands, options and arguments is asked of Click, so that a new option is among
them at once.
"""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import click
from fuzz_harness import Case
from fuzz_yaml import small_files

from hesscli.cli.main import cli

_CONFIG = "tiny.yaml"
_TINY = (
    "model: {inputs: 4, layers: [{units: 3, activation: tanh}, {units: 2}]}\n"
    "data: {source: batch.npz}\n"
    # A training that is asked for longer steps goes on, as it should.
    "train: {batch_size: 2, steps: 2, every: 2, measure_examples: 2}\n"
)
VALUES = (
    *("", " ", "0", "-1", "1", "2", "1.5", "-0.0", "1e3", "nan", "inf", "-inf", "1e400", "1e-400"),
    *(
        "9" * 30,
        "9" * 5000,
        "-" + "9" * 30,
        "0x10",
        "1_0",
        "١",
        "true",
        "null",
        "None",
        "x",
        "all",
    ),
    *("é", "日本", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202egnp", "\x7f", "\x85", "\u2028"),
    *(
        "\udcff",
        "a\nb",
        "a\tb",
        "\r",
        "a" * 5000,
        "é" * 200,
        "-",
        "--",
        "---",
        "=",
        "a=b",
        ",",
        "a,b",
    ),
    *("1,2,3", ":", "0:1", "5:1", "[", "{", "{}", "*", "?", "%s", "{0}", "$(touch pwned)", "`id`"),
    *("~", "~nobody/x", "none/x.json", "none/x.npz", "folder", "folder/x.npy", "fifo", "loop", "."),
    *("..", "/", "/dev/zero", "/dev/full", "/dev/null", "/dev/stdin", "tiny.yaml", "batch.npz"),
    *("batch.npz/x.json", "folder.json", "folder.npz", "folder.npy", "folder.png", "loop.json"),
    *(
        "fifo.json",
        "fifo.npz",
        "fifo.npy",
        "fifo.png",
        "/dev/full.json",
        "/proc/x.json",
        "/sys/x.npz",
    ),
    *(f"{'a' * 300}.json", f"{'a' * 300}.npz", f"{'a' * 300}.npy", f"{'a' * 300}.png", "x\ny.json"),
    *(
        "model=",
        "model.layers=1",
        "data.source=fifo",
        "data.source=/dev/zero",
        "data.source=folder",
    ),
    *(
        "=x",
        ".=1",
        "..=1",
        "a.b.c=1",
        "model.layers.-1.units=1",
        "model.layers.99.units=1",
        "seed=[",
    ),
    *("model.layers.0.units=1e9", f"{'x.' * 3000}y=1", "seed=!!python/object/apply:os.getcwd []"),
    *(
        "dense1/kernel",
        "dense1/kernel[0,0]",
        "dense1/kernel[9,9]",
        "dense1/kernel[-1,0]",
        "input[0]",
    ),
    *(
        "input[9][0]",
        "input[0][0]",
        "network",
        "dense1/",
        "/kernel",
        "dense9",
        f"input[{'9' * 5000}]",
    ),
    *("hesscli", "--help", "-h", "--version", "--config", "--set"),
)


@functools.cache
def cases() -> tuple[tuple[str, ...], ...]:
    """All command lines, in an order that mixes them."""
    lines = list(_lines())
    random.Random(0).shuffle(lines)
    return tuple(lines)


def count() -> int:
    return len(cases())


def draw(seed: int) -> Case:
    small_files(random.Random(seed))
    Path(_CONFIG).write_text(_TINY, encoding="ascii")
    for suffix in ("json", "npz", "npy", "png"):
        Path(f"folder.{suffix}").mkdir()
        os.mkfifo(f"fifo.{suffix}")
    Path("loop.json").symlink_to("loop.json")
    arguments = cases()[seed % count()]
    named = ("batch.npz", _CONFIG, *(it.partition("=")[2] or it for it in arguments))
    return Case(arguments, tuple(name for name in named if "\0" not in name))


def _lines() -> Iterator[tuple[str, ...]]:
    for value in VALUES:
        yield (value,)
    for name, command in sorted(cli.commands.items()):
        needed = _needed(command)
        for param in command.params:
            for value in VALUES:
                if isinstance(param, click.Argument):
                    given = {**needed, param.name or "": (value,)}
                    yield (name, *_usual(command), *_joined(given))
                elif param.is_flag:
                    yield (name, *_usual(command), *_joined(needed), f"{param.opts[0]}={value}")
                else:
                    given = {key: it for key, it in needed.items() if key != param.name}
                    yield (name, *_usual(command), *_joined(given), param.opts[0], value)
            if isinstance(param, click.Option):
                # The value is missing.
                yield (name, *_joined(needed), param.opts[0])


def _usual(command: click.Command) -> tuple[str, ...]:
    known = {param.name for param in command.params}
    return (*(("--config", _CONFIG) if "config_path" in known else ()),)


def _needed(command: click.Command) -> dict[str, tuple[str, ...]]:
    """What the command does not run without, by parameter."""
    needed: dict[str, tuple[str, ...]] = {}
    for param in command.params:
        if isinstance(param, click.Argument) and param.required:
            needed[param.name or ""] = ("dense1/bias",)
        elif isinstance(param, click.Option) and param.required:
            needed[param.name or ""] = (param.opts[0], "H.npy")
    if "without_tensorflow" in {param.name for param in command.params}:
        needed["without_tensorflow"] = ("--no-tensorflow",)
    return needed


def _joined(given: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(text for texts in given.values() for text in texts)
