"""hesscli export: what is read back is the block, and nothing is left of what did not end well."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from networks import make_problem

from hesscli.cli.main import _run
from hesscli.config.load import load_config
from hesscli.problem.execution import Execution
from hesscli.problem.graph import Array
from hesscli.studies import export as study
from hesscli.studies.export import export_block
from hesscli.system import pieces
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import layout_of

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: str, of: str = "hessian") -> tuple[Array, dict[str, Any]]:
    """The array, and what it is, as a program would read them."""
    if path.endswith(".npy"):
        about = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
        return np.load(path, mmap_mode="r", allow_pickle=False), about
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as archive:
            texts = {name: archive[name] for name in archive.files if name != of}
            return archive[of], _about(texts)
    with h5py.File(path) as file:
        texts = dict(file.attrs)
        if "names" in file:
            texts["names"] = file["names"].asstr()[()]
        return file[of][()], _about(texts)


def _about(texts: Mapping[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {"names": None}
    for name, value in texts.items():
        if name == "names":
            about[name] = list(value)
        else:
            text = str(value)
            is_data = name in ("environment", "shape", "rows", "layout")
            about[name] = json.loads(text) if is_data else text
    return about


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_read_back_is_the_block(
    suffix: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several pieces, so that a row in the wrong place would show."""
    monkeypatch.setattr(study, "pieces", lambda *a: pieces.pieces(*a, piece_bytes=2000))
    problem = make_problem((5, 4, 3), "tanh", dtype=dtype)
    engine = ChainRule(problem)
    for name in ("dense1/kernel", "dense1/bias", "dense2", "network", "input", "input[1]"):
        for term, of in (
            ("hessian", engine.hessian),
            ("gauss-newton", engine.gauss_newton),
            ("curvature", engine.curvature),
        ):
            path = f"H{suffix}"
            result = export_block(problem, name, path, term=term, configuration="seed: 0\n")  # type: ignore[arg-type]
            array, about = read(path)
            dense = of(name).to_dense()
            assert array.dtype == dtype
            np.testing.assert_allclose(array, dense, rtol=1e-6, atol=1e-7 * np.abs(dense).max())
            np.testing.assert_allclose(array, array.T, atol=1e-6 * np.abs(dense).max())
            layout = layout_of(problem, name)
            assert about["names"] == [layout.name_of(index) for index in range(layout.size)]
            assert about["shape"] == list(dense.shape) == list(result.shape)
            assert (about["block"], about["term"]) == (name, term)
            assert about["configuration"] == "seed: 0\n"
            assert result.data_bytes == dense.nbytes
    assert sorted(os.listdir()) == sorted(result.files)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_diagonal_gradient_and_jacobian_are_tensorflow_s(
    suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "pieces", lambda *a: pieces.pieces(*a, piece_bytes=100))
    problem = make_problem((5, 4, 3), "tanh")
    engine = Autodiff(problem)
    for name in ("dense1", "input[1]"):
        J = engine.jacobian(name)
        for of, expected in (
            ("diagonal", np.diagonal(engine.hessian(name).to_dense())),
            ("gradient", engine.gradient(name)),
            ("jacobian", J.rows(0, J.shape[0])),
        ):
            result = export_block(problem, name, f"x{suffix}", of=of)  # type: ignore[arg-type]
            array, about = read(f"x{suffix}", of)
            assert array.shape == expected.shape == result.shape == tuple(about["shape"])
            np.testing.assert_allclose(array, expected, rtol=0, atol=1e-14)
            assert (about["of"], about.get("term")) == (of, result.term)
            assert result.data_bytes == expected.nbytes
            export_block(problem, name, f"some{suffix}", of=of, rows=(1, 3))  # type: ignore[arg-type]
            np.testing.assert_array_equal(read(f"some{suffix}", of)[0], array[1:3])


