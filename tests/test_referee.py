"""The referee against closed forms and TensorFlow, and what it settles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layer_networks import CASES, network
from networks import make_problem, random_targets
from test_fooled import saturated

from hesscli.cli.main import cli
from hesscli.nodes.plugins import forget, load_plugin
from hesscli.problem.graph import Activation, Array, Graph, Layer, Node, Penalty, chain
from hesscli.problem.names import ACTIVATIONS, LOSSES
from hesscli.problem.network import Loss, Problem
from hesscli.problem.targets import fit_targets
from hesscli.report.documents import document_of
from hesscli.studies.entry import entry
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.errors import InputError
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.referee.engine import Referee

# 1600 e⁻⁴⁰ + 1681 e⁻⁴¹, to the digits that the larger powers of e⁻⁴⁰ leave.
SATURATED_FORM = 1600 * np.exp(-40.0) + 1681 * np.exp(-41.0)


def test_the_form_of_a_saturated_softmax_is_that_of_the_closed_form() -> None:
    found = Referee(saturated()).form("dense1/kernel", np.array([40.0, 0.0, -1.0]))
    assert found is not None
    assert found.value == pytest.approx(SATURATED_FORM, rel=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_entries_are_those_of_autodiff(activation: str) -> None:
    problem = make_problem((3, 4, 3), activation)
    referee, H = Referee(problem), Autodiff(problem).hessian("network").to_dense()
    # Of one kernel, of a kernel and a bias of another layer, and a pure one.
    for row, column in ((0, 5), (2, 29), (7, 7)):
        found = referee.entry("network", row, column)
        assert found is not None
        assert found.value == pytest.approx(H[row, column], abs=1e-13 * np.abs(H).max())


@pytest.mark.parametrize("loss", LOSSES)
def test_forms_of_every_loss_are_those_of_autodiff(loss: str) -> None:
    generator = np.random.default_rng(1)
    problem = make_problem((3, 4, 3), "tanh")
    # Outputs between 0 and 1, as some losses need them.
    layers = [*problem.layers[:1], replace(problem.layers[1], activation=Activation("sigmoid"))]
    targets = random_targets(loss, problem.examples, 3, generator)
    problem = Problem(
        chain(layers),
        problem.inputs,
        fit_targets(targets, loss, 3, problem.dtype, "drawn"),
        Loss(loss, "sum"),
    )
    for block in ("network", "input[1]"):
        H = Autodiff(problem).hessian(block)
        v = generator.standard_normal(H.shape[0])
        found = Referee(problem).form(block, v)
        assert found is not None
        assert found.value == pytest.approx(H.quadratic_form(v), rel=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_every_node_is_tensorflows(case: str) -> None:
    """By a form in all parameters, or in the inputs."""
    specs, shape = CASES[case]
    problem = network(specs, shape, examples=1)
    for block in ("network", "input[0]"):
        H = Autodiff(problem).hessian(block)
        v = np.random.default_rng(2).standard_normal(H.shape[0])
        found = Referee(problem).form(block, v)
        assert found is not None
        assert found.value == pytest.approx(H.quadratic_form(v), rel=1e-9)


def test_penalties_are_part_of_the_loss() -> None:
    """With inputs of zero nothing else is: 2 · l2."""
    problem = make_problem((3, 2), "linear")
    problem = replace(
        problem,
        inputs=np.zeros_like(problem.inputs),
        penalties={"dense1/kernel": Penalty(l1=0.5, l2=0.25)},
    )
    found = Referee(problem).entry("dense1/kernel", 1, 1)
    assert found is not None
    assert found.value == 0.5


def test_on_a_corner_nothing_is_known() -> None:
    layers = [
        Layer("dense1", np.ones((1, 1)), np.zeros(1), Activation("relu")),
        Layer("dense2", np.ones((1, 2)), None, Activation("linear")),
    ]
    problem = Problem(chain(layers), np.zeros((1, 1)), np.array([0]))
    # The bias moves z away from 0, the kernel above an input of 0 does not.
    assert Referee(problem).entry("dense1/bias", 0, 0) is None
    found = Referee(problem).entry("dense1/kernel", 0, 0)
    assert found is not None
    assert found.value == 0


def test_what_is_not_known_is_refused_by_name() -> None:
    problem = make_problem((2, 2), "linear")
    node = Node("mystery", "whirl", ("dense1/activation",), (2,))
    graph = Graph((*problem.graph.nodes, node), problem.graph.tensors, problem.graph.input_shape)
    with pytest.raises(InputError, match=r"whirl \(mystery\)"):
        Referee(replace(problem, graph=graph))


def test_what_rounding_leaves_open_is_settled_and_the_witness_named() -> None:
    result = verify([saturated()], CheckOptions())
    (row,) = result.results
    assert row.verdict is Verdict.PASS
    ruling = row.pairs[0].ruling
    assert ruling is not None
    assert ruling.standing("chain_rule") is Verdict.PASS
    assert ruling.standing("autodiff") is not Verdict.PASS
    assert row.convicted == "autodiff"
    document = document_of(result)
    (note,) = (text for text in document.tables[0].notes if "digits:" in text)
    assert "autodiff lost its digits" in note
    assert "50 digits give 9.4246e-15" in note
    data = document.data["results"][0]
    assert data["referee"]["witnesses"] == {"chain_rule": "right", "autodiff": "lost"}
    assert data["convicted"] == "autodiff"
    json.dumps(document.data, allow_nan=False)


def test_a_wrong_chain_rule_is_not_excused_by_the_other_ones_lost_digits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = DenseBlock.panels

    def wrong(self: DenseBlock, start: int, stop: int) -> tuple[Array, ...]:
        return tuple(1.001 * panel for panel in right(self, start, stop))

    products = DenseBlock._matmat
    monkeypatch.setattr(DenseBlock, "panels", wrong)
    monkeypatch.setattr(DenseBlock, "_matmat", lambda self, V: 1.001 * products(self, V))
    (row,) = verify([saturated()], CheckOptions()).results
    assert row.verdict is not Verdict.PASS


def test_an_open_entry_is_settled_and_any_may_be_asked_for() -> None:
    name = "dense1/kernel[0,0]"
    (row,) = entry([saturated()], name, name).results
    assert row.verdict is Verdict.PASS
    assert row.ruling is not None
    (row,) = entry([make_problem((3, 2), "linear")], name, name, referee=True).results
    assert row.ruling is not None
    assert row.ruling.standing("autodiff") is Verdict.PASS


def test_the_command_shows_twenty_digits(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["entry", "dense3/bias[0]", "--batch-size", "1", "--referee", "--format", "json"]
    with pytest.raises(SystemExit) as exit_:
        cli(arguments)
    assert exit_.value.code in (0, None)
    report = json.loads(capsys.readouterr().out)
    (found,) = report["referee"]
    (answer,) = found["hessian"]["answers"]
    digits = answer["digits"].partition("e")[0].replace(".", "").lstrip("-0")
    assert 15 <= len(digits) <= 20
    assert found["hessian"]["witnesses"] == {"chain_rule": "right", "autodiff": "right"}


PLUGIN = """
import numpy as np
import mpmath

ACTIVATIONS = {
    "bump": {
        "value": lambda z: np.exp(-z * z),
        "first": lambda z: -2 * z * np.exp(-z * z),
        "second": lambda z: (4 * z * z - 2) * np.exp(-z * z),
        "mpmath": lambda z: mpmath.exp(-z * z),
    },
}
"""


def test_a_plugin_with_an_mpmath_version_has_a_referee(tmp_path: Path) -> None:
    path = tmp_path / "bump.py"
    path.write_text(PLUGIN)
    names = load_plugin(str(path))
    try:
        problem = make_problem((3, 4, 3), "bump")
        found = Referee(problem).form("dense1/kernel", np.ones(12))
        ours = ChainRule(problem).hessian("dense1/kernel").quadratic_form(np.ones(12))
        assert found is not None
        assert found.value == pytest.approx(ours, rel=1e-12)
    finally:
        forget(names)
