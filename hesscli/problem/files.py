"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from hesscli.problem.errors import InputError, reason

_NEEDED = "a file name in a writable folder is needed"
_CHUNK_BYTES = 2**20
# Held while a file is written: a thread that ends the process waits for it.
BEING_WRITTEN = threading.RLock()


def sha256_of(path: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal; raises InputError where it is unreadable."""
    digest = hashlib.sha256()
    try:
        expanded = os.path.expanduser(path)
        # A pipe would be waited for.
        if os.path.exists(expanded) and not os.path.isfile(expanded):
            raise InputError(f"{path}: not a regular file; one is needed")
        with open(expanded, "rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    # A ValueError comes of a null character in the name.
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({reason(error)}); a readable file is needed"
        ) from error
    return digest.hexdigest()


def check_writable(path: str) -> str:
    """The file that ``path`` leads to; raises InputError where it cannot be written."""
    target = os.path.realpath(os.path.expanduser(path))
    folder = os.path.dirname(target)
    # os.replace would put a file in the place of a device such as /dev/null.
    if os.path.exists(target) and not os.path.isfile(target):
        raise InputError(f"{path}: not a regular file; {_NEEDED}")
    try:
        os.scandir(folder).close()
        if not os.access(folder, os.W_OK):
            raise PermissionError("Permission denied")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({reason(error)}); {_NEEDED}") from error
    return target


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of ``path`` when the block ends without an error.

    Raises InputError where the file cannot be written.
    """
    with replacing_by_name(path) as temporary, open(temporary, "xb") as stream:
        yield stream


@contextmanager
def replacing_by_name(path: str) -> Iterator[str]:
    """As ``replacing``, for libraries that open files themselves: the name to write under.

    A block that ends without an error must have made that file.
    """
    target = check_writable(path)
    # Not tempfile: its files are readable by their owner only, whatever the umask.
    temporary = os.path.join(os.path.dirname(target), f".hesscli-{secrets.token_hex(8)}.tmp")
    with BEING_WRITTEN:
        try:
            yield temporary
            os.replace(temporary, target)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be written ({reason(error)}); {_NEEDED}") from error
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)
