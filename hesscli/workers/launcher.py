"""Whether a launcher of MPI, mpiexec or srun, has started this process as one of several."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

# The number of processes and this one's, as launchers tell them to what they start: Open MPI;
# MPICH, Intel MPI and srun with PMI-1 or PMI-2; srun, whatever it has for MPI. The launcher that
# is nearest comes first: mpiexec may have been started by srun.
_VARIABLES = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


@dataclass(frozen=True)
class Launched:
    """A process that is number ``rank`` (from 0) of ``count``."""

    rank: int
    count: int


def launched(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """What the launcher says of this process; None where there is no other one."""
    for names in _VARIABLES:
        count, rank = (environment.get(name, "") for name in names)
        if count.isdecimal() and rank.isdecimal():
            return Launched(int(rank), int(count)) if int(count) > 1 else None
    return None
