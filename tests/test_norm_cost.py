"""What norms will take is said before they begin: in which order of magnitude, and how."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from networks import make_problem

from hesscli.cli.main import main
from hesscli.studies import norm_cost
from hesscli.studies.norm_cost import duration_text, seconds_of

PROBLEM = make_problem((6, 5, 3), "tanh", examples=40)
NAMES = ("dense1/kernel", "dense2/kernel")


@pytest.fixture
def nothing_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_cost, "_SHORT_WORK", 0.0)
    monkeypatch.setattr(norm_cost, "_TRIAL_EXAMPLES", 10)
    monkeypatch.setattr(norm_cost, "WORTH_SAYING", 0.0)


def clocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes between any two looks at the clock."""
    looks = iter(range(1000))
    monkeypatch.setattr(norm_cost, "time", SimpleNamespace(perf_counter=lambda: next(looks)))


@pytest.mark.usefixtures("nothing_is_short")
def test_the_trial_is_scaled_by_work_and_by_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    clocked(monkeypatch)
    # Either layer takes a second for S and ‖H‖₂, and as long for ‖H‖_F: of 40 examples instead of
    # 10 that is 4 times the one; all pairs are 16 times the other, moments from 36 examples on.
    work = [
        norm_cost.frobenius_work(40, *shape) / norm_cost.frobenius_work(10, *shape)
        for shape in ((6, 5), (5, 3))
    ]
    found = seconds_of(PROBLEM, NAMES, 7, spectral=True, blocks=3)
    assert found == pytest.approx(7 * (4 + work[0] + 4 + work[1]))


def test_little_is_not_tried() -> None:
    assert seconds_of(PROBLEM, NAMES, 1000, spectral=True, blocks=3) == 0


@pytest.mark.usefixtures("nothing_is_short")
@pytest.mark.parametrize("more", [(), ("--tune",), ("--tune", "--norm", "spectral")])
def test_it_is_one_line_on_standard_error(
    more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    network = "model.layers=[{units: 4, activation: tanh}, {units: 10}]"
    with pytest.raises(SystemExit) as ended:
        main(["init", "-n", "12", "--seeds", "1", "--set", network, "-f", "json", *more])
    out, err = capsys.readouterr()
    # Whether there are scales for a target of 1 is another matter.
    assert ended.value.code in (0, 1, None)
    assert out.startswith("{")
    assert err.startswith("hesscli: the norms over 12 examples will take about")
    assert (err.count("\n"), "--batch-size" in err) == (1, True)


def test_durations_in_words() -> None:
    texts = [duration_text(value) for value in (14.2, 100, 130, 3600, 8000)]
    assert texts == ["14 seconds", "100 seconds", "2 minutes", "60 minutes", "2 hours"]
