"""Examples in chunks: the same answers, whatever the chunks, and no more held than one of them."""

from __future__ import annotations

import gc
import gzip
import io
import json
import struct
import weakref
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import make_problem

from hesscli.cli.main import main
from hesscli.nodes.multiplied import Multiplied
from hesscli.problem import stored
from hesscli.problem.data import load_dataset
from hesscli.problem.execution import Execution, chunk_size, example_bytes, execution_of, fits
from hesscli.problem.network import Loss, Problem
from hesscli.problem.problemfile import read_batch, read_parameters, save_problem
from hesscli.problem.stored import FileRows, StoredInputs
from hesscli.studies.spectra.subject import SpectrumOptions, subject_of
from hesscli.studies.spectrum import spectrum
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.errors import InputError
from hesscli.system.memory import parse_size
from hesscli.system.threads import thread_count
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.finite.engine import FiniteDifferences
from hesscli.witnesses.rounding.floor import RoundingFloor
from hesscli.witnesses.summed.engine import (
    SummedEngine,
    autodiff_of,
    chain_rule_of,
    floor_of,
    kept_bytes,
)
from hesscli.witnesses.summed.finite import finite_of

BLOCKS = ("dense1/kernel", "dense2/bias", "dense2", "network")
TERMS = ("hessian", "gauss_newton", "curvature")


# Where an Execution says how many examples are held, the memory of the stored ones does not.
NO_MEMORY = 0


def stored_inputs(problem: Problem, memory: int = NO_MEMORY) -> Problem:
    """The problem with its examples stored: they can be read, and no array of them is there."""
    assert isinstance(problem.inputs, np.ndarray)
    rows = StoredInputs(
        problem.inputs,
        range(problem.examples),
        lambda raw: raw.copy(),
        problem.inputs.shape[1],
        problem.dtype,
        memory,
    )
    return replace(problem, inputs=rows)


