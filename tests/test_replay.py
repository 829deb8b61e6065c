"""``replay`` and ``diff``: a report is run again to the same bits, or refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hesscli.cli.main import _run, cli
from hesscli.cli.record import DECIDING
from hesscli.report.difference import Match, matched, with_match
from hesscli.report.document import Document, Table
from hesscli.report.invocation import Invocation
from hesscli.report.recorded import read_report
from hesscli.system.threads import cores

Run = Callable[..., tuple[int, str, str]]
CUBE = Path(__file__).parent.parent / "docs" / "examples" / "cube.py"
QUICK = ("--steps", "6", "--every", "2", "--batch-size", "5")
COMMANDS = {
    "verify": ("verify", "-a", "tanh", "-a", "relu"),
    "verify all by form": ("verify", "-a", "all", "--check", "form", "--dtype", "float32"),
    "verify probes": ("verify", "--check", "probes", "--probes", "3", "-b", "layer"),
    "verify three": ("verify", "-l", "dense2", "--witnesses", "finite,chain_rule,autodiff"),
    "verify gradient": ("verify", "--of", "gradient", "--seed", "3"),
    "verify failing": ("verify", "-a", "tanh", "--terms", "gauss-newton"),
    "compare": ("compare", "-a", "gelu", "--set", "check.method=form"),
    "approximate": ("approximate", "-a", "tanh", "-l", "dense2", "--samples", "2"),
    "solve": ("solve", "-a", "tanh", "-m", "hessian", "-m", "kfac", "--damping", "0.3"),
    "solve a vector": ("solve", "-l", "dense2", "--vector", "v.npy", "--method", "minres"),
    "product": ("product", "-a", "tanh", "-b", "network", "--probe-seed", "3"),
    "sweep": ("sweep", "-a", "tanh", "--block", "input"),
    "entry": ("entry", "dense1/kernel[1,2]", "-a", "tanh", "dense2/bias[0]"),
    "entry of one": ("entry", "input[0][1]", "-n", "2"),
    "spectrum": ("spectrum", "-a", "tanh", "--top", "2", "--which", "ends"),
    "init": ("init", "--stddev", "1e-5,0.1", "-i", "he_normal", "--seeds", "2", "-a", "elu"),
    "init tune": ("init", "--tune", "--target", "0.5", "--seeds", "1", "--norm", "spectral"),
    "train": ("train", "-a", "tanh", *QUICK, "--momentum", "0.5"),
}
# Of each option it is decided: taken from a report, part of its configuration, or of no number.
IN_THE_CONFIGURATION = {
    *(
        "config_path",
        "model_path",
        "registered_names",
        "data",
        "loss",
        "output_index",
        "layer_sizes",
        "batch_size",
        "memory",
        "seed",
        "dtype",
        "assignments",
    ),
    *("learning_rate", "momentum", "examples", "every", "measure_examples", "checkpoint_every"),
    "without_regularization",
}
OF_NO_NUMBER = {
    *("format_name", "paths", "quiet", "plot", "plot_style", "plot_size", "save_path"),
    *("vectors_path", "solution_path", "term", "write_path", "checkpoint"),
    *("plugin", "threads", "device_name", "tf32"),
    # Of product: which one --save writes. Of export it is no option of a report.
    "term",
}


def write_inputs(folder: Path) -> None:
    """small.yaml, of a 6-5-4-3 network on 20 examples of small.npz."""
    generator = np.random.default_rng(0)
    inputs, targets = generator.standard_normal((20, 6)), generator.integers(0, 3, 20)
    np.savez(folder / "small.npz", inputs=inputs, targets=targets)
    np.save(folder / "v.npy", generator.standard_normal((5, 4)))
    layers = "[{units: 5, activation: relu}, {units: 4, activation: relu}, {units: 3}]"
    text = f"model: {{inputs: 6, layers: {layers}}}\ndata: {{source: small.npz}}\n"
    (folder / "small.yaml").write_text(text)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_inputs(tmp_path)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*arguments: str, path: str = "report.json") -> Any:
    """The JSON document of a command on the small network, which is then in ``path``."""
    command, *others = arguments
    _run((command, "-c", "small.yaml", *others, "-q", "-o", path))
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write(document: Any, path: str = "report.json") -> None:
    Path(path).write_text(json.dumps(document), encoding="utf-8")


def refused(run: Run, *arguments: str) -> str:
    """The one line on standard error of a command line that writes nothing else."""
    before = sorted(os.listdir())
    code, out, err = run(*arguments)
    assert (code, out, sorted(os.listdir())) == (2, "", before), err
    assert err.startswith("hesscli: ")
    assert err.count("\n") == 1
    assert len(err) < 500
    return err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_replay_has_the_same_numbers_and_can_be_replayed(run: Run, name: str) -> None:
    first = report(*COMMANDS[name])
    code, out, err = run("replay", "report.json", "--format", "json")
    # A check that fails again is no success, though its numbers are the same.
    assert (code, err) == (int(first["status"] == "fail"), "")
    second = json.loads(out)
    said = second.pop("replay")
    rows = len(first["results"])
    assert (said["status"], said["rows"], said["identical"]) == ("pass", rows, rows)
    assert (said["rtol"], said["changes"], said["difference"]) == (None, [], None)
    assert said["numbers"] > 2 * rows
    assert second == first


def test_the_table_says_in_a_line_what_came_of_it(run: Run) -> None:
    report("verify", "-a", "tanh")
    code, out, _ = run("replay", "report.json")
    assert code == 0
    last = out.splitlines()[-1]
    assert last.startswith(" replayed report.json: 3 of 3 rows identical, ")
    assert last.endswith(" numbers, bit for bit.")
    assert max(map(len, out.splitlines())) <= 80


def next_double(value: float) -> float:
    return float(np.nextafter(value, np.inf))


def test_the_last_bit_of_one_number_is_seen(run: Run) -> None:
    document = report("verify", "-a", "tanh", "--check", "form")
    form = document["results"][1]["quadratic_form"]
    form["chain_rule"], now = next_double(form["chain_rule"]), form["chain_rule"]
    write(document)
    code, out, err = run("replay", "report.json")
    assert (code, err) == (1, "")
    assert max(map(len, out.splitlines())) <= 80
    assert " ".join(out.partition("replayed ")[2].split()) == (
        "report.json: 2 of 3 rows identical. The first that differs: "
        f"results[1].quadratic_form.chain_rule (tanh, dense2) was {form['chain_rule']!r}, is "
        f"{now!r}."
    )


def test_what_stands_beside_the_rows_is_compared_as_well(run: Run) -> None:
    document = report("spectrum")
    found = document["spectra"][0]["eigenvalues"]
    found[3] = next_double(found[3])
    write(document)
    code, out, _ = run("replay", "report.json", "-f", "json")
    said = json.loads(out)["replay"]
    assert (code, said["identical"], said["status"]) == (1, 3, "fail")
    assert said["difference"]["where"] == "spectra[0].eigenvalues[3]"
    assert said["difference"]["then"] == found[3]


VERSIONS = {"python": "3.11.0", "blas": "openblas 0.3.1", "threadpoolctl": "3.5.0"}
INVOCATION = Invocation("verify", {}, {}, (), VERSIONS, "Linux x86_64, Abacus")
CHECK = {
    "method": "entries",
    "compared": 900,
    "max_abs_residual": 1e-17,
    "max_abs_entry": 0.25,
    "relative_residual": 4e-17,
    "worst_entry": ["dense1/kernel[0,0]", "dense1/kernel[0,1]"],
}
ROW = {
    "activation": "tanh",
    "layer": "dense1",
    "quadratic_form": {"autodiff": 0.1, "curvature": 0.0, "residual": -1e-18},
    "check": CHECK,
    "limited": False,
    "ratios": [1.0, 2.0],
    "status": "pass",
}
DATA = {
    "schema": "hesscli/verify/1",
    "status": "pass",
    "environment": {"hesscli": "0.1.0", "numpy": "2.4.0", "tensorflow": None, "threads": 2},
    "problem": {"seed": 0, "chunk": None},
    "results": [ROW, {**ROW, "layer": "dense2"}],
}


def replay_of(*changes: tuple[tuple[Any, ...], Any]) -> Match:
    """DATA next to a report that differs from it in ``changes``."""
    now = json.loads(json.dumps({**DATA, "invocation": asdict(INVOCATION)}))
    then = now
    for keys, value in changes:
        then = changed(then, keys, value)
    write(then)
    match = matched(read_report("report.json").data, now, 1e-10)
    document = Document("", (Table("", (), ()),), now)
    said = with_match(document, match, "report.json")
    assert said.data["replay"]["status"] == ("pass" if match.passed else "fail")
    assert said.tables[0].notes == (match.text("replayed report.json"),)
    return match


FORM, FIRST = ("results", 0, "quadratic_form"), ("results", 0)


@pytest.mark.parametrize(
    ("keys", "value", "where", "identical"),
    [
        ((*FORM, "autodiff"), next_double(0.1), "results[0].quadratic_form.autodiff", 1),
        ((*FORM, "curvature"), -0.0, "results[0].quadratic_form.curvature", 1),
        ((*FIRST, "check", "compared"), 900.0, "results[0].check.compared", 1),
        ((*FIRST, "check", "worst_entry", 1), "b", "results[0].check.worst_entry[1]", 1),
        ((*FIRST, "check"), None, "results[0].check", 1),
        ((*FIRST, "check"), {}, "results[0].check", 1),
        ((*FIRST, "ratios"), [1.0], "results[0].ratios", 1),
        ((*FIRST, "limited"), 0, "results[0].limited", 1),
        ((*FIRST, "status"), "fail", "results[0].status", 1),
        (FIRST, "a row", "results[0]", 1),
        (("results",), [ROW], "the number of rows", 1),
        (("results",), [], "the number of rows", 0),
        (("problem", "seed"), 1, "problem.seed", 2),
        (("status",), "fail", "status", 2),
    ],
)
def test_any_other_value_is_found(
    keys: tuple[Any, ...], value: Any, where: str, identical: int
) -> None:
    replay = replay_of((keys, value))
    assert (replay.rtol, replay.changes, replay.passed) == (None, (), False)
    assert (replay.rows, replay.identical) == (2, identical)
    assert replay.difference is not None
    assert replay.difference.where.removesuffix(" (tanh, dense1)") == where


def test_every_number_is_counted_once() -> None:
    replay = replay_of()
    assert (replay.identical, replay.passed, replay.difference) == (2, True, None)
    # Three in the form, four in the check, two ratios; and the seed.
    assert replay.numbers == 2 * 9 + 1


VERSIONS_THEN = ("invocation", "versions")
OTHERS: Mapping[str, tuple[tuple[Any, ...], Any, str]] = {
    "NumPy": (("environment", "numpy"), "2.0.0", "NumPy 2.4.0, was 2.0.0"),
    "TensorFlow": (("environment", "tensorflow"), "2.20.0", "TensorFlow null, was 2.20.0"),
    "hesscli": (("environment", "hesscli"), "0.0.9", "hesscli 0.1.0, was 0.0.9"),
    "threads": (("environment", "threads"), 8, "threads 2, was 8"),
    "threads before": (
        ("environment",),
        {**DATA["environment"], "threads": "2"},
        "threads 2, was 2",
    ),
    "Python": ((*VERSIONS_THEN, "python"), "3.12.0", "Python 3.11.0, was 3.12.0"),
    "BLAS": ((*VERSIONS_THEN, "blas"), "mkl 1", "BLAS openblas 0.3.1, was mkl 1"),
    "no threadpoolctl": (
        (*VERSIONS_THEN, "threadpoolctl"),
        None,
        "threadpoolctl 3.5.0, was null",
    ),
    "machine": (("invocation", "machine"), "Linux x86_64, ENIAC", "another machine"),
    "no machine": (("invocation", "machine"), None, "another machine"),
    "chunks": (("problem", "chunk"), 4096, "all examples at a time, was 4096"),
    "chunks of nothing": (("problem", "chunk"), [], "all examples at a time, was a list"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_versions_and_machines_are_said_and_the_bits_let_off(name: str) -> None:
    *change, said = OTHERS[name]
    replay = replay_of((change[0], change[1]), ((*FORM, "autodiff"), next_double(0.1)))
    assert (replay.rtol, replay.passed, replay.identical) == (1e-10, True, 2)
    assert "; ".join(replay.changes) == said
    assert replay.text("replayed report.json").startswith(
        f"replayed report.json ({said}): 2 of 2 rows within 1e-10, "
    )


@pytest.mark.parametrize(
    ("keys", "value", "passed"),
    [
        ((*FORM, "autodiff"), 0.1 * (1 + 9e-11), True),
        ((*FORM, "autodiff"), 0.1 * (1 + 2e-10), False),
        # Residuals are rounding: they are held to what was subtracted.
        ((*FORM, "residual"), 7e-12, True),
        ((*FORM, "residual"), 2e-11, False),
        ((*FORM, "curvature"), 7e-12, True),
        ((*FIRST, "check", "max_abs_residual"), 2e-11, True),
        ((*FIRST, "check", "max_abs_residual"), 1e-10, False),
        ((*FIRST, "check", "relative_residual"), 9e-11, True),
        ((*FIRST, "check", "relative_residual"), 2e-10, False),
        # What is counted is the same, and so is the verdict; which entry is the worst may not be.
        ((*FIRST, "check", "compared"), 899, False),
        ((*FIRST, "check", "worst_entry", 0), "dense1/kernel[4,2]", True),
        ((*FIRST, "limited"), True, True),
        ((*FIRST, "status"), "fail", False),
        (("status",), "fail", False),
        ((*FORM, "autodiff"), None, False),
    ],
)
def test_under_other_versions_numbers_are_held_to_the_tolerance(
    keys: tuple[Any, ...], value: Any, passed: bool
) -> None:
    other_version = (("environment", "numpy"), "2.0.0")
    assert replay_of(other_version, (keys, value)).passed is passed


def test_the_report_names_every_file_by_its_digest(run: Run, folder: Path) -> None:
    _run(("verify", "-c", "small.yaml", "--save-problem", "weights.npz", "--check", "form"))
    document = report("verify", "--set", "model.weights=weights.npz", "--check", "form")
    files = document["invocation"]["files"]
    assert [(file["key"], file["path"]) for file in files] == [
        ("model.weights", "weights.npz"),
        ("data.source", "small.npz"),
    ]
    digest = subprocess.run(["sha256sum", "weights.npz"], capture_output=True, text=True)
    assert files[0]["sha256"] == digest.stdout.split()[0]
    assert run("replay", "report.json", "-o", "again.json")[0] == 0
    content = Path("weights.npz").read_bytes()
    Path("weights.npz").write_bytes(content + b"\0")
    said = refused(run, "replay", "report.json")
    assert "report.json: model.weights: weights.npz is not the file" in said
    Path("weights.npz").unlink()
    said = refused(run, "replay", "report.json")
    assert "report.json: model.weights: weights.npz: cannot be read (No such file" in said
    # A report that does not own up to a file it has read.
    Path("weights.npz").write_bytes(content)
    del files[0]
    write(document)
    code, out, _ = run("replay", "report.json", "-f", "json")
    assert (code, json.loads(out)["replay"]["difference"]["where"]) == (1, "invocation.files")


def test_a_training_goes_on_from_the_checkpoint_that_it_went_on_from(run: Run) -> None:
    train = ("train", "-c", "small.yaml", *QUICK)
    assert run(*train, "--checkpoint", "half.npz", "--steps", "3")[0] == 0
    resumed = ("--resume", "half.npz", "--checkpoint", "end.npz")
    assert run(*train, *resumed, "-o", "report.json")[0] == 0
    written = Path("end.npz").read_bytes()
    code, out, _ = run("replay", "report.json", "-f", "json")
    found = json.loads(out)
    assert (code, found["resumed_at"], found["replay"]["status"]) == (0, 3, "pass")
    # What a replay leaves behind is its report alone.
    assert (found["checkpoint"], Path("end.npz").read_bytes()) == (None, written)
    # The file that was gone on from is no more where the new checkpoint took its place.
    assert run(*train, "--resume", "half.npz", "--checkpoint", "half.npz", "-o", "r.json")[0] == 0
    assert "resume: half.npz is not the file" in refused(run, "replay", "r.json")


def test_an_interrupted_training_is_not_replayed(run: Run) -> None:
    document = report("train", *QUICK)
    write({**document, "status": "interrupted"})
    said = refused(run, "replay", "report.json")
    assert "status: interrupted; only what was completed can be replayed" in said


def test_a_plugin_is_run_only_where_it_is_given_again(run: Run) -> None:
    document = report("verify", "--plugin", str(CUBE), "-a", "all", "--check", "form")
    assert "cube" in document["invocation"]["options"]["activation"]
    said = refused(run, "replay", "report.json")
    assert f"a plugin is code, which no report runs; give it again, with --plugin {CUBE}" in said
    given = ("--plugin", str(CUBE))
    assert run("replay", "report.json", *given)[0] == 0
    assert run("replay", *given, "report.json")[0] == 0
    Path("cube.py").write_text(CUBE.read_text(encoding="utf-8") + "\n# another\n", encoding="utf-8")
    said = refused(run, "replay", "report.json", "--plugin", "cube.py")
    assert "the plugins are not the files that the report was made with" in said
    report("verify", "--check", "form")
    said = refused(run, "replay", "report.json", *given)
    assert "was made without a plugin; leave --plugin out" in said


@pytest.mark.parametrize("option", ["--seed=1", "--activation=tanh", "--plot=a.png"])
def test_nothing_that_decides_a_number_stands_beside(run: Run, option: str) -> None:
    report("verify", "--check", "form")
    assert "No such option" in refused(run, "replay", "report.json", option)


def test_the_format_is_that_of_the_replay(run: Run) -> None:
    report("compare", "-a", "tanh")
    assert run("replay", "report.json", "-q", "-o", "again.xml") == (0, "", "")
    assert 'classname="hesscli.compare.replay"' in Path("again.xml").read_text(encoding="utf-8")


def test_for_every_option_it_is_decided_whether_a_report_gives_it() -> None:
    """An option that a report could give, and that writes a file, would be a way to write any."""
    assert set(DECIDING) == set(cli.commands) - {"export", "config", "doctor", "replay", "diff"}
    for name, deciding in DECIDING.items():
        names = {param.name for param in cli.commands[name].params}
        decided = set(deciding) | IN_THE_CONFIGURATION | OF_NO_NUMBER
        if name == "train":
            decided.add("steps")
        assert set(deciding) <= names <= decided, name
        assert not set(deciding) & OF_NO_NUMBER


def test_two_reports_are_compared(run: Run) -> None:
    document = report("verify", "-a", "tanh", "--check", "form")
    assert run("diff", "report.json", "report.json")[0] == 0
    form = document["results"][1]["quadratic_form"]
    form["chain_rule"] = next_double(form["chain_rule"])
    document["problem"]["seed"] = 1
    write(document, "other.json")
    code, out, _ = run("diff", "report.json", "other.json", "-f", "json")
    found = json.loads(out)
    assert (code, found["status"], found["rows"], found["identical"]) == (1, "fail", 3, 2)
    assert [row["where"] for row in found["results"]] == [
        "results[1].quadratic_form.chain_rule (tanh, dense2)",
        "problem.seed",
    ]
    assert found["results"][0]["now"] == form["chain_rule"]
    document["environment"]["numpy"] = "1.0"
    write(document, "other.json")
    code, out, _ = run("diff", "report.json", "other.json", "-f", "csv", "--rtol", "1e-12")
    assert (code, out.splitlines()) == (1, ["where,then,now", "problem.seed,0,1"])


def test_two_reports_of_different_commands_are_not_compared(run: Run) -> None:
    report("verify", "--check", "form")
    report("sweep", path="other.json")
    assert "hesscli/sweep/1" in refused(run, "diff", "report.json", "other.json")


TEXTS: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "a table": (b"784-30-30-10", "not JSON"),
    "not text": (b"\xff\xfe\x00", "not JSON"),
    "a list": (b"[]", "a list; a JSON report"),
    "a number": (b"1", "1; a JSON report"),
    "no schema": (b"{}", "schema: null; a JSON report"),
    "another program's": (b'{"schema": "https://json-schema.org"}', "a JSON report that hesscli"),
    "a later one": (b'{"schema": "hesscli/verify/2"}', "this hesscli reads version 1"),
    "no rows": (b'{"schema": "hesscli/verify/1"}', "results: null; it must be a list"),
    "an early one": (b'{"schema": "hesscli/verify/1", "results": []}', "invocation: missing; "),
    "not a number": (b'{"schema": NaN}', "NaN is not a number"),
    "thousands of digits": (b'{"schema": ' + b"9" * 5000 + b"}", "not JSON"),
    "nested": (b"[" * 200_000, "nested too deeply"),
    "nested and whole": (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "nested too deeply"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_report_is_refused_in_a_line(run: Run, name: str) -> None:
    content, said = TEXTS[name]
    Path("report.json").write_bytes(content)
    error = refused(run, "replay", "report.json")
    assert error.startswith("hesscli: report.json: ")
    assert said in error


def test_a_report_cut_off_anywhere_is_refused(run: Run) -> None:
    report("verify", "--check", "form")
    content = Path("report.json").read_bytes()
    for size in range(0, len(content) - 2, 97):
        Path("report.json").write_bytes(content[:size])
        assert "report.json: not JSON (" in refused(run, "replay", "report.json")


def test_what_is_no_file_is_refused(run: Run, folder: Path) -> None:
    os.mkfifo("pipe")
    assert "not a regular file" in refused(run, "replay", "pipe")
    assert "not a regular file" in refused(run, "replay", str(folder))
    assert "No such file" in refused(run, "replay", "none.json")
    assert "the name of a JSON report" in refused(run, "replay", "")
    with open("sparse.json", "wb") as stream:
        stream.truncate(2**40)
    assert "larger than 32 MiB" in refused(run, "replay", "sparse.json")


def changed(document: Any, keys: tuple[Any, ...], value: Any) -> Any:
    """A copy of ``document`` in which ``keys`` lead to ``value``."""
    document = json.loads(json.dumps(document))
    *path, last = keys
    inner = document
    for key in path:
        inner = inner[key]
    inner[last] = value
    return document


OPTIONS, CONFIGURATION = ("invocation", "options"), ("invocation", "configuration")
HOSTILE: Mapping[str, tuple[tuple[Any, ...], Any, str]] = {
    "the command": (("invocation", "command"), "config", "replayed are reports of verify, compare"),
    "an output": ((*OPTIONS, "output"), "stolen.txt", "options.output: unknown; choose activ"),
    "a problem saved": ((*OPTIONS, "save_problem"), "p.npz", "options.save_problem: unknown"),
    "a plugin run": ((*OPTIONS, "plugin"), ["evil.py"], "options.plugin: unknown"),
    "a replay": ((*OPTIONS, "replay"), "other.json", "options.replay: unknown"),
    "an option's type": ((*OPTIONS, "block"), {"a": 1}, "options.block: it must be text"),
    "a list for one": ((*OPTIONS, "check"), ["form"], "options.check: it must be text"),
    "one for a list": ((*OPTIONS, "layer"), "dense1", "options.layer: it must be a list"),
    "a list of lists": ((*OPTIONS, "activation"), [["tanh"]], "options.activation: it must be"),
    "an option's value": ((*OPTIONS, "probes"), 0, "options: Invalid value for '--probes'"),
    "a dangerous value": ((*OPTIONS, "activation"), ["--output=x"], "'--output=x' is unknown"),
    "a large number": ((*OPTIONS, "probes"), 1e308, "options: Invalid value for '--probes'"),
    "options": (OPTIONS, [], "invocation.options: a list"),
    "configuration": (CONFIGURATION, None, "null; it must be a mapping with model, loss"),
    "a key": ((*CONFIGURATION, "seed"), -1, "seed: -1; it must be a whole number"),
    "an unknown key": ((*CONFIGURATION, "sede"), 1, "sede: unknown key; did you mean 'seed'?"),
    "a missing file": ((*CONFIGURATION, "model", "weights"), "a\0b", "report.json: model.weights"),
    "a surrogate": ((*CONFIGURATION, "model", "weights"), "\ud800", "report.json: model.weights"),
    "files": (("invocation", "files"), "small.npz", "invocation.files: "),
    "a file": (("invocation", "files", 0), ["small.npz"], "invocation.files.0: a list"),
    "a file's key": (("invocation", "files", 0, "more"), 1, "invocation.files.0: it must hold"),
    "a file's path": (("invocation", "files", 0, "path"), "a\0b", "data.source: a"),
    "a device": (("invocation", "files", 0, "path"), "/dev/zero", "not a regular file"),
    "results": (("results",), None, "results: null; it must be a list"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_report_is_refused_in_a_line(run: Run, name: str) -> None:
    keys, value, said = HOSTILE[name]
    write(changed(report("verify", "--check", "form"), keys, value))
    error = refused(run, "replay", "report.json")
    assert error.startswith("hesscli: report.json: ")
    assert said in error


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(("tanh", "all", "layer", "small.npz", "/dev/zero", "dense1", "--help")),
    st.lists(st.integers(-2, 2), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(-2, 2), max_size=2),
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All paths into a document."""
    if not isinstance(value, dict | list):
        return [at]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [at, *(place for key, inner in items for place in places(inner, (*at, key)))]


