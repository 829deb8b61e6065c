"""The check can fail: a wrong formula makes ``verify`` exit with 1, on the right layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import run
from mutants import DOCUMENT, DTYPES, MUTATIONS, Seen, applied, network

from hesscli.nodes import calculus
from hesscli.nodes.activations import Derivatives, derivatives
from hesscli.problem.graph import Activation

Wrong = Callable[[Derivatives], Derivatives]

WRONG_SECOND: dict[str, Wrong] = {
    "dropped": lambda sigma: replace(sigma, second=np.zeros_like),
    "wrong sign": lambda sigma: replace(sigma, second=lambda z: -sigma.second(z)),
    "first for second": lambda sigma: replace(sigma, second=sigma.first),
    "off by one part in a million": lambda sigma: replace(
        sigma, second=lambda z: (1 + 1e-6) * sigma.second(z)
    ),
}


@pytest.fixture
def configuration(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(
        "model: {layers: [{units: 5, activation: tanh}, {units: 4, activation: tanh}, "
        "{units: 10}]}\ndata: {batch_size: 3}\n",
        encoding="utf-8",
    )
    return str(path)


def verdicts(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, str]]:
    code, out, _ = run(["verify", *arguments, "--format", "json"], capsys)
    return code, {row["layer"]: row["status"] for row in json.loads(out)["results"]}


@pytest.mark.parametrize("check", ["form", "entries"])
@pytest.mark.parametrize("mutation", WRONG_SECOND)
def test_a_wrong_second_derivative_fails_below_the_last_layer(
    mutation: str,
    check: str,
    configuration: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def mutated(activation: Activation) -> Derivatives:
        sigma = derivatives(activation)
        return WRONG_SECOND[mutation](sigma) if activation.name == "tanh" else sigma

    arguments = ["--config", configuration, "--check", check, "--set", "model.layers.0.units=2"]
    assert verdicts(arguments, capsys) == (0, dict.fromkeys(("dense1", "dense2", "dense3"), "pass"))
    monkeypatch.setattr(calculus, "derivatives", mutated)
    code, found = verdicts(arguments, capsys)
    # σ″ enters above the pre-activation of dense1 and dense2; dense3 is linear.
    assert (code, found) == (1, {"dense1": "fail", "dense2": "fail", "dense3": "pass"})


def test_a_wrong_second_derivative_in_one_layer_leaves_the_layers_above_alone(
    configuration: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first hidden layer gets sin, whose σ″ is wrong; the second keeps tanh, which is right.
    def mutated(activation: Activation) -> Derivatives:
        sigma = derivatives(activation)
        return WRONG_SECOND["wrong sign"](sigma) if activation.name == "sin" else sigma

    monkeypatch.setattr(calculus, "derivatives", mutated)
    arguments = ["--config", configuration, "--set", "model.layers.0.activation=sin"]
    arguments += ["--set", "model.layers.0.units=2"]
    code, found = verdicts(arguments, capsys)
    assert (code, found) == (1, {"dense1": "fail", "dense2": "pass", "dense3": "pass"})


def test_gauss_newton_alone_passes_for_relu_and_fails_for_tanh_where_there_is_curvature(
    configuration: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", configuration, "--terms", "gauss-newton"]
    arguments += ["--set", "model.layers.0.units=2"]
    assert verdicts([*arguments, "-a", "relu"], capsys)[0] == 0
    code, found = verdicts([*arguments, "-a", "tanh"], capsys)
    assert (code, found) == (1, {"dense1": "fail", "dense2": "fail", "dense3": "pass"})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "exponential"])
def test_every_mutant_is_caught_by_every_check_of_the_whole_matrix(
    activation: str, dtype: str
) -> None:
    problem = network(activation, dtype)
    nothing = Seen(form=False, probes=False, entries=False, verify=False)
    assert Seen.of(problem) == nothing
    for mutation in MUTATIONS:
        with applied(mutation.apply):
            seen = Seen.of(problem)
        if activation in mutation.unchanged:
            assert seen == nothing, mutation.name
        else:
            assert (seen.probes, seen.entries, seen.verify) == (True, True, True), mutation.name


def test_the_page_says_of_every_mutant_that_it_was_caught() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    for mutation in MUTATIONS:
        small, default = (cells for cells in lines if cells[0] == mutation.name)
        for cell in (*small[-3:], default[1]):
            caught, _, networks = cell.partition(" of ")
            # There is no network in which a kernel that is not square can be transposed.
            assert caught == networks or cell == "–", cell
        assert {cell.split()[0] for cell in default[2:]} == {"FAIL"}
