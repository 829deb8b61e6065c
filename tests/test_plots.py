"""Plots: whole files by suffix, the same each time, refused before anything is computed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hesscli.report.document import Document, Drawing
from hesscli.report.plots import check_plot, write_plot
from hesscli.system.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

HEADING = "3-2-1 · 11 parameters · 4 examples · float64 · seed 7"
# What a file of each kind begins with: PNG specification 5.2, XML 1.0, ISO 32000.
MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF-"}


def line(figure: FigureBase) -> None:
    figure.subplots().plot([0, 1], [0, 1])


def document(*drawings: Drawing) -> Document:
    return Document(f"{HEADING}\na note", (), {"schema": "hesscli/any/1"}, (), drawings)


LINE = Drawing("a line", "It rises.", line)


@pytest.mark.parametrize("suffix", ["png", "SVG", "pdf"])
def test_the_suffix_is_the_kind_and_the_same_result_is_the_same_file(
    suffix: str, tmp_path: Path
) -> None:
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    for path in (first, second):
        write_plot(document(LINE, LINE), str(path))
    assert first.read_bytes().startswith(MAGIC[suffix.lower()])
    assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_figure_has_the_heading_and_every_title(tmp_path: Path) -> None:
    import matplotlib as mpl

    path = tmp_path / "a.svg"
    titles = []

    def named(figure: FigureBase) -> None:
        titles.append(figure.get_suptitle())
        line(figure)
        # Text as text, so that it can be read below.
        mpl.rcParams["svg.fonttype"] = "none"

    write_plot(document(Drawing("one", "", named), Drawing("two", "", named)), str(path))
    text = path.read_text(encoding="utf-8")
    assert titles == ["one", "two"]
    assert all(f">{title}</text>" in text for title in (HEADING, "one", "two"))
    assert "a note" not in text


def test_drawings_are_stacked_with_their_heights(tmp_path: Path) -> None:
    boxes = []

    def measured(figure: FigureBase) -> None:
        inches = figure.bbox.transformed(figure.get_figure(root=True).dpi_scale_trans.inverted())
        boxes.append((inches.width, inches.height, inches.y0))
        line(figure)

    write_plot(
        document(Drawing("one", "", measured, 2.0), Drawing("two", "", measured, 5.0)),
        str(tmp_path / "a.png"),
    )
    (width, high, top), (same, low, bottom) = boxes
    assert width == same
    assert low / high == pytest.approx(2.5)
    assert top > bottom


def test_no_setting_of_the_user_or_of_a_drawing_stays(tmp_path: Path) -> None:
    import matplotlib as mpl

    first, second = tmp_path / "a.png", tmp_path / "b.png"
    write_plot(document(LINE), str(first))
    with mpl.rc_context({"lines.linewidth": 9.0}):
        write_plot(document(LINE), str(second))
        assert mpl.rcParams["lines.linewidth"] == 9.0
    assert first.read_bytes() == second.read_bytes()


def test_pyplot_with_its_windows_is_not_needed(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["matplotlib.pyplot"] = None
from hesscli.report.document import Document, Drawing
from hesscli.report.plots import write_plot
drawing = Drawing("", "", lambda figure: figure.subplots().plot([0, 1]))
write_plot(Document("h", (), {{}}, (), (drawing,)), {str(tmp_path / "a.png")!r})
"""
    # In a process of its own: Keras imports pyplot where there is one.
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_a_drawing_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    def broken(_: FigureBase) -> None:
        raise ValueError("mine")

    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="mine"):
        write_plot(document(LINE, Drawing("", "", broken)), str(path))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no plot"):
        write_plot(document(), str(tmp_path / "a.png"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "a.jpg", "png", ".png", "a.png.txt"])
def test_another_suffix_is_refused_with_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"names no image; use \.png, \.svg, \.pdf"):
        check_plot(str(tmp_path / name))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        check_plot(str(tmp_path / "none" / "a.png"))


def test_without_matplotlib_the_refusal_says_what_to_install(
    no_matplotlib: None, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"matplotlib .*pip install 'hesscli\[plot\]'") as refused:
        check_plot(str(tmp_path / "a.png"))
    assert "\n" not in str(refused.value)
