"""A block as a file, written in rows so that it never sits in memory.

The numbers are the chain rule's. ``.npy`` holds the array alone, so what it is stands in a
``.json`` file beside it; ``.npz`` and HDF5 hold both.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.context import (
    Environment,
    ProblemSummary,
    Progress,
    environment,
    no_progress,
)
from hesscli.studies.evaluation import evaluated
from hesscli.system.errors import InputError, NumericalError
from hesscli.system.files import check_writable, replacing, replacing_by_name
from hesscli.system.memory import readable_size
from hesscli.system.pieces import pieces
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.layout import Layout, layout_of
from hesscli.witnesses.summed.engine import ChainRuleEngine, chain_rule_of

Term = Literal["hessian", "gauss-newton", "curvature"]

SCHEMA = "hesscli/export/1"
# The names of so many parameters are written out; of more the layout says them.
NAMES_LIMIT = 1000
# What a file holds beside the numbers: headers, names and the configuration.
_OVERHEAD = 2**20
# HDF5 reads and writes whole chunks; rows are put into chunks of about this size.
_CHUNK_BYTES = 2**20

Rows = Iterator[Array]
Writer = Callable[["_Contents", str], None]


@dataclass(frozen=True)
class Export:
    """What was written: the ``term`` of a block, rows ``start`` to ``stop`` of its (P, P).

    ``files`` are the paths, the array's first; ``data_bytes`` is the size of the array.
    """

    environment: Environment
    problem: ProblemSummary
    activation: str
    parameter: str
    term: Term
    start: int
    stop: int
    size: int
    data_bytes: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class _Contents:
    """What a file gets: the rows in pieces, the array's shape and dtype, and what it is."""

    pieces: Callable[[], Rows]
    shape: tuple[int, int]
    dtype: np.dtype[np.floating]
    about: Mapping[str, Any]


def export_block(
    problem: Problem,
    parameter: str,
    path: str,
    *,
    term: Term = "hessian",
    rows: tuple[int, int | None] | None = None,
    configuration: str = "",
    progress: Progress = no_progress,
    execution: Execution = HELD,
) -> Export:
    """Writes a block (hesscli.witnesses.layout) to ``path``; its suffix is the format.

    ``rows`` (start, stop) chooses some rows, with stop None up to the last; ``configuration`` is
    the YAML text of the problem, which is kept with the numbers. The file is written whole or not
    at all.
    Raises InputError where the block, the rows or the suffix are none, or where the disk is too
    small, all before anything is computed, and NumericalError where an entry is not finite.
    """
    writer = _writer(path)
    layout = layout_of(problem, parameter)
    start, end = (0, None) if rows is None else rows
    stop = layout.size if end is None else end
    if not 0 <= start < stop <= layout.size:
        raise InputError(
            f"--rows {start}:{stop}: {parameter} has the rows 0:{layout.size}; give some of them"
        )
    shape, dtype = (stop - start, layout.size), problem.dtype
    data_bytes = shape[0] * shape[1] * dtype.itemsize
    require_disk(path, data_bytes + _OVERHEAD)
    about = {
        "schema": SCHEMA,
        "environment": asdict(environment(problem, execution)),
        "block": parameter,
        "term": term,
        "activation": problem.hidden_activation,
        "shape": list(shape),
        "rows": [start, stop],
        "dtype": dtype.name,
        "layout": _layout_data(layout),
        "names": _names(layout),
        "configuration": configuration,
    }
    block = _term_of(chain_rule_of(problem, execution), term, parameter)
    contents = _Contents(lambda: _finite_rows(block, start, stop, progress), shape, dtype, about)
    writer(contents, path)
    files = (path, _beside(path)) if writer is _write_npy else (path,)
    return Export(
        environment=environment(problem, execution),
        problem=evaluated((problem,), execution),
        activation=problem.hidden_activation,
        parameter=parameter,
        term=term,
        start=start,
        stop=stop,
        size=layout.size,
        data_bytes=data_bytes,
        files=files,
    )


def require_export_path(path: str) -> None:
    """Raises InputError where ``path`` has no suffix of SUFFIXES or cannot be written."""
    writer = _writer(path)
    check_writable(path)
    if writer is _write_npy:
        check_writable(_beside(path))


def require_disk(path: str, needed: int) -> None:
    """Raises InputError where the disk of ``path`` has not ``needed`` bytes free."""
    # What stands at the path already goes only when the new file is whole.
    free = shutil.disk_usage(os.path.dirname(check_writable(path))).free
    if needed > free:
        raise InputError(
            f"{path}: needs {readable_size(needed)} and the disk has {readable_size(free)} free; "
            "use --rows, --dtype float32 or another disk"
        )


