"""The command line: exit codes, streams, files, suggestions, and what is imported for them."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hesscli.cli.command import SCREEN, Command
from hesscli.cli.main import _run, cli, main
from hesscli.config.load import load_config, to_yaml
from hesscli.config.schema import CheckConfig, Config, DataConfig, LayerConfig, ModelConfig
from hesscli.problem import initializers, names, registry
from hesscli.problem.graph import Activation
from hesscli.problem.initializers import Initializer
from hesscli.problem.network import Loss
from hesscli.studies import verification

Run = Callable[..., tuple[int, str, str]]
THREE = ("dense1", "dense2", "dense3")
FORM = ("--check", "form")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; beside it is small.yaml, of a 6-5-4-3 network."""
    (tmp_path / "work").mkdir()
    generator = np.random.default_rng(0)
    inputs, targets = generator.standard_normal((8, 6)), generator.integers(0, 3, 8)
    np.savez(tmp_path / "small.npz", inputs=inputs, targets=targets)
    layers = "[{units: 5, activation: relu}, {units: 4, activation: relu}, {units: 3}]"
    source = f"data: {{source: {tmp_path / 'small.npz'}}}"
    (tmp_path / "small.yaml").write_text(f"model: {{inputs: 6, layers: {layers}}}\n{source}\n")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder := tmp_path / "work")
    return folder


def small(command: str, *arguments: str) -> tuple[str, ...]:
    return (command, "--config", "../small.yaml", *arguments)


def verdicts(table: str) -> dict[str, str]:
    """The last word of each layer's row."""
    return dict(re.findall(r"^ (dense\d) .* (PASS|FAIL)$", table, re.MULTILINE))


def test_verify_passes_where_chain_rule_and_autodiff_agree(run: Run) -> None:
    code, out, err = run(*small("verify"))
    assert (code, verdicts(out), err) == (0, dict.fromkeys(THREE, "PASS"), "")


@pytest.mark.parametrize("problem", [("--config", "../small.yaml"), ("-n", "2", *FORM)])
def test_the_gauss_newton_term_alone_fails_where_the_curvature_is_not_zero(
    run: Run, problem: tuple[str, ...]
) -> None:
    """C = 0 for relu, and for the last layer because its output is linear."""
    alone = ("verify", *problem, "--terms", "gauss-newton", "-a")
    code, out, err = run(*alone, "tanh")
    curved = {"dense1": "FAIL", "dense2": "FAIL", "dense3": "PASS"}
    assert (code, verdicts(out), err) == (1, curved, "")
    code, out, err = run(*alone, "relu")
    assert (code, verdicts(out), err) == (0, dict.fromkeys(THREE, "PASS"), "")


def test_compare_exits_with_0_though_the_gauss_newton_term_alone_fails(run: Run) -> None:
    code, out, err = run(*small("compare", "-a", "tanh", "-f", "json"))
    assert (code, err) == (0, "")
    rows = json.loads(out)["results"]
    assert [row["gauss_newton_alone"]["status"] for row in rows] == ["fail", "fail", "pass"]
    assert [row["chain_rule"]["status"] for row in rows] == ["pass", "pass", "pass"]


STOPS = [
    (KeyboardInterrupt, 130, "hesscli: interrupted"),
    (MemoryError, 2, "hesscli: out of .*"),
    (
        ImportError("libtensorflow.so: failed to map segment from shared object"),
        2,
        "hesscli: libtensorflow.*; ulimit -v leaves 3.0 GB, which is too little for it; allow more",
    ),
    (ImportError("no module"), 2, "hesscli: no module; hesscli doctor tells what is missing"),
    # A fault of the program: its traceback, and who wants to know of it.
    (ValueError("x"), 70, r"(?s)Traceback.*\nValueError: x\nhesscli: .* please report it .*"),
]


@pytest.mark.parametrize(("error", "code", "line"), STOPS)
def test_what_stops_a_study_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Any, code: int, line: str
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(verification, "verify", stop)
    monkeypatch.setattr("hesscli.system.memory.allowed_memory", lambda: 3 * 10**9)
    stopped, out, err = run(*small("verify", "-o", "out.json"))
    assert (stopped, out, os.listdir()) == (code, "", [])
    # A blank line parts the message from the ^C that a terminal shows.
    assert re.fullmatch(line, err.strip())