def test_a_jacobian_in_chunks_and_a_diagonal_of_a_term_are_those_of_all_examples() -> None:
    problem, chunks = make_problem((5, 4, 3), "tanh"), Execution(chunk=2)
    for of, term in (("jacobian", "hessian"), ("diagonal", "curvature"), ("gradient", "hessian")):
        asked: dict[str, Any] = {"of": of, "term": term}
        export_block(problem, "dense2/kernel", "held.npy", **asked)
        export_block(problem, "dense2/kernel", "parts.npy", **asked, execution=chunks)
        np.testing.assert_allclose(np.load("parts.npy"), np.load("held.npy"), rtol=0, atol=1e-15)
    curvature = ChainRule(problem).curvature("dense2/kernel").to_dense()
    export_block(problem, "dense2/kernel", "d.npy", of="diagonal", term="curvature")
    np.testing.assert_allclose(np.load("d.npy"), np.diagonal(curvature), rtol=0, atol=1e-15)


def test_what_has_no_terms_and_what_has_no_jacobian_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ("export", "-n", "2", "-o", "x.npy")
    for of in ("gradient", "jacobian"):
        assert _run((*asked, "dense3", "--of", of, "--term", "curvature")) == 2
        assert f"--of {of} --term curvature: only the Hessian" in capsys.readouterr().err
    assert _run((*asked, "input", "--of", "jacobian")) == 2
    assert "input[0] to input[1]" in capsys.readouterr().err
    assert _run((*asked, "dense3/bias", "--of", "jacobian", "--rows", "0:21")) == 2
    assert "dense3/bias has the rows 0:20" in capsys.readouterr().err
    assert os.listdir() == []


def test_the_layout_says_where_each_tensor_is_when_the_names_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study, "NAMES_LIMIT", 10)
    problem = make_problem((5, 4, 3), "tanh")
    for suffix in SUFFIXES:
        export_block(problem, "network", f"H{suffix}")
        _, about = read(f"H{suffix}")
        assert about["names"] is None
        layout = layout_of(problem, "network")
        for tensor in about["layout"]:
            first = ",".join("0" for _ in tensor["shape"])
            assert layout.index_of(f"{tensor['tensor']}[{first}]") == tensor["start"]
        assert sum(int(np.prod(tensor["shape"])) for tensor in about["layout"]) == layout.size


@pytest.mark.parametrize(
    ("rows", "start", "stop"), [("3:7", 3, 7), (":2", 0, 2), ("18:", 18, 20), ("0:20", 0, 20)]
)
def test_some_rows_are_those_rows(rows: str, start: int, stop: int) -> None:
    yaml_text = (
        "model: {inputs: 784, layers: [{units: 4, activation: tanh}, {units: 5}, {units: 10}]}"
    )
    Path("c.yaml").write_text(yaml_text)
    asked = ("export", "dense2/kernel", "-c", "c.yaml", "-o")
    assert _run((*asked, "all.npy")) == _run((*asked, "some.npy", "--rows", rows)) == 0
    some, about = read("some.npy")
    np.testing.assert_allclose(some, read("all.npy")[0][start:stop], rtol=1e-13)
    assert about["rows"] == [start, stop]


def test_the_configuration_inside_gives_the_block_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ("-a", "gelu", "-n", "3", "--seed", "5", "--set", "model.layers.1.units=6")
    assert _run(("export", "dense2/kernel", *asked, "-o", "H.h5")) == 0
    assert "180 × 180" in capsys.readouterr().out
    first, about = read("H.h5")
    Path("again.yaml").write_text(about["configuration"])
    assert load_config("again.yaml").model.layers[0].activation.name == "gelu"
    assert yaml.safe_load(about["configuration"])["data"]["batch_size"] == 3
    assert _run(("export", "dense2/kernel", "-c", "again.yaml", "-o", "again.npz")) == 0
    np.testing.assert_array_equal(read("again.npz")[0], first)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_too_small_a_disk_is_refused_before_anything_is_computed(
    suffix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def computed(*_: Any) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(ChainRule, "hessian", computed)
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4_000_000_000))
    assert _run(("export", "dense1/kernel", "-o", f"H{suffix}")) == 2
    err = capsys.readouterr().err
    assert err == (
        f"hesscli: H{suffix}: needs 4.4 GB and the disk has 4.0 GB free; use --rows, --dtype "
        "float32 or another disk\n"
    )
    assert os.listdir() == []