def ended(*arguments: str) -> tuple[int, str, str]:
    """The exit code of a command, and what it wrote to stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0), out.getvalue(), err.getvalue()


def run(*arguments: str) -> Any:
    code, out, err = ended(*arguments, "--format", "json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("engine", ["chain rule", "autodiff"])
@settings(max_examples=6)
@given(
    chunk=st.integers(1, 9),
    reduction=st.sampled_from(["mean", "sum"]),
    seed=st.integers(0, 99),
    block=st.sampled_from(BLOCKS),
)
def test_blocks_of_chunks_add_up(
    engine: str, chunk: int, reduction: str, seed: int, block: str
) -> None:
    whole = replace(
        make_problem((5, 4, 3), "tanh", examples=9, seed=seed),
        loss=Loss("sparse_categorical_crossentropy", reduction),
    )
    if engine == "chain rule":
        summed, held = chain_rule_of(stored_inputs(whole), Execution(chunk)), ChainRule(whole)
    else:
        summed, held = autodiff_of(stored_inputs(whole), Execution(chunk)), Autodiff(whole)
    for term in TERMS:
        H = getattr(held, term)(block).to_dense()
        parts = getattr(summed, term)(block)
        close = 64 * np.finfo(float).eps * np.abs(held.gauss_newton(block).to_dense()).max()
        np.testing.assert_allclose(parts.to_dense(), H, rtol=0, atol=close)
        V = np.random.default_rng(seed).standard_normal((len(H), 3))
        np.testing.assert_allclose(parts.matmat(V), H @ V, rtol=0, atol=64 * close)
        form = float(V[:, 0] @ H @ V[:, 0])
        assert parts.quadratic_form(V[:, 0]) == pytest.approx(form, rel=0, abs=64 * close)


def test_floors_and_error_bars_of_chunks_are_no_smaller_than_those_of_the_whole() -> None:
    whole = make_problem((5, 4, 3), "tanh", examples=9)
    parts, in_pairs = stored_inputs(whole), Execution(2)
    floors = RoundingFloor(ChainRule(whole)), floor_of(chain_rule_of(parts, in_pairs))
    v = np.linspace(-1, 1, 20)
    for name in ("entries", "gradient"):
        of_whole, of_parts = (getattr(floor, name)("dense1/kernel") for floor in floors)
        assert (of_parts >= 0.3 * of_whole).all()
        assert (of_parts <= 10 * of_whole).all()
    for name in ("quadratic_form", "product_norm"):
        of_whole, of_parts = (getattr(floor, name)("dense1/kernel", v) for floor in floors)
        assert 0.3 * of_whole <= of_parts <= 10 * of_whole
    held, summed = (
        of.hessian("dense1/kernel") for of in (FiniteDifferences(whole), finite_of(parts, in_pairs))
    )
    (value, bar), (other, other_bar) = held.form_with_error(v), summed.form_with_error(v)
    assert abs(value - other) <= bar + other_bar
    H = ChainRule(whole).hessian("dense1/kernel").to_dense()
    rows, bars = summed.rows_with_error(3, 7)
    assert (np.abs(rows - H[3:7]) <= bars + 1e-14).all()


# Commands

TINY = ("--memory", "2MB", "-n", "40")


@pytest.mark.parametrize(
    "command",
    [
        ("verify", "-a", "tanh", "--check", "form"),
        ("verify", "-a", "tanh", "--check", "probes", "--probes", "4", "--dtype", "float32"),
        ("verify", "-a", "gelu", "--layer", "dense3", "--block", "bias", "--check", "entries"),
        ("verify", "-a", "tanh", "--of", "gradient"),
        ("compare", "-a", "tanh", "--check", "form"),
        ("compare", "-a", "elu", "--block", "network", "--check", "form"),
        ("entry", "dense1/kernel[300,4]", "dense2/bias[7]", "-a", "tanh"),
    ],
    ids=" ".join,
)
def test_a_command_finds_the_same_in_chunks(command: tuple[str, ...]) -> None:
    chunked, held = run(*command, *TINY), run(*command, "-n", "40")
    assert chunked["problem"]["chunk"] < held["problem"]["examples"]
    assert held["problem"]["chunk"] is None
    rtol = 1e-5 if "float32" in command else 1e-12
    assert_numbers_close(chunked["results"], held["results"], rtol)


def test_a_sweep_goes_through_every_chunk() -> None:
    command = ("sweep", "-a", "tanh", "-n", "10", "--set", "model.inputs=12")
    inputs = np.random.default_rng(0).random((10, 12)).tolist()
    command = (*command, "--set", f"data.inputs={inputs}", "--set", f"data.targets={[3] * 10}")
    chunked, held = run(*command, "--memory", "400kB"), run(*command)
    assert chunked["problem"]["chunk"] < 10
    assert_numbers_close(chunked["results"], held["results"], 1e-12)


def assert_numbers_close(one: Any, other: Any, rtol: float) -> None:
    """The same structure, and the values of the forms and entries to ``rtol``."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - {"residual", "relative_residual", "check", "form_check"}:
            if "check" not in key and "residual" not in key:
                assert_numbers_close(one[key], other[key], rtol)
    elif isinstance(one, list):
        for pair in zip(one, other, strict=True):
            assert_numbers_close(*pair, rtol)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=rtol, abs=1e-15)
    else:
        assert one == other


def test_an_exact_spectrum_is_the_same_in_chunks() -> None:
    command = ("spectrum", "-a", "tanh", "--layer", "dense2", "--layer", "dense3", "-n", "60")
    chunked, held = run(*command, "--memory", "2MB"), run(*command)
    for one, other in zip(chunked["results"], held["results"], strict=True):
        for term in ("hessian", "gauss_newton"):
            for key in ("largest", "smallest", "trace", "frobenius_norm"):
                value, expected = one[term][key], other[term][key]
                assert value["value"] == pytest.approx(expected["value"], rel=1e-9, abs=1e-14)


