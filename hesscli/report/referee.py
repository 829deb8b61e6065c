"""The referee's findings, in words and as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hesscli.report.common import listed
from hesscli.report.document import scientific
from hesscli.studies.referee import Ruling
from hesscli.studies.verdict import Verdict

DIGITS = "50 digits"
_WORDS = {Verdict.PASS: "right", Verdict.UNDECIDED: "lost", Verdict.FAIL: "wrong"}


def ruling_text(ruling: Ruling, names: Mapping[str, str]) -> str:
    """Who was right and who was not, and the number where they are farthest apart."""
    worst = ruling.worst
    said = [f"{names[who]} {scientific(value, 5)}" for who, value in worst.by_witness.items()]
    what = "vᵀHv" if worst.names is None else f"∂²L/∂{worst.names[0]} ∂{worst.names[1]}"
    exact = scientific(worst.exact.value, 5)
    return f"{standings(ruling, names)}; {DIGITS} give {exact} for {what}, {listed(said)}"


def standings(ruling: Ruling, names: Mapping[str, str]) -> str:
    """Who was right, who lost its digits and who is wrong."""
    parts = []
    for verdict in Verdict:
        who = [names[name] for name in ruling.witnesses if ruling.standing(name) is verdict]
        verb, possessive = ("is", "its") if len(who) == 1 else ("are", "their")
        lost = verdict is Verdict.UNDECIDED
        said = f"lost {possessive} digits" if lost else f"{verb} {_WORDS[verdict]}"
        parts += [f"{listed(who)} {said}"] if who else []
    return ", ".join(parts)


def ruling_data(ruling: Ruling | None, why_not: str | None) -> dict[str, Any] | None:
    """A ruling as the JSON schemas hold it, or why an open comparison has none."""
    if ruling is None:
        return None if why_not is None else {"status": Verdict.UNDECIDED.value, "why": why_not}
    return {
        "status": ruling.verdict.value,
        "witnesses": {name: _WORDS[ruling.standing(name)] for name in ruling.witnesses},
        "answers": [
            {
                "entry": None if answer.names is None else list(answer.names),
                "value": answer.exact.value,
                "digits": answer.exact.digits,
                "by_witness": dict(answer.by_witness),
            }
            for answer in ruling.answers
        ],
    }
