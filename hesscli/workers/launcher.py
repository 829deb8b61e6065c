"""Whether a launcher of MPI, mpiexec or srun, has started this process as one of several.

And what can be done about the others before MPI has started: hydra, the launcher of MPICH, does not
notice a process that ends by itself before that, and the others would wait for it. (mpiexec of
Open MPI, and srun with --kill-on-bad-exit, do.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

# The number of processes and this one's, as launchers tell them to what they start: Open MPI;
# MPICH, Intel MPI and srun with PMI-1 or PMI-2; srun, whatever it has for MPI. The launcher that
# is nearest comes first: mpiexec may have been started by srun.
_VARIABLES = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)

# What a process has said may be lost if it aborts before the launcher has read it.
READ_SECONDS = 0.2

# Hydra's number of processes on this machine, and the file to its process there, by which
# a process speaks the protocol PMI-1. (Slurm has one of the same name for another protocol.)
_LOCAL_COUNT, _TO_LAUNCHER, _HYDRA = "MPI_LOCALNRANKS", "PMI_FD", "hydra_pmi_proxy"


@dataclass(frozen=True)
class Launched:
    """A process that is number ``rank`` (from 0) of ``count``."""

    rank: int
    count: int


def launched(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """The rank and count of this process by its launcher; None if there is no other process."""
    for names in _VARIABLES:
        count, rank = (environment.get(name, "") for name in names)
        if count.isdecimal() and rank.isdecimal():
            return Launched(int(rank), int(count)) if int(count) > 1 else None
    return None


def abort(code: int, environment: Mapping[str, str] = os.environ) -> None:
    """Ends all processes with ``code``, without MPI, if hydra has started them."""
    if _LOCAL_COUNT in environment and environment.get(_TO_LAUNCHER, "").isdecimal():
        said = f"cmd=init pmi_version=1 pmi_subversion=1\ncmd=abort exitcode={code}\n"
        with suppress(OSError):
            os.write(int(environment[_TO_LAUNCHER]), said.encode("ascii"))


def has_lost_one(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a process that hydra has started on this machine has ended; False if unknown."""
    count = environment.get(_LOCAL_COUNT, "")
    with suppress(OSError, ValueError):
        above = next((pid for pid, name in _ancestors() if name == _HYDRA[:15]), None)
        if above is not None and count.isdecimal():
            pids = filter(str.isdecimal, os.listdir("/proc"))
            states = [found for pid in pids if (found := _status(pid))]
            alive = [name for name, state, parent in states if parent == above and state != "Z"]
            return len(alive) < int(count)
    return False


def _ancestors() -> Iterator[tuple[int, str]]:
    pid = os.getppid()
    while pid > 1 and (found := _status(pid)):
        yield pid, found[0]
        pid = found[2]


def _status(pid: int | str) -> tuple[str, str, int] | None:
    """A process's name, which Linux cuts at 15 characters, state and parent; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    state, parent = rest.split()[:2]
    return name, state, int(parent)
