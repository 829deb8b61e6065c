"""Real workers on this machine: who they are, what they agree on, and what happens when one fails.

Where TensorFlow is not what is tested the workers fail before it is imported.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesscli.cli.main import main
from hesscli.problem.problemfile import read_parameters
from hesscli.system.errors import InputError
from hesscli.workers.cluster import find_cluster

# Within a minute every worker has ended, whatever happened to another one.
MINUTE = 60.0
# Where everything is well but the machine has much to do.
AT_LENGTH = 240.0
TINY = ("--set", "model.layers.0.units=6", "--set", "model.layers.1.units=5")
MULTI = ("--strategy", "multi-worker")
VERIFY = ("verify", *MULTI, "--check", "form", "-n", "12", *TINY)
# A worker whose patience is short, and what the command line is given.
IMPATIENT = """
import sys
from hesscli.workers import links
from hesscli.workers import team
links.PATIENCE_SECONDS = team.PATIENCE_SECONDS = 2.0
from hesscli.cli.main import main
main(sys.argv[1:])
"""
OTHER_VERSION = """
import sys
from hesscli.studies import context
context.__version__ = "0.0.1"
from hesscli.cli.main import main
main(sys.argv[1:])
"""
# Workers that agree and then do nothing, without TensorFlow.
IDLE = """
import os, sys, time
from hesscli.workers import team
team.PATIENCE_SECONDS = 4.0
from hesscli.workers.cluster import find_cluster
def say(line):
    print(line, flush=True)
together = team.Team(find_cluster(), {}, say)
together.agree({"data": "the same"})
print("ready", flush=True)
time.sleep(50)
"""

# A worker that asks for more sums than the other one, which TensorFlow would wait for.
APART = """
import os, sys, time
from hesscli.workers import team
from hesscli.workers.cluster import find_cluster
from hesscli.system.errors import NumericalError
together = team.Team(find_cluster(), {}, lambda line: print(line, flush=True))
sums = int(sys.argv[1])
together._sum = lambda values: time.sleep(50 if together._sums == 3 else 0)
try:
    for _ in range(sums):
        together.sum(None)
except NumericalError as error:
    # It was known before the sum was asked for.
    print(error, flush=True)
    os._exit(2)
os._exit(together.finish(0))
"""
# All questions at once: TensorFlow takes longer to start than to answer them.
FOUR = """
import json, os, sys
from hesscli.config.build import build_problem
from hesscli.config.load import load_config, parse_override
from hesscli.config.training import build_training_data
from hesscli.problem.execution import execution_of
from hesscli.workers.cluster import find_cluster
from hesscli.workers.team import Team
from hesscli.workers.share import ALONE
from hesscli.studies.comparison import compare
from hesscli.studies.spectra.subject import SpectrumOptions
from hesscli.studies.spectrum import spectrum
from hesscli.studies.training import train
from hesscli.studies.witnesses import CheckOptions

workers, team = ALONE, None
if os.environ["TF_CONFIG"]:
    workers = team = Team(find_cluster(), {}, print)
    team.agree({})
    team.start()
config = load_config(None, [parse_override(text) for text in sys.argv[1:]])
problem = build_problem(config, workers=workers)
execution = execution_of(problem, workers)
options = CheckOptions("probes", block="layer", probes=2)
compared = compare([problem], options, execution=execution)
options = SpectrumOptions(layers=("dense2",), top=3, probes=2, steps=5)
(row,) = spectrum([problem], options, execution=execution).results
data = build_training_data(config)
trained = train(data, config.train, execution=execution_of(data.problem, workers))
found = {
    "passed": compared.passed,
    "forms": [
        [of.hessian, of.gauss_newton, of.curvature]
        for block in compared.results for of in (block.autodiff, block.chain_rule)
    ],
    "norms": [block.chain_rule_check.max_abs_entry for block in compared.results],
    "top": [*row.hessian.top.values, *row.gauss_newton.top.values],
    "loss": [trained.final[0].loss, *(at.gradient_norm for at in trained.measurements)],
}
if team is None:
    print(json.dumps(found))
    sys.exit()
