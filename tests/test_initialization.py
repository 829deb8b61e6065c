"""hesscli init: sizes against dense matrices, closed forms and another program's answers.

The dense tests would catch a wrong factor anywhere; the closed forms do not use the sweep's code
at all; the reference does not use this project's.
"""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from networks import make_problem

from hesscli.cli.main import _run
from hesscli.config.build import build_problem
from hesscli.config.load import load_config
from hesscli.config.schema import LayerConfig, ModelConfig
from hesscli.problem import initializers, names
from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.initializers import Initializer
from hesscli.problem.network import Loss, Problem
from hesscli.report.formats import render
from hesscli.report.initialization import initialization_document
from hesscli.studies import initialization as initialization_study
from hesscli.studies.initialization import (
    Initialization,
    Spread,
    block_size,
    initialization,
    schemes_of,
    spread,
    usual_schemes,
)
from hesscli.system.errors import InputError
from hesscli.witnesses.chain_rule.engine import ChainRule


def model_of(problem: Problem) -> ModelConfig:
    """The configuration of a problem's network, with biases drawn as zeros."""
    layers = tuple(LayerConfig(own.name, own.units, own.activation) for own in problem.layers)
    return ModelConfig(problem.widths[0], problem.layers[0].bias is not None, layers=layers)


def measured(problem: Problem, stddevs: tuple[float, ...], seeds: int = 3) -> Initialization:
    return initialization([problem], model_of(problem), schemes_of((), stddevs), range(seeds))


def regression(kernel: Array, loss: str, examples: int = 7) -> Problem:
    """One linear layer without bias on normal inputs."""
    generator = np.random.default_rng(1)
    inputs, units = kernel.shape
    targets: Any = generator.integers(0, units, examples)
    if loss == "mean_squared_error":
        targets = generator.standard_normal((examples, units))
    layer = Layer("dense1", kernel, None, Activation("linear"))
    return Problem(
        chain((layer,)), generator.standard_normal((examples, inputs)), targets, Loss(loss)
    )


@pytest.mark.parametrize("kind", ["kernel", "bias", "layer"])
@pytest.mark.parametrize(
    ("widths", "examples"), [((3, 4, 2), 2), ((3, 4, 2), 9), ((40, 9, 5), 20), ((30, 6, 3), 50)]
)
def test_sizes_are_those_of_the_dense_matrices(
    kind: str, widths: tuple[int, ...], examples: int
) -> None:
    """With fewer examples than inputs and with more; by LAPACK and by Lanczos."""
    engine = ChainRule(make_problem(widths, "tanh", examples=examples))
    for layer in engine.problem.layer_names:
        name = layer if kind == "layer" else f"{layer}/{kind}"
        H, G, C = (
            np.linalg.norm(of(name).to_dense())
            for of in (engine.hessian, engine.gauss_newton, engine.curvature)
        )
        size = block_size(engine, name)
        assert size.frobenius == pytest.approx(H, rel=1e-12)
        dense = engine.hessian(name).to_dense()
        assert size.spectral == pytest.approx(np.linalg.norm(dense, 2), rel=1e-10)
        assert size.gauss_newton_share == pytest.approx(G / (G + C), rel=1e-12)


def test_linear_regression_has_its_closed_form() -> None:
    """H = 2/(N c) XᵀX ⊗ I at any kernel: Keras's loss is the mean over the c outputs."""
    problem = regression(np.ones((5, 3)), "mean_squared_error")
    X = problem.inputs
    squared = 2 / (7 * 3) * X.T @ X
    for row in measured(problem, (1e-3, 1.0, 100.0)).results:
        assert row.spectral is not None
        assert row.frobenius is not None
        assert row.spectral.mean == pytest.approx(np.linalg.norm(squared, 2))
        assert row.frobenius.mean == pytest.approx(np.sqrt(3) * np.linalg.norm(squared))
        assert row.gauss_newton_share == Spread(1.0, 0.0)


def test_softmax_regression_at_zero_weights_has_its_closed_form() -> None:
    """H = XᵀX/N ⊗ (I/c − 11ᵀ/c²), of which the second has the eigenvalue 1/c c − 1 times."""
    problem = regression(np.zeros((5, 3)), "sparse_categorical_crossentropy")
    X, hot = problem.inputs, np.eye(3)[problem.targets]
    squared = X.T @ X / 7
    size = block_size(ChainRule(problem), "dense1/kernel")
    assert size.spectral == pytest.approx(np.linalg.norm(squared, 2) / 3)
    assert size.frobenius == pytest.approx(np.linalg.norm(squared) * np.sqrt(2) / 3)
    assert size.gradient == pytest.approx(np.linalg.norm(X.T @ (1 / 3 - hot) / 7))