@pytest.mark.parametrize("command", [(), *((name,) for name in cli.commands)])
def test_help_fits_a_screen_and_ends_in_examples_that_parse(
    run: Run, command: tuple[str, ...]
) -> None:
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    assert run(*command, "-h") == (0, out, "")
    assert max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) <= SCREEN
    shown = re.findall(r"^(?:Example:)? +(hesscli .*)$", out, re.MULTILINE)
    of = cli.commands[command[0]] if command else cli
    assert shown
    examples = list(of.examples) if isinstance(of, Command) else shown
    assert shown == examples[: len(shown)]
    for example in examples:
        program, name, *arguments = shlex.split(example.partition(" > ")[0])
        assert program == "hesscli"
        # A report is made before it is replayed, and a checkpoint is for other commands.
        assert (name,) == command or command in ((), ("replay",), ("train",))
        parent = click.Context(cli, **cli.context_settings)
        cli.commands[name].make_context(name, arguments, parent)


WRONG = [
    ("verfy", "No such command 'verfy'; did you mean 'verify'?"),
    ("docter --format json", "No such command 'docter'; did you mean 'doctor'?"),
    ("zzz", "No such command 'zzz'; hesscli --help lists the commands"),
    ("verify --nonsense", "No such option '--nonsense'; hesscli verify --help lists the options"),
    ("verify --chek form", "No such option '--chek'; did you mean '--check'?"),
    ("doctor --no-tensorfow", "did you mean '--no-tensorflow'?"),
    ("compare --formt json", "'--format'"),
    ("verify extra", "unexpected extra argument (extra)"),
    ("verify tanh", "unexpected extra argument (tanh); did you mean --activation tanh?"),
    ("verify -a Relu", "'Relu' is unknown; did you mean relu?"),
    ("verify -a Swsh", "'Swsh' is unknown; did you mean swish?"),
    ("verify --layers 784", "'784'; write the number of inputs and of each layer's units, as in"),
    ("verify --layers 784-0", "'784-0'; write the number of inputs"),
    ("verify --loss mean_squared_eror", "--loss: loss.name: 'mean_squared_eror' is unknown; did"),
    ("verify --data none.npz", "data.source: none.npz: no such file"),
    ("sweep --plot p.png --plot-size 10", "'10'; write width and height in inches"),
    ("verify -a tahn", "'tahn' is unknown; did you mean tanh?"),
    ("verify -a relu -a zzz", "'zzz' is unknown; choose linear, relu,"),
    ("verify --check frm", "'auto', 'form', 'probes', 'entries'"),
    ("verify --dtype float16", "'float32', 'float64'"),
    ("verify --seed x", "'x' is not a valid integer"),
    ("config --seed -1", "--seed: seed: -1; it must be a whole number, 0 or more"),
    ("config -n some", "--batch-size: data.batch_size: 'some'; it must be a whole number, 1 or"),
    ("verify -n 5001", "data.batch_size: 5001 is out of range; embedded holds 5000 examples"),
    ("verify --layer dense9", "--layer: 'dense9' is unknown; choose dense1, dense2, dense3"),
    ("verify --set data.ofset=1", "--set: data.ofset: unknown key; did you mean 'offset'?"),
    ("verify --config none.yaml", "none.yaml: cannot be read (No such file or directory); "),
    ("verify --output x.yaml", "--output x.yaml: the suffix '.yaml' names no format; use .json,"),
    ("verify --output ..", "names no format; use .json,"),
    pytest.param(f"config -n {'9' * 5000}", "--batch-size: ", id="digits"),
]
UNWRITABLE = [
    ("--output none/x.json", "none/x.json: cannot be written (No such file or directory); "),
    ("--format json --output ..", "..: not a regular file; "),
    ("--output ../small.npz/x.md", "../small.npz/x.md: cannot be written (Not a directory); "),
    ("--save-problem none/x.npz", "none/x.npz: cannot be written (No such file or directory); "),
]
UNWRITABLE = [
    (f"{name} --config ../small.yaml --check form {options}", wrong)
    for name in ("verify", "compare")
    for options, wrong in UNWRITABLE
]


@pytest.mark.parametrize(("line", "wrong"), [*WRONG, *UNWRITABLE])
def test_wrong_usage_is_one_line_on_standard_error(run: Run, line: str, wrong: str) -> None:
    code, out, err = run(*line.split())
    assert (code, out) == (2, "")
    assert re.fullmatch(r"hesscli: .*\n", err)
    assert wrong in err
    assert os.listdir() == []


