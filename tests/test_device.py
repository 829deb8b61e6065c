"""A device gives the CPU's numbers, and what is multiplied there stays there.

No GPU is needed: array-api-strict's second device refuses, as CuPy does, to become a NumPy array
unless it is asked to. Where there is one, it takes the same tests.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from numpy.testing import assert_allclose

import hesscli
from hesscli.problem.execution import Execution
from hesscli.problem.graph import Penalty
from hesscli.problem.network import Problem
from hesscli.report.documents import document_of
from hesscli.studies import spectrum, verification
from hesscli.studies.restarted import restarted
from hesscli.studies.spectra.subject import SpectrumOptions
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.arrays import from_device, place
from hesscli.system.devices import CPU, Device, open_device
from hesscli.system.errors import InputError
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.chain_rule.ondevice import ChainRuleOn
from hesscli.witnesses.summed.engine import SummedEngine, chain_rule_of

Run = Callable[..., tuple[int, str, str]]

SECOND = strict.Device("device1")
# Sums in another order.
EXACT = {"float64": 1e-12, "float32": 1e-5}


@dataclass
class Moved:
    """How many numbers each array had that went to the device, or came back."""

    put: list[int] = field(default_factory=list)
    fetched: list[int] = field(default_factory=list)

    def counted(self, device: Device) -> Device:
        """``device``, which counts here what crosses."""

        def put(array: Any) -> Any:
            if isinstance(array, np.ndarray):
                self.put.append(array.size)
            return device.put(array)

        def fetch(array: Any) -> Any:
            if not isinstance(array, np.ndarray):
                self.fetched.append(array.size)
            return device.fetch(array)

        return replace(device, put=put, fetch=fetch)

    def forget(self) -> None:
        self.put.clear()
        self.fetched.clear()

    def whole(self, size: int) -> int:
        """How many arrays of ``size`` numbers or more crossed, in either direction."""
        return sum(each >= size for each in (*self.put, *self.fetched))


@pytest.fixture
def moved() -> Moved:
    return Moved()


def second_device() -> Device:
    def put(array: Any) -> Any:
        there = not isinstance(array, np.ndarray)
        return array if there else strict.asarray(array, device=SECOND, copy=True)

    return Device("strict", "a device of array-api-strict", put, from_device)


DEVICES = {"strict": second_device}
with suppress(InputError):
    # Where there is a GPU, all that follows is asked of it as well.
    open_device("gpu")
    DEVICES["gpu"] = partial(open_device, "gpu")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, moved: Moved) -> Device:
    return moved.counted(DEVICES[request.param]())


def problem(dtype: str = "float64", l2: float = 0.0) -> Problem:
    """9-6-5-4 with biases, tanh, and 24 examples."""
    generator = np.random.default_rng(0)
    widths = (9, 6, 5, 4)
    made = hesscli.problem_from_arrays(
        [generator.standard_normal(shape) / 2 for shape in pairwise(widths)],
        [generator.standard_normal(width) / 4 for width in widths[1:]],
        "tanh",
        generator.standard_normal((24, 9)),
        generator.integers(0, 4, 24),
        dtype=dtype,
    )
    return replace(made, penalties={"dense2/kernel": Penalty(l2=l2)}) if l2 else made


def test_the_library_refuses_what_a_gpu_refuses() -> None:
    """Otherwise nothing here could fail."""
    with pytest.raises(RuntimeError):
        np.asarray(strict.ones(3, device=SECOND))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("block", ["dense2/kernel", "dense2", "dense3/bias", "network", "input[3]"])
def test_blocks_are_those_of_the_cpu(block: str, dtype: str, device: Device) -> None:
    p = problem(dtype, l2=0.01)
    there, here = ChainRuleOn(p, device), ChainRule(p)
    v = np.random.default_rng(0).standard_normal((here.hessian(block).shape[0], 3)).astype(dtype)
    for of in ("hessian", "gauss_newton", "curvature"):
        H, expected = getattr(there, of)(block), getattr(here, of)(block)
        scale = float(np.abs(expected @ v).max())
        same = {"rtol": 0, "atol": EXACT[dtype] * max(scale, 1e-12)}
        assert_allclose(H @ v, expected @ v, **same)
        assert_allclose(H.rows(2, 5), expected.rows(2, 5), **same)
        assert_allclose(H.diagonal(), expected.diagonal(), **same)
        assert H.quadratic_form(v[:, 0]) == pytest.approx(
            expected.quadratic_form(v[:, 0]), rel=EXACT[dtype], abs=same["atol"]
        )
    assert_allclose(there.gradient(block), here.gradient(block), rtol=1e-4, atol=1e-7)


def test_a_vector_on_the_device_stays_there(device: Device, moved: Moved) -> None:
    p = problem()
    H, expected = ChainRuleOn(p, device).hessian("network"), ChainRule(p).hessian("network")
    v = np.random.default_rng(0).standard_normal(H.shape[0])
    there = device.put(v)
    for multiply in (H.__matmul__, H.matvec, lambda v: H.matmat(v[:, None])[:, 0]):
        moved.forget()
        product = multiply(there)
        assert place(product) == place(there)
        assert moved == Moved()
        assert_allclose(device.fetch(product), expected @ v, rtol=1e-11, atol=1e-14)
    with pytest.raises(ValueError, match="dimension mismatch"):
        H @ there[:-1]
    for block, wrong in ((H, strict.asarray(v)), (expected, there)):
        with pytest.raises(TypeError, match="network multiplies arrays of"):
            block @ wrong


def test_the_problem_goes_there_once(device: Device, moved: Moved) -> None:
    p = problem()
    H = ChainRuleOn(p, device).hessian("network")
    sent = sum(moved.put)
    tensors = sum(tensor.size for tensor in p.graph.tensors.values())
    # Inputs, labels, and the factors of the sum.
    assert sent <= tensors + p.inputs.size + 3 * p.examples
    v = device.put(np.ones(H.shape[0]))
    moved.forget()
    H.matvec(H.matvec(v))
    assert moved == Moved()


def test_verify_has_the_same_forms_on_the_device(device: Device) -> None:
    p = problem()
    there, here = (
        hesscli.verify(p, block="network", check="entries", device=on) for on in (device, CPU)
    )
    assert there.passed
    assert there.environment.device == device.description
    assert f"on {device.description}" in document_of(there).heading
    forms = [result.results[0].quadratic_form.chain_rule for result in (there, here)]
    assert forms[0] == pytest.approx(forms[1], rel=1e-11)


def test_compare_has_the_same_terms_on_the_device(device: Device) -> None:
    p = problem()
    there, here = (
        hesscli.compare(p, block="layer", check="form", device=on) for on in (device, CPU)
    )
    assert there.passed
    for mine, expected in zip(there.results, here.results, strict=True):
        for term in ("hessian", "gauss_newton", "curvature"):
            known = getattr(expected.chain_rule, term)
            assert getattr(mine.chain_rule, term) == pytest.approx(known, rel=1e-10, abs=1e-15)


def test_a_check_by_probes_and_one_of_the_inputs_pass(device: Device) -> None:
    p = problem()
    assert hesscli.verify(p, device=device, check="probes", block="network", probes=4).passed
    assert hesscli.verify(p, device=device, block="input").passed
    assert hesscli.verify_first(p, device=device, block="layer").passed


def test_a_wrong_formula_fails_there_as_well(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = problem()
    monkeypatch.setattr(
        "hesscli.nodes.passes.Linearized.through_loss",
        lambda self, Rf, chosen=slice(None): 1.01 * self.scales[chosen, None, None] * Rf,
    )
    assert not hesscli.verify(p, device=device, block="network", check="probes").passed


SPECTRA = {
    "exact": SpectrumOptions(block="layer"),
    "top": SpectrumOptions(block="network", top=4, exact_limit=10),
    "ends": SpectrumOptions(block="network", top=4, ends=True, exact_limit=10),
    "whole": SpectrumOptions(block="network", exact_limit=10, steps=20, probes=4),
}


@pytest.mark.parametrize("options", SPECTRA.values(), ids=SPECTRA)
def test_a_spectrum_is_that_of_the_cpu(
    options: SpectrumOptions, device: Device, moved: Moved
) -> None:
    p = problem()
    (here,) = _spectra(p, options, CPU)
    (there,) = _spectra(p, options, device)
    for term in ("hessian", "gauss_newton"):
        mine, expected = getattr(there, term), getattr(here, term)
        for name in ("largest", "spectral_norm", "trace", "frobenius_norm"):
            if getattr(expected, name) is not None:
                value = getattr(mine, name).value
                assert value == pytest.approx(getattr(expected, name).value, rel=1e-6)
        if expected.top is not None:
            norm = float(np.abs(expected.top.values).max())
            assert_allclose(mine.top.values, expected.top.values, rtol=1e-8, atol=1e-12 * norm)
            first = np.abs(mine.top.vectors[:, 0] @ expected.top.vectors[:, 0])
            assert first == pytest.approx(1, rel=1e-8)


def test_the_products_of_a_spectrum_move_no_vector(
    device: Device, moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = problem()
    products: list[int] = []
    of_block = hesscli.HessianBlock.matvec
    monkeypatch.setattr(
        hesscli.HessianBlock,
        "matvec",
        lambda self, v: products.append(v.shape[0]) or of_block(self, v),
    )
    options = replace(SPECTRA["top"], top=2)
    _spectra(p, options, device)
    size = p.parameter_count
    # The inputs; where Lanczos begins for H, G and C; the pairs of H and of G that it finds.
    assert moved.whole(size) == 1 + 3 + 2
    assert products.count(size) > 40


def _spectra(p: Problem, options: SpectrumOptions, device: Device) -> tuple[Any, ...]:
    return spectrum.spectrum([p], options, execution=Execution(device=device)).results[:1]


def test_chunks_add_up_on_the_device(device: Device, moved: Moved) -> None:
    p = problem()
    engine = chain_rule_of(p, Execution(chunk=10, spare=0, device=device))
    assert isinstance(engine, SummedEngine)
    H, expected = engine.hessian("network"), ChainRule(p).hessian("network")
    v = np.random.default_rng(0).standard_normal((H.shape[0], 2))
    assert_allclose(H @ v, expected @ v, rtol=1e-10, atol=1e-14)
    assert_allclose(H.rows(0, 3), expected.rows(0, 3), rtol=1e-10, atol=1e-14)
    there = device.put(v)
    moved.forget()
    product = H.matmat(there)
    assert place(product) == place(there)
    # The parameters go there with each chunk, the vectors stay.
    assert moved.fetched == []
    assert_allclose(device.fetch(product), expected @ v, rtol=1e-10, atol=1e-14)


def test_stored_examples_are_verified_in_chunks(device: Device) -> None:
    p = problem()
    execution = Execution(chunk=10, device=device)
    for options in (CheckOptions("probes", block="network"), CheckOptions("entries")):
        assert verification.verify([p], options, execution=execution).passed


@pytest.mark.parametrize("block", ["layer", "network"])
def test_approximations_have_the_same_distances(block: str, device: Device) -> None:
    p = problem()
    there, here = (hesscli.approximate(p, block=block, device=on, rank=2) for on in (device, CPU))
    for mine, expected in zip(there.results, here.results, strict=True):
        for term in ("hessian", "gauss_newton"):
            found, known = (getattr(each, term).distance for each in (mine, expected))
            assert found == pytest.approx(known, rel=1e-8)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_takes_the_same_steps(momentum: float, device: Device) -> None:
    p = problem()
    asked = {"steps": 6, "batch_size": 5, "every": 3, "momentum": momentum, "measure_examples": 8}
    there, here = (hesscli.train(p, device=on, **asked) for on in (device, CPU))
    for mine, expected in zip(there.measurements, here.measurements, strict=True):
        assert mine.loss == pytest.approx(expected.loss, rel=1e-10)
        assert mine.sharpness == pytest.approx(expected.sharpness, rel=1e-6)
    assert there.final[0].loss == pytest.approx(here.final[0].loss, rel=1e-10)


def test_systems_and_products_are_solved_there(device: Device) -> None:
    p = problem()
    for method in ("auto", "minres"):
        there, here = (
            hesscli.solve(p, block="network", method=method, damping=1.0, device=on)
            for on in (device, CPU)
        )
        assert_allclose(there.results[0].solution.x, here.results[0].solution.x, atol=1e-8)
    assert hesscli.product(p, device=device).passed
    assert hesscli.entry(p, "dense2/kernel[1,2]", device=device).passed


RANK_3 = np.diag([3.0, -2.0, 1e-3, *[0.0] * 37])


@pytest.mark.parametrize("which", ["LM", "LA", "SA"])
@pytest.mark.parametrize("kind", ["full", "rank 3"])
def test_lanczos_finds_what_arpack_finds(which: str, kind: str, device: Device) -> None:
    generator = np.random.default_rng(0)
    A = generator.standard_normal((40, 40))
    A = A + A.T if kind == "full" else RANK_3
    there, start = device.put(A), generator.standard_normal(40)
    found = restarted(
        lambda v: there @ v,
        device.put(start),
        device,
        count=3,
        which=which,
        rtol=1e-10,
        vectors=10,
        restarts=200,
    )
    assert found.converged == 3
    theta = np.linalg.eigvalsh(A)
    by = {"LM": -np.abs(theta), "LA": -theta, "SA": theta}[which]
    assert_allclose(found.values, theta[np.argsort(by, kind="stable")[:3]], atol=1e-10)
    V = device.fetch(found.vectors)
    assert_allclose(A @ V, V * found.values, atol=1e-8)
    assert_allclose(V.T @ V, np.eye(3), atol=1e-12)


def test_arrays_of_another_library_make_a_problem() -> None:
    p = problem()
    kernels, biases = ([getattr(layer, of) for layer in p.layers] for of in ("kernel", "bias"))
    there = [[strict.asarray(np.array(x), device=SECOND) for x in of] for of in (kernels, biases)]
    found = hesscli.problem_from_arrays(
        *there,
        "tanh",
        strict.asarray(np.array(p.inputs), device=SECOND),
        strict.asarray(np.array(p.targets), device=SECOND),
    )
    assert found.examples == p.examples
    for name, tensor in found.graph.tensors.items():
        assert np.array_equal(tensor, p.graph.tensors[name])
    # One from each library is as good.
    hesscli.problem_from_arrays(there[0], biases, "tanh", p.inputs, p.targets)


def test_without_cupy_there_is_a_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InputError, match=r"--device gpu: CuPy.*hesscli\[cuda12\]"):
        open_device("gpu")
    with pytest.raises(InputError, match=r"--tf32.*--device gpu"):
        open_device("cpu", tf32=True)
    with pytest.raises(InputError, match=r"'tpu'.*cpu or gpu"):
        hesscli.verify(problem(), device="tpu")


class Runtime:
    """What is used of ``cupy.cuda.runtime``: the numbers are CUDA's own way to write versions."""

    class CUDARuntimeError(RuntimeError):
        pass

    def __init__(self, count: int | None) -> None:
        self.count = count

    def getDeviceCount(self) -> int:
        if self.count is None:
            raise self.CUDARuntimeError("cudaErrorInsufficientDriver: too old")
        return self.count

    def getDeviceProperties(self, device: int) -> dict[str, Any]:
        return {"name": b"NVIDIA H100 80GB HBM3"}

    def runtimeGetVersion(self) -> int:
        return 12090

    def driverGetVersion(self) -> int:
        return 13000


