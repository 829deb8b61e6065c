"""The origin that every result records, and how a study reports its progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from hesscli.problem.execution import Execution
from hesscli.problem.names import OUTPUT
from hesscli.problem.network import Problem
from hesscli.studies.verdict import JudgedRows
from hesscli.system.devices import CPU_NAME
from hesscli.system.packages import installed, installed_tensorflow
from hesscli.system.threads import thread_count
from hesscli.version import __version__

# Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


def no_progress(task: str, done: int, total: int) -> None:
    """For callers who do not watch."""


class InstalledVersions(TypedDict):
    """Versions by package; None for what is not installed."""

    hesscli: str
    tensorflow: str | None
    numpy: str
    scipy: str


@dataclass(frozen=True)
class Environment:
    """The versions, threads, workers and device that a result depends on; None for what is missing.

    ``device`` is cpu, or what a GPU and its libraries call themselves.
    """

    hesscli: str
    tensorflow: str | None
    numpy: str
    scipy: str
    dtype: str
    threads: int
    workers: int = 1
    device: str = CPU_NAME


@dataclass(frozen=True)
class BatchLoss:
    """The loss of a batch: that of the ``data``, and the ``penalty`` that is added to it.

    ``accuracy`` is None if the loss chooses no class.
    """

    activation: str
    data: float
    penalty: float
    accuracy: float | None

    @property
    def total(self) -> float:
        return self.data + self.penalty


@dataclass(frozen=True)
class ProblemSummary:
    """The size and origin of a problem, without its arrays.

    ``chunk`` is how many examples were looked at at a time; None if all were. ``inputs`` says
    how the inputs were prepared. ``losses`` are those of each activation, if the parameters
    that the study looks at are the problem's own, and ``largest_input`` is the largest |x|.
    ``kinds`` counts the layers that have parameters. ``output`` is the output that stands in place
    of a loss, None if it is a loss.
    """

    examples: int
    widths: tuple[int, ...]
    layers: tuple[str, ...]
    parameters: int
    loss: str
    reduction: str
    seed: int | None
    notes: tuple[str, ...] = ()
    weights: str | None = None
    chunk: int | None = None
    inputs: str = ""
    losses: tuple[BatchLoss, ...] = ()
    largest_input: float | None = None
    kinds: Mapping[str, int] = field(default_factory=dict)
    output: int | None = None


@dataclass(frozen=True)
class Study(JudgedRows):
    """The result of a study: its origin, and then its own fields, among them ``results``."""

    environment: Environment
    problem: ProblemSummary


def environment(problem: Problem, execution: Execution) -> Environment:
    """The versions in use; TensorFlow's is looked up without importing it."""
    return Environment(
        **installed_versions(),
        dtype=problem.dtype.name,
        threads=thread_count(),
        workers=execution.workers.count,
        device=execution.device.description or execution.device.name,
    )


def installed_versions() -> InstalledVersions:
    """The versions that the numbers depend on."""
    return {
        "hesscli": __version__,
        "tensorflow": installed_tensorflow(),
        "numpy": installed("numpy") or "",
        "scipy": installed("scipy") or "",
    }


def summary(problem: Problem, execution: Execution) -> ProblemSummary:
    """The summary of ``problem`` and of its execution."""
    return ProblemSummary(
        examples=problem.total,
        widths=problem.widths,
        layers=problem.layer_names,
        parameters=problem.parameter_count,
        loss=problem.loss.name,
        reduction=problem.loss.reduction,
        seed=problem.seed,
        notes=problem.notes,
        weights=problem.weights,
        chunk=execution.chunk,
        inputs=problem.prepared,
        kinds=_kinds(problem),
        output=problem.loss.index if problem.loss.name == OUTPUT else None,
    )


def _kinds(problem: Problem) -> dict[str, int]:
    """How many layers with parameters there are of each kind, by the first such node of each."""
    with_parameters = [node for node in problem.graph.nodes if node.tensors]
    first = {node.layer: node.kind for node in reversed(with_parameters)}
    return dict(Counter(reversed(first.values())))
