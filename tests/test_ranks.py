"""Real ranks of MPI on this machine: their answers, and what happens when one of them fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import THOROUGH

from hesscli.workers.launcher import Launched, launched

MPIEXEC = Path(sys.executable).parent / "mpiexec"
ON_RANKS = str(Path(__file__).parent / "on_ranks.py")
pytestmark = pytest.mark.skipif(not MPIEXEC.exists(), reason="needs the extra mpi")
# The launcher of Open MPI reads nothing more from the ranks once it is interrupted or one of them
# has ended, and adds words of its own.
hydra = pytest.mark.skipif(
    not (MPIEXEC.parent / "hydra_pmi_proxy").exists(), reason="needs the launcher of MPICH"
)
# Whatever happens, all have ended by then; and where all is well but the machine is busy.
SOON, AT_LENGTH = 10.0, 300.0
CLOSE = 1e-12
Numbers = Iterator[tuple[str, float, float]]


def mpiexec(*programs: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """``programs`` as ranks of one job: what stands between the colons of the command line."""
    command = [word for program in programs for word in (":", *program)][1:]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.Popen(
        [str(MPIEXEC), *command], text=True, env=environment, **streams, **options
    )


def on(count: int, *arguments: str, program: Sequence[str] = ("-m", "hesscli")) -> list[str]:
    return ["-n", str(count), sys.executable, *program, *arguments]


def ended(job: subprocess.Popen[str], within: float = AT_LENGTH) -> tuple[int, str, list[str]]:
    """Exit code, standard output, and what hesscli, not the launcher, says on standard error."""
    try:
        out, err = job.communicate(timeout=within)
    finally:
        job.kill()
    return job.returncode, out, [line for line in err.splitlines() if line.startswith("hesscli: ")]


def processes_in(folder: Path) -> list[int]:
    """Those that run in ``folder``, as every rank of a job does that was started there."""
    found = []
    for number in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            if os.readlink(f"/proc/{number}/cwd") == str(folder):
                found.append(int(number))
    return found


# Who they are


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"PMI_SIZE": "4", "PMI_RANK": "2"}, Launched(2, 4)),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, Launched(0, 2)),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "7"}, Launched(7, 8)),
        # In a job of Slurm, outside of srun; one process; and a variable that is something else.
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),
        ({"PMI_SIZE": "1", "PMI_RANK": "0", "SLURM_STEP_NUM_TASKS": "8"}, None),
        ({"PMI_SIZE": "many", "PMI_RANK": "0"}, None),
    ],
)
def test_a_launcher_tells_how_many_there_are(
    environment: Mapping[str, str], expected: Launched | None
) -> None:
    assert launched(environment) == expected


def test_a_process_that_no_launcher_started_imports_no_mpi() -> None:
    program = (
        "import sys; from hesscli.cli.main import _run\n"
        "_run(['spectrum', '-n', '4', '-l', 'dense3', '-o', '/dev/null'])\n"
        "sys.exit('mpi4py' in sys.modules or 'hesscli.workers.ranks' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Their answers

UNITS = ("--set", "model.layers.0.units=6", "--set", "model.layers.1.units=5")
TINY = ("-a", "tanh", *UNITS)
BATCH = ("-n", "13", *TINY)
PROBES = ("--check", "probes", "--probes", "3", "--probe-seed", "0")
MINRES = ("--damping", "1", "--method", "minres")
LAYERS = [
    {"type": "conv2d", "filters": 2, "kernel_size": 5, "strides": 3, "activation": "tanh"},
    {"type": "batch_normalization"},
    {"type": "max_pooling2d"},
    {"type": "flatten"},
    {"units": 10},
]
CONVOLUTIONAL = ("--set", f"model={json.dumps({'inputs': [28, 28, 1], 'layers': LAYERS})}")
TRAIN = ("--examples", "29", "--batch-size", "9", "--steps", "7", "--every", "3")
COMMANDS: Mapping[str, Sequence[str]] = {
    "entries": ("verify", "--check", "entries", "-l", "dense2", "-b", "layer", *BATCH),
    "form": ("verify", "--check", "form", *BATCH),
    "probes": ("verify", *PROBES, "-b", "network", *BATCH),
    "finite": ("verify", "--witnesses", "chain_rule,finite", "-l", "dense3", *BATCH),
    "chunks": ("verify", *PROBES, "-l", "dense1", *BATCH, "--memory", "300kB"),
    "float32": ("verify", "--check", "form", "--dtype", "float32", *BATCH),
    "gradient": ("verify", "--of", "gradient", *BATCH),
    "compare": ("compare", "--check", "form", *BATCH),
    "approximate": ("approximate", "-l", "dense2", "--rank", "0", *BATCH),
    "solve": ("solve", "-b", "network", "-m", "gauss-newton", "-m", "kfac", *MINRES, *BATCH),
    "product": ("product", "-b", "layer", *BATCH),
    "exact": ("spectrum", "-l", "dense2", "--top", "3", *BATCH),
    "lanczos": (
        "spectrum",
        "-l",
        "dense1",
        "--top",
        "2",
        "--density",
        "--steps",
        "5",
        "--probes",
        "2",
        *BATCH,
    ),
    "train": ("train", *TINY, *TRAIN, "--momentum", "0.9", "--measure-examples", "16"),
    "conv verify": ("verify", *PROBES, "-n", "13", *CONVOLUTIONAL),
    "conv compare": ("compare", "--check", "form", "-n", "13", *CONVOLUTIONAL),
    "conv spectrum": (
        *("spectrum", "--top", "2", "--density", "-b", "network", "-n", "13"),
        *CONVOLUTIONAL,
    ),
    "conv train": ("train", *CONVOLUTIONAL, *TRAIN, "--measure-examples", "8"),
    "init": ("init", "--stddev", "0.1", "--seeds", "3", *BATCH),
    "tune": ("init", "--tune", "--seeds", "2", "-n", "13", "-a", "relu", *UNITS),
}
# Each command, and each kind of check; what else four ranks would compute takes as long again.
# make test leaves out those for which each of the four loads TensorFlow: two do, for every command.
BY_FOUR = ("finite", "exact", "lanczos", "train", "tune", "conv train", "conv spectrum")
if THOROUGH:
    BY_FOUR += ("entries", "probes", "gradient", "conv compare")
REFUSED: Mapping[str, tuple[Sequence[str], str]] = {
    "sweep": (("sweep",), "sweep: 2 processes were started together, and only verify, compare, "),
    "of": (("verify", "--of", "jacobian", *BATCH), "--of jacobian: it has rows of every example"),
    "input": (("verify", "-b", "input", *BATCH), "shared out among 2 processes, but each example'"),
    "save": (("compare", "--save-problem", "p.npz", *BATCH), "--save-problem: none of 2 processes"),
    "few": (("verify", *BATCH, "-n", "1"), "data.batch_size: 1 examples for 2 processes"),
}


def answers_of(
    count: int, folder: Path, names: Sequence[str] = (*COMMANDS, *REFUSED)
) -> Mapping[str, Any]:
    """The JSON report of each command by so many ranks; of those that are refused how they end."""
    cases = folder / "cases.json"
    commands = {name: (*command, "-q", "-o", f"{name}.json") for name, command in COMMANDS.items()}
    commands.update({name: command for name, (command, _) in REFUSED.items()})
    cases.write_text(json.dumps([commands[name] for name in names]))
    job = mpiexec(on(count, str(cases), program=(ON_RANKS,)), cwd=folder)
    code, _, said = ended(job)
    assert (code, said) == (0, [])
    found = dict(zip(names, json.loads(cases.read_text()), strict=True))
    for name in COMMANDS.keys() & found.keys():
        assert found[name] == [0, []], name
        found[name] = json.loads((folder / f"{name}.json").read_text())
    return found


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    return answers_of(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def by_four(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    return answers_of(4, tmp_path_factory.mktemp("four"), BY_FOUR)


def numbers(report: Any) -> Numbers:
    """Where a number stands in a report, the number, and what its rounding is relative to."""
    command = report["schema"].split("/")[1]
    for row, place in zip(report["results"], range(1000), strict=False):
        for name, value, scale in _NUMBERS[command](row):
            yield f"{place}.{name}", value, scale


def _of_verify(row: Any) -> Numbers:
    if "quadratic_form" in row:
        form = row["quadratic_form"]
        scale = abs(form["gauss_newton"]) + abs(form["curvature"])
        for name in ("autodiff", "chain_rule", "gauss_newton", "curvature"):
            if form[name] is not None:
                yield name, form[name], scale
    check = row["check"]
    # Which layer of a network is the worst is for rounding to say.
    if check is not None and row["block"] != "network":
        yield "norm", check["max_abs_entry"], check["max_abs_entry"]


def _of_gradient(row: Any) -> Numbers:
    for witness, norm in row["norm"].items():
        yield witness, norm, norm


def _of_compare(row: Any) -> Numbers:
    form = row["quadratic_form"]
    scale = sum(abs(form[term]["autodiff"]) for term in ("gauss_newton", "curvature"))
    for term, by_witness in form.items():
        for witness, value in by_witness.items():
            yield f"{term} {witness}", value, scale


def _of_spectrum(row: Any) -> Numbers:
    for term in ("hessian", "gauss_newton"):
        scale = row[term]["spectral_norm"]["value"]
        for name in ("largest", "smallest", "trace", "frobenius_norm", "spectral_norm"):
            yield f"{term} {name}", row[term][name]["value"], scale
        for value in row[term]["top"]["eigenvalues"]:
            yield f"{term} top", value, scale


def _of_approximate(row: Any) -> Numbers:
    # The best product of examples that are not held is iterated to four digits.
    if row["method"] != "best Kronecker":
        for block in ("hessian", "gauss_newton"):
            yield f"{block} {row['method']}", row[block]["distance"], 1.0
        yield "trace", row["trace_ratio"], row["trace_ratio"]


def _of_solve(row: Any) -> Numbers:
    yield "norm", row["solution_norm"], row["solution_norm"]
    for name in ("slope", "predicted", "actual"):
        yield name, row["step"][name], row["step"]["slope"]


def _of_product(row: Any) -> Numbers:
    for witness in ("autodiff", "chain_rule"):
        yield f"norm {witness}", row["norm"][witness], row["norm"][witness]
        yield f"form {witness}", row["form"][witness], row["norm"][witness] * row["vector_norm"]


def _of_train(row: Any) -> Numbers:
    for name in ("loss", "accuracy", "sharpness", "trace", "gradient_norm"):
        yield name, row[name], row[name]


_NUMBERS: Mapping[str, Callable[[Any], Numbers]] = {
    "verify": _of_verify,
    "verify-gradient": _of_gradient,
    "compare": _of_compare,
    "approximate": _of_approximate,
    "solve": _of_solve,
    "product": _of_product,
    "spectrum": _of_spectrum,
    "train": _of_train,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_ranks_give_the_answers_of_one_process(
    name: str,
    by_two: Mapping[str, Any],
    by_four: Mapping[str, Any],
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    # Ranks cannot look at the span of all inputs, and draw other vectors than one process that
    # holds them; one that looks at a few at a time draws the same.
    few = ("--memory", "300kB") if name == "lanczos" else ()
    code, _, err = run(*COMMANDS[name], *few, "-q", "-o", str(tmp_path / "one.json"))
    assert (code, err) == (0, "")
    one = json.loads((tmp_path / "one.json").read_text())
    for count, reports in ((2, by_two), (4, by_four)):
        if name not in reports:
            continue
        report = reports[name]
        assert report["environment"]["workers"] == count
        assert report["problem"]["examples"] == one["problem"]["examples"]
        if name in ("init", "tune"):
            # Each draw is one rank's, whole.
            assert report["results"] == one["results"]
            continue
        close = 1e-5 if name == "float32" else CLOSE
        found, expected = list(numbers(report)), list(numbers(one))
        assert len(found) == len(expected) > 0
        for (where, value, _), (_, of_one, scale) in zip(found, expected, strict=True):
            assert abs(value - of_one) <= close * abs(scale), where


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sum_over_examples_is_refused_by_name(
    name: str, by_two: Mapping[str, Any]
) -> None:
    code, (line,) = by_two[name]
    assert code == 2
    assert REFUSED[name][1] in line


def test_the_numbers_are_the_same_bit_for_bit_in_another_run(
    by_two: Mapping[str, Any], tmp_path: Path
) -> None:
    """Sums of 1 to 20,000 numbers, without TensorFlow, which takes longer to load than they do."""
    again = answers_of(2, tmp_path, ("finite", "exact", "lanczos", "train"))
    for name, report in again.items():
        assert report["results"] == by_two[name]["results"]


def test_a_report_of_two_ranks_is_replayed_by_two(
    by_two: Mapping[str, Any], run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(by_two["exact"]))
    code, out, said = ended(mpiexec(on(2, "replay", str(path)), cwd=tmp_path))
    assert (code, said) == (0, [])
    assert "bit for bit" in out
    assert out.count("replayed") == 1
    code, _, err = run("replay", str(path))
    assert code == 2
    assert "was made by 2 processes; replay it by as many, with mpiexec -n 2" in err


# What happens to them

SPECTRUM = ("spectrum", "-c", "tiny.yaml", "-q", "-o", "report.json")
# A command in which something happens to one rank when it calls a function.
STRUCK = """
import os, pkgutil, sys
from hesscli.workers.launcher import launched
place, name, rank, what = sys.argv[1:5]
del sys.argv[1:5]
if launched().rank == int(rank):
    home = pkgutil.resolve_name(place)
    was = getattr(home, name)
    def struck(*arguments, **options):
        exec(what)
        return was(*arguments, **options)
    setattr(home, name, struck)
