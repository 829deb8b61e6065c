"""The benchmarks' driver: ``python -m benchmarks.run [NAME …]``; ``make bench`` runs them all."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from benchmarks.environments import MissingEnvironmentError
from benchmarks.measurements import BENCHMARKS, SkippedError
from benchmarks.processes import OURS, RefusedError, cores, keep_to
from benchmarks.results import RESULTS, Record, to_json
from benchmarks.session import Session
from benchmarks.tables import document
from hesscli.report.output import write_document
from hesscli.system.files import replacing

# Fewer say nothing of the spread.
_FEWEST_RUNS = 5


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(tuple(BENCHMARKS)), metavar="[NAME]…")
@click.option("--runs", default=_FEWEST_RUNS, show_default=True, type=click.IntRange(1))
@click.option("--threads", type=click.IntRange(1), help="Default: all cores.")
@click.option(
    "--timeout",
    default=1800.0,
    show_default=True,
    metavar="SECONDS",
    help="End a process that gives no answer by then.",
)
@click.option(
    "--results",
    default=str(RESULTS),
    metavar="FOLDER",
    type=click.Path(file_okay=False, writable=True),
    help="Where the JSON goes.",
)
def main(
    names: tuple[str, ...], runs: int, threads: int | None, timeout: float, results: str
) -> None:
    """Measure hesscli against its peers, one process after the other.

    NAME is one of entries, product, sweep, dense, width, depth, conv, gpu, kfac, dataset,
    startup, command; all without one.
    Exits with 1 where numbers do not agree or hesscli itself gives no answer.
    """
    chosen = min(threads or cores(), cores())
    keep_to(chosen)
    Path(results).mkdir(parents=True, exist_ok=True)
    failed = False
    for name in names or BENCHMARKS:
        try:
            record = _run(name, runs, chosen, timeout)
        except RefusedError as error:
            click.echo(f"{name}: FAIL: {error}; nothing is timed where numbers differ", err=True)
            failed = True
            continue
        except SkippedError as error:
            click.echo(f"{name}: skipped: {error}")
            continue
        except MissingEnvironmentError as error:
            click.echo(f"{name}: {error}", err=True)
            sys.exit(2)
        with replacing(str(Path(results) / f"{name}.json")) as stream:
            stream.write(to_json(record).encode("utf-8"))
        write_document(document(record), "table", None)
        click.echo()
        failed = failed or any(missing.subject == OURS for missing in record.missing)
    sys.exit(1 if failed else 0)


def _run(name: str, runs: int, threads: int, timeout: float) -> Record:
    def say(text: str) -> None:
        click.echo(f"{name}: {text}", err=True)

    with tempfile.TemporaryDirectory(prefix="hesscli-bench-") as folder:
        session = Session(Path(folder), runs, threads, timeout, say)
        benchmark = BENCHMARKS[name]
        benchmark.measure(session)
        return session.record(name, benchmark.network, benchmark.dtype)


if __name__ == "__main__":
    main()
