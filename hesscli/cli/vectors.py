"""``--vector`` and ``--save``: a vector that is multiplied or divided, and what comes of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hesscli.cli.options import ProblemOptions
from hesscli.cli.record import reports

if TYPE_CHECKING:
    from hesscli.problem.graph import Array
    from hesscli.problem.vectorfile import Vector
    from hesscli.witnesses.layout import Layout

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class VectorOptions:
    """The file that v is in and the one that what is found is written to; None is no file."""

    given: str | None
    saved: str | None

    def check(self, problem: ProblemOptions) -> None:
        """Raises InputError for a file that cannot be written, or that is read as well."""
        from hesscli.problem.vectorfile import require_vector_path

        if self.saved is not None:
            require_vector_path(self.saved, "--save")
        if self.given is not None:
            problem.require_unwritten("--vector", self.given)

    @property
    def files(self) -> list[tuple[str, str]]:
        """What the result depends on beside the configuration."""
        return [] if self.given is None else [("vector", self.given)]

    @property
    def vector(self) -> Vector | None:
        """The v of a block, whose tensors have these shapes."""
        from hesscli.problem.vectorfile import read_vector

        return (
            None if self.given is None else functools.partial(read_vector, self.given, "--vector")
        )

    def require_one(self, choices: Mapping[str, int], blocks: int) -> None:
        """Raises InputError where more is found than the file holds."""
        from hesscli.report.vectors import require_one_file

        if self.saved is not None:
            require_one_file(self.saved, choices, blocks)

    def write(self, found: Sequence[tuple[Layout, Array]]) -> None:
        """Writes the vectors of all blocks, if they are to be; of several ranks the first does."""
        from hesscli.report.vectors import write_vectors

        if self.saved is not None and reports():
            write_vectors(found, self.saved)


def vector_options(default: str, found: str) -> Callable[[Command], Command]:
    """Adds both options; the command gets them as ``vectors``.

    ``default`` says what v is without a file, ``found`` what is written.
    """

    def added(function: Command) -> Command:
        @click.option(
            "--vector",
            metavar="FILE",
            type=click.Path(),
            show_default=default,
            help="v, as .npy or .npz.",
        )
        @click.option(
            "--save",
            "solution_path",
            metavar="FILE",
            type=click.Path(),
            help=f"Write {found} (.npy or .npz).",
        )
        @functools.wraps(function)
        def wrapper(*, vector: str | None, solution_path: str | None, **others: Any) -> Any:
            return function(vectors=VectorOptions(vector, solution_path), **others)

        return wrapper  # type: ignore[return-value]  # Click's decorators keep no signature

    return added
