"""Runs the scripts beside this one and writes what they print into results.json.

    hesscli compare --activation tanh --check form --save-problem problem.npz
    python record.py problem.npz

A script whose library is not installed keeps the result that it had.
"""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PEERS = {
    "with_pyhessian.py": ("pyhessian", "torch"),
    "with_curvlinops.py": ("curvlinops-for-pytorch", "torch"),
    "with_backpack.py": ("backpack-for-pytorch", "torch"),
    "with_tape_jacobian.py": ("tensorflow",),
}
FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"

recorded = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
for script, packages in PEERS.items():
    try:
        versions = {package: version(package) for package in packages}
    except PackageNotFoundError:
        continue
    command = (sys.executable, str(FOLDER / script), sys.argv[1])
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    recorded[script] = {"versions": versions, "found": json.loads(done.stdout)}
text = json.dumps(recorded, indent=1, ensure_ascii=False)
RESULTS.write_text(f"{text}\n", encoding="utf-8")
