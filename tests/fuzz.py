"""Bad input at scale: what hesscli does when it is given anything at all.

    python tests/fuzz.py --seed 0

One case a seed: the seed decides the mutated configuration, the damaged file or the wrong value,
so ``--kinds yaml --seed S --count 1`` is the case S of a longer run again. The rules are those of
fuzz_harness.py; what went against them is printed with its seed, and the exit code is 1.
"""

from __future__ import annotations

import os

# Before NumPy is loaded: the processes of the fuzzer are as many as the cores.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import tempfile
import time
from collections.abc import Callable

import fuzz_files
import fuzz_made
import fuzz_options
import fuzz_yaml
import h5py  # noqa: F401  # before the processes are parted
from fuzz_harness import Draw, Tally, judged

from hesscli import api  # noqa: F401
from hesscli.api import answers, problems, questions  # noqa: F401

KINDS: dict[str, tuple[Draw, Callable[[], int]]] = {
    "yaml": (fuzz_yaml.draw, lambda: 10_000),
    "files": (fuzz_files.draw, lambda: 5 * 1000),
    "made": (fuzz_made.draw, lambda: 4000),
    "options": (fuzz_options.draw, fuzz_options.count),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0, help="the first seed; default 0")
    parser.add_argument("--count", type=int, help="cases of each kind; default all there are")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    complaints = 0
    with tempfile.TemporaryDirectory(prefix="hesscli-fuzz-") as folder:
        for kind in options.kinds:
            draw, usual = KINDS[kind]
            count = usual() if options.count is None else options.count
            begun = time.monotonic()
            seeds = range(options.seed, options.seed + count)
            tally = judged(draw, seeds, folder, options.jobs)
            print(_summary(kind, tally, time.monotonic() - begun), flush=True)
            for seed, text in tally.complaints:
                print(f"--kinds {kind} --seed {seed} --count 1: {text}", flush=True)
            complaints += len(tally.complaints)
        died = os.path.join(folder, "died.txt")
        if os.path.exists(died):
            with open(died, encoding="utf-8") as stream:
                print(stream.read())
    return 1 if complaints else 0


def _summary(kind: str, tally: Tally, seconds: float) -> str:
    codes = ", ".join(f"{tally.codes[code]} of code {code}" for code in sorted(tally.codes))
    return (
        f"{kind}: {tally.cases} cases ({codes}), {len(tally.complaints)} complaints, "
        f"{seconds:.0f} s, at most {tally.peak_bytes / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    raise SystemExit(main())
