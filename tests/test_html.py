"""Pages: one file that needs nothing else, valid, with everything that the document says."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from hesscli.report import page
from hesscli.report.document import Column, Document, Drawing, Table
from hesscli.report.formats import format_of, render
from hesscli.report.output import write_document

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

VOID = {"meta", "img"}
# Attributes by which a page fetches something (HTML standard, 2.4 and 4.8).
FETCHING = {"src", "srcset", "href", "data", "poster", "action"}


class Page(HTMLParser):
    """Tags, attributes and text; refuses tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.texts[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def rising(figure: FigureBase) -> None:
    figure.subplots().plot([0, 1], [0, 1])


TABLE = Table(
    "tanh: |G| < |C| & more",
    (Column("layer", numeric=False), Column("<b>"), Column("verdict", numeric=False)),
    (("dense1", "1.5", "PASS"), ("a<b>&", "2.5", "FAIL")),
    ("dense1 <passes> & holds.",),
)
DATA = {
    "schema": "hesscli/compare/1",
    "status": "pass",
    "environment": {"hesscli": "0.1", "tensorflow": None, "numpy": "2.1.0", "dtype": "float32"},
    "problem": {"loss": "some_loss", "reduction": "sum", "seed": 7},
}
RISING = Drawing('a "line" <up>', "It rises & rises.", rising)


def document(*drawings: Drawing) -> Document:
    return Document("3-2 · seed 7\na <note>", (TABLE, TABLE), DATA, (), drawings)


def test_the_page_is_closed_in_order_and_says_what_it_is() -> None:
    text = render(document(RISING), "html")
    assert text.startswith("<!DOCTYPE html>\n")
    assert text.endswith("</html>\n")
    parsed = Page(text)
    assert parsed.all("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in parsed.all("meta")
    assert parsed.texts["title"] == ["hesscli compare: 3-2 · seed 7"]
    assert parsed.texts["h1"] == ["hesscli compare"]
    assert parsed.texts["p"][:2] == ["3-2 · seed 7", "a <note>"]
    facts = dict(zip(parsed.texts["dt"], parsed.texts["dd"], strict=True))
    assert facts == {
        "status": "pass",
        "loss": "some_loss, sum over the examples",
        "hesscli": "0.1",
        "NumPy": "2.1.0",
        "numbers": "float32",
    }


def test_nothing_is_fetched_and_nothing_runs() -> None:
    parsed = Page(render(document(RISING, RISING), "html"))
    fetched = [
        value or ""
        for _, attributes in parsed.seen
        for name, value in attributes.items()
        if name in FETCHING
    ]
    assert len(fetched) == 2
    assert all(value.startswith("data:image/svg+xml;base64,") for value in fetched)
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in parsed.seen)
    assert "url(" not in (style := "".join(parsed.texts["style"]))
    assert "@import" not in style
    assert {"prefers-color-scheme", "@media print"} <= set(
        re.findall(r"prefers-color-scheme|@media print", style)
    )


def test_tables_and_notes_are_all_there_in_text_and_colour() -> None:
    parsed = Page(render(document(), "html"))
    assert parsed.texts["caption"] == [TABLE.title] * 2
    assert parsed.texts["th"] == [column.title for column in TABLE.columns] * 2
    assert parsed.texts["td"] == [cell for row in TABLE.rows for cell in row] * 2
    assert parsed.texts["p"].count(TABLE.notes[0]) == 2
    colours = [
        re.findall(r"(?<!-)color: (#\w+)", style)
        for attributes in parsed.all("td")
        if "color:" in (style := attributes["style"] or "")
    ]
    # PASS and FAIL in both tables.
    assert len(colours) == 4
    assert colours[0] != colours[1]


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.2."""
    parts = [int(colour[low : low + 2], 16) / 255 for low in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("ground", ["#ffffff", "#121212"])
def test_verdicts_can_be_read_on_both_grounds(ground: str) -> None:
    text = render(document(), "html")
    assert ground in text.replace("#fff;", "#ffffff;")
    for colour in set(re.findall(r'style="color: (#\w+)', text)):
        low, high = sorted((luminance(colour), luminance(ground)))
        # WCAG asks 4.5 of text and 3 of large or bold text; verdicts are bold.
        assert (high + 0.05) / (low + 0.05) >= 4


def test_plots_are_images_of_their_own_with_caption_and_alternative() -> None:
    parsed = Page(render(document(RISING, Drawing("two", "Again.", rising)), "html"))
    first, second = parsed.all("img")
    assert (first["alt"], second["alt"]) == ('Plot. a "line" <up>', "Plot. two")
    assert parsed.texts["figcaption"] == ["It rises & rises.", "Again."]
    for image in (first, second):
        data = base64.b64decode((image["src"] or "").split(",")[1])
        assert ET.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"


def test_a_plot_whose_svg_is_large_is_a_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_LARGEST_SVG", 100)
    (image,) = Page(render(document(RISING), "html")).all("img")
    kind, data = (image["src"] or "").split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG\r\n\x1a\n")


def test_without_matplotlib_the_page_has_its_tables_and_says_why(no_matplotlib: None) -> None:
    parsed = Page(render(document(RISING), "html"))
    assert parsed.all("img") == []
    assert len(parsed.all("table")) == 2
    (said,) = [text for text in parsed.texts["p"] if "matplotlib" in text]
    assert "pip install 'hesscli[plot]'" in said
    assert not any("matplotlib" in text for text in Page(render(document(), "html")).texts["p"])


@pytest.mark.parametrize("variable", ["NO_COLOR", "COLUMNS", "TERM"])
def test_the_environment_does_not_change_the_page(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    plain = render(document(), "html")
    monkeypatch.setenv(variable, {"COLUMNS": "20", "TERM": "dumb"}.get(variable, "1"))
    assert render(document(), "html") == plain


@pytest.mark.parametrize("suffix", [".html", ".htm", ".HTML"])
def test_the_suffix_asks_for_a_page(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    assert format_of(str(path)) == "html"
    write_document(document(RISING), "html", str(path))
    assert path.read_text(encoding="utf-8") == render(document(RISING), "html")
