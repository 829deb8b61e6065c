"""``hesscli export``."""

from __future__ import annotations

import re
from typing import Literal

import click

from hesscli.cli.command import choice_option, command, file_option
from hesscli.cli.options import ProblemOptions, problem_options
from hesscli.cli.output import OutputOptions, format_option
from hesscli.cli.progress import progress_bar

_ROWS = re.compile(r"(\d{0,18}):(\d{0,18})")


def _rows(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, int | None] | None:
    if text is None:
        return None
    match = _ROWS.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(
            f"{text!r}; write START:STOP, as in 0:100; the row STOP is left out", context, parameter
        )
    return int(match[1] or 0), int(match[2]) if match[2] else None


@command(
    "hesscli export dense2/kernel --activation tanh --output H.npy",
    "hesscli export dense1/kernel --dtype float32 --output H.h5",
    "hesscli export dense1 --rows 0:1000 --term curvature --output C.npz",
    "hesscli export network --of gradient --output g.npy",
)
@click.argument("block", metavar="BLOCK")
@file_option(
    "--output", "-o", "path", required=True, help="File to write: .npy, .npz, .h5 or .hdf5."
)
@choice_option("--of", among=("hessian", "diagonal", "gradient", "jacobian"))
@choice_option("--term", among=("hessian", "gauss-newton", "curvature"))
@click.option(
    "--rows", metavar="START:STOP", callback=_rows, help="Some of the rows.", show_default="all"
)
@problem_options()
@format_option
def export(
    block: str,
    path: str,
    of: Literal["hessian", "diagonal", "gradient", "jacobian"],
    term: Literal["hessian", "gauss-newton", "curvature"],
    rows: tuple[int, int | None] | None,
    problem: ProblemOptions,
    format_name: str | None,
) -> int:
    """Write a block of the Hessian, or a gradient, to a file.

    BLOCK is <layer>/kernel, <layer>/bias, <layer>, input, input[n] or network; --of chooses what
    is written of it. The numbers are the chain rule's. They are written row by row, so that memory
    stays small. The names of the parameters and the configuration are stored with them, for .npy
    in FILE.json. Nothing is written if the disk is too small or the command is interrupted.
    """
    from hesscli.studies.export import export_block, require_export_path

    # Before anything is computed that could not be written.
    require_export_path(path)
    config = problem.config_of_one("a file contains the block of one")

    from hesscli.config.load import to_yaml
    from hesscli.report.documents import document_of

    (chosen,) = problem.problems(config)
    with progress_bar() as progress:
        result = export_block(
            chosen,
            block,
            path,
            of=of,
            term=term,
            rows=rows,
            configuration=to_yaml(config),
            progress=progress,
            execution=problem.execution(chosen),
        )
    OutputOptions(format_name).write(document_of(result))
    return 0
