"""One output in place of a loss, and the part of one class: questions like the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from networks import make_problem

import hesscli
from hesscli.problem.network import Loss
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.errors import InputError
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.engine import ChainRule

Run = Callable[..., tuple[int, str, str]]
PROBLEM = make_problem((5, 4, 3), "tanh")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_hessian_of_an_output_is_tensorflow_s(reduction: str) -> None:
    autodiff = Autodiff(PROBLEM)
    tf, x = autodiff.tf, autodiff.batch(None)[0]
    W = tf.constant(PROBLEM.graph.tensors["dense1/kernel"])
    for k in range(3):
        problem = replace(PROBLEM, loss=Loss("output", reduction, index=k))
        with tf.GradientTape() as outer:
            outer.watch(W)
            with tf.GradientTape() as inner:
                inner.watch(W)
                f = autodiff.output(x, {"dense1/kernel": W})[:, k]
                L = tf.reduce_mean(f) if reduction == "mean" else tf.reduce_sum(f)
            g = inner.gradient(L, W)
        expected = np.reshape(outer.jacobian(g, W), (20, 20))
        engine = ChainRule(problem)
        np.testing.assert_allclose(
            engine.hessian("dense1/kernel").to_dense(), expected, rtol=0, atol=1e-14
        )
        np.testing.assert_allclose(engine.gradient("dense1/kernel"), np.ravel(g), atol=1e-15)
        assert not engine.gauss_newton("dense1/kernel").to_dense().any()


def test_the_outputs_hessians_add_up_to_that_of_their_sum() -> None:
    parts = [
        ChainRule(replace(PROBLEM, loss=Loss("output", index=k))).hessian("network").to_dense()
        for k in range(3)
    ]
    whole = ChainRule(replace(PROBLEM, loss=Loss("sum"))).hessian("network").to_dense()
    np.testing.assert_allclose(sum(parts), whole, rtol=0, atol=1e-14)


def test_all_witnesses_have_it() -> None:
    problem = replace(PROBLEM, loss=Loss("output", index=2))
    witnesses = ("chain_rule", "autodiff", "finite")
    for block in ("kernel", "network", "input"):
        assert verify([problem], CheckOptions(block=block), witnesses=witnesses).passed
    entry = hesscli.entry(problem, "dense1/kernel[1,2]", referee=True)
    assert entry.passed


def test_the_parts_of_all_classes_add_up_to_the_whole() -> None:
    settings = {"data.batch_size": 12, "model.layers": [{"units": 3}, {"units": 10}]}
    whole = hesscli.problem_from_config(settings=settings, activation="tanh")
    parts = [
        hesscli.problem_from_config(settings={**settings, "loss.of_class": k}, activation="tanh")
        for k in range(10)
    ]
    for term in ("hessian", "gauss_newton"):
        dense = [getattr(ChainRule(of), term)("dense2/kernel").to_dense() for of in (whole, *parts)]
        np.testing.assert_allclose(sum(dense[1:]), dense[0], rtol=0, atol=1e-15)
    # Of one class it is the Hessian of its examples alone, but for the factor 1/N.
    label = int(whole.targets[0])
    own = whole.chosen(np.flatnonzero(whole.targets == label), of=whole.examples)
    expected = ChainRule(own).hessian("dense2/kernel").to_dense()
    np.testing.assert_allclose(
        ChainRule(parts[label]).hessian("dense2/kernel").to_dense(), expected, rtol=0, atol=1e-16
    )


def test_a_class_takes_the_weights_of_its_examples_with_it() -> None:
    problem = hesscli.problem_from_config(
        settings={"data.batch_size": 12, "loss.class_weight": {7: 3.0}, "loss.of_class": 7}
    )
    assert problem.sample_weight is not None
    np.testing.assert_array_equal(problem.sample_weight, 3.0 * (problem.targets == 7))


def test_the_commands_ask_about_one_output(run: Run) -> None:
    small = ("-n", "4", "--layers", "784-4-10", "-a", "tanh")
    code, out, _ = run("verify", *small, "--output-index", "3")
    assert code == 0 and "mean of output 3 " in out and "accuracy" not in out
    code, out, _ = run("compare", *small, "--output-index", "3", "--format", "json")
    report = json.loads(out)
    assert code == 0 and report["problem"]["output"] == 3
    assert all(row["gauss_newton_share"] in (0, None) for row in report["results"])
    code, out, _ = run("verify", *small, "--set", "loss.of_class=3")
    assert code == 0 and "only the examples of class 3 have a loss" in out


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (("--output-index", "10"), "loss.index: 10; the network has the outputs 0 to 9"),
        (("--output-index", "3", "--loss", "sum"), "leave --loss out"),
        (("--set", "loss.index=2"), "only output can have it"),
        (("--set", "loss.of_class=10"), "10 is not a class; 10 outputs have the classes 0 to 9"),
        (("--output-index", "3", "--set", "loss.of_class=1"), "has no targets"),
    ],
)
def test_what_is_no_output_or_class_is_refused(
    options: tuple[str, ...], wrong: str, run: Run
) -> None:
    code, out, err = run("verify", "-n", "2", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert wrong in err


def test_a_problem_of_an_output_that_is_not_there_cannot_be_made() -> None:
    with pytest.raises(InputError, match=r"loss\.index: 3; the network has the outputs 0 to 2"):
        replace(PROBLEM, loss=Loss("output", index=3))
