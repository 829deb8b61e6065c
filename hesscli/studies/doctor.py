"""Is everything here that hesscli needs? What is installed and found, for bug reports.

Nothing that may be missing is imported before it is asked for, NumPy neither. TensorFlow is
asked in a process of its own: one that was built for another processor does not raise, it kills.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from hesscli.system.devices import GPU_NAME, open_device
from hesscli.system.errors import HesscliError, reason
from hesscli.system.memory import available_memory, readable_size
from hesscli.system.packages import blas, installed, installed_tensorflow
from hesscli.system.threads import thread_count
from hesscli.version import __version__

# What every command needs, by what pip calls it and what Python imports.
_NEEDED = {
    "numpy": "numpy",
    "scipy": "scipy.sparse.linalg",
    "click": "click",
    "rich": "rich",
    "pyyaml": "yaml",
}
# What some need: the package, and the sentence that says what for.
_EXTRAS = {
    "matplotlib": "not installed; --plot and the plots of pages need it: "
    "pip install 'hesscli[plot]'",
    "mpmath": "not installed; it settles what rounding leaves undecided: "
    "pip install 'hesscli[referee]'",
    "pillow": "not installed; folders of images need it: pip install 'hesscli[images]'",
    "mpi4py": "not installed; mpiexec -n N hesscli needs it: pip install 'hesscli[mpi]'",
    "h5py": "not installed; .keras and HDF5 files need it; it comes with TensorFlow",
}
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "KERAS_HOME",
)
# TensorFlow is imported in seconds; a machine under load may take a minute.
_PATIENCE = 300
_ASK_TENSORFLOW = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import tensorflow as tf
names = [device.name for device in tf.config.list_physical_devices()]
devices = ", ".join(name.removeprefix("/physical_device:") for name in names)
print()
print(json.dumps({"version": tf.__version__, "keras": tf.keras.__version__, "devices": devices}))
"""


