"""Runs a notebook from its first cell to its last and writes it with the outputs.

    python docs/notebooks/execute.py NOTEBOOK [OUTPUT]

Without OUTPUT the notebook itself is written again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

# Many times what it takes, for a machine that does other things as well.
TIMEOUT = 600


def execute(source: Path, target: Path) -> None:
    """Raises nbclient's CellExecutionError where a cell does, and writes nothing then."""
    notebook = nbformat.read(source, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        # When a cell ran would be another change in every commit.
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(source.parent)}},
    )
    client.execute()
    for cell in notebook.cells:
        # TensorFlow's chatter about the machine, which is no result.
        outputs = cell.get("outputs", [])
        cell.outputs = [output for output in outputs if output.get("name") != "stderr"]
        if cell.cell_type != "code":
            del cell["outputs"]
    # The exact version of the Python that happened to run it says nothing either.
    notebook.metadata.pop("language_info", None)
    nbformat.validate(notebook)
    nbformat.write(notebook, target)


if __name__ == "__main__":
    execute(Path(sys.argv[1]), Path(sys.argv[-1]))
