"""A JSON report read back, to be run again.

Without NumPy: how many threads it was made with must be known before that is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from hesscli.report.invocation import InputFile
from hesscli.system.errors import InputError, reason, shown
from hesscli.system.files import opened, sha256_of

# A longer one holds more numbers than any command gives in an hour; read, it takes the memory
# of some thirty times its size.
_MAX_BYTES = 32 * 2**20
_SCHEMA = re.compile(r"hesscli/([a-z-]+)/(\d{1,9})")
_VERSION = "1"
_NEEDED = "a JSON report that hesscli wrote is needed"


@dataclass(frozen=True)
class Report:
    """A report to be replayed: the plain values of its JSON document, and what is in them.

    ``threads`` is None if it does not say; ``workers`` took part.
    """

    path: str
    command: str
    data: Mapping[str, Any]
    options: Mapping[str, Any]
    configuration: Any
    files: tuple[InputFile, ...]
    threads: int | None
    workers: int = 1


def read_report(path: str) -> Report:
    """Reads the report in the file ``path``.

    Raises InputError if it cannot be read, is not a report, or not one that says how it was made.
    """
    data = read_results(path)
    invocation = data.get("invocation")
    if invocation is None:
        raise InputError(
            f"{path}: invocation: missing; a report that records how it was made is needed, as "
            "--format json writes it"
        )
    invocation = _mapping(path, "invocation", invocation)
    if data.get("status") == "interrupted":
        raise InputError(f"{path}: status: interrupted; only what was completed can be replayed")
    return Report(
        path=path,
        command=str(invocation.get("command")),
        data=data,
        options=_mapping(path, "invocation.options", invocation.get("options")),
        configuration=invocation.get("configuration"),
        files=tuple(_files(path, invocation.get("files"))),
        threads=_count(data, "threads"),
        workers=_count(data, "workers") or 1,
    )


def read_results(path: str) -> Mapping[str, Any]:
    """The JSON document of a result in the file ``path``; raises InputError if it is not one."""
    data = _parsed(path)
    schema = data.get("schema")
    match = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    if match is None:
        raise InputError(f"{path}: schema: {shown(schema)}; {_NEEDED}")
    if match[2] != _VERSION:
        raise InputError(f"{path}: schema: {schema}; this hesscli reads version {_VERSION}")
    if not isinstance(data.get("results"), list):
        raise InputError(f"{path}: results: {shown(data.get('results'))}; it must be a list")
    return data


def require_unchanged(report: Report, but: str) -> None:
    """Raises InputError if a file that the report was made from, ``but`` one key's, has changed."""
    for file in report.files:
        if file.key == but:
            continue
        try:
            found = sha256_of(file.path)
        except InputError as error:
            raise InputError(f"{report.path}: {file.key}: {error}") from error
        if found != file.sha256:
            raise InputError(
                f"{report.path}: {file.key}: {file.path} is not the file that the report was made "
                "from (its SHA-256 is another); bring that one back"
            )


def _parsed(path: str) -> Mapping[str, Any]:
    if not path:
        raise InputError("'': the name of a JSON report is needed")
    with opened(path, _NEEDED) as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise InputError(f"{path}: larger than {_MAX_BYTES // 2**20} MiB; {_NEEDED}")
    try:
        data = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InputError(f"{path}: not JSON (nested too deeply); {_NEEDED}") from error
    # A UnicodeDecodeError is one, as is what Python says of a number of thousands of digits.
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({reason(error)}); {_NEEDED}") from error
    return _mapping(path, "", data)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _mapping(path: str, key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        where = f"{key}: " if key else ""
        raise InputError(f"{path}: {where}{shown(value)}; {_NEEDED}")
    return value


def _files(path: str, value: Any) -> Iterator[InputFile]:
    if not isinstance(value, list):
        raise InputError(f"{path}: invocation.files: {shown(value)}; it must be a list")
    for index, item in enumerate(value):
        key = f"invocation.files.{index}"
        fields = _mapping(path, key, item)
        if set(fields) != {"key", "path", "sha256"} or not all(
            isinstance(text, str) for text in fields.values()
        ):
            raise InputError(f"{path}: {key}: it must hold key, path and sha256, all text")
        yield InputFile(**fields)


def _count(data: Mapping[str, Any], key: str) -> int | None:
    environment = data.get("environment")
    count = environment.get(key) if isinstance(environment, dict) else None
    return count if type(count) is int else None
