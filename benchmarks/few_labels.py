"""How long MNIST with 50 labels takes to 98.5 %, from a cold start: one command, a clock beside it.

    BIRDINV_DATA=… python benchmarks/few_labels.py [--threads 2] [--seed 0]

Validation accuracy is what is watched; the test accuracy of the weights that were kept is read
once, at the end. Writes `benchmarks/results/few-labels.json`, an entry a seed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from birdinv.files import write_json
from birdinv.reproduce.cells import cells

GOAL = 0.985
RESULTS = Path(__file__).parent / "results" / "few-labels.json"


def reached(metrics: Path) -> bool:
    """Whether a validation of the run was at the goal."""
    if not metrics.exists():
        return False
    with open(metrics, encoding="utf-8") as file:
        return any(float(row["valid_accuracy"]) >= GOAL for row in csv.DictReader(file))


def measure(seed: int, threads: int) -> dict[str, object]:
    """Wall-clock seconds of a run in a process of its own, and to the goal in it."""
    (cell,) = cells("inv-table2", rows=["smallcnn-mean"], labels=[50])
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).parent / "birdinv"), "reproduce", "inv-table2"]
        command += ["--row", "smallcnn-mean", "--labels", "50", "--seeds", str(seed)]
        command += ["--threads", str(threads), "--results", folder, "--device", "cpu"]
        metrics = Path(folder) / "runs/inv-table2" / cell.name / f"seed-{seed}" / "metrics.csv"
        started, to_goal = time.monotonic(), None
        process = subprocess.Popen(command)
        while process.poll() is None:
            if to_goal is None and reached(metrics):
                to_goal = time.monotonic() - started
            time.sleep(0.5)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed")
        took = time.monotonic() - started
        result = json.loads(cell.file(Path(folder)).read_text(encoding="utf-8"))
    (ours,) = result["seeds"]
    return {
        "seed": seed,
        "threads": threads,
        "cores": os.cpu_count(),
        "goal": GOAL,
        "seconds_to_goal": None if to_goal is None else round(to_goal, 1),
        "seconds": round(took, 1),
        "epochs": result["config"]["epochs"],
        "valid_accuracy": ours["valid_accuracy"],
        "test_accuracy": ours["test_accuracy"],
        "versions": result["versions"],
    }


def main() -> None:
    """Measures one seed and puts it beside the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    entry = measure(given.seed, given.threads)
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["runs"] if RESULTS.exists() else []
    others = [
        each for each in known if (each["seed"], each["threads"]) != (given.seed, given.threads)
    ]
    write_json(RESULTS, {"runs": sorted([*others, entry], key=lambda each: each["seed"])})
    print(json.dumps(entry, indent=2))


if __name__ == "__main__":
    main()
