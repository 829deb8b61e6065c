"""One run of one benchmark: its problems in a folder, its outcomes in a record."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from benchmarks.processes import (
    OURS,
    NotMeasuredError,
    Outcome,
    RefusedError,
    explained,
    machine,
    run_command,
    run_program,
)
from benchmarks.results import Agreement, Case, Conditions, Measurement, Missing, Record
from benchmarks.worker import DISAGREED


@dataclass(frozen=True)
class Command:
    """A whole process that is measured."""

    subject: str
    what: str
    arguments: tuple[str, ...]


class Session:
    """Starts one process at a time and keeps what came out.

    ``folder`` takes the problem files; ``timeout`` (s) ends a process that gives no answer;
    ``say`` is told what is being done.
    """

    def __init__(
        self, folder: Path, runs: int, threads: int, timeout: float, say: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.runs = runs
        self.threads = threads
        self.timeout = timeout
        self.say = say
        self._measurements: list[Measurement] = []
        self._agreements: list[Agreement] = []
        self._missing: list[Missing] = []
        self._versions: dict[str, dict[str, str]] = {}

    def record(self, benchmark: str, network: str, dtype: str) -> Record:
        """Everything so far, under the conditions of this run."""
        conditions = Conditions(
            machine=machine(),
            threads=self.threads,
            dtype=dtype,
            network=network,
            runs=self.runs,
            date=dt.date.today().isoformat(),
            versions=self._versions,
        )
        return Record(
            benchmark,
            conditions,
            tuple(self._measurements),
            tuple(self._agreements),
            tuple(self._missing),
        )

    def problem(self, widths: str, batch: int, dtype: str = "float32") -> Path:
        """The problem file that all programs read, written where it is not there yet."""
        path = self.folder / f"{widths}-{dtype}-batch-{batch}.npz"
        if not path.exists():
            options = {"widths": widths, "dtype": dtype, "batch": batch, "out": path}
            self._ours("problem", options)
        return path

    def convolutions(self, network: str, dtype: str, batch: int) -> Path:
        """The problem file of ``configs/<network>.yaml``, written where it is not there yet."""
        path = self.folder / f"{network}-{dtype}-{batch}.npz"
        if not path.exists():
            options = {"network": network, "dtype": dtype, "batch": batch, "out": path}
            self._ours("convolutions", options)
        return path

    def images(self, examples: int) -> Path:
        """A folder of so many images as files, written where it is not there yet."""
        path = self.folder / f"images-{examples}"
        if not path.exists():
            self._ours("images", {"examples": examples, "out": path})
        return path

    def expected(
        self,
        problem: Path,
        case: Case,
        blocks: Sequence[str],
        quantities: Sequence[str],
        options: Mapping[str, object] = MappingProxyType({}),
    ) -> Path | None:
        """Our numbers on ``problem``; None where it does not come to them, which is kept.

        ``options`` are those of every task on the problem.
        """
        path = self.folder / f"{problem.stem}-expected.npz"
        what = {"blocks": ",".join(blocks), "quantities": ",".join(quantities), "out": path}
        try:
            self._ours("expected", {**options, **what}, "--problem", str(problem))
        except NotMeasuredError as error:
            self.miss(OURS, " and ".join(quantities), case, str(error))
            return None
        return path

    def measure(
        self,
        subject: str,
        task: str,
        case: Case,
        problem: Path,
        expected: Path | None = None,
        block: str = "dense1/kernel",
        needs: int = 0,
        options: Mapping[str, object] = MappingProxyType({}),
    ) -> bool:
        """One process that measures ``task``; False where it gave no answer, which is kept.

        ``needs`` bytes must be free; ``options`` are the task's own. Raises RefusedError where
        the numbers do not agree.
        """
        said = ", ".join(f"{key} {value}" for key, value in case.items())
        self.say(f"{subject}: {task}, {said}")
        arguments = ["--problem", str(problem), "--block", block, "--runs", str(self.runs)]
        if expected is not None:
            arguments += ["--expected", str(expected)]
        arguments += _as_options(options)
        try:
            answer = run_program(subject, task, arguments, self.threads, self.timeout, needs)
        except NotMeasuredError as error:
            self.miss(subject, task, case, str(error))
            return False
        self._versions[subject] = answer["versions"]
        self._agreements += [
            Agreement(subject, case=dict(case), **item) for item in answer["agreements"]
        ]
        self._measurements += [
            Measurement(
                subject,
                what,
                dict(case),
                tuple(timing["seconds"]),
                timing["number"],
                timing["first"],
                answer["peak_bytes"],
                answer["numbers"],
                tuple(timing["processor"]),
            )
            for what, timing in answer["timings"].items()
        ]
        return True

    def measure_commands(self, case: Case, commands: Sequence[Command], runs: int) -> None:
        """The times and peak memory of whole commands, which take turns ``runs`` times.

        With more runs than one there is another one before them, to warm up. Raises RefusedError
        where a command finds that its numbers are not ours.
        """
        outcomes: dict[Command, list[Outcome]] = {command: [] for command in commands}
        for _ in range(runs if runs == 1 else runs + 1):
            for command in tuple(outcomes):
                self.say(f"{command.subject}: {command.what}")
                outcome = run_command(command.arguments, self.threads, self.timeout)
                if outcome.code == DISAGREED:
                    raise RefusedError(f"{command.subject}: {outcome.output.strip()}")
                if outcome.code != 0:
                    why = explained(outcome, self.timeout)
                    self.miss(command.subject, command.what, case, why)
                    del outcomes[command]
                    continue
                outcomes[command].append(outcome)
        self._measurements += [
            Measurement(
                command.subject,
                command.what,
                dict(case),
                tuple(outcome.seconds for outcome in found[-runs:]),
                first=found[0].seconds,
                peak_bytes=max(outcome.peak_bytes for outcome in found[-runs:]),
                processor=tuple(outcome.processor for outcome in found[-runs:]),
            )
            for command, found in outcomes.items()
        ]

    def miss(self, subject: str, what: str, case: Case, reason: str) -> None:
        """Keeps that something was not measured, and why."""
        self.say(f"{subject}: {what} not measured: {reason}")
        self._missing.append(Missing(subject, what, dict(case), reason))

    def _ours(self, task: str, options: dict[str, object], *arguments: str) -> None:
        run_program(OURS, task, [*arguments, *_as_options(options)], self.threads, self.timeout)


def _as_options(options: Mapping[str, object]) -> list[str]:
    return [part for key, value in options.items() for part in ("--option", f"{key}={value}")]