team.settle() if team.first else None
print(json.dumps(found), flush=True)
os._exit(team.finish(0))
"""


class Started:
    """Processes with one cluster; all of them are gone when the block ends."""

    def __init__(self, count: int, folder: Path) -> None:
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            self.addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        self.folder = folder
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.communicate()

    def name(self, index: int) -> str:
        return f"worker {index} ({self.addresses[index]})"

    def start(self, index: int, arguments: Sequence[str], program: str | None = None) -> None:
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": self.addresses}, "task": task}
        how = ["-m", "hesscli"] if program is None else ["-c", program]
        self.processes[index] = subprocess.Popen(
            [sys.executable, *how, *arguments],
            env={**os.environ, "TF_CONFIG": json.dumps(config), "OPENBLAS_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )

    def ended(self, index: int, within: float = MINUTE) -> tuple[int, str, str]:
        out, err = self.processes[index].communicate(timeout=within)
        return self.processes[index].returncode, out, err


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + AT_LENGTH
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run(*arguments: str) -> tuple[int, str, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "hesscli", *arguments],
        capture_output=True,
        text=True,
        timeout=AT_LENGTH,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


# Who they are


def tf_config(cluster: Any, task: Any) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def test_the_chief_is_the_first_worker() -> None:
    jobs = {"worker": ["b:2", "c:3"], "chief": ["a:1"]}
    found = find_cluster(tf_config(jobs, {"type": "worker", "index": "1"}))
    assert (found.addresses, found.index) == (("a:1", "b:2", "c:3"), 2)
    assert find_cluster(tf_config(jobs, {"type": "chief", "index": 0})).index == 0
    assert found.name_of(0) == "worker 0 (a:1)"
    assert found.host_and_port(1) == ("b", 2)


TWO = {"worker": ["a:1", "b:2"]}


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({}, "--strategy multi-worker: no cluster; set TF_CONFIG"),
        ({"TF_CONFIG": "{"}, "TF_CONFIG: not JSON"),
        ({"TF_CONFIG": "3"}, "TF_CONFIG: 3; it must be like {"),
        (tf_config([], {}), "TF_CONFIG: cluster: a list; it must be like"),
        (tf_config({}, {}), "cluster: it has no workers"),
        (tf_config({"ps": ["a:1"]}, {}), "cluster.ps: every process is a worker here"),
        (tf_config({"worker": "a:1"}, {}), "cluster.worker: 'a:1'; it must be a list"),
        (tf_config({"worker": ["a"]}, {}), "cluster.worker.0: 'a'; it must be host:port"),
        (tf_config({"worker": ["a:99999"]}, {}), "cluster.worker.0: 'a:99999'; it must be"),
        (tf_config({"worker": [1]}, {}), "cluster.worker.0: 1; it must be host:port"),
        (tf_config({"worker": ["a:1", "a:1"]}, {}), "a:1 is there twice"),
        (tf_config({"chief": ["a:1", "b:1"]}, {}), "cluster.chief: 2 addresses; it has one"),
        (tf_config(TWO, None), "task: null; it must be like"),
        (tf_config(TWO, {"index": 0}), "task.type: null; it must be worker"),
        (tf_config(TWO, {"type": "chief", "index": 0}), "task.type: 'chief'; it must be worker"),
        (tf_config(TWO, {"type": "worker", "index": 2}), "task.index: 2; it must be 0 to 1"),
        (tf_config(TWO, {"type": "worker", "index": True}), "task.index: true; it must be"),
    ],
)
def test_a_cluster_that_is_none_is_told_by_its_key(environment: dict[str, str], what: str) -> None:
    with pytest.raises(InputError) as caught:
        find_cluster(environment)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_slurm_tells_who_the_workers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "SLURM_PROCID": "2",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = find_cluster()
    assert found.addresses == ("node1:8888", "node1:8889", "node2:8888")
    assert found.index == 2
    monkeypatch.delenv("SLURM_STEP_NODELIST")
    with pytest.raises(InputError, match=r"Slurm: .*SLURM_STEP_NODELIST not found.*srun"):
        find_cluster()


def test_a_wrong_cluster_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(SystemExit) as caught:
        main(VERIFY)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hesscli: TF_CONFIG: cluster: null; it must be like ")
    assert err.count("\n") == 1


# What they agree on


@pytest.mark.parametrize(
    ("other", "program", "what"),
    [
        (("--set", "data.offset=3"), None, "has data.offset 3, {} has 0;"),
        (("--set", "seed=3"), None, "has seed 3, {} has 0;"),
        (("--block", "bias"), None, "has block bias, {} has kernel;"),
        ((), OTHER_VERSION, "has hesscli 0.0.1, {} has "),
    ],
)
def test_another_configuration_or_version_ends_all(
    tmp_path: Path, other: tuple[str, ...], program: str | None, what: str
) -> None:
    with Started(2, tmp_path) as cluster:
        cluster.start(0, (*VERIFY, "--output", "report.json"))
        cluster.start(1, (*VERIFY, *other), program)
        line = f"hesscli: {cluster.name(1)} {what.format(cluster.name(0))}"
        for index in range(2):
            code, out, err = cluster.ended(index)
            assert (code, out) == (2, "")
            assert err.startswith(line)
            assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_other_data_ends_all(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
        images = generator.integers(0, 255, (20, 4, 4), dtype=np.uint8)
        np.savez(folder / "mine.npz", x_train=images, y_train=np.arange(20) % 10)
    arguments = (*VERIFY, "--set", "data.source=mine.npz", "--set", "model.inputs=16")
    with Started(2, tmp_path) as cluster:
        for index, folder in enumerate(folders):
            cluster.folder = folder
            cluster.start(index, arguments)
        for index in range(2):
            code, out, err = cluster.ended(index)
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert err.startswith(
                f"hesscli: {cluster.name(1)} has data.source mine.npz with SHA-256 "
            )


def test_what_only_one_worker_refuses_names_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 0")
    (tmp_path / "other").mkdir()
    with Started(3, tmp_path) as cluster:
        for index in (0, 1):
            cluster.start(index, (*VERIFY, "-c", "mine.yaml"))
        cluster.folder = tmp_path / "other"
        cluster.start(2, (*VERIFY, "-c", "mine.yaml"))
        own = cluster.ended(2)[2]
        assert own.startswith("hesscli: mine.yaml: ")
        for index in (0, 1):
            code, out, err = cluster.ended(index)
            assert (code, out) == (2, "")
            assert err == f"hesscli: {cluster.name(2)}: {own.removeprefix('hesscli: ')}"


# What happens to them


@pytest.mark.parametrize("there", [0, 1])
def test_a_worker_that_never_starts_is_named(tmp_path: Path, there: int) -> None:
    with Started(2, tmp_path) as cluster:
        cluster.start(there, VERIFY, IMPATIENT)
        code, out, err = cluster.ended(there)
        assert (code, out) == (2, "")
        assert err == (
            f"hesscli: {cluster.name(1 - there)} did not start within 2 s; all workers must be "
            "started\n"
        )


def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    with Started(2, tmp_path) as cluster, socket.socket() as taken:
        taken.bind(("127.0.0.1", int(cluster.addresses[0].rpartition(":")[2])))
        taken.listen()
        cluster.start(0, VERIFY, IMPATIENT)
        code, _, err = cluster.ended(0)
        assert code == 2
        assert err.startswith(f"hesscli: TF_CONFIG: {cluster.name(0)} cannot listen at its address")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("lost", [0, 2])
def test_a_lost_worker_is_named_by_all_others(tmp_path: Path, number: int, lost: int) -> None:
    with Started(3, tmp_path) as cluster:
        for index in range(3):
            cluster.start(index, (), IDLE)
        for process in cluster.processes.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        cluster.processes[lost].send_signal(number)
        for index in {0, 1, 2} - {lost}:
            code, out, _ = cluster.ended(index)
            assert code == 2
            assert out.startswith(f"{cluster.name(lost)} was lost: ")
            assert out.count("\n") == 1


def test_a_worker_that_is_killed_in_the_middle_ends_all_and_leaves_files_whole(
    tmp_path: Path,
) -> None:
    training = ("train", *MULTI, "--threads", "1", "--steps", "1000000", "--examples", "64")
    files = ("--checkpoint", "state.npz", "--checkpoint-every", "5", "--output", "report.json")
    state = tmp_path / "state.npz"
    with Started(3, tmp_path) as cluster:
        for index in range(3):
            cluster.start(index, (*training, *files, *TINY))
        wait_for(state.exists)
        cluster.processes[1].kill()
        killed = time.monotonic()
        for index in (0, 2):
            code, out, err = cluster.ended(index)
            assert (code, out) == (2, "")
            assert err.startswith(f"hesscli: {cluster.name(1)} was lost: ")
            assert err.count("\n") == 1
        assert time.monotonic() - killed < MINUTE
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
    assert "dense1/kernel" in read_parameters(str(state))


@pytest.mark.parametrize("longer", [0, 1])
def test_workers_that_take_another_number_of_steps_do_not_wait_for_ever(
    tmp_path: Path, longer: int
) -> None:
    with Started(2, tmp_path) as cluster:
        cluster.start(longer, ["3"], APART)
        cluster.start(1 - longer, ["2"], APART)
        code, out, _ = cluster.ended(longer)
        assert code == 2
        assert out == (
            f"{cluster.name(1 - longer)} has ended its computation after 2 sums, "
            f"{cluster.name(longer)} asks for one more; use machines that are alike\n"
        )


# The answers


def test_four_workers_give_the_answers_of_one_process(tmp_path: Path) -> None:
    settings = ["data.batch_size=30", "model.layers.0.units=6", "model.layers.1.units=5"]
    settings += ["model.layers.0.activation=tanh", "train.batch_size=18", "train.examples=50"]
    settings += ["train.steps=4", "train.every=2", "train.measure_examples=20"]
    with Started(4, tmp_path) as cluster:
        for index in range(4):
            cluster.start(index, settings, FOUR)
        alone = subprocess.run(
            [sys.executable, "-c", FOUR, *settings],
            env={**os.environ, "TF_CONFIG": "", "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        answers = [cluster.ended(index, AT_LENGTH)[1] for index in range(4)]
    assert answers[0]
    # To the last bit, or they would not go the same way.
    assert all(answer == answers[0] for answer in answers)
    one, four = json.loads(alone.stdout), json.loads(answers[0])
    assert one["passed"] and four["passed"]
    for (H, G, C), (of_H, of_G, of_C) in zip(four["forms"], one["forms"], strict=True):
        scale = abs(of_G) + abs(of_C)
        np.testing.assert_allclose([H, G, C], [of_H, of_G, of_C], rtol=0, atol=1e-12 * scale)
    for key in ("norms", "top", "loss"):
        np.testing.assert_allclose(four[key], one[key], rtol=1e-12)


# Launch


def test_two_launched_workers_give_the_answer_of_one_process_and_replay_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "report.json")
    question = ("verify", "--check", "probes", "--probes", "3", "-n", "13", *TINY)
    code, out, err = run("launch", "--workers", "2", "--", *question, "--output", path)
    assert (code, out, err) == (0, "", "")
    with pytest.raises(SystemExit) as caught:
        main([*question, "--format", "json"])
    assert caught.value.code == 0
    one = json.loads(capsys.readouterr().out)
    two = json.loads(Path(path).read_text())
    assert (one["environment"]["workers"], two["environment"]["workers"]) == (1, 2)
    assert one["problem"] == two["problem"]
    for row, expected in zip(two["results"], one["results"], strict=True):
        form, of_one = row["quadratic_form"], expected["quadratic_form"]
        scale = abs(of_one["gauss_newton"]) + abs(of_one["curvature"])
        for name in ("autodiff", "chain_rule", "gauss_newton", "curvature"):
            assert abs(form[name] - of_one[name]) <= 1e-12 * scale
        norms = (row["check"]["max_abs_entry"], expected["check"]["max_abs_entry"])
        assert norms[0] == pytest.approx(norms[1], rel=1e-12)

    code, out, err = run("launch", "--workers", "2", "--", "verify", "--replay", path)
    assert (code, err) == (0, "")
    assert "bit for bit" in out
    with pytest.raises(SystemExit) as caught:
        main(["verify", "--replay", path])
    assert caught.value.code == 2
    assert "was made by 2 workers; replay it by as many" in capsys.readouterr().err


def test_launch_passes_ctrl_c_on_and_the_first_worker_writes_its_report(tmp_path: Path) -> None:
    state, report = tmp_path / "state.npz", tmp_path / "report.json"
    training = ("train", "--steps", "1000000", "--examples", "64", "--checkpoint", str(state))
    files = ("--checkpoint-every", "5", "--output", str(report))
    launched = subprocess.Popen(
        [sys.executable, "-m", "hesscli", "launch", "--workers=2", "--", *training, *files, *TINY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(state.exists)
        launched.send_signal(signal.SIGINT)
        out, err = launched.communicate(timeout=MINUTE)
    finally:
        # Workers do not end with a launcher that is killed, and would train on.
        launched.kill()
        subprocess.run(["pkill", "-9", "-f", str(tmp_path)], check=False)
    assert (launched.returncode, out) == (130, "")
    assert err.startswith("hesscli: interrupted after step ")
    assert err.count("\n") == 1
    assert json.loads(report.read_text())["status"] == "interrupted"


def test_what_all_launched_workers_refuse_is_one_line() -> None:
    code, out, err = run("launch", "--workers", "3", "--", "verify", "--check", "form", "-n", "2")
    assert (code, out) == (2, "")
    assert err.endswith("data.batch_size: 2 examples for 3 workers; each needs one at least\n")
    assert err.count("\n") == 1
    code, out, err = run("launch", "--workers", "2", "--", "verify", "--chekc", "form")
    assert (code, out) == (2, "")
    assert "'--chekc'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "hint"),
    [("sweep", "choose verify, compare, spectrum, train"), ("verfy", "did you mean 'verify'?")],
)
def test_launch_knows_the_commands_that_several_workers_run(
    command: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["launch", "--workers", "2", "--", command])
    assert caught.value.code == 2
    wrong = f"{command!r} does not run on several workers; {hint}\n"
    assert capsys.readouterr().err.endswith(wrong)
