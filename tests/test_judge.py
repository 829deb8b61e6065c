"""The one rule by which numbers pass, and that a FAIL says of which number it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from networks import make_problem

from hesscli.nodes import calculus
from hesscli.nodes.activations import Derivatives, derivatives
from hesscli.problem.graph import Activation, Array, chain
from hesscli.problem.network import Problem
from hesscli.studies.entry import entry
from hesscli.studies.first_derivatives import verify_first
from hesscli.studies.judge import Check, Residual, Seen, Tally, excess, merged, of_layers
from hesscli.studies.sweep import sweep
from hesscli.studies.verdict import Verdict, joint
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.layout import layout_of
from hesscli.witnesses.rounding.floor import RoundingFloor


@pytest.mark.parametrize(
    ("residual", "scale", "floor", "bar", "beyond"),
    [
        (3.0, 10.0, 1.0, 0.5, 0.5),
        (2.5, 10.0, 1.0, 0.5, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.0),
        (math.inf, 1e308, 1.7e308, 1.7e308, 0.0),
        (math.inf, 1.0, 0.0, 0.0, math.inf),
        (math.nan, 1.0, 0.0, 0.0, math.inf),
        (math.nan, 1.0, math.inf, 0.0, math.inf),
    ],
)
def test_what_is_beyond_the_allowed(
    residual: float, scale: float, floor: float, bar: float, beyond: float
) -> None:
    assert excess(residual, scale, floor, 0.1, bar) == beyond


def test_the_worst_of_a_tally_is_beyond_by_most_whatever_the_order() -> None:
    """The scale, 10, is in the last piece; by then only 3 with its floor of 1 is beyond."""
    pieces = [
        (np.array([5.0, 3.0]), np.array([9.0, 1.0])),
        (np.array([1.5, 1.2]), np.array([0.0, 0.0])),
    ]

    def of(index: int, largest: float, rtol: float) -> Seen:
        residual, floor = pieces[index]
        return Seen.of(2, largest, residual, floor, rtol, lambda i: (f"{index}", f"{i}"))

    def judged(order: tuple[int, int], rtol: float) -> Check:
        tally = Tally(rtol)
        for index in order:
            tally.add(None, of(index, 10.0 if index == order[-1] else 1.0, rtol))
        return tally.check("entries")

    for order in ((0, 1), (1, 0)):
        check = judged(order, 0.15)
        assert (check.passed, check.compared, check.max_abs_entry) == (False, 4, 10.0)
        assert (check.max_abs_residual, check.floor, check.worst) == (3.0, 1.0, ("0", "1"))
        # With twice the tolerance none fails; what only a floor of most of the scale would excuse
        # is open.
        check = judged(order, 0.3)
        assert (check.verdict, check.max_abs_residual) == (Verdict.UNDECIDED, 5.0)
        assert check.open_by_rounding
        assert check.worst == ("0", "0")


@pytest.mark.parametrize(
    ("residual", "floor", "bar", "verdict"),
    [
        (0.05, 0.0, 0.0, Verdict.PASS),
        (0.05, 9.0, 0.0, Verdict.PASS),
        (0.5, 0.0, 0.0, Verdict.FAIL),
        (0.5, 0.9, 0.0, Verdict.PASS),
        (0.5, 1.1, 0.0, Verdict.UNDECIDED),
        (0.5, 1.1, 0.45, Verdict.PASS),
        (1.5, 1.1, 0.0, Verdict.FAIL),
        (np.nan, 5.0, 0.0, Verdict.FAIL),
    ],
)
def test_a_floor_excuses_only_while_it_is_small(
    residual: float, floor: float, bar: float, verdict: Verdict
) -> None:
    """Of a scale of 10, with a tolerance of 0.1."""
    check = Residual(residual, floor, error_bar=bar).judged("form", 10.0, 0.01)
    assert check.verdict is verdict
    assert check.open_by_rounding == (verdict is Verdict.UNDECIDED)
    numbers = (np.array([number]) for number in (residual, floor))
    seen = Seen.of(1, 10.0, *numbers, 0.01, lambda _: None, np.array([bar]))
    assert seen.check("form", 0.01).verdict is verdict


def test_what_is_open_is_not_outvoted_by_what_passes() -> None:
    one, other = (Residual(0.5, floor).judged("form", 10.0, 0.01) for floor in (0.9, 1.1))
    assert merged([one, other]).verdict is Verdict.UNDECIDED
    assert joint([Verdict.PASS, Verdict.UNDECIDED]) is Verdict.UNDECIDED
    assert joint([Verdict.UNDECIDED, Verdict.FAIL, Verdict.PASS]) is Verdict.FAIL


def test_the_sweep_names_the_entry_whose_residual_it_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S is off by 5 where the floor is 10, and by 2 where it is as always."""
    right, floors = Autodiff.gradient_and_hessian, RoundingFloor.node

    def off(self: Autodiff, *arguments: object) -> tuple[Array, Array]:
        g, S = right(self, *arguments)  # type: ignore[arg-type]
        S = np.array(S)
        S[0, 0, 0] += 5
        S[1, 0, 1] += 2
        return g, S

    def wide(self: RoundingFloor, *arguments: object) -> tuple[Array, Array]:
        of_g, of_S = floors(self, *arguments)  # type: ignore[arg-type]
        of_S = of_S.copy()
        of_S[0, 0, 0] = 10
        return of_g, of_S

    monkeypatch.setattr(Autodiff, "gradient_and_hessian", off)
    monkeypatch.setattr(RoundingFloor, "node", wide)
    for row in sweep([make_problem((3, 4, 2), "tanh")]).results:
        check = row.S_check
        assert not check.passed
        assert check.worst == (f"{row.quantity}[1,0]", f"{row.quantity}[1,1]")
        assert check.max_abs_residual == pytest.approx(2)
        assert check.floor < 1e-10


