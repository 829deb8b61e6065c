"""The solutions x of a Solve as a vector file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hesscli.problem.network import Problem
from hesscli.problem.vectorfile import holds_tensors, write_vector
from hesscli.studies.blocks import chosen
from hesscli.studies.solve import Solve, SolveOptions
from hesscli.system.errors import InputError


def require_one_file(problems: Sequence[Problem], options: SolveOptions, path: str) -> None:
    """Raises InputError where the solutions are not one vector, or of ``.npz`` one of each block.

    A file has one x of a parameter: that of one activation and one matrix.
    """
    for option, count in (("--activation", len(problems)), ("--matrix", len(options.matrices))):
        if count > 1:
            raise InputError(f"--save {path}: it holds the solutions of one {option}, not {count}")
    blocks = len(chosen(problems[0], options.block, options.layers))
    if blocks > 1 and not holds_tensors(path):
        raise InputError(
            f"--save {path}: it holds one vector, and there are {blocks} blocks; write .npz, or "
            "choose one with --layer"
        )


def write_solutions(result: Solve, path: str) -> None:
    """Writes x of every block to ``path``, so that ``--vector`` reads it."""
    shapes = {name: shape for row in result.results for name, shape in row.layout.shapes.items()}
    write_vector(path, np.concatenate([row.solution.x for row in result.results]), shapes)
