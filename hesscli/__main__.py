"""The program ``hesscli``, also as ``python -m hesscli``."""

import os


def main() -> None:
    """Runs the command line in a process of its own."""
    try:
        # Imported here: a signal while that takes its time is none of a traceback either.
        from hesscli.cli import interrupt
    except KeyboardInterrupt:
        os.write(2, b"hesscli: interrupted\n")
        os._exit(130)
    try:
        interrupt.interruptible()
        from hesscli.cli.main import main as command_line

        command_line()
    except interrupt.Interrupted:
        interrupt.end_interrupted()
    except SystemExit as ended:
        if ended.code == interrupt.INTERRUPTED:
            interrupt.end_interrupted()
        interrupt.uninterruptible()
        raise


if __name__ == "__main__":
    main()
