"""What is exact for dense layers alone is estimated elsewhere, and the output says where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hesscli.studies.norm_estimates import PRODUCTS, REST

Run = Callable[..., tuple[int, str, str]]
# 1,200 parameters in the convolution: beyond what has all its rows computed.
CONVOLUTIONAL = """
model:
  inputs: [28, 28, 1]
  layers:
    - {name: sees, type: conv2d, filters: 24, kernel_size: 7, strides: 7, activation: tanh}
    - {name: flat, type: flatten}
    - {name: reads, units: 10}
"""
DENSE = "model: {inputs: 784, layers: [{name: reads, units: 10}]}"


def words(run: Run, path: Path, text: str, *command: str) -> str:
    path.write_text(text, encoding="utf-8")
    code, out, _ = run(*command, "--config", str(path), "--batch-size", "4")
    assert code == 0
    return " ".join(out.split())


@pytest.mark.parametrize(
    ("name", "products", "command"),
    [
        (
            "sees/kernel",
            f"{PRODUCTS} random products",
            ("init", "--seeds", "1", "--stddev", "0.1"),
        ),
        (
            "sees",
            f"the products of Lanczos and {REST} random ones",
            ("train", "--steps", "1", "--examples", "16", "--measure-examples", "4"),
        ),
    ],
    ids=["init", "train"],
)
def test_norms_and_traces_of_a_convolution_are_said_to_be_estimated(
    name: str, products: str, command: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "network.yaml"
    said = f"of {name} the Frobenius norm and the trace are estimated from {products}"
    assert said in words(run, path, CONVOLUTIONAL, *command)
    assert "the trace are estimated" not in words(run, path, DENSE, *command)


def test_a_spectrum_says_which_layer_is_exact_and_which_is_estimated(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "network.yaml"
    of_top = words(run, path, CONVOLUTIONAL, "spectrum", "--top", "1")
    assert "of 3,840 in reads." in of_top
    assert "sees: eigenvalues by Lanczos" in of_top
    density = words(run, path, CONVOLUTIONAL, "spectrum", "--probes", "2", "--steps", "9")
    assert "sees: ends by Lanczos" in density
    assert "with 2 probes of 9 steps" in density
    assert "Lanczos" not in words(run, path, DENSE, "spectrum", "--top", "1")
