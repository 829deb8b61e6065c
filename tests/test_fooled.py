"""Ways to be fooled: wrong derivatives that a verdict once let pass."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import StringIO
from types import ModuleType

import numpy as np
import pytest
from hidden_faults import without_biases
from mutants import edit
from networks import make_problem
from rich.console import Console

from hesscli.nodes import activations
from hesscli.nodes.activations import Derivatives
from hesscli.nodes.elementwise import Elementwise
from hesscli.nodes.plugins import forget
from hesscli.problem import registry
from hesscli.problem.execution import Execution
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.network import Loss, Problem
from hesscli.problem.registry import Versions
from hesscli.report.documents import document_of
from hesscli.report.tables import print_table
from hesscli.studies.comparison import compare
from hesscli.studies.first_derivatives import verify_first
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import Verification, verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.witnesses.autodiff import network
from hesscli.witnesses.finite.engine import FiniteHessian
from hesscli.witnesses.summed.engine import Chunks

Plugin = Callable[[Derivatives, Callable[..., object] | None], None]
H, SMALL = 1e-8, 1e-12


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    """Registers an activation called ``tried``, as a plugin does."""

    def register(sigma: Derivatives, tensorflow: Callable[..., object] | None) -> None:
        activations.register("tried", sigma)
        registry.register("tried", Versions(tensorflow))

    yield register
    forget(["tried"])


def judged(problem: Problem, witnesses: Sequence[str], block: str = "kernel") -> Verification:
    return verify([problem], CheckOptions(block=block), witnesses=witnesses)


def tanh_slope(z: Array) -> Array:
    return 1 - np.tanh(z) ** 2


NOISY = {
    "second difference": lambda z: (np.tanh(z + H) - 2 * np.tanh(z) + np.tanh(z - H)) / H**2,
    "difference of slopes": lambda z: (tanh_slope(z + SMALL) - tanh_slope(z)) / SMALL,
}


@pytest.mark.parametrize("witnesses", [("chain_rule", "autodiff"), ("chain_rule", "finite")])
@pytest.mark.parametrize("second", NOISY)
def test_noise_in_a_second_derivative_does_not_excuse_itself(
    second: str, witnesses: Sequence[str], plugin: Plugin
) -> None:
    import tensorflow as tf

    plugin(Derivatives(np.tanh, tanh_slope, NOISY[second]), tf.tanh)
    problem = make_problem((6, 5, 5, 3), "tried", examples=8)
    assert judged(problem, witnesses).verdict is Verdict.FAIL
    assert judged(problem, witnesses, "network").verdict is Verdict.FAIL


def test_a_blank_example_at_a_kink_excuses_nothing(plugin: Plugin) -> None:
    """Z is 0 without any rounding there."""
    import tensorflow as tf

    def above(size: float) -> Callable[[Array], Array]:
        return lambda z: (size * (z > 0)).astype(z.dtype)

    plugin(Derivatives(lambda z: np.maximum(z, 0), above(1.3), above(0.5)), tf.nn.relu)
    scale = np.array([0, 1, 1, 1])
    problem = without_biases(make_problem((3, 4, 3), "tried"), scale)
    for block in ("kernel", "network"):
        assert judged(problem, ("chain_rule", "autodiff"), block).verdict is Verdict.FAIL
    assert verify_first([problem], "gradient", CheckOptions()).verdict is Verdict.FAIL


def saturated() -> Problem:
    """1-3 with logits 40, 0 and −1: the Hessian's digits are beyond those of 1 − p."""
    layer = Layer("dense1", np.array([[40.0, 0.0, -1.0]]), None, Activation("linear"))
    return Problem(chain([layer]), np.array([[1.0]]), np.array([0]))


def test_witnesses_that_are_far_apart_by_rounding_leave_it_open_to_the_referee() -> None:
    (row,) = judged(saturated(), ("chain_rule", "autodiff")).results
    assert row.quadratic_form.chain_rule == pytest.approx(9.4246e-15, rel=1e-4)
    assert row.check.verdict is Verdict.UNDECIDED
    assert row.check.open_by_rounding
    assert row.pairs[0].ruling is not None


def test_without_the_referee_it_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hesscli.witnesses.referee.engine", None)
    (row,) = judged(saturated(), ("chain_rule", "autodiff")).results
    assert row.verdict is Verdict.UNDECIDED
    assert row.pairs[0].unruled is not None
    assert "hesscli[referee]" in row.pairs[0].unruled


def test_gauss_newton_alone_is_not_called_the_hessian_where_that_is_open() -> None:
    (row,) = compare([saturated()], CheckOptions()).results
    assert row.gauss_newton_check.verdict is Verdict.UNDECIDED
    assert not row.gauss_newton_alone


