"""Configuration: what a file says is what is built, and a bad value is one line that names it."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesscli.config.build import build_problem, redrawn
from hesscli.config.load import load_config, parse_override
from hesscli.config.schema import Config, DataConfig, ModelConfig
from hesscli.config.text import dumped, parsed
from hesscli.problem.graph import Activation
from hesscli.problem.network import Problem
from hesscli.problem.npz import RawArray
from hesscli.problem.problemfile import save_problem
from hesscli.system.errors import InputError
from hesscli.witnesses.chain_rule.engine import ChainRule

BRIEF = "{!r:.50}".format
CONFIGS = Path(__file__).parent.parent / "configs"
PROBLEM = Path(__file__).parent / "reference" / "mnist_mlp_problem.npz"
# Beyond the 4300 digits that Python turns into text.
HUGE = "0x" + "f" * 5000


def loaded(text: str | bytes, folder: Path, *assignments: str) -> Config:
    path = folder / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(str(path), map(parse_override, assignments))


def overridden(assignments: str) -> Config:
    return load_config(None, map(parse_override, assignments.split(" & ")))


def refusal(call: Any, *arguments: Any) -> str:
    """The text of the InputError that ``call`` raises, which must be one line."""
    with pytest.raises(InputError) as raised:
        call(*arguments)
    text = str(raised.value)
    assert text.splitlines() == [text]
    return text


def named(*case: Any, reason: str) -> Any:
    return pytest.param(*case, id=reason)


def test_the_commented_default_file_is_the_default() -> None:
    assert load_config(str(CONFIGS / "mnist_mlp.yaml")) == Config() == load_config(None)


def test_the_notebook_file_is_one_image_in_single_precision_without_biases() -> None:
    config = load_config(str(CONFIGS / "notebook.yaml"))
    model, data = ModelConfig(bias=False), DataConfig(batch_size=1)
    assert config == Config(model, data=data, dtype="float32")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "\ufeffseed: 0"])
def test_a_file_that_says_nothing_new_is_the_default(text: str, tmp_path: Path) -> None:
    assert loaded(text, tmp_path) == Config()


KERNEL, NORMAL = "model.initializer", "{name: random_normal, stddev: 0.1}"
OWN = f"{{units: 30, activation: relu, initializer: {NORMAL}}}"
SECOND_LAYER = "{units: 30, activation: relu}, {units: 10}"
EIGHT = f"{{source: {PROBLEM}, batch_size: 2}}"
# Assignments, and what a file with the same effect says.
OVERRIDES = [
    ("data.offset=10 & data.batch_size=all", "data: {offset: 10, batch_size: all}"),
    ("data={source: a=b, shuffle: True}", "data: {source: a=b, shuffle: true}"),
    ("seed=1 & seed=0x10 & dtype=float32", "{seed: 16, dtype: float32}"),
    ("check.rtol=1e-10", "check: {rtol: 0.0000000001}"),
    ("check.rtol=.5 & check.rtol=+1E+2", "check: {rtol: 100}"),
    ("check.rtol=1 & check.rtol=null & loss.reduction=sum", "loss: {reduction: sum}"),
    ("model.layers=[{units: 3}] & model.layers.0.units=10", "model: {layers: [{units: 10}]}"),
    (f"{KERNEL}=random_normal & {KERNEL}.stddev=1e-1", f"model: {{initializer: {NORMAL}}}"),
    (f"{KERNEL}={NORMAL}", f"model: {{initializer: {NORMAL}}}"),
    (f"model.layers.0.initializer={NORMAL}", f"model: {{layers: [{OWN}, {SECOND_LAYER}]}}"),
    named(f"data={EIGHT}", f"data: {EIGHT}", reason="a batch size inside data={} is overlooked"),
]


@pytest.mark.parametrize(("assignments", "text"), OVERRIDES, ids=BRIEF)
def test_an_override_is_what_its_key_in_a_file_is(
    assignments: str, text: str, tmp_path: Path
) -> None:
    assert overridden(assignments) == loaded(text, tmp_path) != Config()


BAD_OVERRIDES = [
    ("data.offset", "--set 'data.offset': it must be key.path=value"),
    ("=3", "--set '=3': it must be key.path=value"),
    ("data.offset=[", "--set data.offset: '[' is not YAML"),
    ("seed=!!python/object/apply:os.getcwd []", "--set seed: '!!python"),
    ("data.offset=", "--set: data.offset: null; it must be a whole number, 0 or more"),
    ("data.ofset=1", "--set: data.ofset: unknown key; did you mean 'offset'?"),
    ("seed.x=1", "--set: seed: a mapping; it must be a whole number, 0 or more"),
    ("seed=1 & seed.x=1", "--set: seed: it holds a value, not keys"),
    ("model.layers.3.units=1", "--set: model.layers.3: there are 3; it must be a number below"),
    ("model.layers.-1.units=1", "--set: model.layers.-1: there are 3; it must be a number below"),
    ("model.initializer.stddev=1", "--set: model.initializer.stddev: unknown key; "),
    named("9" * 5000 + "=1", "--set", reason="int() of 4300 digits raises ValueError"),
]


@pytest.mark.parametrize(("assignment", "wrong"), BAD_OVERRIDES)
def test_an_override_that_fits_nowhere_is_refused(assignment: str, wrong: str) -> None:
    assert refusal(overridden, assignment).startswith(wrong)


LAYER = "model:\n  layers:\n    - units: 3\n    - "
STDDEV = "model:\n  initializer:\n    name: random_normal\n    stddev: "
COUNTED, MAPPING = "it must be a whole number, ", "it must be a mapping with "
# What messages call these values.
SHOWN = {"null": "null", "true": "true", "[1]": "a list", "[]": "a list", "{a: 1}": "a mapping"}
# The text before a value, its line and key, values that do not fit, and what would be right.
BAD_VALUES = [
    ("seed: ", "1: seed", "-1|1.0|true|null|'x'|[1]|{a: 1}", f"{COUNTED}0 or more"),
    ("data:\n  batch_size: ", "2: data.batch_size", "0|-5|true|'x'", f"{COUNTED}1 or more, or all"),
    ("model:\n  inputs: ", "2: model.inputs", "0|784.0|'x'|null", f"{COUNTED}1 or more"),
    (f"{LAYER}units: ", "4: model.layers.1.units", "0|-3|2.5|true|null", f"{COUNTED}1 or more"),
    ("data:\n  shuffle: ", "2: data.shuffle", "1|'no'|null", "it must be true or false"),
    ("data:\n  source: ", "2: data.source", "5|''|null|[1]", "it must be text"),
    (STDDEV, "4: model.initializer.stddev", "true|null|'x'|[1]", "it must be a number"),
    ("seed: 1\ndata: ", "2: data", "1|null|'x'|[1]", f"{MAPPING}source, split, batch_size"),
    ("loss: ", "1: loss", "'mse'", f"{MAPPING}name, reduction"),
    ("model:\n  layers: ", "2: model.layers", "3|null|[]|{a: 1}", "it must be a list of one layer"),
    (LAYER, "4: model.layers.1", "3|'relu'", f"{MAPPING}name, units, activation"),
    (f"{LAYER}units: 3\n      name: ", "5: model.layers.1.name", "'a/b'|'.a'", "it must be made"),
]


@pytest.mark.parametrize(("before", "key", "values", "right"), BAD_VALUES, ids=BRIEF)
def test_a_value_of_the_wrong_kind_is_answered_with_line_key_value_and_remedy(
    before: str, key: str, values: str, right: str, tmp_path: Path
) -> None:
    for value in values.split("|"):
        wrong = f"{tmp_path / 'c.yaml'}:{key}: {SHOWN.get(value, value)}; {right}"
        assert refusal(loaded, before + value, tmp_path).startswith(wrong)


TENTH = "initializer={name: random_normal, stddev: 0.05}"
INVALID, SECOND = "not valid YAML", ":4: model.layers.1"
BAD_FILES = [
    ("modle: {}", ":1: modle: unknown key; did you mean 'model'?"),
    ("data:\n  batch_sise: 1", ":2: data.batch_sise: unknown key; did you mean 'batch_size'?"),
    (f"{LAYER}unit: 3", f"{SECOND}.unit: unknown key; did you mean 'units'?"),
    (f"{STDDEV}1\n    men: 0", ":5: model.initializer.men: unknown key; did you mean 'mean'?"),
    (f"{LAYER}name: a", f"{SECOND}.units: missing; it must be given"),
    (f"{LAYER}{{name: dense1, units: 3}}", f"{SECOND}.name: 'dense1' is taken; "),
    (f"{LAYER}{{name: '', units: 3}}", f"{SECOND}.name: ''; it must be"),
    (f"{LAYER}{{units: 3, activation: tahn}}", f"{SECOND}.activation: 'tahn' is unknown; did you "),
    ("model: {initializer: glorot}", ":1: model.initializer: 'glorot' is unknown; did you mean "),
    ("model: {initializer: {stddev: 1}}", ":1: model.initializer.name: null is unknown; choose "),
    ("model: {bias_initializer: orthogonal}", ":1: model.bias_initializer: 'orthogonal' needs a "),
    (f"{LAYER}{{units: 3, initializer: glort}}", f"{SECOND}.initializer: 'glort' is unknown; "),
    (
        f"{LAYER}{{units: 3, initializer: {{name: orthogonal, gian: 2}}}}",
        f"{SECOND}.initializer.gian: unknown key; did you mean 'gain'?",
    ),
    (
        "model:\n  inputs: 1\n  layers:\n    - units: 1\n      kernel: [[1]]\n      "
        "initializer: ones",
        ":6: model.layers.0.initializer: the layer's kernel is given as well; give one of them",
    ),
    (f"{STDDEV}.nan", ":4: model.initializer.stddev: nan; it must be a finite number"),
    (f"{STDDEV}1e400", ":4: model.initializer.stddev: inf; it must be a finite number"),
    ("loss: {name: mse}", ":1: loss.name: 'mse' is unknown; choose sparse_categorical_cross"),
    ("loss: {reduction: avg}", ":1: loss.reduction: 'avg' is unknown; choose mean, sum"),
    ("dtype: float16", ":1: dtype: 'float16' is unknown; did you mean 'float64'?"),
    ("check: {method: entry}", ":1: check.method: 'entry' is unknown; did you mean 'entries'?"),
    ("check: {rtol: -1e-3}", ":1: check.rtol: -0.001; it must be 0 or more, or null"),
    (
        "data:\n  offset: 1\n  offset: 2",
        ":3: data.offset: this key stands here twice; ",
    ),
    ("- 1\n- 2", ":1: not a mapping; it must be one with model, loss, data"),
    ("seed: 1\ndata: [1, 2", f":2: {INVALID}"),
    ("data:\n\tsplit: train", f":2: {INVALID} (while scanning"),
    ("seed: 1\nloss: a: b", f":2: {INVALID} (mapping values are not allowed here)"),
    ("seed: !!python/object/apply:os.getcwd []", f":1: {INVALID} (could not determine a construct"),
    ("seed: *unknown", f":1: {INVALID} (aliases are not read: write it out)"),
    ("seed: 1\n---\nseed: 2", f":2: {INVALID} (expected a single document"),
    ("? [a, b]\n: 1", f":1: {INVALID} (while constructing a mapping found unhashable key)"),
    ("seed: 2026-13-01", f":1: seed: '2026-13-01'; {COUNTED}0 or more"),
    ("data: {shuffle: yes}", ":1: data.shuffle: 'yes'; it must be true or false"),
    ("seed: !!int x", f":1: {INVALID} ('x' is not of the kind that its tag says)"),
    ("seed: !!timestamp 2026-01-01", f":1: {INVALID} (could not determine a constructor"),
    ("seed: 1\a", f": {INVALID} (unacceptable character #x0007"),
    (b"# \xe9", ": not UTF-8 text (byte 2); YAML is needed"),
    (b"#" * 2**21, ": larger than 1 MiB; not a configuration"),
    ("[" * 100_000, f": {INVALID} (nested too deeply)"),
    named("seed: 1\nyes: 1", ":2: ", reason="YAML 1.1 reads the key as True"),
    named('"a\\nb": 1', ":1: ", reason="a line break in a key reaches the message"),
    named(f"seed: -{HUGE}", ":1: seed: ", reason="repr() of a huge integer raises ValueError"),
]


@pytest.mark.parametrize(("text", "wrong"), BAD_FILES, ids=BRIEF)
def test_a_bad_file_is_one_line_that_names_the_place(
    text: str | bytes, wrong: str, tmp_path: Path
) -> None:
    assert refusal(loaded, text, tmp_path).startswith(f"{tmp_path / 'c.yaml'}{wrong}")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert ": not a regular file; a YAML file is needed" in refusal(load_config, str(tmp_path))
    missing = refusal(load_config, f"{tmp_path}/none.yaml")
    assert missing.startswith(f"{tmp_path}/none.yaml: cannot be read (No such file or directory); ")


def bomb(levels: int, link: str) -> str:
    """Anchors of which each takes the one before twelve times."""
    lines = (f"z{i}: &z{i} {link.format(','.join([f'*z{i - 1}'] * 12))}" for i in range(1, levels))
    return "\n".join(("z0: &z0 {a: 1}", *lines))


@pytest.mark.parametrize(
    "text", [bomb(30, "[{}]"), named(bomb(6, "{{<<: [{}]}}"), reason="merged keys are copied")]
)
def test_anchors_of_anchors_are_refused_in_little_memory(text: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        assert f"{tmp_path / 'c.yaml'}:" in refusal(loaded, text, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


CORE = {
    "010": 10,
    "0o17": 15,
    "0x1F": 31,
    "-7": -7,
    "1e-3": 0.001,
    ".5": 0.5,
    "+1E+2": 100.0,
    "-.inf": -math.inf,
    "~": None,
    "TRUE": True,
    "yes": "yes",
    "1_000": "1_000",
    "1:30": "1:30",
    "2026-01-01": "2026-01-01",
    "0b1": "0b1",
    "<<": "<<",
}


@pytest.mark.parametrize("text", CORE)
def test_a_scalar_is_what_the_core_schema_of_yaml_1_2_says(text: str) -> None:
    """Its tables 10.3.2; YAML 1.1 reads most of these as something else."""
    _, value = parsed(text, lambda _: "")
    assert (value, type(value)) == (CORE[text], type(CORE[text]))


@pytest.mark.parametrize("text", [*CORE, "", "null", "false", "1.", "a: b", "#", "é", "- 1"])
def test_text_is_written_so_that_it_is_read_as_text(text: str) -> None:
    assert parsed(dumped({"key": text}), lambda _: "")[1] == {"key": text}


def built(assignments: str) -> Problem:
    return build_problem(overridden(f"model.bias_initializer=random_normal & {assignments}"))


def arrays(problem: Problem) -> dict[str, RawArray]:
    kernels = {f"{layer.name}/kernel": layer.kernel for layer in problem.layers}
    biases = {f"{layer.name}/bias": np.asarray(layer.bias) for layer in problem.layers}
    return {**kernels, **biases, "inputs": problem.inputs, "targets": problem.targets}


def test_the_seed_alone_decides_every_parameter() -> None:
    first, again, other = (arrays(built(f"seed={seed}")) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    unchanged = {name for name in first if np.array_equal(first[name], other[name])}
    assert unchanged == {"inputs", "targets"}


def test_another_layer_leaves_the_parameters_of_the_others_as_they_were() -> None:
    one, two, three = (
        arrays(built(f"model.layers=[{'{units: 30}, ' * hidden}{{units: 30}}]"))
        for hidden in range(3)
    )
    for fewer, more in ((one, two), (two, three)):
        assert all(np.array_equal(fewer[name], more[name]) for name in fewer)
    assert not np.array_equal(three["dense2/kernel"], three["dense3/kernel"])


def test_a_saved_problem_is_built_again_with_equal_arrays_and_forms(tmp_path: Path) -> None:
    path = str(tmp_path / "p.npz")
    saved = built("data.batch_size=3 & data.offset=7 & model.layers.0.activation=tanh")
    save_problem(saved, path)
    again = built(f"model.weights={path} & data.source={path} & model.layers.0.activation=tanh")
    assert all(np.array_equal(array, arrays(again)[name]) for name, array in arrays(saved).items())
    for layer in saved.layers:
        before, after = (
            ChainRule(problem).hessian(f"{layer.name}/kernel").quadratic_form(layer.kernel)
            for problem in (saved, again)
        )
        assert before == pytest.approx(after, rel=1e-12, abs=0)


def test_a_layers_own_initializer_draws_its_kernel_alone_from_the_same_random_numbers() -> None:
    normal = "model.initializer={name: random_normal, stddev: 0.5}"
    whole, own = arrays(built(normal)), arrays(built(f"{normal} & model.layers.1.{TENTH}"))
    changed = {name for name in whole if not np.array_equal(whole[name], own[name])}
    assert changed == {"dense2/kernel"}
    np.testing.assert_allclose(own["dense2/kernel"], whole["dense2/kernel"] / 10, rtol=1e-15)


def test_without_an_initializer_of_its_own_a_layer_is_drawn_as_ever() -> None:
    """Stream 2k of SeedSequence(seed).spawn(2K), Glorot's limit, NumPy's uniform."""
    kernels = [layer.kernel for layer in built("seed=7").layers]
    for k, stream in enumerate(np.random.SeedSequence(7).spawn(6)[::2]):
        inputs, units = kernels[k].shape
        limit = np.sqrt(6 / (inputs + units))
        drawn = np.random.default_rng(stream).uniform(-limit, limit, (inputs, units))
        np.testing.assert_array_equal(kernels[k], drawn)


def test_redrawn_parameters_are_those_of_the_configuration_with_that_seed() -> None:
    config = overridden("model.bias_initializer=random_normal & model.layers.1.initializer=ones")
    problem = build_problem(config)
    again = redrawn(problem, config.model, 3)
    assert again.seed == 3
    there = arrays(build_problem(replace(config, seed=3)))
    assert all(np.array_equal(array, there[name]) for name, array in arrays(again).items())
    activation = Activation("gelu")
    other = redrawn(problem.with_activation(activation), config.model, 3)
    assert other.layers[0].activation == activation


STORED: dict[str, Any] = {
    "inputs": np.ones((4, 2)),
    "targets": np.arange(4) % 3,
    "dense1/kernel": np.full((2, 3), 1e39),
    "dense1/bias": np.zeros(3),
}
ITS, SINGLE = "model.weights={}", "dtype=float32 & model.initializer="
# What is asked of the file above, which of its arrays are left out, and the answer.
UNFIT = [
    ("model.inputs=3", "", "model.inputs: 3; {} has examples of 2 values, so it must be 2"),
    (
        "model.layers.0.units=2",
        "",
        "data.source: {}: for dense1 and loss sparse_categorical_crossentropy: ",
    ),
    ("data.batch_size=5", "", "data.batch_size: 5 is out of range; {} holds 4 examples"),
    (f"{ITS} & model.layers.0.units=4", "", "model.weights: {}: dense1/kernel has shape (2, 3); "),
    (f"{ITS} & model.layers.0.name=a", "", "model.weights: {}: no a/kernel in it (it holds dense1"),
    (ITS, "dense1/bias", "model.weights: {}: no dense1/bias in it (it holds dense1/kernel); "),
    (f"{ITS} & model.bias=false", "", "model.weights: {}: dense1/bias would not be used; "),
    (f"{ITS} & dtype=float32", "", "model.weights: {}: dense1/kernel in float32[0, 0] is inf; "),
    ("model.weights=none", "", "model.weights: none: cannot be read (No such file"),
    (f"{SINGLE}{{name: random_normal, stddev: 1e39}}", "", "model.initializer: dense1/kernel in "),
    (
        "dtype=float32 & model.layers.0.initializer={name: random_normal, stddev: 1e39}",
        "",
        "model.layers.0.initializer: dense1/kernel in float32",
    ),
    ("model.layers.0.units=1000000000000", "", "model.layers: the parameters need 24.0 TB and "),
    named(f"model.layers.0.units={10**400}", "", "", reason="float() overflows"),
    named("model.initializer={name: random_uniform, minval: 1}", "", "", reason="minval > maxval"),
]


@pytest.mark.parametrize(("asked", "without", "wrong"), UNFIT, ids=BRIEF)
def test_what_does_not_fit_the_data_is_refused_by_key(
    asked: str, without: str, wrong: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "p.npz")
    np.savez(path, **{name: array for name, array in STORED.items() if name != without})
    small = f"data.source={path} & model.inputs=2 & model.layers=[{{units: 3}}]"
    text = refusal(built, f"{small} & {asked.replace('{}', path)}")
    assert text.startswith(wrong.replace("{}", path))


def test_a_problem_file_is_used_whole_unless_a_batch_size_is_given(tmp_path: Path) -> None:
    for more, assignment, examples in (
        ("", "seed=0", 8),
        (", offset: 1", "seed=0", 7),
        (", batch_size: 2", "seed=0", 2),
        (", batch_size: all", "data.batch_size=3", 3),
    ):
        config = loaded(f"data: {{source: {PROBLEM}{more}}}", tmp_path, assignment)
        assert build_problem(config).examples == examples