from hesscli.__main__ import main
main()
"""
ANOTHER_SUM = "import numpy; arguments[0].sum(numpy.zeros(3))"
KILLED = "os.kill(os.getpid(), 9)"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to work in, of which no process is left."""
    generator = np.random.default_rng(0)
    inputs, targets = generator.standard_normal((9, 4)), generator.integers(0, 2, 9)
    np.savez(tmp_path / "batch.npz", inputs=inputs, targets=targets)
    layers = "[{units: 3, activation: tanh}, {units: 2}]"
    (tmp_path / "tiny.yaml").write_text(
        f"model: {{inputs: 4, layers: {layers}}}\ndata: {{source: batch.npz}}\n"
        "train: {batch_size: 4, steps: 1000000, every: 100, measure_examples: 4}\n"
    )
    yield tmp_path
    # Those that were killed may still be on the way out.
    time.sleep(0.2)
    assert not processes_in(tmp_path)


def outputs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"batch.npz", "tiny.yaml"}


def struck(
    folder: Path, place: str, name: str, rank: int, what: str, *arguments: str
) -> tuple[int, str, list[str]]:
    """How two ranks end, of which ``rank`` does ``what`` at the function ``name``."""
    program = ("-c", STRUCK, place, name, str(rank), what)
    begun = time.monotonic()
    found = ended(mpiexec(on(2, *(arguments or SPECTRUM), program=program), cwd=folder), 60)
    # The start of the interpreters is no part of it.
    assert time.monotonic() - begun < 2 * SOON
    return found


