"""Bad input: a short form of ``make fuzz``, and what its long form has found, kept.

Each of these was a traceback, a hang, too much memory, a second line, an escape sequence on the
terminal, or a file opened that nobody had named.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hesscli.config.load import load_config, parse_override
from hesscli.config.schema import Config
from hesscli.problem.data import load_dataset
from hesscli.problem.graph import Activation
from hesscli.problem.keras_layers import KerasLayer, KerasNetwork
from hesscli.problem.keras_model import read_numbers
from hesscli.problem.layers import LayerSpec
from hesscli.problem.npz import read_arrays, require_unpackable
from hesscli.report.document import Column, Document, Table
from hesscli.studies import verification
from hesscli.system import threads
from hesscli.system.errors import InputError, one_line
from hesscli.system.files import check_writable, opened
from hesscli.system.memory import parse_size

TESTS = Path(__file__).parent
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(function: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(InputError) as error:
        function(*arguments)
    return str(error.value)


def peak_memory(function: Callable[..., Any], *arguments: Any) -> tuple[str, int]:
    """What the refusal says, and the most bytes that it took."""
    tracemalloc.start()
    try:
        return refusal(function, *arguments), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_nothing_that_is_drawn_goes_against_the_rules() -> None:
    """The first of the cases that ``make fuzz`` draws; others are drawn every week."""
    command = [sys.executable, str(TESTS / "fuzz.py"), "--count", "40"]
    fuzz = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (fuzz.returncode, fuzz.stderr) == (0, ""), fuzz.stdout
    assert re.findall(r"^(\w+): 40 cases .* 0 complaints", fuzz.stdout, re.MULTILINE) == [
        "yaml",
        "files",
        "made",
        "options",
    ]


BREACHES = """
import os, signal, sys, time, warnings
import fuzz_harness
from fuzz_harness import Case, judged
def refuse(text="hesscli: no\\n"):
    sys.stderr.write(text)
    raise SystemExit(2)
def write(): open("x", "w").close(); refuse()
def read(): open("/etc/hostname").close(); refuse()
def unpickle():
    import pickle
    pickle.loads(b"cos\\nsystem\\n.")
    refuse()
def start():
    import subprocess
    subprocess.run(["true"])
    refuse()