def test_two_undecided_columns_stay_within_eighty() -> None:
    document = document_of(compare([saturated()], CheckOptions()))
    console = Console(width=80, record=True, file=StringIO())
    print_table(document, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert {"UNDECIDED", "undecided"} <= set(text.split())


def test_finite_differences_do_not_take_a_plugins_slope_on_trust(plugin: Plugin) -> None:
    """σ′ and σ″ both doubled: the gradient is another function's."""
    plugin(Derivatives(np.tanh, lambda z: 2 * tanh_slope(z), doubled), None)
    problem = replace(make_problem((6, 5, 3), "tried"), loss=Loss("sum"))
    assert judged(problem, ("chain_rule", "finite")).verdict is Verdict.FAIL


def doubled(z: Array) -> Array:
    return np.asarray(-4 * np.tanh(z) * tanh_slope(z))


def test_a_small_layers_wrong_block_does_not_hide_behind_a_large_one(plugin: Plugin) -> None:
    """Inputs of 1e-6: dense1's curvature, which is missing, is 1e-12 of dense2's."""
    import tensorflow as tf

    def logistic(z: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-z)))

    plugin(Derivatives(lambda z: np.logaddexp(z, 0), logistic, np.zeros_like), tf.nn.softplus)
    problem = without_biases(make_problem((3, 4, 3), "tried"), np.full(4, 1e-6))
    (row,) = judged(problem, ("chain_rule", "autodiff"), "network").results
    assert row.verdict is Verdict.FAIL
    assert row.check.worst is not None
    assert all(name.startswith("dense1/") for name in row.check.worst)


# Of one chunk there is none that could be left out.
CHUNK_FAULTS = {
    "the last one is not cut": (
        "_cut",
        "self._boundaries(size)",
        "(self._boundaries(size)[:-1] or self._boundaries(size))",
    ),
    "only the last one counts": ("sum_of", "total += part", "total = part"),
    "the last one is not added": (
        "sum_of",
        "self.each(work, load)",
        "([*self.each(work, load)][:-1] or [*self.each(work, load)])",
    ),
}


@pytest.mark.parametrize("witness", ["autodiff", "finite"])
@pytest.mark.parametrize("fault", CHUNK_FAULTS)
def test_what_goes_wrong_with_the_chunks_of_all_witnesses_is_seen(
    fault: str, witness: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem((3, 4, 3), "tanh", examples=8)
    # Autodiff traces its entries for every chunk.
    method = "form" if witness == "autodiff" else "entries"

    def found() -> Verdict:
        options, witnesses = CheckOptions(method), ("chain_rule", witness)
        return verify([problem], options, witnesses=witnesses, execution=Execution(4)).verdict

    assert found() is Verdict.PASS
    edit(monkeypatch, Chunks, *CHUNK_FAULTS[fault])
    assert found() is Verdict.FAIL


def wrong_chain_rule(patch: pytest.MonkeyPatch) -> None:
    edit(patch, Elementwise, "curved", "at.sigma.second(z) * g", "1.01 * at.sigma.second(z) * g")


def wrong_autodiff(patch: pytest.MonkeyPatch) -> None:
    right = network.activation_functions

    def wrong(tf: ModuleType) -> dict[str, Callable[..., object]]:
        return {**right(tf), "tanh": lambda z: tf.tanh(1.01 * z)}

    patch.setattr(network, "activation_functions", wrong)


def wrong_finite_differences(patch: pytest.MonkeyPatch) -> None:
    edit(patch, FiniteHessian, "_products", "unknown, 0, values", "unknown, 0, 1.01 * values")


CULPRITS = {
    "chain_rule": (wrong_chain_rule, "autodiff and finite differences agree, so the chain rule"),
    "autodiff": (wrong_autodiff, "finite differences and the chain rule agree, so autodiff is"),
    "finite": (wrong_finite_differences, "autodiff and the chain rule agree, so finite"),
}


@pytest.mark.parametrize("culprit", CULPRITS)
def test_two_witnesses_that_agree_convict_the_third(
    culprit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wrong, sentence = CULPRITS[culprit]
    problem = make_problem((3, 4, 3), "tanh", examples=4)
    make_wrong(monkeypatch)
    found = judged(problem, ("chain_rule", "autodiff", "finite"))
    assert found.verdict is Verdict.FAIL
    assert {row.convicted for row in found.results[:-1]} == {culprit}
    document = document_of(found)
    assert any(sentence in note for table in document.tables for note in table.notes)
