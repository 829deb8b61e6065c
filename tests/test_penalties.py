"""Regularizers are part of the loss, for every witness and block; and losses behind a softmax."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from networks import make_problem, random_targets

from hesscli import (
    InputError,
    Penalty,
    Problem,
    problem_from_config,
    spectrum,
    verify,
    verify_first,
)
from hesscli.problem.execution import Execution
from hesscli.problem.graph import chain
from hesscli.problem.network import Loss
from hesscli.problem.targets import fit_targets
from hesscli.studies.verdict import Verdict
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.summed.engine import chain_rule_of

WITNESSES = ("chain_rule", "autodiff", "finite")
LAYERS = [
    {"units": 4, "activation": "tanh", "kernel_regularizer": {"l1": 0.03, "l2": 0.2}},
    {"units": 3, "bias_regularizer": {"l2": 0.5}},
]
SETTINGS: dict[str, Any] = {
    "model.inputs": 784,
    "model.layers": LAYERS,
    "model.bias_initializer": {"name": "random_normal", "stddev": 0.3},
    "loss.name": "sum_of_squares",
}


def regularized(**settings: Any) -> Problem:
    """784-4-3 on four images."""
    return problem_from_config(settings={**SETTINGS, **settings}, batch_size=4)


@pytest.mark.parametrize("block", ["kernel", "bias", "layer", "network"])
def test_three_witnesses_agree_on_every_block(block: str) -> None:
    result = verify(regularized(), block=block, check="probes", witnesses=WITNESSES)
    assert result.passed


def test_the_penalty_is_on_the_diagonal_of_the_gauss_newton_term() -> None:
    problem = regularized()
    plain = replace(problem, penalties={})
    for engine in (ChainRule, Autodiff):
        for term, l2 in (("hessian", 0.5), ("gauss_newton", 0.5), ("curvature", 0.0)):
            name = "dense2"
            with_it, without = (
                getattr(engine(of), term)(name).to_dense() for of in (problem, plain)
            )
            added = with_it - without
            # The kernel (4, 3) has none, the bias has l2.
            expected = np.diag([0.0] * 12 + [2 * l2] * 3)
            np.testing.assert_allclose(added, expected, rtol=0, atol=1e-14 * abs(with_it).max())


def test_a_missing_penalty_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesscli.nodes.penalty.curvature", lambda theta, _: np.zeros_like(theta))
    for check in ("entries", "probes", "form"):
        assert verify(regularized(), layers=["dense2"], block="bias", check=check).results[
            0
        ].verdict is (Verdict.FAIL)


def test_the_gradient_has_it_by_both_witnesses() -> None:
    problem = regularized()
    assert verify_first(problem, "gradient", block="network").passed
    found = ChainRule(problem)
    assert problem.penalties["dense1/kernel"] == Penalty(0.03, 0.2)
    assert found.problem.share == 1


def test_parts_have_their_share() -> None:
    problem = regularized()
    whole = ChainRule(problem).hessian("network").to_dense()
    parts = chain_rule_of(problem, Execution(chunk=3)).hessian("network").to_dense()
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-13 * np.abs(whole).max())


def test_they_can_be_left_out_and_are_refused_where_they_are_not_known() -> None:
    with pytest.raises(InputError, match=r"dense1/kernel, dense2/bias.*loss\.regularization"):
        spectrum(regularized())
    without = regularized(**{"loss.regularization": False})
    assert not without.penalties
    assert spectrum(without).passed


@pytest.mark.parametrize("name", ["kl_divergence", "poisson", "mean_absolute_error", "huber"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_losses_behind_a_softmax_agree(name: str, dtype: str) -> None:
    drawn = make_problem((5, 4, 3), "tanh", dtype=dtype)
    targets = random_targets(name, 4, 3, np.random.default_rng(0))
    problem = replace(
        drawn,
        graph=chain(drawn.layers, softmax=True),
        targets=fit_targets(targets, name, 3, drawn.dtype, "drawn"),
        loss=Loss(name, delta=0.3 if name == "huber" else 1.0),
    )
    result = verify(problem, block="network", check="entries", witnesses=WITNESSES)
    assert result.passed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss.delta": 0.5}, "loss.delta: 0.5; only huber can have it"),
        ({"loss.label_smoothing": 0.1}, "only categorical_crossentropy and binary_crossentropy"),
        ({"loss.name": "huber", "loss.delta": 0}, "it must be a number above 0"),
        (
            {"loss.name": "categorical_crossentropy", "loss.label_smoothing": 2},
            "it must be a number from 0 to 1",
        ),
        (
            {"model.layers": [{"units": 2, "kernel_regularizer": {"l2": -1}}]},
            "it must be 0 or more",
        ),
        ({"model.layers": [{"units": 2, "kernel_regularizer": {"l3": 1}}]}, "unknown key"),
        ({"data.scale": 0}, "it must be a number above 0"),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        problem_from_config(settings=settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_label_smoothing_is_in_the_targets() -> None:
    def targets(name: str, **settings: Any) -> Any:
        found = {"loss.name": name, "loss.label_smoothing": 0.2, **settings}
        return problem_from_config(settings=found, batch_size=2).targets

    smooth = targets("categorical_crossentropy")
    assert sorted(set(np.round(smooth, 12).ravel())) == [0.02, 0.82]
    assert sorted(set(np.round(targets("binary_crossentropy"), 12).ravel())) == [0.1, 0.9]
