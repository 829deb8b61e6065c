"""Parameters and batches that stand in the configuration itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hesscli.cli.main import main
from hesscli.config.build import build_problem
from hesscli.config.load import Override, load_config, parse_override, to_yaml
from hesscli.config.schema import Config, DataConfig, LayerConfig, ModelConfig
from hesscli.nodes.losses import loss_derivatives
from hesscli.problem.data import load_dataset
from hesscli.problem.names import LOSSES, LOSSES_WITHOUT_TARGETS
from hesscli.problem.network import Loss
from hesscli.system.errors import InputError

SQUARE_NET = str(Path(__file__).parent.parent / "configs" / "square_net.yaml")
# Lines 3 and 4 hold the layers, line 6 and 7 the batch.
WHOLE = """\
model:
  inputs: 2
  layers: [{units: 3, activation: tanh, kernel: [[1, 2, 3], [4, 5, 6.5]], bias: [0.1, 0.2, 0.3]},
           {units: 2, kernel: [[1, 0], [0, 1], [1, 1]]}]
data:
  inputs: [[1, 2], [3, 4], [0.5, -1e-3]]
  targets: [0, 1, 1]
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_given_numbers_are_the_problem_s(tmp_path: Path) -> None:
    problem = build_problem(load_config(written(tmp_path, WHOLE)))
    first, second = problem.layers
    assert np.array_equal(first.kernel, [[1, 2, 3], [4, 5, 6.5]])
    assert first.bias is not None and np.array_equal(first.bias, [0.1, 0.2, 0.3])
    assert np.array_equal(second.kernel, [[1, 0], [0, 1], [1, 1]])
    # What is not given is drawn, here zeros.
    assert second.bias is not None and not second.bias.any()
    # Whole numbers are no pixels: they are not divided by 255.
    assert np.array_equal(problem.inputs, [[1, 2], [3, 4], [0.5, -1e-3]])
    assert problem.targets.tolist() == [0, 1, 1]
    assert problem.dtype == np.float64


def test_a_given_kernel_leaves_the_other_layers_as_they_are_drawn(tmp_path: Path) -> None:
    drawn = build_problem(load_config(written(tmp_path, "data: {batch_size: 1}\n")))
    layers = list(Config().model.layers)
    layers[1] = replace(layers[1], kernel=tuple((float(n),) * 30 for n in range(30)))
    config = Config(model=ModelConfig(layers=tuple(layers)))
    mixed = build_problem(config)
    assert np.array_equal(mixed.layers[0].kernel, drawn.layers[0].kernel)
    assert np.array_equal(mixed.layers[2].kernel, drawn.layers[2].kernel)
    assert mixed.layers[1].kernel[7, 3] == 7


def test_the_batch_is_all_of_the_inputs_unless_a_size_is_given(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    assert build_problem(load_config(path)).examples == 3
    taken = build_problem(
        load_config(path, [parse_override("data.batch_size=1"), parse_override("data.offset=2")])
    )
    assert taken.inputs.tolist() == [[0.5, -1e-3]]
    data = "{inputs: [[1, 2], [3, 4]], targets: [0, 1], batch_size: 1}"
    assert build_problem(load_config(path, [parse_override(f"data={data}")])).examples == 1


@pytest.mark.parametrize(
    ("loss", "targets", "expected"),
    [
        ("sparse_categorical_crossentropy", "[0, 1, 1]", [0, 1, 1]),
        ("categorical_crossentropy", "[[1, 0], [0.5, 0.5], [0, 1]]", [[1, 0], [0.5, 0.5], [0, 1]]),
        ("mean_squared_error", "[[1, -2], [3, 4], [5, 6.5]]", [[1, -2], [3, 4], [5, 6.5]]),
        ("mean_squared_error", "[1, 0, 1]", [[0, 1], [1, 0], [0, 1]]),
        ("sum_of_squares", "null", None),
    ],
)
def test_targets_are_labels_or_rows(
    tmp_path: Path, loss: str, targets: str, expected: list[object] | None
) -> None:
    text = WHOLE.replace("[0, 1, 1]", targets) + f"loss: {{name: {loss}}}\n"
    problem = build_problem(load_config(written(tmp_path, text)))
    if expected is not None:
        assert problem.targets.tolist() == expected


def test_numbers_are_targets_of_a_single_unit(tmp_path: Path) -> None:
    text = (
        "model: {inputs: 1, layers: [{units: 1}]}\nloss: {name: mean_squared_error}\n"
        "data: {inputs: [[1], [2]], targets: [0.5, 2]}\n"
    )
    assert build_problem(load_config(written(tmp_path, text))).targets.tolist() == [[0.5], [2]]


def test_the_losses_without_targets_look_at_none() -> None:
    f = np.array([[0.3, 2.0]])
    for name in LOSSES:
        of = loss_derivatives(Loss(name))
        integer = name == "sparse_categorical_crossentropy"
        both = [np.array([0]), np.array([1])] if integer else [f * 0, f * 0 + 1]
        same = np.array_equal(*(of.gradient(f, targets) for targets in both))
        assert same == (name in LOSSES_WITHOUT_TARGETS), name


@pytest.mark.parametrize("text", [WHOLE, None])
def test_a_configuration_can_be_given_back(tmp_path: Path, text: str | None) -> None:
    config = load_config(SQUARE_NET if text is None else written(tmp_path, text))
    printed = to_yaml(config)
    again = load_config(written(tmp_path, printed))
    assert again == config and hash(again) == hash(config)
    assert to_yaml(again) == printed
    numbers = ((0.1, 1e-300, -5e-324), (1 / 3, 1e22, 2.0**-1074))
    layer = LayerConfig("a", 3, kernel=numbers, bias=(1e-7, 0.0, -1e16))
    odd = Config(
        model=ModelConfig(inputs=2, layers=(layer,)),
        loss=Loss("mean_squared_error"),
        data=DataConfig(inputs=((1e-5, 1e5),), targets=(numbers[0],), batch_size="all"),
    )
    assert load_config(written(tmp_path, to_yaml(odd))) == odd


def test_hesscli_config_prints_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["config", "--config", written(tmp_path, WHOLE)])
    printed = capsys.readouterr().out
    assert "    - [4.0, 5.0, 6.5]\n" in printed
    assert "  targets: [0, 1, 1]\n" in printed
    assert "source" not in printed and "split" not in printed
    assert "kernel" not in to_yaml(Config()) and "inputs: null" not in to_yaml(Config())