def test_frobenius_norms_are_those_of_another_program(
    reference_problem: Problem, reference_answers: Mapping[str, Any]
) -> None:
    compared = 0
    for activation, layers in reference_answers.items():
        engine = ChainRule(reference_problem.with_activation(Activation(activation)))
        for layer, answers in layers.items():
            if "frobenius_norm" in answers:
                size = block_size(engine, f"{layer}/kernel")
                assert size.frobenius == pytest.approx(answers["frobenius_norm"], rel=1e-10)
                compared += 1
    assert compared >= 2


def test_a_batch_too_large_for_exact_norms_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialization_study, "LARGEST_BATCH", 8)
    with pytest.raises(InputError, match=r"^data\.batch_size: 9; "):
        measured(make_problem((3, 4, 2), "tanh", examples=9), (0.1,))


def test_small_deviations_vanish_with_the_power_that_the_chain_rule_says() -> None:
    """ReLU is homogeneous and softmax flat at 0: ‖H_k‖ ~ s^{2(K − 1)}, and s⁴ for K = 3."""
    result = measured(make_problem((6, 8, 7, 3), "relu", examples=20), (1e-6, 1e-5, 1e-4))
    for layer in result.problem.layers:
        sizes = [row.frobenius for row in result.results if row.layer == layer]
        means = [size.mean for size in sizes if size is not None]
        assert means[1] / means[0] == pytest.approx(1e4, rel=1e-3)
        assert means[2] / means[1] == pytest.approx(1e4, rel=1e-3)
        assert 0 < means[0] < 1e-18


@pytest.mark.parametrize("activation", ["linear", "relu", "gelu"])
def test_too_small_a_deviation_vanishes_and_too_large_a_one_explodes(activation: str) -> None:
    """Skorski, Temperoni and Theobald 2021: in between, the norm is of the size of one."""
    problem = make_problem((20, 15, 15, 5), activation, examples=32)
    problem = replace(problem, loss=Loss("mean_squared_error"), targets=np.zeros((32, 5)))
    rows = measured(problem, (1e-5, 0.3, 1e3)).results
    means = {(row.scheme, row.layer): row.frobenius.mean for row in rows if row.frobenius}
    assert means["stddev 1e-05", "dense1"] < 1e-8
    assert 1e-3 < means["stddev 0.3", "dense1"] < 1e3
    assert means["stddev 1000", "dense1"] > 1e6


def test_a_bounded_activation_explodes_and_vanishes_again_once_it_saturates() -> None:
    """tanh′ is 0 in floating point beyond |z| of about 20; only the last layer is left then."""
    rows = measured(make_problem((20, 15, 15, 5), "tanh", examples=32), (1e-5, 1.0, 1e5)).results
    by_layer = [
        [row.frobenius.mean for row in rows if row.layer == layer and row.frobenius]
        for layer in ("dense1", "dense2")
    ]
    for low, middle, high in by_layer:
        assert middle > 1
        assert max(low, high) < 1e-6


@pytest.mark.parametrize("activation", ["relu", "square", "exponential"])
def test_overflow_is_a_word_in_its_rows_and_no_number_in_data(activation: str) -> None:
    result = measured(make_problem((4, 5, 3), activation), (0.1, 1e200))
    document = initialization_document(result, "frobenius")
    table, data = render(document, "table"), render(document, "json")
    lines = [line for line in table.splitlines() if "overflow" in line and "dense" in line]
    assert len(lines) == 2
    assert "3 of 3 (stddev 1e+200)" in table
    for text in (table, data, render(document, "csv"), render(document, "markdown")):
        assert not {"nan", "inf"} & set(text.lower().replace("|", " ").replace(",", " ").split())
    first, *_, last = json.loads(data)["results"]
    assert (first["range"], first["overflowed_seeds"]) == ("finite", 0)
    assert (last["range"], last["overflowed_seeds"]) == ("overflow", 3)
    assert last["frobenius_norm"] == {"mean": None, "stddev": None}


def test_a_weight_that_the_dtype_cannot_hold_is_an_overflow_too() -> None:
    result = measured(make_problem((4, 3), "linear", dtype="float32"), (1e39,))
    assert result.results[0].overflowed == 3


def test_a_spread_is_mean_and_sample_deviation() -> None:
    values = [3.0, 5.0, 10.0]
    found = spread(values)
    assert found is not None
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.stddev == pytest.approx(statistics.stdev(values))
    assert spread([2.0]) == Spread(2.0, None)
    assert spread([]) is None
    assert spread([1.0, float("inf")]) is None
    large = spread([1e308, 1e308])
    assert large is not None
    assert large.mean == pytest.approx(1e308)


