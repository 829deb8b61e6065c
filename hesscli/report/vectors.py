"""What a command found for the parameters of blocks, as a vector file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hesscli.problem.graph import Array
from hesscli.problem.vectorfile import holds_tensors, write_vector
from hesscli.system.errors import InputError
from hesscli.witnesses.layout import Layout


def require_one_file(path: str, choices: Mapping[str, int], blocks: int) -> None:
    """Raises InputError where more is found than one vector, or in ``.npz`` one of each block.

    ``choices`` counts what was chosen by each option, as in ``{"--activation": 2}``.
    """
    for option, count in choices.items():
        if count > 1:
            raise InputError(f"--save {path}: it holds what is found of one {option}, not {count}")
    if blocks > 1 and not holds_tensors(path):
        raise InputError(
            f"--save {path}: it holds one vector, and there are {blocks} blocks; write .npz, or "
            "choose one with --layer"
        )


def write_vectors(found: Sequence[tuple[Layout, Array]], path: str) -> None:
    """Writes the vectors (P,) of all blocks to ``path``, so that ``--vector`` reads it."""
    shapes = {name: shape for layout, _ in found for name, shape in layout.shapes.items()}
    write_vector(path, np.concatenate([vector for _, vector in found]), shapes)