def test_an_export_is_the_same_in_chunks(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("chunks.npy", "held.npy")]
    for path, more in zip(files, (("--memory", "2MB"), ()), strict=True):
        code, _, err = ended("export", "dense3/kernel", "-a", "tanh", "-n", "60", "-o", path, *more)
        assert code == 0, err
    chunked, held = (np.load(path) for path in files)
    np.testing.assert_allclose(chunked, held, rtol=0, atol=1e-15)


def test_training_on_stored_examples_is_the_same_to_the_last_bit() -> None:
    command = ("train", "--set", "train.steps=12", "--set", "train.examples=300", "--set")
    command = (*command, "train.measure_examples=32")
    found = [run(*command, *more) for more in ((), ("--memory", "5MB"))]
    assert found[0]["results"] == found[1]["results"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("verify", "--block", "input"), "each example's input"),
        (("entry", "input[3][5]", "input[3][5]"), "an input belongs to one of them"),
        (("init",), "sums over pairs"),
    ],
)
def test_what_looks_at_single_examples_says_so(arguments: tuple[str, ...], named: str) -> None:
    code, _, err = ended(*arguments, *TINY)
    assert (code, err.count("\n")) == (2, 1)
    assert "data.batch_size" in err
    assert named in err


# Memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500MB", 5 * 10**8),
        ("2 GB", 2 * 10**9),
        ("1.5kB", 1500),
        ("12", 12),
        ("MB", None),
        ("", None),
    ],
)
def test_sizes_are_decimal(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("size", ["much", "-1GB", "0", "1e9", "2GiB"])
def test_a_wrong_size_is_one_line(size: str) -> None:
    code, _, err = ended("verify", "--memory", size)
    assert (code, err.count("\n")) == (2, 1)
    assert "--memory" in err
    assert "500MB or 2GB" in err


def test_a_chunk_is_a_power_of_two_that_grows_with_the_memory() -> None:
    widths = (784, 30, 30, 10)
    sizes = [chunk_size(widths, 8, 10**power) for power in range(3, 13)]
    assert all(size & (size - 1) == 0 for size in sizes)
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert not any(fits(10**9, widths, 8, 10**power) for power in range(3, 13))
    assert fits(32, widths, 8, 10**9)


def test_stored_examples_are_looked_at_in_chunks_and_held_ones_at_once() -> None:
    whole = make_problem((5, 4, 3), "tanh", examples=9)
    assert execution_of(whole) == Execution()
    each = example_bytes(whole.widths, whole.dtype.itemsize)
    for memory, chunk, spare in ((5 * each + 3, 4, each + 3), (each - 1, 1, 0)):
        assert execution_of(stored_inputs(whole, memory)) == Execution(chunk, spare)
        # However many of them there are.
        some = replace(whole, inputs=whole.batch[:1], targets=whole.targets[:1])
        assert execution_of(stored_inputs(some, memory)) == Execution(chunk, spare)


# Files


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("npz", "idx"):
        monkeypatch.setattr(f"hesscli.problem.{module}.LARGE_BYTES", 100)


IMAGES = np.random.default_rng(0).integers(0, 256, (50, 4, 3), dtype=np.uint8)
LABELS = np.arange(50, dtype=np.uint8) % 10


def as_npz(folder: Path) -> str:
    path = folder / "set.npz"
    np.savez(path, x_train=IMAGES, y_train=LABELS)
    return str(path)


def as_npy(folder: Path) -> str:
    np.save(folder / "x_train.npy", IMAGES)
    np.save(folder / "y_train.npy", LABELS)
    return str(folder)


def as_idx(folder: Path) -> str:
    for name, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
        header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
        (folder / f"train-{name}-ubyte").write_bytes(header + array.tobytes())
    return str(folder)


def as_compressed(folder: Path) -> str:
    path = folder / "set.npz"
    np.savez_compressed(path, x_train=IMAGES, y_train=LABELS)
    return str(path)


def as_gzip(folder: Path) -> str:
    as_idx(folder)
    for path in list(folder.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return str(folder)


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("write", [as_npz, as_npy, as_idx, as_compressed, as_gzip])
@pytest.mark.parametrize("rows", [slice(7, 20), np.array([3, 1, 41])], ids=["slice", "indices"])
def test_rows_of_a_large_file_are_read_where_they_stand(
    write: Callable[[Path], str], rows: Any, tmp_path: Path
) -> None:
    found = load_dataset(write(tmp_path), "train")
    assert isinstance(found.inputs, FileRows) == (write in (as_npz, as_npy, as_idx))
    assert np.array_equal(found.inputs[rows], IMAGES.reshape(50, 12)[rows])
    assert np.array_equal(found.targets[rows], LABELS[rows])


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("shuffle", ["true", "false"])
def test_a_command_reads_chunks_of_a_large_file(shuffle: str, tmp_path: Path) -> None:
    command = ("verify", "-a", "tanh", "--check", "form", "-n", "40")
    command = (*command, "--set", f"data.source={as_npz(tmp_path)}", "--set", "model.inputs=12")
    command = (*command, "--set", f"data.shuffle={shuffle}", "--set", "data.offset=3")
    chunked, held = run(*command, "--memory", "1MB"), run(*command)
    assert_numbers_close(chunked["results"], held["results"], 1e-12)


@pytest.mark.usefixtures("small_is_large")
def test_a_file_that_shrinks_while_it_is_used_is_one_line(tmp_path: Path) -> None:
    rows = load_dataset(as_npy(tmp_path), "train").inputs
    (tmp_path / "x_train.npy").write_bytes(b"gone")
    for chosen in (slice(0, 5), np.array([4, 2])):
        with pytest.raises(InputError, match=r"x_train\.npy: cannot be read any more"):
            rows[chosen]


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_of_a_large_file_are_looked_at_when_they_are_read(
    bad: float, tmp_path: Path
) -> None:
    images = np.ones((50, 12))
    images[30, 2] = bad
    np.savez(tmp_path / "set.npz", x_train=images, y_train=LABELS)
    command = ["verify", "--check", "form", "--set", f"data.source={tmp_path / 'set.npz'}"]
    command += ["--set", "model.inputs=12", "-n", "50", "--memory", "500kB"]
    code, _, err = ended(*command)
    assert (code, err.count("\n")) == (2, 1)
    assert "must be finite" in err


def test_only_what_is_asked_for_is_read() -> None:
    asked: list[Any] = []

    class Watched:
        shape, dtype = (100, 2), np.dtype(np.float64)

        def __getitem__(self, chosen: Any) -> Any:
            asked.append(chosen)
            return np.zeros((len(range(100)[chosen]), 2))

    double = np.dtype(np.float64)
    rows = stored.StoredInputs(Watched(), range(10, 90), lambda raw: raw, 2, double, NO_MEMORY)
    assert rows.part(slice(20, 40))[3:5].shape == (2, 2)
    assert asked == [slice(33, 35)]


def test_rows_are_summed_in_finer_parts_where_layers_are_wide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = make_problem((5, 40, 3), "tanh", examples=9)
    H = ChainRule(whole).hessian("dense1/kernel").to_dense()
    # S of one example is 40 · 40 doubles, 12,800 B: four of them fit.
    monkeypatch.setattr("hesscli.witnesses.summed.engine._SECOND_BYTES", 60_000)
    engine = chain_rule_of(stored_inputs(whole), Execution(8))
    assert not isinstance(engine, ChainRule)
    assert max(high - low for low, high in engine.chunks.for_second().pieces) == 4
    np.testing.assert_allclose(
        engine.hessian("dense1/kernel").rows(3, 17), H[3:17], rtol=0, atol=1e-14
    )


@pytest.mark.parametrize(("spare", "kept"), [(0, 0), (10**9, 5)])
def test_prepared_chunks_are_those_that_the_budget_has_room_for(
    spare: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_problem((5, 4, 3), "tanh", examples=9)
    monkeypatch.setattr("hesscli.witnesses.summed.engine.LARGEST_CHUNK", 2 * thread_count())
    engine = chain_rule_of(stored_inputs(whole), Execution(2 * thread_count(), spare))
    assert isinstance(engine, SummedEngine)
    made: list[Problem] = []
    make = engine.make
    engine.make = lambda part: (made.append(part), make(part))[1]
    H, v = engine.hessian("dense1/kernel"), np.linspace(-1, 1, 20)
    held = ChainRule(whole).hessian("dense1/kernel")
    for _ in range(3):
        np.testing.assert_allclose(H @ v, held @ v, rtol=0, atol=1e-15)
        assert H.quadratic_form(v) == pytest.approx(held.quadratic_form(v), rel=1e-14)
    # Six sums over five chunks: each is prepared once, or for every sum.
    assert len(made) == (kept or 30)


def test_what_is_kept_of_a_chunk_takes_no_more_than_is_set_aside() -> None:
    # Of widths like MNIST's: the arrays that a product leaves behind, counted one by one.
    whole = make_problem((784, 30, 30, 10), "tanh", examples=512)
    engine = ChainRule(whole)
    for name in whole.layer_names:
        for term in (engine.hessian, engine.gauss_newton, engine.curvature):
            block = term(f"{name}/kernel")
            block @ np.ones(block.shape[0])
    arrays: dict[int, int] = {}
    records = list(engine.linearized._records.values())
    while records:
        for value in vars(records.pop()).values():
            if isinstance(value, np.ndarray):
                base = value if value.base is None else value.base
                arrays[id(base)] = base.nbytes
            elif isinstance(value, Multiplied):
                records.append(value)
    for S in engine._kept.values():
        arrays[id(S)] = S.nbytes
    assert sum(arrays.values()) <= kept_bytes(whole, whole.examples)


def test_a_spectrum_of_wide_layers_comes_without_their_diagonal() -> None:
    problem = stored_inputs(make_problem((3, 600, 2), "tanh", examples=4))
    engine = chain_rule_of(problem, Execution(2))
    subject = subject_of(engine, "dense1", "dense1/bias")
    assert subject.diagonals() is None


@pytest.mark.usefixtures("small_is_large")
def test_a_large_problem_file_is_read_where_it_is_used(tmp_path: Path) -> None:
    whole = make_problem((12, 4, 3), "tanh", examples=50)
    arrays = {"inputs": whole.inputs, "targets": whole.targets}
    np.savez(tmp_path / "problem.npz", **arrays)
    inputs, targets = read_batch(str(tmp_path / "problem.npz"))
    assert isinstance(inputs, FileRows)
    assert np.array_equal(inputs[7:20], whole.batch[7:20])
    assert np.array_equal(targets, whole.targets)


def test_a_problem_in_chunks_is_saved_without_being_held(tmp_path: Path) -> None:
    whole = make_problem((5, 4, 3), "tanh", examples=3000)
    asked: list[int] = []

    def convert(raw: Any) -> Any:
        asked.append(len(raw))
        return raw.copy()

    assert isinstance(whole.inputs, np.ndarray)
    rows = StoredInputs(whole.inputs, range(3000), convert, 5, whole.dtype, NO_MEMORY)
    save_problem(replace(whole, inputs=rows), str(tmp_path / "saved.npz"))
    assert max(asked) <= 1024
    inputs, targets = read_batch(str(tmp_path / "saved.npz"))
    assert np.array_equal(inputs, whole.inputs)
    assert np.array_equal(targets, whole.targets)
    assert list(read_parameters(str(tmp_path / "saved.npz"))) == [
        f"dense{k}/{tensor}" for k in (1, 2) for tensor in ("kernel", "bias")
    ]


def test_what_a_training_measures_must_be_held() -> None:
    code, _, err = ended(
        "train", "--memory", "5MB", "--set", "train.steps=1", "--set", "train.measure_examples=all"
    )
    assert (code, err.count("\n")) == (2, 1)
    assert "train.measure_examples: all" in err
    assert "data.memory" in err


def test_an_array_without_labels_says_how_it_gets_some(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    with pytest.raises(InputError, match=r"images\.npy: .* no labels; name its folder, .*x_train"):
        load_dataset(str(tmp_path / "images.npy"), "train")


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize(
    ("row", "shuffle", "wrong", "said"),
    [
        (30, "false", np.nan, "x_train[30, 2] is nan; every number must be finite"),
        (30, "true", np.nan, "x_train[30, 2] is nan; every number must be finite"),
        (49, "false", 1e300, "in float32"),
    ],
)
def test_a_wrong_number_is_named_where_it_stands_in_the_file(
    row: int, shuffle: str, wrong: float, said: str, tmp_path: Path
) -> None:
    images = np.ones((50, 12), dtype=np.float64)
    images[row, 2] = wrong
    np.savez(tmp_path / "set.npz", x_train=images, y_train=LABELS)
    code, _, err = ended(
        *("spectrum", "--layer", "dense3", "--set", f"data.source={tmp_path / 'set.npz'}"),
        *("--set", "model.inputs=12", "-n", "all", "--memory", "500kB", "--dtype", "float32"),
        *("--set", f"data.shuffle={shuffle}"),
    )
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert f"x_train[{row}, 2]" in err


@pytest.mark.usefixtures("small_is_large")
def test_a_label_in_a_late_chunk_is_looked_at_before_anything_is_computed(tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[-1] = 10
    np.savez(tmp_path / "set.npz", x_train=IMAGES, y_train=labels)
    code, _, err = ended(
        *("spectrum", "--layer", "dense3", "--set", f"data.source={tmp_path / 'set.npz'}"),
        *("--set", "model.inputs=12", "-n", "all", "--memory", "500kB"),
    )
    assert (code, err.count("\n")) == (2, 1)
    assert "label 10 at index 49; 10 classes have the labels 0 to 9" in err


def test_a_spectrum_over_chunks_shows_how_far_it_is() -> None:
    problem = stored_inputs(make_problem((80, 60, 3), "tanh", examples=4))
    shown: list[int] = []
    options = SpectrumOptions(layers=("dense1",), probes=2, steps=6, exact_limit=100)
    spectrum([problem], options, lambda _, done, __: shown.append(done), execution=Execution(2))
    assert shown == sorted(shown)
    assert len(set(shown)) > 20
    assert shown[-1] == 100


def test_the_time_left_is_that_of_all_passes_over_the_examples() -> None:
    problem = stored_inputs(make_problem((6, 5, 4, 3), "tanh", examples=12))
    shown: list[tuple[str, int, int]] = []
    verify(
        [problem],
        CheckOptions(method="form"),
        progress=lambda *of: shown.append(of),
        execution=Execution(2 * thread_count()),
    )
    assert {(task, total) for task, _, total in shown} == {("tanh examples", 3 * 4 * 12)}
    assert [done for _, done, _ in shown] == sorted(done for _, done, _ in shown)
    assert shown[-1][1] == 3 * 4 * 12


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("block", BLOCKS)
def test_nothing_of_a_chunk_waits_for_the_garbage_collector(block: str, term: str) -> None:
    # A cycle of references would keep many chunks alive: the memory grew with the examples.
    engine = ChainRule(make_problem((5, 4, 3), "tanh", examples=3))
    H = getattr(engine, term)(block)
    v = np.ones(H.shape[0])
    H @ v, H.quadratic_form(v), H.rows(0, 2), RoundingFloor(engine).entries(block)
    gc.collect()
    gc.disable()
    try:
        watched = weakref.ref(engine.linearized)
        del H, engine
        assert watched() is None
    finally:
        gc.enable()
