"""How a result was made: the section of a JSON document from which it can be made again."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hesscli.report.document import Document

_CPUINFO = Path("/proc/cpuinfo")
# What BLAS, SciPy and TensorFlow read; a sum in another number of parts rounds differently.
_THREAD_VARIABLES = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)


@dataclass(frozen=True)
class InputFile:
    """A file that was read: ``key`` says what for, ``path`` is as it was given."""

    key: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Machine:
    """What the last bits of a number depend on beside the versions.

    ``processors`` are those that this process may use; ``variables`` those of the environment
    that say how many threads are used.
    """

    system: str
    processor: str
    processors: int
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Invocation:
    """A command as it was run.

    ``options`` are those that are no keys of the ``configuration`` (the YAML's plain values, every
    key spelled out) and decide what is computed; where the output goes is none of them.
    """

    command: str
    options: Mapping[str, Any]
    configuration: Mapping[str, Any]
    files: tuple[InputFile, ...]
    python: str
    machine: Machine


def this_machine() -> Machine:
    """The machine that this process runs on, with as many processors as it may use."""
    return Machine(
        system=f"{platform.system()} {platform.machine()}".strip(),
        processor=_processor(),
        processors=_usable_processors(),
        variables={name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
    )


def with_invocation(document: Document, invocation: Invocation) -> Document:
    """``document`` whose JSON says how to make it again."""
    results = {key: document.data[key] for key in document.data if key not in _FIRST}
    first = {key: document.data[key] for key in document.data if key in _FIRST}
    return replace(document, data={**first, "invocation": asdict(invocation), **results})


# What a reader looks for first comes before it.
_FIRST = ("schema", "status", "environment", "problem")


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    """The model's name where the system says it."""
    try:
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return ""
