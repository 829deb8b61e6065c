"""Damaged files that hesscli made itself: JSON reports for replay, checkpoints for --resume.

A report's values are changed one by one (it stays JSON, and often a report), a checkpoint's
arrays and the bytes of both; the problem beside them is whole.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_files import HOSTILE_JSON, batch, changed, damaged, npy_bytes, wrong_npy, zipped
from fuzz_harness import Case

from hesscli.cli.main import main

_CONFIG = """\
model: {inputs: 4, layers: [{units: 3, activation: tanh}, {units: 2}]}
data: {source: b.npz, batch_size: all}
train: {batch_size: 2, steps: 2, every: 2, measure_examples: 2}
"""
_REPORTED = {
    "spectrum": ("--steps", "4", "--probes", "2"),
    "train": (),
    "init": ("--seeds", "2"),
}


def draw(seed: int) -> Case:
    generator = random.Random(seed)
    for name, content in _made().items():
        if name in ("c.yaml", "b.npz"):
            Path(name).write_bytes(content)
    if seed % 2:
        return _resumed(generator)
    return _replayed(generator)


def _replayed(generator: random.Random) -> Case:
    command = generator.choice(list(_REPORTED))
    document = json.loads(_made()[f"{command}.json"])
    for _ in range(generator.choice((0, 1, 1, 1, 2, 5))):
        # What a replay reads first, more often than the results.
        part = generator.choice(("invocation", "invocation", "environment", "problem", None))
        if part is None or not isinstance(document, dict) or part not in document:
            document = changed(generator, document)
        else:
            document[part] = changed(generator, document[part])
    content = json.dumps(document).encode("utf-8", "surrogatepass")
    if generator.random() < 0.2:
        content = generator.choice((damaged(generator, content), *HOSTILE_JSON))
    Path("r.json").write_bytes(content)
    return Case(("replay", "r.json"), ("r.json",), functools.partial(_texts, document))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a document: the files that it may name."""
    if isinstance(value, str):
        if value.isprintable():
            yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _resumed(generator: random.Random) -> Case:
    with np.load(io.BytesIO(_made()["t.npz"])) as archive:
        arrays = dict(archive)
    members = {f"{name}.npy": npy_bytes(array) for name, array in arrays.items()}
    for _ in range(generator.choice((0, 1, 1, 2))):
        name = generator.choice(list(arrays))
        action = generator.random()
        if action < 0.15:
            members.pop(f"{name}.npy", None)
        elif action < 0.3:
            members[f"{generator.choice(list(arrays))}.npy"] = npy_bytes(arrays[name])
        elif action < 0.4:
            members[f"train/{generator.choice(('x', 'vectors/x', 'record', ''))}.npy"] = b"x"
        else:
            members[f"{name}.npy"] = wrong_npy(generator, arrays[name], npy_bytes(arrays[name]))
    content = zipped(generator, members, 0)
    if generator.random() < 0.3:
        content = damaged(generator, content)
    Path("t.npz").write_bytes(content)
    steps = generator.choice(("4", "4", "2", "1", "0"))
    where = generator.choice(("t.npz", "t.npz", "t2.npz"))
    options = ("--resume", "t.npz", "--steps", steps, "--checkpoint", where)
    named = ("c.yaml", "b.npz", "t.npz", where)
    return Case(("train", "--config", "c.yaml", *options), named)


@functools.cache
def _made() -> dict[str, bytes]:
    """The configuration, the batch, the reports and the checkpoint, as hesscli writes them."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        try:
            Path("c.yaml").write_text(_CONFIG, encoding="ascii")
            np.savez("b.npz", **batch(random.Random(0)))
            for command, options in _REPORTED.items():
                more = ("--checkpoint", "t.npz") if command == "train" else ()
                arguments = (
                    command,
                    "-c",
                    "c.yaml",
                    "-q",
                    "-o",
                    f"{command}.json",
                    *options,
                    *more,
                )
                try:
                    main(arguments)
                except SystemExit as ended:
                    assert not ended.code, arguments
            return {path.name: path.read_bytes() for path in Path().iterdir()}
        finally:
            os.chdir(before)
