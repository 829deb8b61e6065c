"""Where arrays are: in the memory of the CPU, as NumPy's, or on a GPU, as CuPy's.

CuPy is imported when a GPU is asked for, and not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from hesscli.system.errors import InputError, reason

CPU_NAME, GPU_NAME = "cpu", "gpu"
DEVICES = (CPU_NAME, GPU_NAME)
# CuPy's, which decides whether products of float32 have the digits of float32; CuPy reads it once,
# before the first of them.
_TF32 = "CUPY_TF32"
_INSTALL = "pip install 'hesscli[cuda12]' or 'hesscli[cuda13]', whichever the driver supports"


def _as_it_is(array: Any) -> Any:
    return array


def _at_once() -> None:
    """Nothing that NumPy computes is waited for."""


@dataclass(frozen=True)
class Device:
    """Where a computation has its arrays, and how they get there and back.

    ``put`` makes an array of NumPy's one of the device, ``fetch`` one of NumPy's out of it, and
    waits for its numbers. What is put inside ``copying``, in a thread beside that which computes,
    is copied while other things are computed; ``wait`` returns once all is computed.
    ``description`` names the hardware and what drives it; of the CPU it is empty.
    """

    name: str
    description: str = ""
    put: Callable[[Any], Any] = _as_it_is
    fetch: Callable[[Any], Any] = _as_it_is
    copying: Callable[[], AbstractContextManager[Any]] = nullcontext
    wait: Callable[[], None] = _at_once

    @property
    def is_cpu(self) -> bool:
        return self.name == CPU_NAME


CPU = Device(CPU_NAME)


def open_device(name: str, *, tf32: bool = False) -> Device:
    """The device called ``name``, one of DEVICES.

    Matrix products of float32 have its 24 binary digits, unless ``tf32``: then their operands are
    rounded to 11, which is faster (NVIDIA's TF32). Raises InputError where CuPy is not installed,
    or finds no GPU, and for another name.
    """
    if name not in DEVICES:
        raise InputError(f"device: {name!r} is unknown; choose {' or '.join(DEVICES)}")
    if name == CPU_NAME:
        if tf32:
            raise InputError("--tf32: it is for products on a GPU; add --device gpu")
        return CPU
    cupy = _cupy()
    os.environ[_TF32] = "1" if tf32 else "0"
    return Device(
        GPU_NAME,
        f"{gpu_name(cupy)}{' with TF32' if tf32 else ''}, {driver_versions(cupy)}",
        put=cupy.asarray,
        fetch=cupy.asnumpy,
        # One stream, because the memory of what was copied by it is only used by it again.
        copying=partial(_by, cupy.cuda.Stream(non_blocking=True)),
        wait=lambda: cupy.cuda.get_current_stream().synchronize(),
    )


def gpu_name(cupy: Any) -> str:
    """What the GPU calls itself, as in ``NVIDIA H100 80GB HBM3``."""
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return str(properties["name"].decode("utf-8", errors="replace"))


def driver_versions(cupy: Any) -> str:
    """The versions of CuPy, of its CUDA, and of the CUDA that the driver supports."""
    runtime = cupy.cuda.runtime
    built, driver = map(_version, (runtime.runtimeGetVersion(), runtime.driverGetVersion()))
    return f"CuPy {cupy.__version__}, CUDA {built}, driver for CUDA {driver}"


def _version(number: int) -> str:
    """CUDA's 12040 as 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        why = "is not installed" if missing else f"cannot be imported ({reason(error)})"
        raise InputError(f"--device gpu: CuPy, which it needs, {why}; {_INSTALL}") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise InputError(
            f"--device gpu: CUDA finds no GPU ({reason(error)}); install NVIDIA's driver, or use "
            "--device cpu"
        ) from error
    if not count:
        raise InputError("--device gpu: CUDA finds no GPU; use --device cpu")
    return cupy


@contextmanager
def _by(stream: Any) -> Iterator[None]:
    """What is put inside is copied by ``stream``, and is there at the end."""
    with stream:
        yield
    stream.synchronize()
