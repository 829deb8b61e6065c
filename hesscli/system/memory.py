"""How much memory there is."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from hesscli.system.errors import InputError
from hesscli.system.threads import cores, thread_count

_MEMINFO, _STATM = Path("/proc/meminfo"), Path("/proc/self/statm")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|KB|MB|GB|TB)?")
_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
# Measured as the address space that NumPy and SciPy take when they are imported: 150 MB and 83 MB
# a thread, and some more.
_BLAS_BYTES, _BLAS_BYTES_OF_A_THREAD = 200 * 10**6, 100 * 10**6
# What glibc's loader says if there is no address space for a library.
_NO_ADDRESSES = ("cannot allocate memory", "failed to map segment", "cannot map zero-fill pages")
# glibc's mallopt, and what it is told: arrays below the size are not mapped each on its own, and as
# much freed memory is kept.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _MAPPED_BYTES = 2**27, 2**25
# What the examples may take if nobody says: this share of what is free.
_SHARE_OF_EXAMPLES = 0.25


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping; None if the system does not say.

    No more than what the process may still take (``ulimit -v``).
    """
    known = [size for size in (_free(), allowed_memory()) if size is not None]
    return min(known, default=None)


def require_memory(needed: int, what: str, remedy: str, share: float = 1.0) -> None:
    """Raises InputError if ``needed`` bytes are more than a share of what is available.

    It reads ``{what} 1.2 GB and 0.9 GB are free; {remedy}``, so that ``what`` ends in a verb.
    """
    available = available_memory()
    if available is not None and needed > share * available:
        raise InputError(
            f"{what} {readable_size(needed)} and {readable_size(available)} are free; {remedy}"
        )


def require_room_for_libraries() -> None:
    """Raises InputError if a limit (``ulimit -v``) leaves NumPy's BLAS too little to start.

    It would wait for memory without an end.
    """
    allowed, threads = allowed_memory(), min(thread_count(), cores())
    needed = _BLAS_BYTES + threads * _BLAS_BYTES_OF_A_THREAD
    if allowed is not None and allowed < needed:
        raise InputError(
            f"ulimit -v leaves {readable_size(allowed)}; NumPy with {threads} threads starts in "
            f"{readable_size(needed)}; allow more, or use fewer --threads"
        )


def out_of_address_space(error: ImportError) -> str | None:
    """What to do if a limit (``ulimit -v``) kept a library from being loaded; None if it did not.

    The dynamic loader says so in the text of an ImportError only.
    """
    text, allowed = str(error).lower(), allowed_memory()
    if allowed is None or not any(sign in text for sign in _NO_ADDRESSES):
        return None
    return f"ulimit -v leaves {readable_size(allowed)}, which is too little for it; allow more"


def keep_freed_memory() -> None:
    """Makes the C library reuse the memory of freed arrays, if it is glibc.

    By default it returns it to the system, which clears every page before it gives it back: that
    took a fifth of the processor time of ``verify`` and two thirds of that of ``sweep``.
    """
    try:
        import ctypes

        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    except (ImportError, OSError, AttributeError, TypeError):
        # Another C library, or none that can be asked.
        return


def allowed_memory() -> int | None:
    """The bytes that a limit of the address space leaves; None without one."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return None
        pages = int(_STATM.read_text(encoding="ascii").split()[0])
        return max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))
    except (ImportError, OSError, ValueError):
        return None


def _free() -> int | None:
    try:
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def readable_size(size: float) -> str:
    """A number of bytes in decimal units, as in ``4.4 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def parse_size(text: str) -> int | None:
    """The bytes that ``500MB`` or ``2 GB`` means, in decimal units; None for other text."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    size = float(match[1]) * _UNITS[match[2] or "B"]
    return int(size) if math.isfinite(size) else None


def examples_memory() -> int:
    """The bytes that the examples may take if nobody says: a quarter of what is free."""
    available = available_memory()
    return 2**62 if available is None else int(_SHARE_OF_EXAMPLES * available)