STOPS = [
    (KeyboardInterrupt(), 130, "interrupted"),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("error", "code", "said"), STOPS, ids=["interrupt", "disk"])
def test_what_is_stopped_leaves_nothing_and_an_old_file_as_it_was(
    suffix: str,
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def progress(*_: Any) -> None:
        assert any(name.endswith(".tmp") for name in os.listdir())
        raise error

    monkeypatch.setattr("hesscli.cli.export.progress_bar", lambda: _Showing(progress))
    for old in ({}, {f"H{suffix}": b"old", f"H{suffix}.json": b"old"}):
        for name, content in old.items():
            Path(name).write_bytes(content)
        assert _run(("export", "dense3/kernel", "-o", f"H{suffix}")) == code
        assert said in capsys.readouterr().err
        assert {name: Path(name).read_bytes() for name in os.listdir()} == old


class _Showing:
    def __init__(self, progress: Any) -> None:
        self._progress = progress

    def __enter__(self) -> Any:
        return self._progress

    def __exit__(self, *_: object) -> None:
        return None


WRONG = [
    ("dense1/kernel -o H.txt", "--output H.txt: the suffix '.txt' names no format of arrays; use"),
    ("dense1/kernel -o H", "the suffix '' names no format of arrays; use .npy, .npz, .h5, .hdf5"),
    ("dense1/kernel", "Missing option '--output'"),
    ("dense9/kernel -o H.npy", "'dense9/kernel' is not a block; use <layer>/kernel"),
    ("dense3 --set model.bias=false -a relu -a tanh -o H.npy", "a file contains the block of one"),
    ("dense1/bias --set model.bias=false -o H.npy", "'dense1/bias' is not a block"),
    ("input[32] -o H.npy", "'input[32]' is not a block"),
    ("dense3 --rows 5 -o H.npy", "'5'; write START:STOP, as in 0:100"),
    ("dense3 --rows 5:5 -o H.npy", "--rows 5:5: dense3 has the rows 0:310"),
    ("dense3 --rows 0:311 -o H.npz", "--rows 0:311: dense3 has the rows 0:310"),
    ("dense3 -o none/H.h5", "none/H.h5: cannot be written (No such file or directory)"),
    ("dense3 -o H.npy -a tahn", "'tahn' is unknown"),
]


@pytest.mark.parametrize(("line", "wrong"), WRONG)
def test_wrong_usage_is_one_line_and_writes_nothing(
    line: str, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(("export", *line.split())) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert wrong in err
    assert os.listdir() == []


def test_an_entry_that_is_not_finite_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(block: HessianBlock, start: int, stop: int) -> Array:
        return np.full((stop - start, block.shape[0]), np.inf)

    monkeypatch.setattr("hesscli.witnesses.chain_rule.dense.DenseBlock.rows", rows)
    assert _run(("export", "dense3/kernel", "-o", "H.npz")) == 2
    assert "leaves the range of float64" in capsys.readouterr().err
    assert os.listdir() == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_stays_flat(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of 130 MB goes through in pieces of 2 MB."""
    monkeypatch.setattr(study, "pieces", lambda *a: pieces.pieces(*a, piece_bytes=2**21))
    problem = make_problem((160, 25, 2), "tanh", examples=2)
    tracemalloc.start()
    try:
        result = export_block(problem, "dense1/kernel", f"H{suffix}")
        assert result.data_bytes > 120_000_000
        assert tracemalloc.get_traced_memory()[1] < 25_000_000
    finally:
        tracemalloc.stop()
    array, _ = read(f"H{suffix}")
    assert abs(array[100:103] - array[:, 100:103].T).max() < 1e-14
