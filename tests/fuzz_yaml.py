"""Configurations that went wrong: valid ones, mutated in their structure and in their text."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fuzz_harness import Case

from hesscli.problem import initializers, names, registry
from hesscli.problem.data import NAMED_SOURCES

CONFIGS = Path(__file__).parents[1] / "configs"
_RAW = "@@RAW@@"
_DIGITS = "9" * 5000

# Values of every kind and size, of which few are right anywhere.
VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 255, 10**9, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400),
    *(True, False, None, 0.5, -0.0, 1e308, 5e-324, -1e-300, float("nan"), float("inf")),
    *("", " ", "x", "all", "none", "nan", ".inf", "1e999", "1e-3", "0x1F", "1_000", "1e-400"),
    *(
        "\0",
        "a\0b",
        "~\0",
        "\x1b[31mred",
        "\x07",
        "\u202egnp.exe",
        "\ud800",
        "~\udcff",
        "é",
        "日本",
    ),
    *("a\nb", "a\r\nb", "\x85", "\u2028", "\ufeff", "a" * 5000, "~nobody/x", "~", "$HOME", "%s{}"),
    *("/dev/zero", "/dev/full", "/dev/null", "/dev/stdin", "fifo", "loop", "folder", "none.npz"),
    *("../../../x.npz", "batch.npz", "c.yaml", "embedded", "keras", "/", ".", "..", "http://x/y"),
    *("500MB", "-1GB", "1e400GB", "9" * 400 + "TB", "relu", "tanh", "linear", "glorot_uniform"),
    *([], [[]], [1], [[1.0, 2.0]], [[1], [2, 3]], [None], ["x"], [[float("nan")]], [{}]),
    *({}, {"name": "x"}, {"name": None}, {"name": ["relu"]}, {"name": {"name": "relu"}}, {"": ""}),
    *({"name": "leaky_relu", "negative_slope": float("inf")}, {"name": "elu", "alpha": "1e400"}),
    *({"name": "random_uniform", "minval": 1e308, "maxval": -1e308}, {1: 2}, {None: None}),
    *(b"bytes", {"name": "random_normal", "stddev": 1e308}, {"units": 3}, [{"units": 3}]),
)
# YAML that no dumper writes.
RAW = (
    '!!python/object/apply:os.system ["touch pwned"]',
    '!!python/object/new:os.system ["touch pwned"]',
    "!!python/object:os.system {x: 1}",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1, 2]",
    *('!!binary "////"', "!!binary x", "!!binary é", "!!set {a, b}", "!!omap [a: 1]"),
    *("!!omap {a: 1}", "!!pairs [a: 1]", '!!int ""', "!!int abc", "!!int 0b2", '!!float ""'),
    *("!!float abc", "!!float 1e5", "!!bool maybe", "!!null x", "!!timestamp now"),
    *("!!timestamp 2026-13-01", "!!timestamp '0001-01-01 00:00:00 +14:00'", "!!str [a]"),
    *("!!map [a]", "!!seq {a: 1}", "!local x", "!<tag:yaml.org,2002:int> x", "! x", "!!int {}"),
    *("2026-01-01", "2026-13-01", "2026-01-01 10:00:00", "2026-02-30", "1:1:1", "190:20:30"),
    *(
        ":".join(["1"] * 400) + ".5",
        ":".join(["1"] * 4000),
        "0o17",
        "017",
        "089",
        "1_0_0",
        "=",
        "<<",
    ),
    *(f"0x{'F' * 5000}", _DIGITS, f"-{_DIGITS}", f"{_DIGITS}.5", f"0b{'1' * 5000}", f"1e{_DIGITS}"),
    *(".nan", "-.inf", ".Inf", "1e400", "+.e1", "._", "&a [*a]", "&b {x: *b}", "*undefined", "*"),
    *("&", "{<<: {a: 1}}", "{<<: [{a: 1}, {b: 2}]}", "{? [a, b] : 1}", "{? {a: 1} : 2}", "? x"),
    *('"\\ud800"', '"\\x00"', '"\\x1b]0;title\\x07"', '"\\U00110000"', '"\\q"', "|\n    text"),
    *(
        ">-\n    folded",
        "|9\n x",
        "@bad",
        "`bad",
        "%bad",
        '"unclosed',
        "'unclosed",
        "[1, 2",
        "{a: 1",
    ),
    *("]", "}", "[,]", "{,}", "{:}", "- - - 1", "--- x", "... x", "yes", "off", "~", "# only"),
    "[" * 100 + "]" * 100,
    "[" * 3000,
    "{a: " * 2000,
    "- " * 3000,
    "? " * 1000,
    "!!int " * 3,
    "&x " * 3 + "1",
    "[" + "0.5, " * 3000 + "1]",
    "[&r [" + "1.5, " * 300 + "2], " + "*r, " * 5000 + "*r]",
    "[&r [&q [" + "1.5, " * 50 + "2], " + "*q, " * 50 + "*q], " + "*r, " * 50 + "*r]",
)
_SIGNS = (
    *"\t\r\n :,-?[]{}#&*!|>'\"%@`~<=\\/.0123456789eExX_+",
    *("\0", "\x1b", "\x07", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\ufffe", "é", "日", "😀"),
)
_ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "cp037", "utf-7")


def draw(seed: int) -> Case:
    """A mutated configuration in c.yaml, or a value on the command line, and who reads it."""
    generator = random.Random(seed)
    small_files(generator)
    if generator.random() < 0.12:
        return _assignment(generator)
    content = _content(generator)
    Path("c.yaml").write_bytes(content)
    return Case(_reader(generator, "c.yaml"), ("c.yaml",), partial(_scalars, content))


def small_files(generator: random.Random) -> None:
    """What a configuration may name: a batch, and what is no file."""
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    os.mkfifo("fifo")
    numbers = np.random.default_rng(generator.randrange(2**32))
    np.savez(
        "batch.npz",
        inputs=numbers.standard_normal((5, 4)),
        targets=numbers.integers(0, 2, 5),
        **{"dense1/kernel": numbers.standard_normal((4, 3)), "dense1/bias": np.zeros(3)},
        **{"dense2/kernel": numbers.standard_normal((3, 2)), "dense2/bias": np.zeros(2)},
    )
    # These sources are names, and no file of that name is one.
    for source in NAMED_SOURCES:
        os.link("batch.npz", source)


def _assignment(generator: random.Random) -> Case:
    keys = [
        *_keys(valid(generator)),
        "model",
        "data",
        "x",
        "model.layers.9.units",
        "model.layers.x",
    ]
    key = generator.choice(keys)
    value = generator.choice(RAW) if generator.random() < 0.6 else _dumped(generator.choice(VALUES))
    value = value.replace("\0", "")
    arguments = (*_reader(generator, None), "--set", f"{key}={value}")
    return Case(arguments, more_named=partial(_scalars, value.encode("utf-8", "surrogatepass")))


def _reader(generator: random.Random, path: str | None) -> tuple[str, ...]:
    given = () if path is None else ("--config", path)
    if generator.random() < 0.6:
        return ("config", *given)
    # There is no such block: it ends where the problem is built.
    return ("export", "none/kernel", "--output", "H.npy", *given)


def _scalars(content: bytes) -> list[str]:
    found = []
    try:
        tokens = yaml.scan(content.decode("utf-8"))
        # What comes before an error is kept.
        found.extend(token.value for token in tokens if isinstance(token, yaml.ScalarToken))
    except (yaml.YAMLError, ValueError, RecursionError):
        pass
    return [
        text
        for text in found
        if text.isprintable() and len(text) < 1000 and text not in NAMED_SOURCES
    ]


def _content(generator: random.Random) -> bytes:
    if generator.random() < 0.2:
        text = generator.choice(sorted(CONFIGS.glob("*.yaml"))).read_text(encoding="utf-8")
    else:
        document: Any = valid(generator)
        raws: list[str] = []
        for _ in range(generator.choice((0, 1, 1, 1, 2, 3))):
            document = _mutated(generator, document, raws)
        text = yaml.safe_dump(
            document, default_flow_style=generator.choice((None, True, False)), sort_keys=False
        )
        for raw in raws:
            text = text.replace(f"'{_RAW}'", raw, 1).replace(_RAW, raw, 1)
    content = text.encode("utf-8", "surrogatepass")
    for _ in range(generator.choice((0, 0, 1, 1, 2, 4))):
        content = generator.choice(_TEXT_MUTATIONS)(generator, content)
    return content


def valid(generator: random.Random) -> dict[str, Any]:
    """A configuration that fits; every key of it is there in one or another."""

    def activation() -> Any:
        name = generator.choice((*names.ACTIVATIONS, *names.ACTIVATION_ALIASES))
        defaults = registry.parameter_defaults(names.ACTIVATION_ALIASES.get(name, name))
        return {"name": name, **defaults} if defaults and generator.random() < 0.5 else name

    def initializer(known: tuple[str, ...] = initializers.NAMES) -> Any:
        name = generator.choice(known)
        return {"name": name, **initializers.parameter_defaults(name)}

    inputs, hidden, outputs = 4, generator.randint(1, 4), generator.randint(2, 3)
    from_file = generator.random() < 0.4
    if from_file:
        hidden, outputs = 3, 2
    layers: list[dict[str, Any]] = [
        {"name": "dense1", "units": hidden, "activation": activation()},
        {"name": "dense2", "units": outputs, "activation": "linear"},
    ]
    if generator.random() < 0.3:
        layers[0]["initializer"] = initializer()
    if generator.random() < 0.3:
        layers[1]["kernel"] = [[0.5] * outputs for _ in range(hidden)]
        layers[1]["bias"] = [0.1] * outputs
    biases = tuple(name for name in initializers.NAMES if name not in initializers.MATRIX_ONLY)
    model = {
        "inputs": inputs,
        "bias": True,
        "initializer": initializer(),
        "bias_initializer": initializer(biases),
        "layers": layers,
        "weights": "batch.npz" if from_file and len(layers[1]) == 3 else None,
        "keras": None,
    }
    if from_file:
        data: dict[str, Any] = {"source": "batch.npz", "batch_size": generator.choice((2, "all"))}
    else:
        rows = [[generator.uniform(-1, 1) for _ in range(inputs)] for _ in range(3)]
        data = {"inputs": rows, "targets": [0, 1, 0], "batch_size": "all"}
    data.update(offset=0, shuffle=generator.random() < 0.5, memory=generator.choice((None, "1GB")))
    return {
        "model": model,
        "loss": {"name": names.LOSSES[0], "reduction": generator.choice(names.REDUCTIONS)},
        "data": data,
        "dtype": generator.choice(names.DTYPES),
        "seed": generator.randrange(100),
        "check": {"method": "entries", "rtol": None, "probes": 4},
        "train": {
            "learning_rate": 0.1,
            "momentum": 0.5,
            "batch_size": 2,
            "steps": 3,
            "examples": "all",
            "every": 1,
            "measure_examples": 2,
            "checkpoint_every": 2,
        },
    }


def _keys(document: Any, prefix: str = "") -> list[str]:
    pairs: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        pairs = list(document.items())
    elif isinstance(document, list):
        pairs = list(enumerate(document))
    found = []
    for key, value in pairs:
        found += [f"{prefix}{key}", *_keys(value, f"{prefix}{key}.")]
    return found


def _mutated(generator: random.Random, document: Any, raws: list[str]) -> Any:
    """``document`` with something else at one of its places."""
    if generator.random() < 0.03 or not isinstance(document, dict | list) or not document:
        return _other(generator, document, raws)
    keys: list[Any] = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = generator.choice(keys)
    copy: Any = document.copy()
    if isinstance(document[key], dict | list) and document[key] and generator.random() < 0.75:
        copy[key] = _mutated(generator, document[key], raws)
        return copy
    action = generator.random()
    if action < 0.6:
        copy[key] = _other(generator, document[key], raws)
    elif action < 0.7:
        del copy[key]
    elif isinstance(copy, list):
        copy.insert(key, copy[key] if action < 0.85 else _other(generator, copy[key], raws))
    elif action < 0.85:
        copy[_misspelt(generator, str(key))] = copy.pop(key)
    else:
        new: Any = generator.choice(
            ("x", "name", 1, None, True, 1.5, "\x1b[1m", "a" * 3000, "é", "")
        )
        copy[new] = document[key]
    return copy


def _other(generator: random.Random, value: Any, raws: list[str]) -> Any:
    action = generator.random()
    if action < 0.45:
        return generator.choice(VALUES)
    if action < 0.75:
        raws.append(generator.choice(RAW))
        return _RAW
    if action < 0.8:
        return [value]
    if action < 0.85:
        return {"name": value}
    if action < 0.9:
        return str(value)
    if action < 0.95 and isinstance(value, int | float):
        return generator.choice((-value, value + 1, value * 1000, f"{value!s:.20}e0"))
    nested: Any = value
    for _ in range(generator.choice((5, 40))):
        nested = [nested] if generator.random() < 0.5 else {"name": nested}
    return nested


def _misspelt(generator: random.Random, key: str) -> str:
    at = generator.randrange(len(key))
    sign = generator.choice(_SIGNS)
    return generator.choice(
        (key[:at] + key[at + 1 :], key[:at] + sign + key[at:], key.upper(), key * 2)
    )


def _dumped(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("\n...\n").strip()
    )


def _at(generator: random.Random, content: bytes) -> int:
    return generator.randrange(len(content) + 1)


def _truncated(generator: random.Random, content: bytes) -> bytes:
    return content[: _at(generator, content)]


def _with_sign(generator: random.Random, content: bytes) -> bytes:
    at = _at(generator, content)
    sign = generator.choice(_SIGNS) * generator.choice((1, 1, 1, 50))
    return content[:at] + sign.encode() + content[at + generator.choice((0, 1)) :]


def _with_raw(generator: random.Random, content: bytes) -> bytes:
    """A value after some colon is another."""
    lines = content.split(b"\n")
    index = generator.randrange(len(lines))
    key, colon, _ = lines[index].partition(b": ")
    if colon:
        lines[index] = key + colon + generator.choice(RAW).encode()
    return b"\n".join(lines)


def _with_lines_moved(generator: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    index, other = generator.randrange(len(lines)), generator.randrange(len(lines))
    action = generator.random()
    if action < 0.4:
        lines.insert(other, lines[index])
    elif action < 0.7:
        lines[index], lines[other] = lines[other], lines[index]
    else:
        lines[index] = b" " * generator.randint(1, 4) + lines[index]
    return b"\n".join(lines)


def _encoded(generator: random.Random, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(generator.choice(_ENCODINGS), "replace")


def _with_bits_flipped(generator: random.Random, content: bytes) -> bytes:
    flipped = bytearray(content)
    for _ in range(generator.choice((1, 3, 10))):
        if flipped:
            flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
    return bytes(flipped)


def _with_bomb(generator: random.Random, content: bytes) -> bytes:
    """Anchors of anchors, as values, as keys, and merged."""
    link = generator.choice(("[{}]", "{{? [{}] : 1}}", "{{<<: [{}]}}", "{{a: [{}]}}"))
    levels = generator.choice((4, 9, 40, 300))
    lines = [
        "z0: &z0 {a: 1}",
        *(f"z{i}: &z{i} {link.format(','.join([f'*z{i - 1}'] * 9))}" for i in range(1, levels)),
    ]
    return "\n".join(lines).encode() + b"\n" + content


def _with_document(generator: random.Random, content: bytes) -> bytes:
    more = (
        b"---\n",
        b"\n---\n",
        b"%YAML 9.9\n---\n",
        b"%TAG ! !!python/\n---\n",
        b"...\n",
        b"%X\n",
    )
    return generator.choice(more).join((b"" if generator.random() < 0.7 else content, content))


def _long(generator: random.Random, content: bytes) -> bytes:
    more = generator.choice(
        (b"# " + b"x" * 70_000, b"x: " + b"y" * 70_000, b"k" * 2000 + b": 1", b"a: 1\n" * 3000)
    )
    return content + b"\n" + more + b"\n"


_TEXT_MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _truncated,
    _with_sign,
    _with_sign,
    _with_raw,
    _with_raw,
    _with_lines_moved,
    _encoded,
    _with_bits_flipped,
    _with_bomb,
    _with_document,
    _long,
)
