"""``hesscli train`` on the command line: report, checkpoint, Ctrl-C, what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesscli.cli.main import _run

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--steps", "12", "--every", "4", "--batch-size", "5", "--measure-examples", "20")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds small.yaml, of a 6-5-4-3 network on 40 examples."""
    generator = np.random.default_rng(0)
    inputs, targets = generator.standard_normal((40, 6)), generator.integers(0, 3, 40)
    np.savez(tmp_path / "small.npz", inputs=inputs, targets=targets)
    layers = "[{units: 5, activation: tanh}, {units: 4, activation: tanh}, {units: 3}]"
    text = f"model: {{inputs: 6, layers: {layers}}}\ndata: {{source: small.npz}}\n"
    (tmp_path / "small.yaml").write_text(text)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = _run(("train", "--config", "small.yaml", *arguments))
        return (code, *capfd.readouterr())

    return call


def document(run: Run, *arguments: str) -> Any:
    code, out, err = run(*QUICK, "--format", "json", *arguments)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_the_json_document_holds_every_measurement(run: Run) -> None:
    found = document(run, "--momentum", "0.5", "--learning-rate", "0.2", "--examples", "30")
    assert (found["schema"], found["status"]) == ("hesscli/train/1", "pass")
    assert found["train"] == {
        "learning_rate": 0.2, "momentum": 0.5, "batch_size": 5, "steps": 12, "examples": 30,
        "every": 4, "measure_examples": 20, "checkpoint_every": 200,
    }  # fmt: skip
    assert found["problem"]["examples"] == 30 and found["measured_examples"] == 20
    assert found["sharpness_threshold"] == pytest.approx((2 + 2 * 0.5) / 0.2)
    assert [row["step"] for row in found["results"]] == [0, 4, 8, 12]
    for row in found["results"]:
        assert row["stability_ratio"] == pytest.approx(
            row["sharpness"] / found["sharpness_threshold"]
        )
        layers = row["layers"]
        assert list(layers) == ["dense1", "dense2", "dense3"]
        assert row["trace"] == pytest.approx(sum(layer["trace"] for layer in layers.values()))
        # A part's largest eigenvalue is no larger than the whole's (Cauchy interlacing).
        assert max(layer["lambda_max"] for layer in layers.values()) <= row["sharpness"] * 1.001
        assert layers["dense3"]["gauss_newton_share"] == 1 > layers["dense1"]["gauss_newton_share"]
    assert [(row["name"], row["examples"]) for row in found["final"]] == [
        ("training", 30),
        ("held out", 10),
    ]


def test_the_table_thins_the_measurements_and_fits_80_columns(run: Run) -> None:
    code, out, err = run(*QUICK, "--steps", "200", "--every", "2")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert "20 of 101 measurements" in out and "2/η = 20" in out
    course = out[out.index("step  epoch") :].split("\n\n")[0].splitlines()[2:]
    steps = [int(line.split()[0]) for line in course]
    assert (len(steps), steps[0], steps[-1]) == (20, 0, 200) and steps == sorted(steps)


def test_the_csv_form_has_a_row_for_each_measurement(run: Run) -> None:
    code, out, _ = run(*QUICK, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, [row["step"] for row in rows]) == (0, ["0", "4", "8", "12"])
    assert float(rows[0]["layers.dense2.trace"]) > 0


def test_the_section_of_the_configuration_says_the_same_as_the_options(
    run: Run, folder: Path
) -> None:
    by_option = document(run, "--learning-rate", "0.3")
    section = (
        "train: {learning_rate: 0.3, steps: 12, every: 4, batch_size: 5, measure_examples: 20}"
    )
    with (folder / "small.yaml").open("a") as stream:
        stream.write(section + "\n")
    code, out, _ = run("--format", "json")
    assert code == 0 and json.loads(out) == by_option


def test_trained_weights_go_into_verify_and_compare(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(*QUICK, "--checkpoint", "trained.npz")[0] == 0
    weights = ("--config", "small.yaml", "--set", "model.weights=trained.npz")
    batch = ("--set", "data.source=trained.npz")
    assert _run(("verify", "--check", "form", *weights)) == 0
    capfd.readouterr()
    assert _run(("compare", "--check", "form", "--format", "json", *weights, *batch)) == 0
    assert json.loads(capfd.readouterr().out)["problem"]["examples"] == 20


def test_resuming_on_the_command_line(run: Run) -> None:
    whole = document(run, "--checkpoint", "whole.npz")
    document(run, "--checkpoint", "half.npz", "--steps", "7")
    rest = document(run, "--resume", "half.npz", "--checkpoint", "half.npz")
    assert (rest["resumed_at"], rest["results"]) == (7, whole["results"])
    with np.load("whole.npz") as one, np.load("half.npz") as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])