def test_first_derivatives_name_no_entry_that_rounding_explains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right, floors = Autodiff.gradient, RoundingFloor.gradient

    def changed(of: Callable[..., Array], *numbers: float) -> Callable[..., Array]:
        def gradient(self: object, name: str) -> Array:
            values = np.array(of(self, name))
            values[: len(numbers)] += numbers
            return values

        return gradient

    monkeypatch.setattr(Autodiff, "gradient", changed(right, 5.0, 2.0))
    monkeypatch.setattr(RoundingFloor, "gradient", changed(floors, 10.0))
    for row in verify_first([make_problem((3, 4, 2), "tanh")], "gradient", CheckOptions()).results:
        assert not row.check.passed
        assert row.check.worst == ("L", f"{row.layer}/kernel[0,1]")
        assert row.check.max_abs_residual == pytest.approx(2)
        assert row.check.floor < 1e-10


def test_the_parts_of_a_block_are_its_layers() -> None:
    layout = layout_of(make_problem((3, 4, 2), "tanh"), "network")
    assert of_layers(layout, 0, 26) == [(0, slice(0, 16)), (1, slice(16, 26))]
    assert of_layers(layout, 14, 20) == [(0, slice(0, 2)), (1, slice(2, 6))]
    assert of_layers(layout, 16, 17) == [(1, slice(0, 1))]


@pytest.fixture
def faint() -> Problem:
    """Inputs of 1e-6 and no biases: what is in dense1 is a million times smaller than above."""
    problem = make_problem((3, 4, 2), "softplus")
    layers = tuple(replace(layer, bias=None) for layer in problem.layers)
    return replace(problem, graph=chain(layers), inputs=1e-6 * problem.inputs)


def without_curvature(activation: Activation) -> Derivatives:
    """σ″ = 0 for softplus."""
    sigma = derivatives(activation)
    return replace(sigma, second=np.zeros_like) if activation.name == "softplus" else sigma


@pytest.mark.parametrize("method", ["entries", "probes"])
def test_a_faint_layer_does_not_hide_behind_another(
    method: str, faint: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = CheckOptions(method=method, block="network")
    assert verify([faint], network).passed
    monkeypatch.setattr(calculus, "derivatives", without_curvature)
    (alone,) = verify([faint], replace(network, block="kernel", layers=("dense1",))).results
    (row,) = verify([faint], network).results
    assert not alone.check.passed
    assert not row.check.passed
    # Products with the rows of dense1 have those of the pair in them; entries do not.
    if method == "entries":
        assert row.check.relative_residual == pytest.approx(alone.check.relative_residual)
        assert row.check.max_abs_entry == pytest.approx(alone.check.max_abs_entry)
        assert row.check.worst is not None
        assert all(name.startswith("dense1/kernel") for name in row.check.worst)


@pytest.mark.parametrize("limit", [2000, 10], ids=["entries", "products"])
def test_finite_differences_judge_a_faint_layer_by_itself(
    limit: int, faint: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hesscli.studies import witnesses

    monkeypatch.setattr(witnesses, "ENTRIES_LIMIT", limit)
    options = CheckOptions(block="network")
    (row,) = verify([faint], options, witnesses=("chain_rule", "finite")).results
    assert row.check.passed
    monkeypatch.setattr(calculus, "derivatives", without_curvature)
    (row,) = verify([faint], options, witnesses=("chain_rule", "finite")).results
    assert row.check.failed
    if limit == 2000:
        assert row.check.worst is not None
        assert all(name.startswith("dense1/kernel") for name in row.check.worst)


@pytest.mark.parametrize("of", ["gradient", "jacobian"])
def test_first_derivatives_of_a_faint_layer_do_not_hide(
    of: str, faint: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off by 1e-5 of themselves, they are off by 1e-11 of those above."""

    def slightly_off(activation: Activation) -> Derivatives:
        sigma = derivatives(activation)
        if activation.name != "softplus":
            return sigma
        return replace(sigma, first=lambda z: (1 + 1e-5) * sigma.first(z))

    network = CheckOptions(block="network")
    assert verify_first([faint], of, network).passed  # type: ignore[arg-type]
    monkeypatch.setattr(calculus, "derivatives", slightly_off)
    (row,) = verify_first([faint], of, network).results  # type: ignore[arg-type]
    assert not row.check.passed
    assert row.check.worst is not None
    assert row.check.worst[1].startswith("dense1/")
    assert row.check.relative_residual == pytest.approx(1e-5, rel=0.1)


def test_an_entry_between_layers_is_judged_by_theirs(faint: Problem) -> None:
    """∂²L/∂W₂∂W₁ is about 1e-6 and 1e-10 of the row's largest entry, ∂²L/∂W₂², is all of it."""
    result = entry([faint], "dense2/kernel[0,0]", "dense1/kernel[0,0]")
    assert result.results[0].terms[0].check.max_abs_entry < 1e-5


def test_a_floor_made_by_what_is_on_trial_excuses_nothing() -> None:
    within = Residual(1e-11, 1e-9).judged("form", 1.0, 1e-10)
    assert within.on_trial() is within
    excused = Residual(5e-10, 1e-9).judged("form", 1.0, 1e-10)
    assert (excused.verdict, excused.limited_by_rounding) == (Verdict.PASS, True)
    assert excused.on_trial().verdict is Verdict.UNDECIDED
    assert excused.on_trial().open_by_rounding