def test_without_arguments_it_says_what_to_try(run: Run) -> None:
    """As wrong usage: a script whose command came out empty must not pass."""
    code, out, err = run()
    assert (code, out) == (2, "")
    assert max(map(len, err.splitlines())) <= 80
    tried = re.findall(r"^  hesscli (\w+)(.*?)(?: > \S+)?  ", err, re.MULTILINE)
    assert len(tried) >= 5
    for name, arguments in tried:
        with click.Context(cli) as parent:
            cli.commands[name].make_context(name, arguments.partition(">")[0].split(), parent)


def titles(table: str) -> list[str]:
    return re.findall(r"^(\w+): (?:the .* against autodiff|quadratic forms)", table, re.MULTILINE)


@pytest.mark.parametrize("command", ["verify", "compare"])
def test_each_activation_has_one_table_in_80_columns(run: Run, command: str) -> None:
    asked = "-a tanh -a relu -a swish -a tanh -a silu"
    code, out, err = run(*small(command, *FORM, *asked.split()))
    assert (code, titles(out), err) == (0, ["tanh", "relu", "silu"], "")
    long = "layer_of_20_letters_"
    # In a pipe nothing is broken, so only names as long as the usual ones fit.
    for name, layers in (("dense1", ()), (long, ("-l", long))):
        of = (*layers, "--set", f"model.layers.0.name={name}")
        code, out, err = run(*small(command, *FORM, *of, "-a", "relu", "-a", "all"))
        assert (code, titles(out), err) == (0, list(names.ACTIVATIONS), "")
        assert name == long or max(map(len, out.splitlines())) <= 80
        assert len(re.findall(rf"^ {name} ", out, re.MULTILINE)) == len(names.ACTIVATIONS)
        assert re.search(rf"^ Total: {len(names.ACTIVATIONS)} PASS\.$", out, re.MULTILINE)


def test_an_existing_output_is_replaced_whole_or_left_as_it_was(run: Run) -> None:
    output = Path("out.json")
    output.write_text("old")
    os.link(output, "link")
    huge = ("--set", "model.initializer={name: random_normal, stddev: 1e300}", "-a", "square")
    for wrong in (("-a", "tahn"), ("-l", "dense9"), ("--save-problem", "none/p.npz"), huge):
        assert run(*small("verify", "-o", "out.json", *wrong))[0] == 2
        assert output.read_text() == "old"
    failing = ("-a", "tanh", "--terms", "gauss-newton", *FORM)
    said = "hesscli verify: FAIL, 1 of 3; written to out.json\n"
    assert run(*small("verify", "-o", "out.json", *failing)) == (1, "", said)
    assert json.loads(output.read_text())["status"] == "fail"
    assert Path("link").read_text() == "old", "the old file was written into"
    assert sorted(os.listdir()) == ["link", "out.json"]