def test_the_first_seed_draws_what_the_configuration_does_and_each_seed_anew() -> None:
    config = load_config(None)
    problem = build_problem(config)
    own = block_size(ChainRule(problem), "dense2/kernel")
    schemes = schemes_of(("configured", "glorot_uniform"), ())
    result = initialization([problem], config.model, schemes, (0, 1))
    alone = initialization([problem], config.model, schemes[:1], (0,))
    row = next(row for row in alone.results if row.layer == "dense2")
    assert (row.spectral, row.frobenius) == (
        Spread(own.spectral, None),
        Spread(own.frobenius, None),
    )
    configured, named = result.results[1], result.results[4]
    assert configured.frobenius == named.frobenius
    assert configured.frobenius is not None
    assert configured.frobenius.stddev


def test_the_usual_schemes_are_every_initializer_and_what_the_model_has_else() -> None:
    assert names.INITIALIZERS == initializers.NAMES
    labels = [scheme.label for scheme in usual_schemes(ModelConfig(), (0.01,))]
    assert labels == [*initializers.NAMES, "stddev 0.01"]
    own = ModelConfig(initializer=Initializer("orthogonal", (("gain", 2.0),)))
    assert usual_schemes(own, ())[-1].label == "configured"
    layer = ModelConfig(layers=(LayerConfig("a", 3, initializer=Initializer("ones")),))
    assert usual_schemes(layer, ())[-1].label == "configured"


@pytest.mark.parametrize("norm", ["spectral", "frobenius"])
@pytest.mark.parametrize("stddevs", [(0.01, 0.1, 1e200), ()])
def test_the_drawing_has_a_line_with_error_bars_for_each_layer(
    stddevs: tuple[float, ...], norm: str
) -> None:
    problem = make_problem((4, 5, 3), "relu")
    schemes = schemes_of(("he_normal", "zeros"), stddevs)
    result = initialization([problem], model_of(problem), schemes, range(3))
    (drawing,) = initialization_document(result, norm).drawings
    assert drawing.title == "relu: Hessian of each kernel at initialization, 3 seeds"
    figure = Figure(layout="constrained")
    drawing.draw(figure)
    figure.savefig(io.BytesIO(), format="svg")
    (axes,) = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(labels) == ["dense1", "dense2", *(["overflow"] if stddevs else [])]
    drawn = [bars.lines[0] for bars in axes.containers]
    lines = [line for line in drawn if line.get_linestyle() != "None"]
    assert len({line.get_linestyle() for line in lines}) == (2 if stddevs else 0)
    assert len({line.get_marker() for line in drawn}) == 2
    assert len(drawn) == len(lines) + 2
    for line, layer in zip(lines, ("dense1", "dense2"), strict=bool(stddevs)):
        rows = [row for row in result.results if row.layer == layer and row.stddev]
        sizes = [row.spectral if norm == "spectral" else row.frobenius for row in rows]
        expected = [(row.stddev, size.mean) for row, size in zip(rows, sizes, strict=True) if size]
        assert [tuple(point) for point in line.get_xydata()] == expected


WRONG = [
    ("--stddev 1,x", "'x' is not a standard deviation"),
    ("--stddev 0", "'0' is not a standard deviation"),
    ("--stddev nan", "'nan' is not a standard deviation"),
    ("--initializer glorot", "'glorot' is not one of"),
    ("--seeds 0", "0 is not in the range"),
    ("--target 2", "--target belongs to --tune"),
    ("--write x.yaml", "--write belongs to --tune"),
    ("--tune --stddev 1", "--tune takes the initializers of the configuration"),
    ("--plot x.txt", "names no image"),
    ("--tune --target 0", "it must be a number above 0"),
    ("--tune --set model.initializer=zeros", "model.initializer: 'zeros' has no scale; choose"),
    ("--tune --write x.yaml -a relu -a tanh", "a configuration contains one"),
    ("--tune --write none/x.yaml", "none/x.yaml: cannot be written"),
    ("--set model.weights=w.npz", "model.weights: w.npz; init draws the kernels itself"),
    ("--set model.bias=false --block bias", "--block bias: the network has none"),
]


@pytest.mark.parametrize(("line", "wrong"), WRONG)
def test_wrong_usage_is_one_line(
    line: str, wrong: str, capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(("init", *line.split())) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert wrong in err
    assert not list(tmp_path.iterdir())


def test_every_format_shows_each_scheme_and_layer_in_80_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ("init", "-n", "4", "--seeds", "2", "-a", "tanh", "-a", "relu")
    assert _run(asked) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80
    assert _run((*asked, "-f", "json")) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["schema"], data["seeds"]) == ("hesscli/init/1", [0, 1])
    rows = data["results"]
    assert len(rows) == 2 * 15 * 3
    assert all(row["scheme"] in table for row in rows)
    assert len({tuple(row) for row in rows}) == 1