def test_a_later_origin_of_the_batch_takes_the_place_of_the_earlier(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    config = load_config(path, [Override(("data", "source"), "embedded", "--set")])
    assert (config.data.inputs, config.data.targets) == (None, None)
    assert load_dataset(config.data.source, config.data.split).examples == 5000
    path = written(tmp_path, "data: {source: keras, split: test}\n")
    texts = ("model.inputs=2", "data.inputs=[[1, 2]]", "data.targets=[3]")
    overrides = [parse_override(text) for text in texts]
    # In any order: what must fit together is looked at when all is there.
    for ordered in (overrides, overrides[::-1]):
        assert build_problem(load_config(path, ordered)).inputs.tolist() == [[1, 2]]


REFUSALS = {
    "row too short": (
        ("[4, 5, 6.5]", "[4, 5]"),
        "c.yaml:3: model.layers.0.kernel.1: 2 numbers; the first row has 3",
    ),
    "kernel of another shape": (
        ("[[1, 0], [0, 1], [1, 1]]", "[[1, 0], [0, 1]]"),
        "c.yaml:4: model.layers.1.kernel: of shape (2, 2); it must be (inputs, units), here (3, 2)",
    ),
    "kernel of text": (
        ("6.5", "six"),
        "c.yaml:3: model.layers.0.kernel.1.2: 'six'; it must be a number",
    ),
    "kernel not finite": (
        ("6.5", ".nan"),
        "c.yaml:3: model.layers.0.kernel.1.2: nan; it must be a finite number",
    ),
    "kernel of truth values": (
        ("6.5", "true"),
        "c.yaml:3: model.layers.0.kernel.1.2: true; it must be a number",
    ),
    "kernel not nested": (
        ("[[1, 0], [0, 1], [1, 1]]", "[1, 0]"),
        "c.yaml:4: model.layers.1.kernel.0: 1; it must be a list of one number or more",
    ),
    "kernel empty": (
        ("[[1, 0], [0, 1], [1, 1]]", "[]"),
        "c.yaml:4: model.layers.1.kernel: a list; it must be a list of one row or more, each a "
        "list of numbers, or null",
    ),
    "kernel deeper": (
        ("[[1, 0], [0, 1], [1, 1]]", "[[[1]]]"),
        "c.yaml:4: model.layers.1.kernel.0.0: a list; it must be a number",
    ),
    "bias too short": (
        ("[0.1, 0.2, 0.3]", "[0.1]"),
        "c.yaml:3: model.layers.0.bias: 1 numbers; 3 units need as many",
    ),
    "bias without biases": (
        ("inputs: 2\n", "inputs: 2\n  bias: false\n"),
        "c.yaml:4: model.layers.0.bias: given, but model.bias is false; leave it out, or make that "
        "true",
    ),
    "kernel and weights": (
        ("inputs: 2\n", "inputs: 2\n  weights: w.npz\n"),
        "c.yaml:4: model.layers.0.kernel: model.weights is given as well; give one of them",
    ),
    "inputs and source": (
        ("data:\n", "data:\n  source: keras\n"),
        "c.yaml:6: data.source: 'keras'; data.inputs is given as well, give one of them",
    ),
    "inputs and split": (
        ("data:\n", "data:\n  split: test\n"),
        "c.yaml:6: data.split: 'test'; data.inputs is given as well, give one of them",
    ),
    "inputs of another width": (
        ("[[1, 2], [3, 4], [0.5, -1e-3]]", "[[1, 2, 3], [3, 4, 5], [1, 2, 3]]"),
        "c.yaml:6: data.inputs: rows of 3 numbers; model.inputs is 2, and both must be the same",
    ),
    "inputs ragged": (
        ("[3, 4]", "[3, 4, 5]"),
        "c.yaml:6: data.inputs.1: 3 numbers; the first row has 2",
    ),
    "inputs infinite": (
        ("[3, 4]", "[3, .inf]"),
        "c.yaml:6: data.inputs.1.1: inf; it must be a finite number",
    ),
    "targets too few": (
        ("[0, 1, 1]", "[0, 1]"),
        "c.yaml:7: data.targets: 2 targets; data.inputs has 3 rows, and each needs one",
    ),
    "targets missing": (
        ("  targets: [0, 1, 1]\n", ""),
        "c.yaml:5: data.targets: missing; the loss sparse_categorical_crossentropy needs one for "
        "each row of data.inputs",
    ),
    "targets alone": (
        ("  inputs: [[1, 2], [3, 4], [0.5, -1e-3]]\n", ""),
        "c.yaml:6: data.targets: there are no data.inputs that they belong to; give both",
    ),
    "targets of text": (
        ("[0, 1, 1]", "[0, one, 1]"),
        "c.yaml:7: data.targets.1: 'one'; it must be a number",
    ),
    "a label out of range": (
        ("[0, 1, 1]", "[0, 1, 2]"),
        "c.yaml: data.targets: for dense2 and loss sparse_categorical_crossentropy: label 2 at "
        "index 2; 2 classes have the labels 0 to 1",
    ),
    "labels that are no integers": (
        ("[0, 1, 1]", "[0, 1, 1.5]"),
        "c.yaml: data.targets: for dense2 and loss sparse_categorical_crossentropy: labels are of "
        "type float64, not integers; 2 classes have the labels 0 to 1",
    ),
    "a label beyond integers": (
        ("[0, 1, 1]", f"[0, 1, {2**63}]"),
        "c.yaml: data.targets: for dense2 and loss sparse_categorical_crossentropy: labels are of "
        "type float64, not integers; 2 classes have the labels 0 to 1",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_fit_is_refused_with_its_line(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (old, new), message = REFUSALS[case]
    assert WHOLE.count(old) == 1
    written(tmp_path, WHOLE.replace(old, new))
    with pytest.raises(SystemExit) as exit_:
        main(["sweep", "--config", "c.yaml"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"hesscli: {message}\n"


def test_an_override_that_does_not_fit_names_itself(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--set: model\.layers\.1\.kernel: of shape \(1, 1\)"):
        load_config(written(tmp_path, WHOLE), [parse_override("model.layers.1.kernel=[[1]]")])
    # The file's own line, where the file's value is what no longer fits.
    with pytest.raises(InputError, match=r"c\.yaml:4: model\.layers\.1\.kernel: of shape \(3, 2\)"):
        load_config(written(tmp_path, WHOLE), [parse_override("model.layers.1.units=5")])


def test_a_number_beyond_the_dtype_is_refused(tmp_path: Path) -> None:
    text = WHOLE.replace("6.5", "1.0e+39") + "dtype: float32\n"
    with pytest.raises(InputError, match=r"model\.layers\.0\.kernel: .*\[1, 2\] is inf"):
        build_problem(load_config(written(tmp_path, text)))
    text = WHOLE.replace("-1e-3", "1.0e+39") + "dtype: float32\n"
    with pytest.raises(InputError, match=r"\[2, 1\] is inf"):
        build_problem(load_config(written(tmp_path, text)))


def test_a_configuration_made_in_python_is_checked_too() -> None:
    layer = LayerConfig("a", 3, kernel=((1.0,),))
    with pytest.raises(InputError, match=r"^model\.layers\.0\.kernel: of shape \(1, 1\)"):
        build_problem(Config(model=ModelConfig(layers=(layer,))))
