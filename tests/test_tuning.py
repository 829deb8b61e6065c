"""hesscli init --tune: the section that is printed gives the norm that was asked for.

The section is read back as a configuration, drawn from it, and measured on dense matrices.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hesscli.config.build import build_problem
from hesscli.config.load import load_config
from hesscli.problem.initializers import NAMES, SCALABLE, Initializer, scaled
from hesscli.system.errors import InputError
from hesscli.witnesses.chain_rule.engine import ChainRule

Run = Callable[..., tuple[int, str, str]]
# A space within an argument is a no-break space here.
TINY = "{name:\u00a0random_normal,stddev:\u00a01e-5}"
LAYERS = "[{units: 8, activation: relu}, {units: 7, activation: relu}, {units: 4}]"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with small.yaml of a 12-8-7-4 network and one.yaml of 12-4."""
    generator = np.random.default_rng(0)
    batch = {"inputs": generator.random((30, 12)), "targets": generator.integers(0, 4, 30)}
    np.savez(tmp_path / "small.npz", **batch)
    for name, layers in (("small", LAYERS), ("one", "[{units: 4}]")):
        text = f"model: {{inputs: 12, layers: {layers}}}\ndata: {{source: small.npz}}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dense_norms(path: str, norm: str, seeds: range, block: str = "kernel") -> dict[str, float]:
    """Mean norm of each layer's dense Hessian, drawn from the configuration in a file."""
    config = load_config(path)
    order = 2 if norm == "spectral" else "fro"
    means: dict[str, list[float]] = {}
    for seed in seeds:
        engine = ChainRule(build_problem(replace(config, seed=seed)))
        for layer in engine.problem.layer_names:
            dense = engine.hessian(layer if block == "layer" else f"{layer}/{block}").to_dense()
            means.setdefault(layer, []).append(float(np.linalg.norm(dense, order)))
    return {layer: float(np.mean(values)) for layer, values in means.items()}


def pasted(section: str) -> str:
    """The name of a file with small.yaml's configuration and this section in its place."""
    text = section + "  inputs: 12\ndata: {source: small.npz}\n"
    Path("pasted.yaml").write_text(text)
    return "pasted.yaml"


@pytest.mark.parametrize(
    ("asked", "norm", "target"),
    [
        ("-a relu --norm spectral", "spectral", 1.0),
        ("-a relu --target 0.3", "frobenius", 0.3),
        ("-a tanh --target 0.5 --set model.initializer=orthogonal", "frobenius", 0.5),
        (
            f"-a gelu --target 0.5 --set model.initializer={TINY}",
            "frobenius",
            0.5,
        ),
        ("-a relu --target 0.5 --seed 7 --block layer", "frobenius", 0.5),
    ],
)
def test_the_pasted_section_gives_the_target(
    run: Run, asked: str, norm: str, target: float
) -> None:
    arguments = [part.replace("\u00a0", " ") for part in asked.split(" ")]
    code, out, err = run("init", "-c", "small.yaml", "--tune", "--seeds", "3", *arguments)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    indented = out.partition("configuration:\n")[2]
    section = "".join(line[5:] + "\n" for line in indented.splitlines())
    assert section.startswith("model:\n")
    first = 7 if "--seed 7" in asked else 0
    block = "layer" if "--block" in asked else "kernel"
    found = dense_norms(pasted(section), norm, range(first, first + 3), block)
    assert list(found) == ["dense1", "dense2", "dense3"]
    for value in found.values():
        assert value == pytest.approx(target, rel=0.01)


def test_the_written_configuration_is_whole_and_verify_takes_it(run: Run) -> None:
    asked = ("init", "-c", "small.yaml", "--tune", "-a", "tanh", "--target", "0.5", "--seeds", "2")
    code, out, _ = run(*asked, "--write", "tuned.yaml", "-f", "json")
    assert code == 0
    data = json.loads(out)
    assert (data["schema"], data["status"]) == ("hesscli/init-tune/1", "pass")
    for value in dense_norms("tuned.yaml", "frobenius", range(2)).values():
        assert value == pytest.approx(0.5, rel=0.01)
    section = data["sections"]["tanh"]
    assert load_config(pasted(section)).model == load_config("tuned.yaml").model
    assert load_config("tuned.yaml").model.layers[0].activation.name == "tanh"
    code, out, err = run("verify", "--config", "tuned.yaml", "--check", "form")
    assert (code, err, out.count("PASS")) == (0, "", 4)
    # Its scales are those of the layers: there is nothing left to change.
    code, out, _ = run(*asked, "-c", "tuned.yaml", "-f", "json")
    assert [row["factor"] for row in json.loads(out)["results"]] == pytest.approx(
        [1.0] * 3, rel=0.01
    )


def test_a_target_beyond_the_largest_norm_there_is_is_a_failure_and_no_file(run: Run) -> None:
    """Softmax regression: ‖H‖₂ ≤ ½ ‖XᵀX/N‖₂, as no eigenvalue of diag p − ppᵀ exceeds ½."""
    with np.load("small.npz") as batch:
        X = batch["inputs"]
    bound = float(np.linalg.norm(X.T @ X / len(X), 2)) / 2
    asked = ("init", "-c", "one.yaml", "--tune", "--norm", "spectral", "--write", "tuned.yaml")
    code, out, err = run(*asked, "--target", f"{1.02 * bound}")
    assert (code, err) == (1, "")
    assert " FAIL\n" in out
    assert "no scales were found" in out
    assert "initializer:" not in out
    assert "tuned.yaml" not in os.listdir()
    code, out, _ = run(*asked, "--target", f"{0.2 * bound}")
    assert code == 0
    (reached,) = dense_norms("tuned.yaml", "spectral", range(5)).values()
    assert reached == pytest.approx(0.2 * bound, rel=0.01)


def test_a_failure_is_one_in_every_format(run: Run) -> None:
    asked = ("init", "-c", "one.yaml", "--tune", "--target", "1e6")
    code, out, _ = run(*asked, "-f", "junit")
    assert (code, out.count("<failure"), "the target is 1e+06" in out) == (1, 1, True)
    code, out, _ = run(*asked, "-f", "json")
    data = json.loads(out)
    assert (code, data["status"], data["results"][0]["status"]) == (1, "fail", "fail")


@pytest.mark.parametrize("shape", [(30, 20), (5, 9)])
@pytest.mark.parametrize("name", SCALABLE)
def test_a_scaled_initializer_draws_the_same_numbers_times_the_factor(
    name: str, shape: tuple[int, int]
) -> None:
    parameters = (("mean", 0.3),) if name in ("random_normal", "truncated_normal") else ()
    initializer = Initializer(name, parameters)
    for factor in (1.0, 3.0, 1e-6):
        drawn = scaled(initializer, shape, factor).draw(shape, np.random.default_rng(5))
        expected = factor * initializer.draw(shape, np.random.default_rng(5))
        np.testing.assert_allclose(drawn, expected, rtol=1e-12, atol=1e-15 * factor)


def test_what_has_no_scale_is_refused_by_name() -> None:
    for name in set(NAMES) - set(SCALABLE):
        with pytest.raises(InputError, match=f"'{name}' has no scale; choose one of random_normal"):
            scaled(Initializer(name), (3, 2), 2.0)