@dataclass(frozen=True)
class Fact:
    """One thing that was found; ``trouble`` says what is wrong with it and what would be right.

    ``needed`` tells what must be there from what may be.
    """

    section: str
    name: str
    value: str
    needed: bool = False
    trouble: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The result of ``hesscli doctor``."""

    hesscli: str
    facts: tuple[Fact, ...]

    @property
    def passed(self) -> bool:
        return not any(fact.trouble for fact in self.facts)


def diagnose(tensorflow: bool = True, terminal: Mapping[str, str] | None = None) -> Diagnosis:
    """Versions, machine, devices, data and defaults; ``terminal`` is what only its user knows.

    Without ``tensorflow`` it is not imported, only looked for.
    """
    facts = [
        *_versions(),
        *_extras(),
        *_tensorflow(tensorflow),
        *_machine(),
        *_data(),
        *_defaults(),
        *(Fact("terminal", name, value) for name, value in (terminal or {}).items()),
    ]
    return Diagnosis(__version__, tuple(facts))


def _versions() -> Iterator[Fact]:
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    yield Fact("versions", "hesscli", f"{__version__} in {here}")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield Fact("versions", "python", f"{python} at {sys.executable}")
    for package, module in _NEEDED.items():
        number = installed(package)
        trouble = _import_trouble(module, f"pip install {package}")
        yield Fact("versions", package, number or "not installed", True, trouble)


def _tensorflow(ask: bool) -> Iterator[Fact]:
    found = installed_tensorflow()
    if found is None and _is_missing("tensorflow"):
        remedy = "autodiff, the second witness, needs it: pip install tensorflow"
        yield Fact("versions", "tensorflow", "not installed", True, remedy)
        return
    if not ask:
        yield Fact("versions", "tensorflow", f"{found} (not imported)", True)
        return
    answer, trouble = _asked()
    if trouble is not None:
        yield Fact("versions", "tensorflow", found or "of unknown version", True, trouble)
        return
    yield Fact("versions", "tensorflow", answer["version"], True)
    yield Fact("versions", "keras", answer["keras"])
    yield Fact("machine", "devices", answer["devices"] or "none")


def _asked() -> tuple[dict[str, str], str | None]:
    """TensorFlow's own facts, or the reason why there are none."""
    command = [sys.executable, "-c", _ASK_TENSORFLOW, json.dumps(sys.path)]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    again = "install it again: pip install --force-reinstall tensorflow"
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=quiet, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return {}, f"not imported within {_PATIENCE} seconds; {again}"
    except OSError as error:
        return {}, f"cannot be started ({reason(error)})"
    if ended.returncode < 0:
        name = signal.Signals(-ended.returncode).name
        return {}, f"its import ends the process with {name}; it may be built for another processor"
    last = [line for line in ended.stderr.splitlines() if line.strip()][-1:]
    if ended.returncode:
        return {}, f"cannot be imported ({' '.join(last)}); {again}"
    try:
        answer: dict[str, str] = json.loads(ended.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {}, f"gave no answer ({ended.stdout.strip()[-80:]!r}); {again}"
    return answer, None


def _extras() -> Iterator[Fact]:
    for package, missing in _EXTRAS.items():
        yield Fact("extras", package, installed(package) or missing)
    yield Fact("extras", "gpu", _gpu())


def _gpu() -> str:
    if _is_missing("cupy"):
        return "no CuPy: pip install 'hesscli[cuda12]' or 'hesscli[cuda13]'"
    return _attempted(lambda: open_device(GPU_NAME).description)


def _machine() -> Iterator[Fact]:
    yield Fact("machine", "system", platform.platform())
    cores = os.cpu_count() or 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    yield Fact("machine", "cores", f"{usable} of {cores} may be used")
    yield Fact("machine", "threads", f"{thread_count()} unless --threads is given")
    free = available_memory()
    memory = "unknown" if free is None else f"{readable_size(free)} available"
    yield Fact("machine", "memory", memory)
    yield Fact("machine", "linear algebra", _attempted(blas))
    for name in _VARIABLES:
        if name in os.environ:
            yield Fact("machine", name, os.environ[name])


def _data() -> Iterator[Fact]:
    try:
        from hesscli.problem.data import embedded_file, load_dataset

        images = load_dataset("embedded", "train")
        shown = f"{images.examples:,} images in {embedded_file()}"
        yield Fact("data", "embedded", shown, True)
    except Exception as error:
        trouble = f"cannot be read ({reason(error)}); install hesscli again"
        yield Fact("data", "embedded", "none", True, trouble)
    yield Fact("data", "keras", _attempted(_keras_cache))


def _keras_cache() -> str:
    from hesscli.problem.data import keras_file, load_dataset

    path = keras_file()
    if not os.path.isfile(path):
        return f"not in {path}; keras would download it"
    try:
        return f"{load_dataset('keras', 'train').examples:,} images in {path}"
    except HesscliError as error:
        return str(error)


def _defaults() -> Iterator[Fact]:
    for name, of in (
        ("model", _default_model),
        ("data", _default_data),
        ("numbers", _default_numbers),
    ):
        yield Fact("configuration", name, _attempted(of))


def _default_model() -> str:
    from hesscli.config.schema import ModelConfig

    model = ModelConfig()
    widths = "-".join(str(width) for width in (model.inputs, *(_.units for _ in model.layers)))
    names = ", ".join(str(layer.activation) for layer in model.layers)
    return f"{widths}, {names}, {model.initializer.name}"


def _default_data() -> str:
    from hesscli.config.schema import DataConfig

    data = DataConfig()
    return f"{data.source}, {data.batch_size} examples from {data.offset} on"


def _default_numbers() -> str:
    from hesscli.config.schema import Config

    config = Config()
    return f"{config.dtype}, seed {config.seed}, {config.loss.name}, check {config.check.method}"


def _attempted(of: Callable[[], str]) -> str:
    # Whatever keeps a fact from being found is the fact.
    try:
        return of()
    except Exception as error:
        return f"unknown ({reason(error)})"


def _is_missing(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except (ImportError, ValueError):
        return True


def _import_trouble(module: str, remedy: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"cannot be imported ({reason(error)}); {remedy}"
    return None


def troubles(facts: Iterable[Fact]) -> tuple[str, ...]:
    """A sentence for each fact that is wrong."""
    return tuple(f"{fact.name}: {fact.trouble}" for fact in facts if fact.trouble)
