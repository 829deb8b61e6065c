"""The oldest versions that pyproject.toml allows, as pip takes them: numpy==2.0 for numpy>=2.0.

``python tests/lower_bounds.py EXTRA…`` prints those of the installed package, on this Python,
with the extras named. They are read from its metadata, which is made of pyproject.toml: the
standard library of Python 3.10 reads no TOML.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import requires

from packaging.requirements import Requirement

PACKAGE = "hesscli"


def lower_bounds(requirements: Sequence[str], extras: Iterable[str]) -> Iterator[str]:
    """``name==version`` for each of ``requirements`` that applies here and with ``extras``.

    Raises ValueError where a requirement has no lower bound, or more than that.
    """
    wanted = ["", *extras]
    seen = set(wanted)
    for extra in wanted:
        for text in requirements:
            requirement = Requirement(text)
            marker = requirement.marker
            applies = marker is None or marker.evaluate({"extra": extra})
            # Without an extra's name a requirement is everybody's, and listed once.
            if not applies or (extra and (marker is None or marker.evaluate({"extra": ""}))):
                continue
            if requirement.name == PACKAGE:
                wanted += sorted(requirement.extras - seen)
                seen |= requirement.extras
                continue
            bounds = list(requirement.specifier)
            if [bound.operator for bound in bounds] != [">="]:
                raise ValueError(f"{text}: one lower bound is needed, as in {requirement.name}>=1")
            yield f"{requirement.name}=={bounds[0].version}"


if __name__ == "__main__":
    print("\n".join(lower_bounds(requires(PACKAGE) or [], sys.argv[1:])))
