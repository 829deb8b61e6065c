"""The section of a JSON document from which its result can be made again."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hesscli.report.document import Document
from hesscli.system.packages import blas, installed

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class InputFile:
    """A file that was read: ``key`` says what for, ``path`` is as it was given."""

    key: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Invocation:
    """A command as it was run.

    ``options`` are those that are not keys of the ``configuration`` (the YAML's plain values, every
    key spelled out) and decide what is computed; where the output goes is none of them.
    ``versions``, beside those of the environment, and ``machine`` are what the last bits of a
    number depend on.
    """

    command: str
    options: Mapping[str, Any]
    configuration: Mapping[str, Any]
    files: tuple[InputFile, ...]
    versions: Mapping[str, str | None]
    machine: str


def versions() -> dict[str, str | None]:
    """The versions that are not in the environment: Python, BLAS and threadpoolctl."""
    return {
        "python": platform.python_version(),
        "blas": blas(),
        "threadpoolctl": installed("threadpoolctl"),
    }


def this_machine() -> str:
    """The system and, if it is known, the processor's name."""
    processor = _processor()
    return f"{platform.system()} {platform.machine()}{', ' if processor else ''}{processor}"


def with_invocation(document: Document, invocation: Invocation) -> Document:
    """``document`` whose JSON says how to make it again."""
    results = {key: document.data[key] for key in document.data if key not in _FIRST}
    first = {key: document.data[key] for key in document.data if key in _FIRST}
    return replace(document, data={**first, "invocation": asdict(invocation), **results})


# The keys before it, which readers look for first.
_FIRST = ("schema", "status", "environment", "problem")


def _processor() -> str:
    """The processor's name if the system reports it."""
    try:
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return ""
