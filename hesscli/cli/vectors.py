"""``--vector`` and ``--save``: a vector that is multiplied or divided, and what comes of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hesscli.cli.command import Option, file_option, gathered
from hesscli.cli.options import ProblemOptions
from hesscli.cli.record import reports
from hesscli.system.errors import InputError

if TYPE_CHECKING:
    from hesscli.problem.graph import Array
    from hesscli.problem.vectorfile import Vector
    from hesscli.witnesses.layout import Layout


@dataclass(frozen=True)
class VectorOptions:
    """The file that v is in and the one that what is found is written to; None is no file."""

    vector: str | None
    solution_path: str | None

    def check(self, problem: ProblemOptions) -> None:
        """Raises InputError for a file that cannot be written, or that is read as well."""
        from hesscli.problem.vectorfile import require_vector_path

        if self.solution_path is not None:
            require_vector_path(self.solution_path, "--save")
        if self.vector is not None:
            problem.require_unwritten("--vector", self.vector)

    @property
    def files(self) -> list[tuple[str, str]]:
        """The files that the result depends on in addition to the configuration."""
        return [] if self.vector is None else [("vector", self.vector)]

    @property
    def read(self) -> Vector | None:
        """The v of a block, whose tensors have these shapes."""
        from hesscli.problem.vectorfile import read_vector

        return (
            None if self.vector is None else functools.partial(read_vector, self.vector, "--vector")
        )

    def require_one(self, choices: Mapping[str, int], blocks: int) -> None:
        """Raises InputError if the file cannot hold all that is found.

        It holds one vector, or, as ``.npz``, one for each block. ``choices`` counts what was
        chosen by each option, as in ``{"--activation": 2}``.
        """
        path = self.solution_path
        if path is None:
            return
        from hesscli.problem.vectorfile import holds_tensors

        for option, count in choices.items():
            if count > 1:
                raise InputError(
                    f"--save {path}: it holds what is found of one {option}, not {count}"
                )
        if blocks > 1 and not holds_tensors(path):
            raise InputError(
                f"--save {path}: it holds one vector, and there are {blocks} blocks; write .npz, "
                "or choose one with --layer"
            )

    def write(self, found: Sequence[tuple[Layout, Array]]) -> None:
        """Writes the vectors of all blocks, if they are to be; of several ranks the first does."""
        if self.solution_path is None or not reports():
            return
        import numpy as np

        from hesscli.problem.vectorfile import write_vector

        shapes = {name: shape for layout, _ in found for name, shape in layout.shapes.items()}
        write_vector(self.solution_path, np.concatenate([vector for _, vector in found]), shapes)


def vector_options(default: str, found: str) -> Option[Any]:
    """Adds both options; the command gets them as ``vectors``.

    ``default`` says what v is without a file, ``found`` what is written.
    """
    return gathered(
        VectorOptions,
        "vectors",
        file_option("--vector", show_default=default, help="v, as .npy or .npz."),
        file_option("--save", "solution_path", help=f"Write {found} (.npy or .npz)."),
    )
