"""Who the workers are: from TF_CONFIG as TensorFlow has it, or from Slurm.

TF_CONFIG (https://www.tensorflow.org/api_docs/python/tf/distribute/cluster_resolver) is read here
and not by TensorFlow, which takes seconds to import and says little of what is wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hesscli.system.errors import InputError, reason, shown

_TF_CONFIG, _SLURM = "TF_CONFIG", "SLURM_PROCID"
_CHIEF, _WORKER = "chief", "worker"
_EXAMPLE = (
    """{"cluster": {"worker": ["host0:12345", "host1:12345"]}, """
    """"task": {"type": "worker", "index": 0}}"""
)
_LARGEST_PORT = 65535


@dataclass(frozen=True)
class Cluster:
    """The ``addresses`` (host:port) of all workers, and which of them this process is.

    ``origin`` is what messages call the source of it.
    """

    addresses: tuple[str, ...]
    index: int
    origin: str

    @property
    def count(self) -> int:
        return len(self.addresses)

    @property
    def here(self) -> int:
        """How many of the workers are on this one's host."""
        hosts = [self.host_and_port(index)[0] for index in range(self.count)]
        return hosts.count(hosts[self.index])

    def name_of(self, index: int) -> str:
        """A worker as messages call it."""
        return f"worker {index} ({self.addresses[index]})"

    def host_and_port(self, index: int) -> tuple[str, int]:
        host, _, port = self.addresses[index].rpartition(":")
        return host.strip("[]"), int(port)


def find_cluster(environment: Mapping[str, str] = os.environ) -> Cluster:
    """The cluster that the environment tells of; raises InputError where there is none."""
    if environment.get(_TF_CONFIG):
        return _from_tf_config(environment[_TF_CONFIG])
    if _SLURM in environment:
        return _from_slurm(environment)
    raise InputError(
        "--strategy multi-worker: no cluster; set TF_CONFIG for each worker, run it in a Slurm "
        "step, or try it out on this machine with: hesscli launch --workers 2 -- verify …"
    )


def _from_tf_config(text: str) -> Cluster:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{_TF_CONFIG}: not JSON ({reason(error)}); it must be like {_EXAMPLE}"
        ) from error
    jobs = _mapping("cluster", _mapping("", config).get("cluster"))
    for job in jobs:
        if job not in (_CHIEF, _WORKER):
            raise InputError(
                f"{_TF_CONFIG}: cluster.{job}: every process is a worker here; cluster may have "
                f"{_CHIEF} and {_WORKER}"
            )
    chief = _addresses(_CHIEF, jobs.get(_CHIEF, []))
    if len(chief) > 1:
        raise InputError(f"{_TF_CONFIG}: cluster.{_CHIEF}: {len(chief)} addresses; it has one")
    addresses = (*chief, *_addresses(_WORKER, jobs.get(_WORKER, [])))
    if not addresses:
        raise InputError(f"{_TF_CONFIG}: cluster: it has no workers; it must be like {_EXAMPLE}")
    for place, address in enumerate(addresses):
        if address in addresses[:place]:
            raise InputError(
                f"{_TF_CONFIG}: cluster: {address} is there twice; each worker has its own"
            )
    return Cluster(addresses, _own_index(config, len(chief), len(addresses)), _TF_CONFIG)


def _own_index(config: Mapping[str, Any], chiefs: int, count: int) -> int:
    task = _mapping("task", config.get("task"))
    kind, index = task.get("type"), task.get("index")
    allowed = {_CHIEF: range(chiefs), _WORKER: range(count - chiefs)}
    if kind not in allowed or not allowed[kind]:
        jobs = " or ".join(job for job, indices in allowed.items() if indices)
        raise InputError(f"{_TF_CONFIG}: task.type: {shown(kind)}; it must be {jobs}")
    # TensorFlow takes "0" as well.
    number = int(index) if isinstance(index, str) and index.isdecimal() else index
    if type(number) is not int or number not in allowed[kind]:
        last = len(allowed[kind]) - 1
        raise InputError(f"{_TF_CONFIG}: task.index: {shown(index)}; it must be 0 to {last}")
    return number + (chiefs if kind == _WORKER else 0)


def _addresses(job: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(
            f"{_TF_CONFIG}: cluster.{job}: {shown(value)}; it must be a list of host:port"
        )
    for place, address in enumerate(value):
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not (host and port.isdecimal() and 0 < int(port) <= _LARGEST_PORT):
            raise InputError(
                f"{_TF_CONFIG}: cluster.{job}.{place}: {shown(address)}; it must be host:port"
            )
    return tuple(value)


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        where = f"{key}: " if key else ""
        raise InputError(f"{_TF_CONFIG}: {where}{shown(value)}; it must be like {_EXAMPLE}")
    return value


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    from hesscli.system.tensorflow import import_tensorflow

    tensorflow = import_tensorflow()
    try:
        # The resolver leaves out the tasks that get no GPU; the workers compute on their cores.
        resolver = tensorflow.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=int(environment["SLURM_STEP_NUM_TASKS"]),
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        addresses = tuple(resolver.cluster_spec().job_tasks(_WORKER))
    # TensorFlow raises whatever the variables make it stumble over.
    except Exception as error:
        raise InputError(
            f"Slurm: the SLURM variables tell of no cluster ({reason(error)}); start the workers "
            "with srun, or set TF_CONFIG"
        ) from error
    return Cluster(addresses, int(resolver.task_id), "Slurm")
