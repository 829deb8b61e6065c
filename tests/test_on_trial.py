"""What a plugin defines does not vouch for itself, whichever command asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hidden_faults import without_biases
from networks import make_problem
from test_fooled import NOISY, Plugin, plugin, tanh_slope
from test_own_layers import GLU, problem_of
from test_plugin import plugin as written

from hesscli.nodes.activations import Derivatives
from hesscli.nodes.plugins import forget, load_plugin
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.comparison import compare
from hesscli.studies.entry import entry
from hesscli.studies.first_derivatives import verify_first
from hesscli.studies.sweep import sweep
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions

__all__ = ["plugin"]
PAIR = ("chain_rule", "autodiff")


def of_commands(problem: Problem, row: str, column: str) -> dict[str, Verdict]:
    """The verdict of each command on a layer's second derivatives."""
    found = {
        f"compare {method} {block}": compare([problem], CheckOptions(method, block=block)).verdict
        for method, block in (("form", "kernel"), ("probes", "network"), ("entries", "layer"))
    }
    chosen = CheckOptions("probes", block="network")
    found["verify"] = verify([problem], chosen, witnesses=PAIR).verdict
    found["sweep"] = sweep([problem]).verdict
    found["entry"] = entry([problem], row, column).verdict
    return found


@pytest.mark.parametrize("second", NOISY)
def test_noise_in_a_second_derivative_excuses_itself_nowhere(second: str, plugin: Plugin) -> None:
    import tensorflow as tf

    plugin(Derivatives(np.tanh, tanh_slope, NOISY[second]), tf.tanh)
    problem = make_problem((6, 5, 5, 3), "tried", examples=8)
    found = of_commands(problem, "dense1/kernel[0,1]", "dense1/kernel[1,1]")
    assert found == dict.fromkeys(found, Verdict.FAIL)
    rows = compare([problem], CheckOptions()).results
    assert [row.gauss_newton_alone for row in rows] == [False, False, True]


def test_a_blank_example_excuses_nothing_anywhere(plugin: Plugin) -> None:
    import tensorflow as tf

    def above(size: float) -> Callable[[Array], Array]:
        return lambda z: (size * (z > 0)).astype(z.dtype)

    plugin(Derivatives(lambda z: np.maximum(z, 0), above(1.3), above(0.5)), tf.nn.relu)
    problem = without_biases(make_problem((3, 4, 3), "tried"), np.array([0, 1, 1, 1]))
    found = of_commands(problem, "dense1/kernel[0,0]", "dense1/kernel[0,0]")
    found["gradient"] = verify_first([problem], "gradient", CheckOptions()).verdict
    found["jacobian"] = verify_first([problem], "jacobian", CheckOptions()).verdict
    assert found == dict.fromkeys(found, Verdict.FAIL)


# s′ and s″ by differences with a step that leaves them four digits, and noise the rest.
NOISE = {
    "slope": (
        "s * (1 - s), s * (1 - s) * (1 - 2 * s)",
        "(up - s) / 1e-12, s * (1 - s) * (1 - 2 * s)",
    ),
    "curve": (
        "s * (1 - s) * (1 - 2 * s)",
        "(up * (1 - up) - s * (1 - s)) / 1e-12",
    ),
}


@pytest.fixture
def noisy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Problem]:
    right, wrong = NOISE[request.param]
    text = GLU.read_text(encoding="utf-8")
    sigmoid = 's = 1 / (1 + np.exp(-(x @ theta["gate_kernel"] + theta["gate_bias"])))'
    shifted = sigmoid.replace("s = ", "up = ").replace('_bias"]', '_bias"] + 1e-12')
    text = text.replace(sigmoid, f"{sigmoid}\n    {shifted}")
    names = load_plugin(written(tmp_path, text.replace(right, wrong)))
    names += load_plugin(str(GLU.with_name("rms.py")))
    yield problem_of(tmp_path)
    forget(names)


@pytest.mark.parametrize(("noisy", "kind"), [(kind, kind) for kind in NOISE], indirect=["noisy"])
def test_noise_in_an_own_layer_excuses_itself_nowhere(noisy: Problem, kind: str) -> None:
    found = of_commands(noisy, "glu_2/gate_kernel[0,0]", "glu_2/gate_kernel[0,0]")
    gradient = verify_first([noisy], "gradient", CheckOptions()).verdict
    assert Verdict.PASS not in found.values()
    assert (gradient is Verdict.PASS) == (kind == "curve")
