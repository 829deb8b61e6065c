"""The soak in short, and that it can fail: ``make soak`` is the long form."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soak
from mutants import MUTATIONS, Mutation, applied, network
from networks import SIXTEEN
from soak import Tally
from soak_networks import EXTREMES, LOSSES, NEWER, Drawn, drawn

from hesscli.problem.names import ACTIVATIONS
from hesscli.studies.judge import Check
from hesscli.studies.verdict import Verdict
from hesscli.system.errors import NumericalError


def test_no_two_witnesses_disagree_on_random_networks() -> None:
    tally = soak.several(range(16))
    assert tally.disagreements == []
    assert tally.networks == 16
    compared = {"entries", "forms", "products", "finite", "chunks"}
    assert compared <= set(tally.comparisons)
    assert tally.numbers > 1_000_000


def test_networks_that_witnesses_once_disagreed_on() -> None:
    """A warning in float32, finite differences of denormal steps and gradients, denormal inputs.

    Of some of the others test_rounding.py has what was wrong about the floor.
    """
    of_floor = (2515, 5131, 7656, 13985, 14419, 15699, 19437, 19525, 20557, 38102)
    of_floor += (307013, 308443)
    of_bars = (306022, 307446)
    assert soak.several((682, 10035, 2778, 11121, 71754, *of_floor, *of_bars)).disagreements == []


def test_a_seed_is_the_same_network_and_the_same_comparisons_again() -> None:
    first, again = drawn(11).problem, drawn(11).problem
    for one, other in zip(first.layers, again.layers, strict=True):
        np.testing.assert_array_equal(one.kernel, other.kernel)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert soak.soaked(11) == soak.soaked(11)


def test_everything_is_drawn() -> None:
    """Every activation inside and at the output, every loss, both types, everything extreme."""
    networks = [drawn(seed) for seed in range(600)]
    problems = [network.problem for network in networks]
    inside = {layer.activation.name for problem in problems for layer in problem.layers[:-1]}
    assert inside == set(SIXTEEN)
    assert {problem.layers[-1].activation.name for problem in problems} == set(SIXTEEN)
    newer = [drawn(NEWER + seed).problem for seed in range(100)]
    assert {layer.activation.name for problem in newer for layer in problem.layers} == set(
        ACTIVATIONS
    )
    losses = {(problem.loss.name, problem.loss.reduction) for problem in problems}
    assert losses == {(name, reduction) for name in LOSSES for reduction in ("mean", "sum")}
    assert {problem.dtype.name for problem in problems} == {"float64", "float32"}
    assert Counter(name for network in networks for name in network.extremes).keys() == set(
        EXTREMES
    )
    assert {1, 20} <= {len(problem.layers) for problem in problems}
    assert {1, 8} <= {problem.examples for problem in problems}
    assert 1 in {problem.widths[-1] for problem in problems}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_wrong_chain_rule_is_a_disagreement_of_its_seed(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "drawn", lambda seed: Drawn(network("tanh", "float64"), ()))
    monkeypatch.setattr(soak, "block_names", lambda problem: ["dense1/kernel"])
    with applied(mutation.apply):
        found = soak.soaked(7).disagreements
    for of in ("rows", "R-operator"):
        assert any(f"entries of dense1/kernel, {of}: FAIL" in text for text in found)
    assert any("entries of network, rows: FAIL" in text for text in found)
    assert all(text.startswith("seed 7: float64 5-5-5-5 tanh,tanh,linear, ") for text in found)


def test_whoever_runs_it_is_told_the_seeds_to_run_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, right = Tally(networks=1, disagreements=["seed 4: what"]), Tally(networks=1)
    monkeypatch.setattr(soak, "soaked", lambda seed: wrong if seed == 4 else right)
    assert soak.main(["--networks", "4", "--seed", "2", "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "seed 4: what"
    assert out.splitlines()[-1] == "again: make soak NETWORKS=1 SEED=4"
    assert soak.main(["--networks", "2", "--seed", "2", "--jobs", "1"]) == 0
    assert "2 networks in" in capsys.readouterr().out


def raises(error: Exception) -> None:
    raise error


def test_refusals_are_counted_and_everything_else_is_a_failure() -> None:
    run = soak.Soaked(network("tanh", "float64"), np.random.default_rng(0), Tally())
    run.attempt("forms", lambda: raises(NumericalError("dense1: leaves the range of float64")))
    assert (run.failures, run.tally.refusals.total()) == ([], 1)
    run.attempt("forms", lambda: raises(NumericalError("two\nlines")))
    run.attempt("forms", lambda: raises(RuntimeWarning("overflow encountered")))
    assert len(run.failures) == 2


@pytest.mark.parametrize("bad", [{"max_abs_residual": np.nan}, {"floor": np.inf}, {"compared": 0}])
def test_a_pass_of_what_is_no_number_or_of_nothing_is_a_failure(bad: dict[str, float]) -> None:
    right = Check("entries", 4, 0.0, 1.0, 1e-10, 0.0, None, Verdict.PASS)
    run = soak.Soaked(network("tanh", "float64"), np.random.default_rng(0), Tally())
    run.judge("entries of network", right)
    assert run.failures == []
    run.judge("entries of network", replace(right, **bad))
    assert len(run.failures) == 1
