"""Keras models as people save them: the numbers of an outside program, or a refusal by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesscli import Problem, problem_from_keras, verify
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.finite.moved import MovedLoss
from hesscli.witnesses.layout import value_of

FIELD = Path(__file__).parent / "field"
TRUTH: dict[str, Any] = json.loads((FIELD / "truth.json").read_text(encoding="utf-8"))
# Keras keeps some constants in float32.
CLOSE = 1e-7
# Of these four the outside numbers are off, by a tanh that is right to 1e-8 or so and by terms that
# cancel. Differences of the loss at 60 digits (mpmath; tests/field/settle.py) say which is right.
SETTLED: dict[str, dict[str, float]] = json.loads(
    (FIELD / "settled.json").read_text(encoding="utf-8")
)


def problem_of(name: str, **settings: Any) -> Problem:
    scale = {"data.scale": 1} if name == "raw_pixels.keras" else {}
    data = {"data.source": str(FIELD / "data.npz"), "data.batch_size": 16}
    return problem_from_keras(FIELD / name, settings={**data, **scale, **settings})


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_forms_and_loss_are_those_of_the_model_as_it_was_compiled(name: str) -> None:
    problem, truth = problem_of(name), TRUTH[name]
    engine = ChainRule(problem)
    for path, expected in (truth["forms"] | SETTLED.get(name, {})).items():
        layer = path.split("/")[0]
        kernel = value_of(problem, f"{layer}/kernel")
        form = engine.hessian(f"{layer}/kernel").quadratic_form(kernel)
        assert form == pytest.approx(expected, rel=1e-12 if name in SETTLED else CLOSE)
    penalties = sum(
        float((p.l1 * np.abs(W) + p.l2 * W**2).sum())
        for name, p in problem.penalties.items()
        for W in [problem.graph.tensors[name].astype(np.float64)]
    )
    of_data = MovedLoss(problem, "network").at_rest
    assert of_data + penalties == pytest.approx(truth["loss"], rel=CLOSE)


@pytest.mark.parametrize(
    "name", ["l2.keras", "softmax_mse.keras", "huber.keras", "label_smoothing.keras"]
)
@pytest.mark.parametrize("block", ["kernel", "network"])
def test_three_witnesses_agree_on_them(name: str, block: str) -> None:
    witnesses = ("chain_rule", "autodiff", "finite")
    result = verify(problem_of(name), block=block, check="probes", witnesses=witnesses)
    assert result.passed


def test_notes_say_what_the_loss_is() -> None:
    def notes(name: str, **settings: Any) -> str:
        return " ".join(problem_of(name, **settings).notes)

    assert "compiled with the loss mean_squared_error" in notes("linear_mse.keras")
    assert "compiled with the loss categorical_crossentropy(label_smoothing=0.2); the softmax" in (
        notes("label_smoothing.keras")
    )
    assert "probably a mistake" in notes("softmax_then_from_logits.keras")
    assert "the regularizers of dense_" in notes("l2.keras")
    left_out = {"loss.regularization": False}
    assert "left out" in notes("l2.keras", **left_out)
    assert problem_of("dense_softmax.keras").prepared == "uint8 ÷ 255"
    assert problem_of("raw_pixels.keras").prepared == "uint8 as they are"


@pytest.mark.parametrize(("key", "value"), [("reduction", "sum"), ("regularization", False)])
def test_another_key_of_the_loss_leaves_the_compiled_one(key: str, value: Any) -> None:
    loss = problem_of("linear_mse.keras", **{f"loss.{key}": value}).loss
    assert loss.name == "mean_squared_error"
    assert getattr(loss, key) == value


def test_a_loss_of_the_users_own_takes_the_place_of_the_compiled_one() -> None:
    problem = problem_of("linear_mse.keras", **{"loss.name": "sum"})
    assert problem.loss.name == "sum"
    assert any("under the loss sum" in note for note in problem.notes)
