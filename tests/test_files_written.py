"""No command writes over the data or the model that it reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hesscli.cli.main import main

TRAINED = ("train", "--steps", "1", "--examples", "8", "--measure-examples", "4")


@pytest.mark.parametrize(
    ("command", "option", "name"),
    [
        (TRAINED, "--checkpoint", "own.npz"),
        (("verify", "--check", "form"), "--save-problem", "own.npz"),
        (("verify", "--check", "form", "-f", "json", "-q"), "--output", "linked.json"),
        (("export", "dense3/bias"), "--output", "own.npz"),
        (("compare", "--check", "form"), "--plot", "linked.png"),
    ],
)
def test_the_data_is_never_written_over(
    command: tuple[str, ...],
    option: str,
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "own.npz"
    shutil.copy(Path(__file__).parent / "field" / "data.npz", source)
    for linked in ("linked.json", "linked.png"):
        (tmp_path / linked).symlink_to(source)
    before = source.read_bytes()
    with pytest.raises(SystemExit) as ended:
        main([*command, option, str(tmp_path / name), "--set", f"data.source={source}"])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert "data.source" in error and option in error and error.count("\n") == 1
    assert source.read_bytes() == before


def test_a_checkpoint_may_be_the_file_that_is_resumed(tmp_path: Path) -> None:
    path = str(tmp_path / "c.npz")
    for steps, resume in (("1", ()), ("2", ("--resume", path))):
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    *TRAINED[:1],
                    *TRAINED[3:],
                    "-n",
                    "4",
                    "--steps",
                    steps,
                    *resume,
                    "--checkpoint",
                    path,
                ]
            )
        assert ended.value.code == 0