MOMENTS = {
    "before MPI starts": ("hesscli.workers.ranks", "_import_mpi", 1),
    "when they agree": ("hesscli.workers.ranks:Ranks", "agree", 0),
    "in a sum": ("hesscli.workers.ranks:Ranks", "sum", 1),
    "while the report is written": ("os", "replace", 0),
    "at the end": ("hesscli.workers.ranks:Ranks", "leave", 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_rank_that_is_killed_ends_all(moment: str, folder: Path) -> None:
    place, name, rank = MOMENTS[moment]
    code, _, said = struck(folder, place, name, rank, KILLED)
    # It is the launcher that says it.
    assert code != 0
    assert not said
    for path in outputs(folder):
        # Beside it there may be what the dead cannot remove; never is a part under its name.
        assert path == "report.json" or path.endswith(".tmp")
    if (folder / "report.json").exists():
        assert json.loads((folder / "report.json").read_text())["status"] == "pass"


@pytest.mark.parametrize(
    ("place", "name", "rank", "what", "code", "line"),
    [
        # Alone, while the others compute or wait for it.
        (
            *("hesscli.studies.spectrum", "spectrum", 1, "raise MemoryError", 2),
            "hesscli: rank 1: out of memory; use a smaller batch, fewer units or dtype float32",
        ),
        # All at once.
        (
            *("hesscli.config.load", "load_config", 0, "pass", 2),
            "hesscli: nosuch.yaml: cannot be read (No such file or directory); a YAML file is "
            "needed",
        ),
        # When the others have done what they can.
        (
            *("os", "fsync", 0, "raise OSError(28, 'No space left on device')", 2),
            "hesscli: report.json: cannot be written (No space left on device); make room, or "
            "name a file on another disk",
        ),
        (
            *("hesscli.workers.ranks:Ranks", "agree", 1, "os.kill(os.getpid(), 15)", 130),
            "hesscli: rank 1: interrupted",
        ),
        # One goes another way, as where it rounds otherwise.
        (
            *("hesscli.workers.ranks:Ranks", "before_the_report", 1, ANOTHER_SUM, 2),
            "hesscli: the ranks do not ask for the same sums, because one of them rounds "
            "differently; use machines of one kind",
        ),
    ],
)
def test_a_rank_that_cannot_go_on_says_why_and_ends_all(
    place: str, name: str, rank: int, what: str, code: int, line: str, folder: Path
) -> None:
    arguments = ("spectrum", "-c", "nosuch.yaml") if "nosuch" in line else SPECTRUM
    assert struck(folder, place, name, rank, what, *arguments) == (code, "", [line])
    assert not outputs(folder)


@hydra
def test_a_fault_of_the_program_on_one_rank_ends_all_with_its_traceback(folder: Path) -> None:
    program = ("-c", STRUCK, "hesscli.studies.spectrum", "spectrum", "1", "raise ValueError('x')")
    job = mpiexec(on(2, *SPECTRUM, program=program), cwd=folder)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 70
    assert err.startswith("rank 1: Traceback")
    assert "\nValueError: x\n" in err
    assert "please report it" in err.splitlines()[-1]
    assert not outputs(folder)


def test_another_configuration_is_named(folder: Path) -> None:
    programs = [on(1, *SPECTRUM), on(1, *SPECTRUM, "--seed", "3")]
    code, out, said = ended(mpiexec(*programs, cwd=folder))
    assert (code, out) == (2, "")
    assert said == ["hesscli: rank 1 has seed 3, rank 0 has 0; all ranks must have the same"]
    assert not outputs(folder)


def test_other_data_are_named(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    shutil.copy(folder / "tiny.yaml", other)
    with np.load(folder / "batch.npz") as batch:
        np.savez(other / "batch.npz", inputs=batch["inputs"] + 1e-9, targets=batch["targets"])
    second = ("-wdir", str(other), *on(1, *SPECTRUM))
    code, out, (line,) = ended(mpiexec(on(1, *SPECTRUM), second, cwd=folder))
    assert (code, out) == (2, "")
    assert line.startswith("hesscli: rank 1 has data.source batch.npz with SHA-256 ")


@hydra
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_launcher_ends_a_training_after_the_same_step(
    number: signal.Signals, folder: Path
) -> None:
    files = (
        "--checkpoint",
        "state.npz",
        "--checkpoint-every",
        "5",
        "-q",
        "--output",
        "report.json",
    )
    job = mpiexec(on(2, "train", "-c", "tiny.yaml", *files), cwd=folder)
    while not (folder / "state.npz").exists():
        assert job.poll() is None
        time.sleep(0.02)
    begun = time.monotonic()
    job.send_signal(number)
    code, out, (line,) = ended(job, 60)
    assert time.monotonic() - begun < SOON
    assert code == 130
    assert all(word.startswith("[mpiexec@") for word in out.splitlines())
    assert line.startswith("hesscli: interrupted after step ")
    assert json.loads((folder / "report.json").read_text())["status"] == "interrupted"
    assert outputs(folder) == {"state.npz", "report.json"}


def test_a_training_that_is_told_to_end_waits_for_no_rank_that_is_gone(folder: Path) -> None:
    """As where Slurm, which has lost one, tells the others; by MPICH it would know itself."""
    files = ("--checkpoint", "state.npz", "--checkpoint-every", "5", "-q")
    job = mpiexec(on(2, "train", "-c", "tiny.yaml", *files), cwd=folder)
    while not (folder / "state.npz").exists():
        assert job.poll() is None
        time.sleep(0.02)
    first, second = sorted(processes_in(folder), key=rank_of)[-2:]
    begun = time.monotonic()
    os.kill(second, signal.SIGSTOP)
    os.kill(first, signal.SIGTERM)
    code, out, said = ended(job, 60)
    assert time.monotonic() - begun < SOON
    assert (code, out, said) == (130, "", ["hesscli: interrupted"])
    assert outputs(folder) == {"state.npz"}


def rank_of(process: int) -> int:
    """-1 of the launcher's own processes."""
    told = dict(
        word.partition("=")[::2]
        for word in Path(f"/proc/{process}/environ").read_text().split("\0")
    )
    found = launched(told)
    return -1 if found is None else found.rank


def test_a_standard_output_that_is_full_is_one_line(folder: Path) -> None:
    # That of the rank: mpiexec has one of its own.
    command = ("sh", "-c", 'exec "$@" > /dev/full', "-", *on(2)[2:], *SPECTRUM[:3])
    code, _, (line,) = ended(mpiexec(["-n", "2", *command], cwd=folder))
    assert code == 2
    assert line == "hesscli: standard output cannot be written (No space left on device)"


def test_without_mpi4py_the_extra_is_named(folder: Path) -> None:
    (folder / "mpi4py.py").write_text("raise ImportError('there is none')")
    environment = {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    code, out, said = ended(mpiexec(on(2, *SPECTRUM), cwd=folder, env=environment))
    assert (code, out) == (2, "")
    assert said == [
        "hesscli: 2 processes were started together, and mpi4py, with which they add up, cannot "
        "be used (there is none); install it with: pip install 'hesscli[mpi]'"
    ]


def test_where_one_rank_has_no_mpi4py_it_says_so_and_ends_all(folder: Path) -> None:
    lack = folder / "lack"
    lack.mkdir()
    (lack / "mpi4py.py").write_text("raise ImportError('there is none')")
    lacking = ("env", f"PYTHONPATH={os.pathsep.join([str(lack), *sys.path])}")
    begun = time.monotonic()
    job = mpiexec(on(2, *SPECTRUM), ["-n", "1", *lacking, *on(1, *SPECTRUM)[2:]], cwd=folder)
    code, out, (line,) = ended(job, 60)
    assert time.monotonic() - begun < 2 * SOON
    assert (code, out) == (2, "")
    assert line.startswith("hesscli: rank 2: 3 processes were started together, and mpi4py, with")


@hydra
def test_a_rank_that_ends_before_anything_does_not_keep_the_others(folder: Path) -> None:
    """As one whose Python gets a signal before it has begun to read hesscli."""
    begun = time.monotonic()
    job = mpiexec(on(2, *SPECTRUM), on(1, program=("-c", "raise SystemExit(1)")), cwd=folder)
    code, out, said = ended(job, 60)
    assert time.monotonic() - begun < 2 * SOON
    assert (code, out) == (2, "")
    assert said == ["hesscli: one of 3 processes ended before MPI started; start them again"]


def test_a_rank_that_waits_for_another_to_start_heeds_sigterm(folder: Path) -> None:
    """As Slurm sends it to the others of one that was killed; MPI lets no Python run meanwhile."""
    late = on(1, program=("-c", "import time; time.sleep(60)"))
    job = mpiexec(on(1, *SPECTRUM), late, cwd=folder)
    begun = time.monotonic()
    waiting: list[int] = []
    while not waiting:
        assert time.monotonic() - begun < AT_LENGTH
        time.sleep(0.1)
        with suppress(OSError):
            waiting = [one for one in processes_in(folder) if "libmpi." in maps(one)]
    time.sleep(1)
    begun = time.monotonic()
    os.kill(waiting[0], signal.SIGTERM)
    # It is the launcher that says it.
    code, _, said = ended(job, 60)
    assert time.monotonic() - begun < SOON
    assert code != 0
    assert not said


def maps(process: int) -> str:
    return Path(f"/proc/{process}/maps").read_text()


def test_a_launcher_that_is_not_of_the_same_mpi_is_told() -> None:
    """Each process would think that it is the only one, and show all of the answer."""
    environment = {**os.environ, "SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "0"}
    command = [sys.executable, "-m", "hesscli", "spectrum"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hesscli: 3 processes were started, but MPI knows of 1; use the ")
