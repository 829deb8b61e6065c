"""From training to its curvature: checkpoints go into the other commands, and the spectrum of a
trained network is the one that the literature reports.

Sagun, Evci, Guney, Dauphin and Bottou (arXiv:1706.04454): a bulk near zero, which grows with the
parameters, and outliers, which follow the data; Papyan (arXiv:2008.11865): about as many of them
as classes, as they come from the classes' means. The outputs of a softmax classifier of c classes
have c − 1 directions, so that c − 1 are as good as c.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesscli.cli.main import _run
from hesscli.problem.data import load_dataset

Run = Callable[..., Any]
WEIGHTS = ("--set", "model.weights=trained.npz")
# What counts as near zero, relative to the largest eigenvalue, and how many of them must be.
NEAR_ZERO, BULK = 0.01, 0.9


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an empty folder and gives its JSON document."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Any:
        assert _run((*arguments, "--format", "json")) == 0
        streams = capsys.readouterr()
        assert streams.err == ""
        return json.loads(streams.out)

    return call


def write_digits(classes: int) -> None:
    """400 images of the digits below ``classes``, 7 × 7 pixels, and a network 49-16-classes."""
    images = load_dataset("embedded", "train")
    pixels, labels = np.asarray(images.inputs), np.asarray(images.targets)
    chosen = np.flatnonzero(labels < classes)[:400]
    means = pixels[chosen].reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)) / 255
    np.savez("digits.npz", inputs=means.reshape(-1, 49), targets=labels[chosen])
    layers = f"[{{units: 16, activation: relu}}, {{units: {classes}}}]"
    Path("digits.yaml").write_text(
        f"model: {{inputs: 49, layers: {layers}}}\ndata: {{source: digits.npz, batch_size: all}}\n"
    )


def trained(run: Run, classes: int, steps: int) -> Any:
    write_digits(classes)
    return run(
        *("train", "--config", "digits.yaml", "--learning-rate", "0.2", "--steps", str(steps)),
        *("--every", str(steps), "--measure-examples", "all", "--checkpoint", "trained.npz"),
    )


@pytest.mark.parametrize("classes", [2, 5, 10])
def test_a_trained_network_has_a_bulk_near_zero_and_as_many_outliers_as_classes(
    classes: int, run: Run
) -> None:
    training = trained(run, classes, 400)
    assert training["final"][0]["accuracy"] > 0.8
    found = run("spectrum", "--config", "digits.yaml", "--block", "network", *WEIGHTS)
    (row,), spectrum = found["results"], found["spectra"][0]
    assert (row["exact"], spectrum["term"]) == (True, "hessian")
    assert classes - 1 <= len(row["hessian"]["outliers"]) <= classes
    eigenvalues = np.array(spectrum["eigenvalues"])
    assert len(eigenvalues) == row["size"] == 49 * 16 + 16 + 16 * classes + classes
    near_zero = np.abs(eigenvalues) < NEAR_ZERO * eigenvalues.max()
    assert near_zero.mean() > BULK
    # The outliers are no accident of where the bulk ends: they are at twice its edge or beyond.
    sizes = -np.sort(-np.abs(eigenvalues))
    count = len(row["hessian"]["outliers"])
    assert sizes[count - 1] > 2 * sizes[count]


def test_results_of_trained_weights_say_whose_they_are(run: Run) -> None:
    """Beside those of the network that the seed draws they would look alike."""
    trained(run, 2, 1)
    os.mkdir("kept")
    os.rename("trained.npz", "kept/trained.npz")
    for weights, origin in (("kept/trained.npz", "weights trained.npz"), ("null", "seed 0")):
        given = ("--config", "digits.yaml", "--set", f"model.weights={weights}")
        assert _run(("spectrum", *given, "-q", "--output", "report.html")) == 0
        heading = f"49-16-2 · 834 parameters · 400 examples · float64 · {origin}"
        assert heading in Path("report.html").read_text(encoding="utf-8")


def test_a_checkpoint_goes_into_every_command_that_takes_weights(run: Run) -> None:
    """What the training measured last, the other commands find in its weights."""
    last = trained(run, 10, 30)["results"][-1]
    here = ("--config", "digits.yaml", *WEIGHTS)
    expected = {name: layer["lambda_max"] for name, layer in last["layers"].items()}
    expected["network"] = last["sharpness"]
    for block in ("layer", "network"):
        for row in run("spectrum", *here, "--block", block)["results"]:
            largest = row["hessian"]["largest"]["value"]
            assert largest == pytest.approx(expected.pop(row["layer"]), rel=1e-4)
    assert not expected
    for command in ("verify", "compare"):
        found = run(command, *here, "--check", "form", "--block", "layer")
        assert found["status"] == "pass"
        assert (found["problem"]["examples"], found["problem"]["weights"]) == (400, "trained.npz")
        forms = [row["quadratic_form"] for row in found["results"]]
        assert len(forms) == 2
    # The same weights: what verify saves is what was trained.
    run("verify", *here, "--check", "form", "--save-problem", "saved.npz")
    with np.load("trained.npz") as one, np.load("saved.npz") as other:
        for name in ("dense1/kernel", "dense1/bias", "dense2/kernel", "dense2/bias"):
            np.testing.assert_array_equal(one[name], other[name])