def _writer(path: str) -> Writer:
    suffix = PurePath(path).suffix.lower()
    try:
        return SUFFIXES[suffix]
    except KeyError:
        known = ", ".join(SUFFIXES)
        raise InputError(
            f"--output {path}: the suffix {suffix!r} names no format of arrays; use {known}"
        ) from None


def _beside(path: str) -> str:
    """The file that says what an ``.npy`` file is."""
    return f"{path}.json"


def _layout_data(layout: Layout) -> list[dict[str, Any]]:
    """Each tensor of a block: its name, the index of its first parameter and its shape."""
    tensors: list[dict[str, Any]] = []
    for segment, low in zip(layout.segments, layout.starts, strict=False):
        for tensor in segment.tensors:
            tensors.append({"tensor": tensor.name, "start": low, "shape": list(tensor.shape)})
            low += tensor.rows * segment.units
    return tensors


def _names(layout: Layout) -> list[str] | None:
    if layout.size > NAMES_LIMIT:
        return None
    return [layout.name_of(index) for index in range(layout.size)]


def _term_of(engine: ChainRuleEngine, term: Term, parameter: str) -> HessianBlock:
    of = {
        "hessian": engine.hessian,
        "gauss-newton": engine.gauss_newton,
        "curvature": engine.curvature,
    }[term]
    return of(parameter)


def _finite_rows(block: HessianBlock, start: int, stop: int, progress: Progress) -> Rows:
    for low, high in pieces(start, stop, block.shape[0] * block.dtype.itemsize):
        rows = block.rows(low, high)
        if not np.isfinite(rows).all():
            raise NumericalError(
                f"{block.parameter}: an entry in the rows {low}:{high} leaves the range of "
                f"{block.dtype}; use smaller weights"
            )
        yield rows
        progress(block.parameter, high - start, stop - start)


def _write_npy(contents: _Contents, path: str) -> None:
    text = json.dumps(contents.about, indent=2, ensure_ascii=False) + "\n"
    with ExitStack() as stack:
        # The last to be entered takes its place first: the array is never alone for long.
        beside = stack.enter_context(replacing(_beside(path)))
        beside.write(text.encode("utf-8"))
        stream = stack.enter_context(replacing(path))
        _write_array(contents, stream)


def _write_npz(contents: _Contents, path: str) -> None:
    with replacing(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        with archive.open("hessian.npy", "w", force_zip64=True) as member:
            _write_array(contents, member)
        for name, value in _attributes(contents.about).items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.array(value), allow_pickle=False)


def _write_array(contents: _Contents, stream: Any) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(contents.dtype),
        "fortran_order": False,
        "shape": contents.shape,
    }
    np.lib.format.write_array_header_2_0(stream, header)
    for rows in contents.pieces():
        stream.write(np.ascontiguousarray(rows).data.cast("B"))


def _write_hdf5(contents: _Contents, path: str) -> None:
    # Comes with TensorFlow, which is not imported by it.
    import h5py

    count, size = contents.shape
    chunk = min(count, max(1, _CHUNK_BYTES // (size * contents.dtype.itemsize)))
    with replacing_by_name(path) as temporary, _open_hdf5(h5py, temporary) as file:
        array = file.create_dataset(
            "hessian", shape=contents.shape, dtype=contents.dtype, chunks=(chunk, size)
        )
        low = 0
        for rows in contents.pieces():
            array[low : low + len(rows)] = rows
            low += len(rows)
        for name, value in _attributes(contents.about).items():
            if name == "names":
                file.create_dataset(name, data=value, dtype=h5py.string_dtype())
            else:
                file.attrs[name] = value


@contextmanager
def _open_hdf5(h5py: Any, path: str) -> Iterator[Any]:
    """A new HDF5 file; a full disk is an OSError whatever h5py raises when it closes."""
    try:
        with h5py.File(path, "x") as file:
            yield file
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _attributes(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a file is as texts, but for the parameters' names, which are a list."""
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in about.items()
        if key != "names"
    }
    return texts if about["names"] is None else {**texts, "names": about["names"]}


SUFFIXES: Mapping[str, Writer] = MappingProxyType(
    {".npy": _write_npy, ".npz": _write_npz, ".h5": _write_hdf5, ".hdf5": _write_hdf5}
)
