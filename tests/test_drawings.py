"""What the plots of results show: read back from the figures, on results made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hesscli.cli.main import main
from hesscli.report.comparison_plot import comparison_drawing
from hesscli.report.document import Drawing
from hesscli.report.residual_plot import Residuals, residual_drawing
from hesscli.report.sweep_plot import sweep_drawing
from hesscli.studies.comparison import ComparedBlock, Comparison, SplitForm
from hesscli.studies.context import Environment, ProblemSummary
from hesscli.studies.judge import Check
from hesscli.studies.sweep import Sweep, SweptNode
from hesscli.studies.verdict import Verdict

ENVIRONMENT = Environment("0.1", None, "2.1.0", "1.15.0", "float64", 2)
PROBLEM = ProblemSummary(4, (3, 2, 2), ("dense1", "dense2"), 14, "sum", "mean", 7)


def check(residual: float, scale: float = 2.0, floor: float = 0.0) -> Check:
    passed = residual <= 1e-10 * scale + floor
    return Check("entries", 100, residual, scale, 1e-10, floor, None, Verdict.of(passed))


GOOD = check(0.0)


def axes_of(drawing: Drawing) -> list[Axes]:
    figure = Figure(figsize=(7, drawing.height), layout="constrained")
    drawing.draw(figure)
    return figure.axes


def lines(ax: Axes, label: str) -> list[Line2D]:
    return [line for line in ax.lines if line.get_label() == label]


def points(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in line.get_xydata() if not math.isnan(y)]  # type: ignore[union-attr]


def row_names(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def compared(activation: str, layer: str, G: float, C: float) -> ComparedBlock:
    # Autodiff's numbers are others: the chain rule's are drawn.
    split, other = SplitForm(G + C, G, C), SplitForm(9.0, 9.0, 9.0)
    return ComparedBlock(
        activation, layer, "kernel", 6, other, split, (GOOD, GOOD, GOOD), GOOD, GOOD
    )


def comparison(*rows: ComparedBlock) -> Drawing:
    return comparison_drawing(Comparison(ENVIRONMENT, PROBLEM, "kernel", "form", 0, rows))


def test_compare_draws_both_terms_with_their_signs_and_their_sum() -> None:
    (ax,) = axes_of(
        comparison(
            compared("tanh", "dense1", 1.0, -3.0),
            compared("tanh", "dense2", 2e-9, 0.0),
            compared("tanh", "dense3", 0.0, 0.0),
        )
    )
    newton, curvature = ([bar.get_width() for bar in container] for container in ax.containers)
    assert newton == pytest.approx([0.25, 1.0, 0.0])
    assert curvature == pytest.approx([-0.75, 0.0, 0.0])
    (sums,) = lines(ax, "their sum, the Hessian")
    assert points(sums) == [(-0.5, 0), (1.0, 1), (0.0, 2)]
    assert [text.get_text() for text in ax.texts] == ["4.0e+00", "2.0e-09", "0"]
    assert row_names(ax) == ["dense1", "dense2", "dense3"]
    assert ax.yaxis_inverted()


def test_the_terms_differ_in_grey_as_well() -> None:
    (ax,) = axes_of(comparison(compared("tanh", "dense1", 1.0, -3.0)))
    newton, curvature = (container[0] for container in ax.containers)
    assert (newton.get_hatch(), curvature.get_hatch()) == (None, "////")
    grey = [
        sum(
            w * part for w, part in zip((0.299, 0.587, 0.114), bar.get_facecolor()[:3], strict=True)
        )
        for bar in (newton, curvature)
    ]
    assert abs(grey[0] - grey[1]) > 0.3


@pytest.mark.parametrize(
    ("activations", "layers", "titles", "names"),
    [
        (["a", "b", "c"], ["dense1", "dense2"], ["dense1", "dense2"], ["a", "b", "c"]),
        (["a", "b"], ["dense1", "dense2", "dense3"], ["a", "b"], ["dense1", "dense2", "dense3"]),
        (["a"], ["dense1"], ["dense1"], ["a"]),
    ],
)
def test_panels_go_over_the_shorter_of_activations_and_layers(
    activations: Sequence[str], layers: Sequence[str], titles: list[str], names: list[str]
) -> None:
    axes = axes_of(comparison(*(compared(a, b, 1.0, 0.0) for a in activations for b in layers)))
    assert [ax.get_title() for ax in axes] == titles
    assert row_names(axes[0]) == names
    # Rows that are the same as beside it are named once.
    assert all(row_names(ax) == [""] * len(names) for ax in axes[1:])


def test_sixteen_activations_have_as_much_room_each_as_two() -> None:
    def room(count: int) -> float:
        rows = [compared(f"a{i}", f"d{j}", 1.0, 0.5) for i in range(count) for j in range(2)]
        (ax, _) = axes_of(drawing := comparison(*rows))
        ax.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
        return float(ax.get_position().height) * drawing.height / count

    assert room(16) > 0.2
    assert room(16) == pytest.approx(room(4), rel=0.25)


def swept(activation: str, quantity: str, I: float, O: float, S: float) -> SweptNode:  # noqa: E741
    return SweptNode(
        activation, f"dense1 {quantity}", "dense", quantity, (4, 2), 1.0, I, O, S, GOOD, GOOD
    )


def test_sweep_draws_curvature_where_it_enters_and_nowhere_else() -> None:
    nodes = [("f", 2.0, 0.0, 2.0), ("z1", 1.0, 3.0, 3.5), ("x", 4.0, 0.0, 4.0)]
    rows = (
        *(swept("tanh", *node) for node in nodes),
        *(swept("relu", name, linear, 0.0, linear) for name, linear, *_ in nodes),
    )
    tanh, relu = axes_of(sweep_drawing(Sweep(ENVIRONMENT, PROBLEM, rows, None)))
    assert (tanh.get_title(), relu.get_title()) == ("tanh", "relu")
    assert points(lines(tanh, "Hessian S")[0]) == [(0, 2.0), (1, 3.5), (2, 4.0)]
    assert points(lines(tanh, "linear part I")[0]) == [(0, 2.0), (1, 1.0), (2, 4.0)]
    assert points(lines(tanh, "curvature part O")[0]) == [(1, 3.0)]
    assert points(lines(relu, "curvature part O")[0]) == []
    # The shaded ground.
    assert (len(tanh.patches), len(relu.patches)) == (1, 0)
    assert tanh.get_yscale() == "log"


def test_a_sweep_of_zeros_can_be_drawn() -> None:
    rows = (swept("tanh", "f", 0.0, 0.0, 0.0),)
    (ax,) = axes_of(sweep_drawing(Sweep(ENVIRONMENT, PROBLEM, rows, None)))
    assert ax.get_yscale() == "linear"


def test_verify_draws_residuals_beside_what_is_allowed() -> None:
    rows = [
        Residuals("tanh", "dense1", check(2e-12)),
        Residuals("tanh", "dense2", check(0.5)),
        Residuals("tanh", "dense3", check(0.0)),
        Residuals("tanh", "dense4", check(3e-9, floor=4e-9)),
        Residuals("tanh", "dense5", check(0.5, scale=0.0)),
    ]
    (ax,) = axes_of(residual_drawing(rows, "any"))
    low, high = ax.get_xlim()
    assert [points(line)[0] for line in lines(ax, "residual: PASS")] == [
        (pytest.approx(1e-12), 0),
        (pytest.approx(1.5e-9), 3),
    ]
    # What has no scale is infinite and stands at the right edge.
    assert [points(line)[0] for line in lines(ax, "residual: FAIL")] == [(0.25, 1), (high, 4)]
    assert [points(line)[0] for line in lines(ax, "residual 0: PASS")] == [(low, 2)]
    assert [points(line)[0][0] for line in lines(ax, "allowed")] == pytest.approx(
        [1e-10, 1e-10, 1e-10, 1e-10 + 2e-9, 1e-10]
    )
    assert low < 1e-12
    assert high > 0.25


def test_residuals_that_are_all_zero_can_be_drawn() -> None:
    axes_of(residual_drawing([Residuals("relu", "d", check(0.0, scale=0.0))], "any"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "--plot", "a.jpg"], "names no image"),
        (["sweep", "--plot", "none/a.png"], "cannot be written"),
        (["verify", "--plot", "."], "names no image"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_computed(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    def compute(*_: object) -> None:
        raise AssertionError("the problem was built")

    monkeypatch.setattr("hesscli.config.build.build_problem", compute)
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    printed = capsys.readouterr()
    assert (exit_.value.code, printed.out) == (2, "")
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_plot_says_what_to_install(
    no_matplotlib: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["compare", "--plot", str(tmp_path / "a.png")])
    printed = capsys.readouterr()
    assert (exit_.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert "pip install 'hesscli[plot]'" in printed.err


ONE_LAYER = ["-n", "2", "--check", "form", "--layer", "dense3"]
SQUARES = ["--config", str(Path(__file__).parent.parent / "configs" / "square_net.yaml")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", *ONE_LAYER],
        ["verify", *ONE_LAYER],
        ["verify", "--of", "gradient", *SQUARES],
        ["sweep", *SQUARES],
    ],
)
def test_a_command_prints_its_result_and_draws_it(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, text = tmp_path / "a.svg", tmp_path / "a.html"
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--plot", str(path), "-q", "--output", str(text)])
    assert exit_.value.code == 0
    assert capsys.readouterr().err == ""
    assert path.read_text(encoding="utf-8").startswith("<?xml")
    assert "<img " in text.read_text(encoding="utf-8")
