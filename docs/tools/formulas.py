"""Typesets the formulas of the site when it is built: a hook of MkDocs.

The pages write formulas as GitHub reads them, ``$…$`` in a line and a block ``math`` for more. The
browser gets MathML, so that no script and no network is needed.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

_FENCE = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
# Primes stand high already; without a font for mathematics a superscript is too small and too high.
_PRIME = re.compile(r"<msup>(<mi[^<]*</mi>)<mi>(&#x0203[234];)</mi></msup>")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Blocks of the language ``math`` as pymdownx.arithmatex reads them."""
    return _FENCE.sub(lambda match: f"$$\n{match[1]}$$", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """What pymdownx.arithmatex has marked as TeX, as MathML."""
    return _FORMULA.sub(_mathml, html)


def _mathml(match: re.Match[str]) -> str:
    # latex2mathml aligns only in the environment that GitHub does not take within a formula.
    tex = unescape(match[2]).strip().replace("{aligned}", "{align*}")
    kind = "inline" if match[1] == "span" else "block"
    formula = _PRIME.sub(r"<mrow>\1<mo>\2</mo></mrow>", convert(tex, display=kind))
    return formula if kind == "inline" else f'<div class="formula">{formula}</div>'
