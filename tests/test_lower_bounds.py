"""What ``make test-oldest`` installs is what pyproject.toml claims, no more and no less."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from lower_bounds import lower_bounds
from packaging.version import Version

REQUIREMENTS = [
    "click>=8.4",
    'numpy>=2.0; python_version < "3.10"',
    'numpy>=2.1; python_version >= "3.10"',
    'matplotlib>=3.10.8; extra == "plot"',
    'hesscli[plot]; extra == "test"',
    'pytest>=8.4; extra == "test"',
    'hesscli[test]; extra == "dev"',
    'ruff>=0.14; extra == "dev"',
]


@pytest.mark.parametrize(
    ("extras", "more"),
    [
        ((), []),
        (("plot",), ["matplotlib==3.10.8"]),
        (("test",), ["pytest==8.4", "matplotlib==3.10.8"]),
        (("plot", "test"), ["matplotlib==3.10.8", "pytest==8.4"]),
        (("dev",), ["ruff==0.14", "pytest==8.4", "matplotlib==3.10.8"]),
    ],
)
def test_the_bounds_of_an_extra_are_those_of_all_that_it_stands_for(
    extras: tuple[str, ...], more: list[str]
) -> None:
    assert list(lower_bounds(REQUIREMENTS, extras)) == ["click==8.4", "numpy==2.1", *more]


@pytest.mark.parametrize("text", ["click", "click<9", "click==8.4", "click>=8.4,<9", "click~=8.4"])
def test_a_requirement_without_one_lower_bound_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="one lower bound is needed, as in click>=1"):
        list(lower_bounds([text], ()))


def test_what_is_installed_here_is_no_older_than_claimed() -> None:
    """Every requirement of the package and its tests, by its own metadata, has such a bound."""
    from importlib.metadata import requires

    names = []
    for bound in lower_bounds(requires("hesscli") or [], ("test",)):
        name, _, oldest = bound.partition("==")
        assert Version(version(name)) >= Version(oldest), bound
        names.append(name.lower())
    assert {"click", "numpy", "tensorflow", "matplotlib", "threadpoolctl", "pytest"} <= set(names)
    assert len(names) == len(set(names))
