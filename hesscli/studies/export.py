"""A Hessian, its diagonal, a gradient or a Jacobian as a file, written row by row.

The numbers are the chain rule's; a matrix never sits in memory. ``.npy`` holds the array alone, so
what it is stands in a ``.json`` file next to it; ``.npz`` and HDF5 hold both.
"""

from __future__ import annotations

import json
import math
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
from hesscli.witnesses.jacobian import jacobian_shape
from hesscli.witnesses.layout import Layout, layout_of
from hesscli.witnesses.summed.engine import ChainRuleEngine, chain_rule_of

Term = Literal["hessian", "gauss-newton", "curvature"]
Of = Literal["hessian", "diagonal", "gradient", "jacobian"]

SCHEMA = "hesscli/export/1"
# The names of so many parameters are written out; of more the layout says them.
NAMES_LIMIT = 1000
# What a file contains in addition to the numbers: headers, names and the configuration.
_OVERHEAD = 2**20
# HDF5 reads and writes whole chunks; rows are put into chunks of about this size.
_CHUNK_BYTES = 2**20

Rows = Iterator[Array]
RowsOf = Callable[[int, int], Array]
Writer = Callable[["_Contents", str], None]


@dataclass(frozen=True)
class Export:
    """The result of ``hesscli export``: the rows (or numbers) ``start`` to ``stop`` ``of`` a block.

    ``term`` is None of what has none. ``shape`` is the array's, ``data_bytes`` its size; ``files``
    are the paths, the array's first.
    """

    environment: Environment
    problem: ProblemSummary
    activation: str
    parameter: str
    of: Of
    term: Term | None
    start: int
    stop: int
    shape: tuple[int, ...]
    data_bytes: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class _Contents:
    """The contents of a file: rows in pieces, name, shape and dtype, and a description."""

    pieces: Callable[[], Rows]
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.floating]
    about: Mapping[str, Any]


def export_block(
    problem: Problem,
    parameter: str,
    path: str,
    *,
    of: Of = "hessian",
    term: Term = "hessian",
    rows: tuple[int, int | None] | None = None,
    configuration: str = "",
    progress: Progress = no_progress,
    execution: Execution = HELD,
) -> Export:
    """Writes a block (hesscli.witnesses.layout) to ``path``; its suffix is the format.

    ``of`` is the block itself or its diagonal, whose ``term`` is asked for, or the gradient ∂L/∂θ
    or the Jacobian ∂f/∂θ in its parameters. ``rows`` (start, stop) chooses some rows, with stop
    None up to the last; ``configuration`` is the YAML text of the problem, which is kept with the
    numbers. The file is written whole or not at all.
    Raises InputError if the block, the rows or the suffix are none, or if the disk is too
    small, all before anything is computed, and NumericalError if a number is not finite.
    """
    writer = _writer(path)
    if of in ("gradient", "jacobian") and term != "hessian":
        raise InputError(
            f"--of {of} --term {term}: only the Hessian and its diagonal have terms; use one of "
            "the two options"
        )
    layout = layout_of(problem, parameter)
    count, *across = _shape(problem, of, parameter)
    start, end = (0, None) if rows is None else rows
    stop = count if end is None else end
    if not 0 <= start < stop <= count:
        raise InputError(
            f"--rows {start}:{stop}: {parameter} has the rows 0:{count}; give some of them"
        )
    shape, dtype = (stop - start, *across), problem.dtype
    data_bytes = math.prod(shape) * dtype.itemsize
    require_disk(path, data_bytes + _OVERHEAD)
    about = {
        "schema": SCHEMA,
        "environment": asdict(environment(problem, execution)),
        "block": parameter,
        "of": of,
        **({"term": term} if of in ("hessian", "diagonal") else {}),
        "activation": problem.hidden_activation,
        "shape": list(shape),
        "rows": [start, stop],
        "dtype": dtype.name,
        "layout": _layout_data(layout),
        "names": _names(layout),
        "configuration": configuration,
    }
    engine = chain_rule_of(problem, execution)
    rows_of = _rows_of(engine, of, term, parameter)
    source = _Source(parameter, rows_of, math.prod(across) * dtype.itemsize, dtype)
    contents = _Contents(lambda: source.pieces(start, stop, progress), of, shape, dtype, about)
    writer(contents, path)
    files = (path, _beside(path)) if writer is _write_npy else (path,)
    return Export(
        environment=environment(problem, execution),
        problem=evaluated((problem,), execution),
        activation=problem.hidden_activation,
        parameter=parameter,
        of=of,
        term=about.get("term"),
        start=start,
        stop=stop,
        shape=shape,
        data_bytes=data_bytes,
        files=files,
    )


def require_export_path(path: str) -> None:
    """Raises InputError if ``path`` has no suffix of SUFFIXES or cannot be written."""
    writer = _writer(path)
    check_writable(path)
    if writer is _write_npy:
        check_writable(_beside(path))


def require_disk(path: str, needed: int) -> None:
    """Raises InputError if the disk of ``path`` has not ``needed`` bytes free."""
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


def _shape(problem: Problem, of: Of, parameter: str) -> tuple[int, ...]:
    if of == "jacobian":
        return jacobian_shape(problem, parameter)
    size = layout_of(problem, parameter).size
    return (size, size) if of == "hessian" else (size,)


def _rows_of(engine: ChainRuleEngine, of: Of, term: Term, parameter: str) -> RowsOf:
    if of == "hessian":
        return _term_of(engine, term, parameter).rows
    if of == "jacobian":
        return engine.jacobian(parameter).rows
    if of == "diagonal":
        found = _term_of(engine, term, parameter).diagonal()
    else:
        found = engine.gradient(parameter)
    with np.errstate(over="ignore"):
        return lambda low, high: found[low:high].astype(engine.problem.dtype, copy=False)


@dataclass(frozen=True)
class _Source:
    """The rows of an array, each of ``row_bytes``."""

    parameter: str
    rows: RowsOf
    row_bytes: int
    dtype: np.dtype[np.floating]

    def pieces(self, start: int, stop: int, progress: Progress) -> Rows:
        for low, high in pieces(start, stop, self.row_bytes):
            rows = self.rows(low, high)
            if not np.isfinite(rows).all():
                raise NumericalError(
                    f"{self.parameter}: an entry in the rows {low}:{high} leaves the range of "
                    f"{self.dtype}; use smaller weights"
                )
            yield rows
            progress(self.parameter, high - start, stop - start)


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
        with archive.open(f"{contents.name}.npy", "w", force_zip64=True) as member:
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

    count, *across = contents.shape
    chunk = min(count, max(1, _CHUNK_BYTES // (math.prod(across) * contents.dtype.itemsize)))
    with replacing_by_name(path) as temporary, _open_hdf5(h5py, temporary) as file:
        array = file.create_dataset(
            contents.name, shape=contents.shape, dtype=contents.dtype, chunks=(chunk, *across)
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
    """The description of a file as texts, except for the parameters' names, which are a list."""
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in about.items()
        if key != "names"
    }
    return texts if about["names"] is None else {**texts, "names": about["names"]}


SUFFIXES: Mapping[str, Writer] = MappingProxyType(
    {".npy": _write_npy, ".npz": _write_npz, ".h5": _write_hdf5, ".hdf5": _write_hdf5}
)