def test_several_outputs_and_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written = ("-o", "a.json", "-o", "b.md")
    code, out, err = run(*small("verify", *FORM, *written))
    assert (code, out, err) == (0, "", "hesscli verify: PASS, 3 of 3; written to a.json, b.md\n")
    result = json.loads(Path("a.json").read_text())
    assert Path("b.md").read_text().count("| PASS |") == len(result["results"]) == 3
    stdin = io.TextIOWrapper(io.BytesIO(Path("../small.yaml").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run("verify", "-c", "-", *FORM, "-q", "-o", "c.json") == (0, "", "")
    again = json.loads(Path("c.json").read_text())
    assert again["results"] == result["results"]
    assert again["invocation"]["configuration"] == result["invocation"]["configuration"]
    assert run("verify", "--layers", "784-4-10", *FORM, "-n", "2", "-a", "tanh", "-q")[0] == 0


def test_a_plugin_that_is_used_nowhere_is_refused(run: Run) -> None:
    Path("p.py").write_text(
        "ACTIVATIONS = {'cube': {'value': lambda z: z**3, 'first': lambda z: 3 * z**2,"
        " 'second': lambda z: 6 * z}}"
    )
    for command in ("verify", "compare", "train"):
        code, out, err = run(*small(command, "--plugin", "p.py", "-a", "relu"))
        assert (code, out) == (2, "")
        assert "--plugin p.py: nothing that it defines is used (cube)" in err
    # With nothing to be used in, what it defines is tried by itself.
    assert run("verify", "--plugin", "p.py", "-q", "--probe-seed", "0") == (0, "", "")


def test_the_installed_command_writes_its_result_and_nothing_else(home: Path) -> None:
    # TensorFlow's chatter is to be silenced by the command, not by what ran before.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    program = Path(sys.executable).with_name("hesscli")
    ended = subprocess.run(
        [program, "verify", "--check", "form"], cwd=home, env=environment, capture_output=True
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert verdicts(ended.stdout.decode()) == dict.fromkeys(THREE, "PASS")
    assert b"\x1b" not in ended.stdout
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("line", "code", "spared"),
    [
        ("--help", 0, {"tensorflow", "numpy", "yaml"}),
        ("verify --help", 0, {"tensorflow", "numpy", "yaml"}),
        ("verify -a tahn", 2, {"tensorflow", "numpy", "yaml"}),
        ("", 2, {"tensorflow", "numpy", "yaml"}),
        ("config", 0, {"tensorflow"}),
        ("doctor --help", 0, {"tensorflow", "numpy", "yaml"}),
        # It asks TensorFlow in another process.
        ("doctor", 0, {"tensorflow"}),
        ("init --help", 0, {"tensorflow", "numpy", "yaml"}),
        ("init -n 2 --stddev 0.1 --seeds 1", 0, {"tensorflow"}),
        ("init -n 2 --tune --seeds 1", 0, {"tensorflow"}),
        ("export dense9 -o H.h5", 2, {"tensorflow"}),
        ("export dense3 -o H.h5", 0, {"tensorflow"}),
        ("verify --set data.offset=-1", 2, {"tensorflow"}),
        ("verify -n 5001", 2, {"tensorflow"}),
    ],
)
def test_what_needs_no_tensorflow_imports_none(line: str, code: int, spared: set[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "hesscli", *line.split()]
    ended = subprocess.run(command, capture_output=True, text=True)
    imported = set(re.findall(r"\| +(\S+)$", ended.stderr, re.MULTILINE))
    assert ended.returncode == code
    assert "click" in imported
    assert not spared & imported


def test_shell_completion(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def completed(**variables: str) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            main(())
        return capfd.readouterr().out

    assert "_HESSCLI_COMPLETE=bash_complete" in completed(_HESSCLI_COMPLETE="bash_source")
    words = {"COMP_WORDS": "hesscli verify -a so", "COMP_CWORD": "3"}
    offered = completed(_HESSCLI_COMPLETE="bash_complete", **words)
    assert offered.split() == ["plain,softplus", "plain,softsign"]


FINITE = st.floats(allow_nan=False, allow_infinity=False)
RANGE = {"minval": st.floats(-1e300, 0), "maxval": st.floats(0, 1e300)}


def named(kind: Any, known: Sequence[str], defaults: Any) -> st.SearchStrategy[Any]:
    """One of the ``known`` names with values for some of its parameters."""

    def of(name: str) -> st.SearchStrategy[Any]:
        numbers = {key: RANGE.get(key, FINITE) for key in defaults(name)}
        some = st.fixed_dictionaries({}, optional=numbers)
        return some.map(lambda values: kind(name, tuple(values.items())))

    return st.sampled_from(known).flatmap(of)


# PyYAML does not read back the line separator U+0085 that it writes.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x85"), min_size=1)
COUNT = st.integers(1, 2**32)
ACTIVATION = named(Activation, names.ACTIVATIONS, registry.parameter_defaults)
KERNEL = named(Initializer, initializers.NAMES, initializers.parameter_defaults)
BIAS = KERNEL.filter(lambda initializer: initializer.name not in initializers.MATRIX_ONLY)
NAME = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}", fullmatch=True)
LAYER = st.builds(LayerConfig, NAME, COUNT, ACTIVATION, initializer=st.none() | KERNEL)
LAYERS = st.lists(LAYER, min_size=1, max_size=4, unique_by=lambda layer: layer.name).map(tuple)
MODEL = st.builds(ModelConfig, COUNT, st.booleans(), KERNEL, BIAS, LAYERS, st.none() | TEXT)
LOSS = st.builds(Loss, st.sampled_from(names.LOSSES), st.sampled_from(names.REDUCTIONS))
SPLIT, OFFSET = st.sampled_from(("train", "test")), st.integers(0, 2**32)
DATA = st.builds(DataConfig, TEXT, SPLIT, st.just("all") | COUNT, OFFSET, st.booleans())
METHOD, DTYPE = st.sampled_from(names.CHECK_METHODS), st.sampled_from(names.DTYPES)
CHECK = st.builds(CheckConfig, METHOD, st.none() | FINITE.map(abs))


@given(config=st.builds(Config, MODEL, LOSS, DATA, DTYPE, OFFSET, CHECK))
def test_any_configuration_printed_is_read_back_equal(
    config: Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    with redirect_stdout(io.StringIO()) as printed:
        assert _run(("config", "--config", str(path))) == 0
    path.write_text(printed.getvalue(), encoding="utf-8")
    assert load_config(str(path)) == config
