"""The program ``hesscli``, also as ``python -m hesscli``."""

import os
import signal
import sys


def main() -> None:
    """Runs the command line in a process of its own."""
    _stand_in_for_closed_streams()
    try:
        # Imported here: a signal while that takes its time is none of a traceback either.
        from hesscli.cli import interrupt
    except (KeyboardInterrupt, RuntimeError) as error:
        if not isinstance(error, KeyboardInterrupt) and not _is_wrapped(error, KeyboardInterrupt):
            raise
        os.write(2, b"hesscli: interrupted\n")
        _end_others()
        os._exit(130)
    try:
        interrupt.interruptible()
        from hesscli.cli.main import main as command_line

        command_line()
    except interrupt.Interrupted:
        interrupt.end_interrupted()
    except RuntimeError as error:
        if _is_wrapped(error, interrupt.Interrupted):
            interrupt.end_interrupted()
        raise
    except SystemExit as ended:
        if ended.code == interrupt.INTERRUPTED:
            interrupt.end_interrupted()
        interrupt.uninterruptible()
        raise


def _is_wrapped(error: BaseException, by: type[BaseException]) -> bool:
    """Whether it stands for ``by`` out of a ``__set_name__``, as before Python 3.12."""
    return isinstance(error.__cause__, by)


def _end_others() -> None:
    """Ends the processes that were started together with this one, for which they would wait."""
    from hesscli.workers.launcher import launched

    if launched() is not None:
        # Launchers end the others if one is killed.
        os.kill(os.getpid(), signal.SIGKILL)


def _stand_in_for_closed_streams() -> None:
    """Opens nothing in the place of standard streams that are closed.

    Else the next file would get their number, and what libraries write there.
    """
    descriptor = -1
    while descriptor <= 2:
        # The lowest number that is free.
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


if __name__ == "__main__":
    main()