def cupy_with(count: int | None) -> ModuleType:
    """A module in CuPy's place with so many GPUs; None, with a driver that is too old."""
    made: Any = ModuleType("cupy")
    made.__version__ = "14.0.1"
    stream = SimpleNamespace(synchronize=lambda: None)
    made.cuda = SimpleNamespace(
        runtime=Runtime(count),
        Device=lambda: SimpleNamespace(id=0),
        Stream=lambda non_blocking: nullcontext(stream),
        get_current_stream=lambda: stream,
    )
    made.asarray = made.asnumpy = np.asarray
    return made


def test_a_gpu_is_named_with_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_TF32", "1")
    monkeypatch.setitem(sys.modules, "cupy", cupy_with(1))
    named = "NVIDIA H100 80GB HBM3{}, CuPy 14.0.1, CUDA 12.9, driver for CUDA 13.0"
    assert open_device("gpu").description == named.format("")
    # Whatever the environment says: CuPy reads it at its first product.
    assert os.environ["CUPY_TF32"] == "0"
    assert open_device("gpu", tf32=True).description == named.format(" with TF32")
    assert os.environ["CUPY_TF32"] == "1"


@pytest.mark.parametrize("count", [0, None])
def test_without_a_gpu_there_is_a_line_that_says_so(
    count: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy_with(count))
    with pytest.raises(InputError, match=r"--device gpu: CUDA finds no GPU.*--device cpu"):
        open_device("gpu")


def test_a_command_computes_stored_examples_on_the_device(
    device: Device, moved: Moved, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    opened = []

    def opening(name: str, tf32: bool) -> Device:
        opened.append((name, tf32))
        return CPU if name == "cpu" else device

    monkeypatch.setattr("hesscli.cli.options.open_device", opening)
    small = ("spectrum", "--block", "bias", "--set", "model.layers=[{units: 10}]", "-n", "600")
    numbers = [
        json.loads(run(*small, "--memory", memory, *more, "--format", "json")[1])
        for memory, more in (("100MB", ()), ("2MB", ("--device", "gpu", "--tf32")))
    ]
    assert set(opened) == {("cpu", False), ("gpu", True)}
    assert [each["environment"]["device"] for each in numbers] == ["cpu", device.description]
    assert numbers[1]["problem"]["chunk"] < 600
    found = [each["results"][0]["hessian"]["largest"]["value"] for each in numbers]
    assert found[0] == pytest.approx(found[1], rel=1e-10)
    assert max(moved.put) < 600 * 784