BREACHES = [
    lambda: refuse(),
    lambda: sys.exit(0),
    lambda: 1 / 0,
    lambda: refuse(""),
    lambda: refuse("hesscli: no\\nhesscli: no\\n"),
    lambda: refuse("hesscli: \\x1b[31mno\\n"),
    lambda: refuse("hesscli: \\u202eno\\n"),
    lambda: (warnings.warn("careful"), refuse()),
    lambda: (print("result"), refuse()),
    lambda: sys.stderr.write("careful"),
    lambda: sys.exit(3),
    lambda: time.sleep(9),
    lambda: os.kill(os.getpid(), signal.SIGSEGV),
    lambda: (bytearray(1_900_000_000).find(1), bytearray(200_000_000), refuse()),
    lambda: refuse("hesscli: out of memory\\n"),
    write, read, unpickle, start,
]
fuzz_harness._SECONDS = 0.5
fuzz_harness.MOST_BYTES = 1_900_000_000
fuzz_harness.main = lambda arguments: BREACHES[int(arguments[0])]()
tally = judged(lambda seed: Case((str(seed),)), range(len(BREACHES)), sys.argv[1], 2)
print(len(BREACHES), sorted(set(range(len(BREACHES))) - {seed for seed, _ in tally.complaints}))
"""


def test_the_harness_notices_what_goes_against_its_rules(tmp_path: Path) -> None:
    """All but the first two, which are right."""
    command = [sys.executable, "-c", BREACHES, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.stdout == "19 [0, 1]\n", ended.stderr


# ----------------------------------------------------------------------------------------- YAML

TAGGED = (
    *("!!bool maybe", '!!int ""', '!!float ""', "!!timestamp now", "!!timestamp {}"),
    *(":".join(["1"] * 400) + ".5", "!!int {}", "!!binary é", "!!omap {a: 1}", "? [a]"),
)


@pytest.mark.parametrize("value", TAGGED)
def test_a_value_that_is_not_what_its_tag_says_is_refused(value: str) -> None:
    Path("c.yaml").write_text(f"seed: {value}\n", encoding="utf-8")
    assert refusal(load_config, "c.yaml").startswith("c.yaml:")
    assert "seed: " in refusal(overridden, f"seed={value}")


def test_merged_and_double_keys_are_refused_on_the_command_line_too() -> None:
    # YAML 1.2 knows no merging: << is a key like others.
    assert "loss.<<: unknown key" in refusal(overridden, "loss={<<: {name: sum}}")
    assert "stands here twice" in refusal(overridden, "loss={name: sum, name: sum}")


def overridden(assignment: str) -> Config:
    return load_config(None, [parse_override(assignment)])


@pytest.mark.parametrize(
    "text", ["[" * 2**20, "{a: " * 250_000, "seed: " + "[" * 60 + "]" * 60], ids=len
)
def test_brackets_in_brackets_take_no_time(text: str) -> None:
    """PyYAML looks at every open bracket at every further one."""
    Path("c.yaml").write_text(text, encoding="utf-8")
    begun = time.process_time()
    assert refusal(load_config, "c.yaml") == (
        "c.yaml: not valid YAML (nested too deeply); valid YAML is needed"
    )
    assert time.process_time() - begun < 5


ROWS = "data:\n  inputs: [&r [" + "1.5, " * 999 + "2], " + "*r, " * 3000 + "*r]\n"
KEYS = "z0: &z0 [a]\n" + "".join(
    f"z{i}: &z{i} [{','.join([f'*z{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    "text",
    [ROWS, f"{KEYS}? *z8\n: 1\n", "a: &a [*a]", "&a {model: *a}"],
    ids=("rows", "keys", *"ab"),
)
def test_aliases_are_not_read(text: str) -> None:
    """Three million numbers in 20 kB; a key that a message would quote; and what has no end."""
    Path("c.yaml").write_text(text, encoding="utf-8")
    message, peak = peak_memory(load_config, "c.yaml")
    assert re.match(r"c\.yaml:\d+: not valid YAML \(aliases are not read", message)
    assert peak < 100 * 10**6


@pytest.mark.parametrize("value", ["9" * 2000, f"0x{'f' * 2000}"])
def test_numbers_of_thousands_of_digits_are_not_read(value: str) -> None:
    assert "at most 1000 are read" in refusal(parse_override, f"seed={value}")


def test_a_size_without_end_is_none() -> None:
    assert parse_size("9" * 400 + "TB") is None
    assert parse_size("1.5 kB") == 1500


@pytest.mark.parametrize("source", ["a\\0b", "~\\0", "\\ud800", "~\\udc80/x"])
@pytest.mark.parametrize("key", ["data.source", "model.weights", "model.keras"])
def test_what_no_file_can_be_called_is_refused(key: str, source: str, run: Run) -> None:
    wrong = ("--set", f'{key}="{source}"')
    code, out, err = run("export", "dense1/bias", "-o", "H.npy", *wrong)
    assert (code, out, err.count("\n"), os.listdir()) == (2, "", 1, [])
    assert err[:-1].isprintable()


def test_a_name_that_the_system_does_not_take_is_refused_before_anything_is_computed() -> None:
    Path("loop").symlink_to("loop")
    for name in ("a" * 300, "loop", "x\0y", "\ud800"):
        assert refusal(check_writable, name)
        with pytest.raises(InputError), opened(name, "a file is needed"):
            raise AssertionError


def test_sources_that_have_a_name_are_no_files() -> None:
    """A file that happens to be called so is not looked at."""
    np.savez("embedded.npz", inputs=np.ones((3, 4)), targets=np.zeros(3, int))
    Path("embedded.npz").rename("embedded")
    assert load_config(None).data.batch_size == 32


# -------------------------------------------------------------------------------------- messages


def test_a_message_is_one_line_without_what_does_not_print() -> None:
    assert (
        one_line("a\n b\x1b[31m\u202e\x85\u2028c\x7f\ud800") == "a b\\x1b[31m\\u202e c\\x7f\\ud800"
    )
    long = one_line(f"{'a' * 5000}: cannot be read")
    assert len(long) < 1100
    assert long.startswith("aaa")
    assert long.endswith("a: cannot be read")


def test_a_file_name_sends_the_terminal_nothing(run: Run) -> None:
    code, _, err = run("config", "-c", "\x1b]0;title\x07\n.yaml")
    assert (code, err) == (
        2,
        "hesscli: \\x1b]0;title\\x07 .yaml: cannot be read (No such file or directory); a YAML "
        "file is needed\n",
    )
    table = Table("\x1b", (Column("a"),), (("\x07",),), ("\x1b[1m",))
    document = Document("weights \x1b[31m\nnote\x07", (table,), {})
    assert document.heading == "weights \\x1b[31m\nnote\\x07"
    assert (table.title, table.rows, table.notes) == ("\\x1b", (("\\x07",),), ("\\x1b[1m",))


def test_a_key_of_thousands_of_characters_is_not_repeated() -> None:
    Path("c.yaml").write_text(f"? {'k' * 5000}\n: 1\n", encoding="utf-8")
    assert len(refusal(load_config, "c.yaml")) < 300


WRONG = (
    ("export", "input[" + "9" * 5000 + "]", "-o", "H.npy"),
    ("export", "dense1/kernel", "-o", "H.npy", "--rows", "9" * 30 + ":"),
    ("config", "--set", "check.probes=1000001"),
    ("verify", "--probes", "9" * 30),
    ("spectrum", "--probes", "9" * 30),
)


@pytest.mark.parametrize("arguments", WRONG, ids=lambda arguments: " ".join(arguments)[:30])
def test_numbers_beyond_all_bounds_are_refused(arguments: tuple[str, ...], run: Run) -> None:
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n"), os.listdir()) == (2, "", 1, [])


def test_more_threads_than_any_machine_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow would start them."""
    for count in (0, 1025, 10**30):
        assert "it must be 1 to 1024" in refusal(threads.use_threads, count)
    monkeypatch.setattr(threads, "_chosen", None)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1025")
    assert threads.thread_count() == 1024
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "9" * 5000)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.thread_count() == 3