@settings(max_examples=200)
@given(data=st.data())
def test_no_report_breaks_it(run: Run, data: st.DataObject) -> None:
    """One value anywhere is another: it is replayed, with what differs, or refused in a line."""
    if not Path("original.json").exists():
        report("init", "--stddev", "0.1", "--seeds", "1", path="original.json")
    document = json.loads(Path("original.json").read_text(encoding="utf-8"))
    place = data.draw(st.sampled_from([place for place in places(document) if place]))
    value = data.draw(VALUES)
    # Larger networks and more seeds are right, and take their time.
    if place[-1] in ("units", "seeds", "inputs"):
        value = -1
    write(changed(document, place, value))
    code, out, err = run("replay", "report.json")
    assert code in (0, 1, 2)
    assert (err.count("\n"), bool(out)) == ((1, False) if code == 2 else (0, True))
    assert set(os.listdir()) == {"small.yaml", "small.npz", "v.npy", "original.json", "report.json"}


PROGRAM = """
import sys
from hesscli.cli.main import _run
for index, line in enumerate(open(sys.argv[1]).read().splitlines()):
    code = _run([*line.split(), "-q", "-o", f"{sys.argv[2]}{index}.json"])
    assert code == 0, (code, line)
"""
# Sums of what threads find are in the order of the work, whichever thread was first.
THREADS = min(2, cores())
DETERMINED = (
    f"verify -n 4 -a tanh --check probes --probes 3 --threads {THREADS}",
    "verify -c small.yaml -a gelu --dtype float32",
    "compare -n 20 -a elu --check form --memory 2MB -l dense1",
    # Beyond what is decomposed whole: Lanczos and its quadrature from random vectors.
    "spectrum -n 140 -a tanh -l dense1 --probes 2 --steps 5 --top 2",
    "init -n 4 --seeds 1 --stddev 0.1 -a tanh -b layer",
    "sweep -n 4 -a tanh",
    "train -c small.yaml --steps 6 --every 3 --batch-size 5",
)


def test_another_process_finds_the_same_bits(folder: Path) -> None:
    """Whatever Python's hashes are, with the threads that the first of them was given."""
    Path("program.py").write_text(PROGRAM)
    Path("first.txt").write_text("\n".join(DETERMINED))
    replays = (f"replay first{index}.json" for index in range(len(DETERMINED)))
    Path("second.txt").write_text("\n".join(replays))
    for seed, name in enumerate(("first", "second")):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "program.py", f"{name}.txt", name]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    for index, line in enumerate(DETERMINED):
        first = json.loads(Path(f"first{index}.json").read_text(encoding="utf-8"))
        second = json.loads(Path(f"second{index}.json").read_text(encoding="utf-8"))
        assert second.pop("replay")["rtol"] is None, line
        assert second["environment"]["threads"] == THREADS
        assert second == first
