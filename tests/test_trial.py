"""What a plugin defines, tried on its own: right ones pass, and a FAIL names what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hesscli.cli.main import main
from hesscli.config.load import load_config, parse_override
from hesscli.nodes.losses import loss_derivatives
from hesscli.nodes.plugins import forget, load_plugin
from hesscli.problem.network import Loss
from hesscli.system.errors import InputError

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
# (f − t)⁴, by NumPy alone.
LOSS = """
import numpy as np
LOSSES = {{
    "fourth": {{
        "value": lambda f, t: ({value} * (f - t) ** 4).sum(axis=1),
        "gradient": lambda f, t: {gradient} * (f - t) ** 3,
        "hessian_product": lambda f, t, v: {second} * (f - t) ** 2 * v,
        {versions}
    }},
}}
"""
TENSORFLOW = "'tensorflow': lambda f, t: __import__('tensorflow').reduce_sum((f - t) ** 4, axis=-1)"
RIGHT = {"value": 1, "gradient": 4, "second": 12}


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments])
    return int(exit_.value.code or 0)


def tried(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """The exit code, and each function's verdict."""
    code = exit_code("verify", "--plugin", str(path), "--format", "json", "--probe-seed", "1")
    report = json.loads(capsys.readouterr().out)
    return code, {row["function"]: row["status"] for row in report["results"]}


@pytest.mark.parametrize(
    ("example", "wrong"),
    [("focal", None), ("wrong_focal", "hessian_product"), ("cube", None), ("wrong_cube", "second")],
)
def test_of_the_examples_only_the_wrong_ones_fail_and_on_the_right_function(
    example: str, wrong: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = tried(EXAMPLES / f"{example}.py", capsys)
    assert code == (0 if wrong is None else 1)
    assert [name for name, status in found.items() if status == "fail"] == (
        [wrong] if wrong else []
    )


@pytest.mark.parametrize("versions", ["", TENSORFLOW])
@pytest.mark.parametrize("wrong", [None, "value", "gradient", "second"])
def test_a_wrong_function_of_a_loss_is_named(
    wrong: str | None, versions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factors = {**RIGHT, **({} if wrong is None else {wrong: 7})}
    path = tmp_path / "fourth.py"
    path.write_text(LOSS.format(versions=versions, **factors))
    code, found = tried(path, capsys)
    # Values and slopes that contradict each other are told apart by a third one only.
    named = {"second": "hessian_product", "value": "value" if versions else "gradient"}
    expected = {} if wrong is None else {named.get(wrong, wrong): "fail"}
    assert {name: status for name, status in found.items() if status != "pass"} == expected
    assert code == len(expected)


@pytest.fixture
def focal() -> Iterator[None]:
    names = load_plugin(str(EXAMPLES / "focal.py"))
    yield
    forget(names)


@pytest.mark.usefixtures("focal")
def test_the_focal_loss_is_that_of_its_paper() -> None:
    """−(1 − p)^2 log p at p = 1/2, and 0 for what is certain."""
    loss = loss_derivatives(Loss("focal"))
    f = np.array([[0.0, 0.0], [800.0, 0.0]])
    assert loss.value(f, np.array([1, 0])) == pytest.approx([0.25 * np.log(2), 0])
    config = load_config(None, [parse_override("loss.name=focal")])
    assert config.loss.name == "focal"


def test_a_plugins_loss_in_the_configured_network(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["verify", "--plugin", str(EXAMPLES / "focal.py"), "--set", "loss.name=focal"]
    arguments += ["-l", "dense3", "--batch-size", "8", "--witnesses", "chain_rule,autodiff,finite"]
    assert exit_code(*arguments, "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert row["status"] == "pass"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ('"targets": "class"', "targets is 'class'; it must be 'labels' or 'numbers'"),
        ('"extra": 1', "'extra' is unknown"),
        ('"gradient": lambda f, t: f[:, 0]', r"gradient: returns float32 of shape \(2,\)"),
        ('"value": lambda f, t: (f - t).sum() + 0 * f[:, 0]', "depends on others"),
        ('"value": None', "value is not given, or is not a function"),
    ],
)
def test_a_mistake_in_a_loss_is_one_line(changed: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(LOSS.format(versions=changed, **RIGHT))
    with pytest.raises(InputError, match=message):
        load_plugin(str(path))
    with pytest.raises(InputError, match="unknown loss 'fourth'"):
        loss_derivatives(Loss("fourth"))