def test_a_problem_that_was_not_analysed_is_not_saved(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InputError("no")

    monkeypatch.setattr(verification, "verify", fail)
    assert run("verify", "-n", "2", "--save-problem", "p.npz") == (2, "", "hesscli: no\n")
    assert os.listdir() == []


# ----------------------------------------------------------------------------------------- files


def npy(shape: Any, descr: str, body: bytes) -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def archive(content: bytes, method: int) -> None:
    with zipfile.ZipFile("x.npz", "w", method) as stream:
        stream.writestr("x.npy", content)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_without_a_bound_are_refused(method: int) -> None:
    """A block of them is unpacked as a whole: of a file of some kB, to gigabytes."""
    archive(npy((2**22,), "<f8", bytes(2**25)), method)
    message, peak = peak_memory(read_arrays, "x.npz", ["x"], "")
    assert re.match(r"x\.npz: x is packed by method 1[24]; stored or deflated is needed", message)
    assert peak < 2**22


def test_a_zip_bomb_is_not_unpacked() -> None:
    size = 2**28 + 2**10
    with (
        zipfile.ZipFile("x.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as stream,
        stream.open("x.npy", "w") as member,
    ):
        member.write(npy((size // 8,), "<f8", b""))
        for index in range(size // 2**20 + 1):
            member.write(bytes(min(2**20, size - index * 2**20)))
    message, peak = peak_memory(read_arrays, "x.npz", ["x"], "")
    assert re.match(r"x\.npz would unpack to 268\.4 MB from \d\.\d MB; beyond ", message)
    assert peak < 2**22


def test_a_gzip_bomb_that_says_its_size_is_not_unpacked() -> None:
    header = struct.pack(">4I", 0x0803, 2**28, 2, 1)
    Path("train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(1000)))
    Path("train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"x"))
    message, peak = peak_memory(load_dataset, ".", "train")
    assert "train-images-idx3-ubyte.gz would unpack to 536.9 MB from " in message
    assert peak < 2**24


def test_what_is_larger_than_the_free_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesscli.system.memory.available_memory", lambda: 10**6)
    assert "x needs 2.0 MB and 1.0 MB are free" in refusal(
        require_unpackable, 2 * 10**6, 10**6, "x"
    )


@pytest.mark.parametrize("shape", ["(-2, -3)", "(-1,)", "(2**62,)", f"({'9' * 400},)"])
def test_shapes_that_are_none_are_refused(shape: str) -> None:
    archive(npy(shape, "<f8", bytes(48)), zipfile.ZIP_STORED)
    assert refusal(read_arrays, "x.npz", ["x"], "").startswith("x.npz: ")


def test_a_large_array_of_negative_size_is_refused() -> None:
    """Large ones stay in their file; this one is all hole."""
    for name, shape in (("x_train", "(-2, -16777216)"), ("y_train", "(2,)")):
        Path(f"{name}.npy").write_bytes(npy(shape, "<f8", b""))
    os.truncate("x_train.npy", 128 + 2**28)
    assert "damaged or not an .npy file (shape (-2, -16777216))" in refusal(
        load_dataset, ".", "train"
    )


def test_what_libraries_warn_of_in_a_header_is_no_second_line() -> None:
    for shape in ("(2L,)", "(2if 1else 3,)"):
        archive(npy(shape, "<f8", bytes(16)), zipfile.ZIP_STORED)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                assert read_arrays("x.npz", ["x"], "")["x"].shape == (2,)
            except InputError as error:
                assert "damaged" in str(error)


def keras_file(change: Callable[[Any], None]) -> KerasNetwork:
    with h5py.File("w.h5", "w") as store:
        store["layers/dense/vars/0"] = np.ones((4, 3), "f4")
        store["layers/dense/vars/1"] = np.ones(3, "f4")
        change(store)
    with zipfile.ZipFile("m.keras", "w") as stream:
        stream.write("w.h5", "model.weights.h5")
    spec = LayerSpec("dense", "dense", ("input",), {"units": 3}, Activation("tanh"))
    shapes = {"kernel": (4, 3), "bias": (3,)}
    layer = KerasLayer(spec, "dense", "layers/dense/vars", {}, shapes)
    return KerasNetwork("m.keras", (4,), (4,), (layer,), None, False, None, None, {})


def linked_outside(store: Any) -> None:
    del store["layers"]
    store["layers"] = h5py.ExternalLink("other", "/layers")


def named_oddly(store: Any) -> None:
    store["layers/dense/vars"].attrs["name"] = np.arange(5)


def test_a_keras_file_opens_no_other() -> None:
    """The name beside the numbers was read through links; a pipe would be waited for."""
    os.mkfifo("other")
    assert "nothing is stored there" in refusal(read_numbers, keras_file(linked_outside))


def test_a_name_beside_the_numbers_that_is_none_is_not_looked_at() -> None:
    assert read_numbers(keras_file(named_oddly))["dense/bias"].tolist() == [1, 1, 1]
