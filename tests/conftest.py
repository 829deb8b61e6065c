"""Problems that several test files look at."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import drawn  # noqa: F401  (for all tests that draw)
import pytest
import scipy.linalg  # noqa: F401  (with a BLAS of its own, which is limited below)
from networks import make_problem
from threadpoolctl import threadpool_limits

from hesscli.cli.main import _run
from hesscli.problem.graph import Activation, Layer, chain
from hesscli.problem.network import Problem
from hesscli.problem.problemfile import read_batch, read_parameters
from hesscli.witnesses.autodiff.blocks import AutodiffHessian

# TensorFlow makes a million objects that stay: to look through them again and again for garbage
# takes three of a hundred seconds.
gc.set_threshold(20_000, 20, 20)
REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """On small matrices BLAS's threads do nothing but wait, and take a tenth of the time for it.

    hesscli's own threads, which share out rows, are as many as ever.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process; gives exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = _run(arguments)
        return (code, *capfd.readouterr())

    return call


@pytest.fixture
def rows_are_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autodiff's rows are those of functions that are traced for large blocks, not products."""
    traced = property(lambda block: block._at_once)
    monkeypatch.setattr(AutodiffHessian, "_are_rows_traced", traced)


@pytest.fixture
def small_problem() -> Problem:
    return make_problem((3, 4, 2), "tanh")


@pytest.fixture(scope="session")
def reference_answers() -> Mapping[str, Any]:
    """Answers of JAX 0.10.2 in float64, by activation and layer."""
    answers: Mapping[str, Any] = json.loads(
        (REFERENCE / "mnist_mlp_reference.json").read_text(encoding="utf-8")
    )["activations"]
    return answers


@pytest.fixture(scope="session")
def reference_problem() -> Problem:
    """784-30-30-10 on eight MNIST images, as JAX was given it; hidden activations are linear."""
    path = str(REFERENCE / "mnist_mlp_problem.npz")
    parameters = read_parameters(path)
    inputs, targets = read_batch(path)
    return Problem(
        graph=chain(
            tuple(
                Layer(
                    name=name,
                    kernel=parameters[f"{name}/kernel"],
                    bias=parameters[f"{name}/bias"],
                    activation=Activation("linear"),
                )
                for name in ("dense1", "dense2", "dense3")
            )
        ),
        inputs=inputs,
        targets=targets,
    )


class NoMatplotlib(MetaPathFinder):
    """What an installation without the plot extra looks like."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoMatplotlib(), *sys.meta_path])


@pytest.fixture(autouse=True)
def _keras_counts_from_one() -> None:
    """Keras numbers the layers of a process; a test must not depend on those before it."""
    keras = sys.modules.get("keras")
    if keras is not None:
        # Collecting garbage as well would take 0.16 s before each of 2,000 tests.
        keras.utils.clear_session(free_memory=False)
