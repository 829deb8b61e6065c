"""``hesscli launch``: the workers of a command, on this machine."""

from __future__ import annotations

from collections.abc import Sequence

import click

from hesscli.cli.strategy import MULTI_WORKER

COMMANDS = ("verify", "compare", "spectrum", "train")


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="""
    \b
    Examples:
      hesscli launch --workers 2 -- verify --activation tanh --check probes -n 4000
      hesscli launch --workers 4 -- spectrum --top 3 -n all --layer dense2
      hesscli launch --workers 2 -- train --steps 200
    """,
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    required=True,
    help="How many processes, each with its share of the cores.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def launch(workers: int, command: tuple[str, ...]) -> int:
    """Try a command on several workers, all of them on this machine.

    Starts COMMAND (verify, compare, spectrum or train) with --strategy multi-worker in N
    processes that know each other by TF_CONFIG. What the first one shows is the result; Ctrl-C is
    passed on, and the exit code is the worst of the workers'. On several machines start the
    workers as any TensorFlow program: this command only starts processes.
    """
    if command[0] not in COMMANDS:
        from hesscli.system.near import nearest

        hint = nearest(command[0], COMMANDS)
        raise click.UsageError(f"launch: {command[0]!r} does not run on several workers{hint}")
    arguments = [*command, *_strategy(command), *_threads(command, workers)]
    # Sockets and processes are imported for who starts some.
    from hesscli.cli.launched import Processes

    with Processes(workers, arguments) as processes:
        processes.start()
        return processes.wait()


def _strategy(command: Sequence[str]) -> list[str]:
    given = any(word.partition("=")[0] == "--strategy" for word in command)
    return [] if given else ["--strategy", MULTI_WORKER]


def _threads(command: Sequence[str], workers: int) -> list[str]:
    """One worker's share of the cores, unless the command says how many."""
    from hesscli.system.threads import cores

    given = any(word.partition("=")[0] == "--threads" for word in command)
    return [] if given else ["--threads", str(max(1, cores() // workers))]
