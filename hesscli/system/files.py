"""Files as users name them: read with care, written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from hesscli.system import temporaries
from hesscli.system.errors import InputError, reason

_NEEDED = "a file name in a writable folder is needed"
_ROOM = "make room, or name a file on another disk"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "allow larger files (ulimit -f), or name a file on another disk",
    errno.EIO: "the disk has an error; name a file on another one",
}
_CHUNK_BYTES = 2**20


def expanded(path: str) -> str:
    """``path`` with ``~`` as the home folder; raises InputError if no file can be called so."""
    try:
        file = os.path.expanduser(path)
        os.fsencode(file)
    # A lone surrogate, or ~ and a null character.
    except ValueError as error:
        raise InputError(f"{path}: {reason(error)}; the name of a file is needed") from error
    if "\0" in file:
        raise InputError(f"{path}: a null character in it; the name of a file is needed")
    return file


@contextmanager
def opened(path: str, needed: str) -> Iterator[BinaryIO]:
    """The file ``path`` (``~`` is expanded), to be read.

    ``needed`` says in messages what it should be, as in "a YAML file is needed". Raises
    InputError if it is not a regular file or cannot be read, also within the block.
    """
    file = expanded(path)
    try:
        # A pipe would block in open() and a device has no end.
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise InputError(f"{path}: not a regular file; {needed}")
        with open(file, "rb") as stream:
            yield stream
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); {needed}") from error


def sha256_of(path: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal; raises InputError if it is unreadable."""
    # The command line imports this file: most commands need no digest.
    import hashlib

    digest = hashlib.sha256()
    with opened(path, "a readable file is needed") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_writable(path: str) -> str:
    """The file that ``path`` leads to; raises InputError if it cannot be written."""
    try:
        target = os.path.realpath(expanded(path))
        # os.replace would put a file in the place of a device such as /dev/null.
        if os.path.exists(target) and not os.path.isfile(target):
            raise InputError(f"{path}: not a regular file; {_NEEDED}")
        folder = os.path.dirname(target)
        os.scandir(folder).close()
        if not os.access(folder, os.W_OK):
            of_disk = os.statvfs(folder).f_flag & os.ST_RDONLY
            number = errno.EROFS if of_disk else errno.EACCES
            raise OSError(number, os.strerror(number))
        # Says whether the system takes the name: it may be too long, or be a loop of links.
        with suppress(FileNotFoundError):
            os.stat(target)
    except OSError as error:
        raise _unwritable(path, error) from error
    return target


def _unwritable(path: str, error: Exception) -> InputError:
    number = error.errno if isinstance(error, OSError) else None
    remedy = _REMEDIES.get(number or 0, _NEEDED)
    return InputError(f"{path}: cannot be written ({reason(error)}); {remedy}")


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of ``path`` when the block ends without an error.

    Raises InputError if the file cannot be written.
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
    temporary = os.path.join(os.path.dirname(target), f".hesscli-{os.urandom(8).hex()}.tmp")
    temporaries.note(temporary)
    try:
        yield temporary
        _write_through(temporary)
        os.replace(temporary, target)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    finally:
        temporaries.remove(temporary)


def _write_through(path: str) -> None:
    """Has the system write the file out: a disk may say only then that it is full or broken."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