REFUSED = [
    (("--learning-rate", "0"), "--learning-rate: train.learning_rate: 0.0; it must be a number ab"),
    (("--learning-rate", "nan"), "--learning-rate: train.learning_rate: nan; it must be a finite"),
    (("--momentum", "1"), "--momentum: train.momentum: 1.0; it must be 0 or more and below 1"),
    (("--batch-size", "0"), "--batch-size: train.batch_size: 0; it must be a whole number, 1 or"),
    (("--batch-size", "41"), "small.yaml: train.batch_size: 41; there are 40 examples to train on"),
    (("--examples", "41"), "small.yaml: train.examples: 41; small.npz has 40 from data.offset 0"),
    (("--examples", "few"), "--examples: train.examples: 'few'; it must be a whole number, 1 or"),
    (("--steps", "0"), "--steps: train.steps: 0; it must be a whole number, 1 or more"),
    (("--every", "0"), "--every: train.every: 0; it must be a whole number, 1 or more"),
    (("--set", "train.step=3"), "--set: train.step: unknown key; did you mean 'steps'?"),
    (("-a", "relu", "-a", "tanh"), "--activation: relu, tanh; one network is trained, so give one"),
    (("--checkpoint", "no/where.npz"), "no/where.npz: cannot be written"),
    (("--resume", "no.npz"), "no.npz: cannot be read"),
    (("--resume", "small.npz"), "small.npz: no checkpoint; a file that train --checkpoint wrote"),
    (("--plot", "x.bmp"), "--plot x.bmp: the suffix '.bmp' names no image"),
]


@pytest.mark.parametrize(("arguments", "line"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_what_cannot_be_used_is_one_line(run: Run, arguments: tuple[str, ...], line: str) -> None:
    before = sorted(os.listdir())
    code, out, err = run("--batch-size", "4", *arguments)
    assert (code, out) == (2, "") and err.startswith(f"hesscli: {line}"), err
    assert len(err.splitlines()) == 1 and sorted(os.listdir()) == before


def test_divergence_is_one_line_and_the_exit_code_2(run: Run) -> None:
    code, out, err = run(*QUICK, "--learning-rate", "1e308", "--output", "out.json")
    assert (code, out, os.path.exists("out.json")) == (2, "", False)
    assert re.fullmatch(
        r"hesscli: after step \d+ the training diverged \(.*\); use a smaller train.learning_rate "
        r"than 1e\+308\n",
        err,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_there_is(number: signal.Signals, run: Run) -> None:
    command = [sys.executable, "-m", "hesscli", "train", "--config", "small.yaml", "--format"]
    command += ["json", "--checkpoint", "run.npz", "--checkpoint-every", "20", "--every", "10"]
    command += ["--batch-size", "5"]
    process = subprocess.Popen(
        [*command, "--steps", "10000000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    try:
        while not os.path.exists("run.npz") and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    found = json.loads(out)
    assert (process.returncode, found["status"]) == (130, "interrupted")
    assert err == f"hesscli: interrupted after step {found['steps']}\n"
    assert found["results"][-1]["step"] == found["steps"]
    assert not [name for name in os.listdir() if name.endswith(".tmp")]
    options = ("--every", "10", "--batch-size", "5", "--steps", str(found["steps"]))
    code, out, _ = run(*options, "--resume", "run.npz", "--format", "json")
    assert (code, json.loads(out)["resumed_at"]) == (0, found["steps"])
    assert json.loads(out)["results"] == found["results"]


def test_training_imports_no_tensorflow() -> None:
    program = (
        "import sys\nfrom hesscli.cli.main import _run\n"
        f"code = _run(['train', '--config', 'small.yaml', *{QUICK!r}])\n"
        "sys.exit(code or bool({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, stdout=subprocess.DEVNULL)
    assert done.returncode == 0


@pytest.mark.parametrize("loss", ["mean_squared_error", "sum"])
def test_other_losses_are_trained_too(run: Run, loss: str) -> None:
    found = document(run, "--set", f"loss.name={loss}", "--learning-rate", "0.01")
    assert found["results"][0]["loss"] > found["results"][-1]["loss"]
    assert found["final"][0]["accuracy"] is None


def test_the_result_is_drawn(run: Run) -> None:
    pytest.importorskip("matplotlib")
    document(run, "--plot", "training.svg", "--momentum", "0.5")
    image = Path("training.svg").read_text()
    assert "<svg" in image
