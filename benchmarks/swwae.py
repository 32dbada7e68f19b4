"""What a decoder costs beside inversion and supervised training on birds: seconds a step, memory.

    python benchmarks/swwae.py [--turns 15]

Whole steps of the rows of `birdinv reproduce sw-birds`, batches made and learnt, on a synthetic
chorus and one thread; the rows take turns in one process, and each has a process of its own for its
peak memory. Writes `results/sw-birds-cost.json`, which stands in the table of results.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from recipe import STEPS, peak_of_this_process, times_by_turns

from birdinv.audio.store import Store
from birdinv.data.segmenting import segment
from birdinv.data.synthetic import write_chorus
from birdinv.files import write_json
from birdinv.reproduce.cells import cells
from birdinv.training.learner import Learner
from birdinv.training.partition import partition
from birdinv.training.record import library_versions
from birdinv.training.recordings import recordings_task

RESULTS = Path(__file__).parent.parent / "results" / "sw-birds-cost.json"
CELLS = {cell.row.name: cell for cell in cells("sw-birds", labels=[3])}


def learner(store: Path, row: str) -> Learner:
    """A run about to begin."""
    opened = Store(store)
    task = recordings_task(opened, partition(opened, 3, 0), paced=True)
    return Learner(task, replace(CELLS[row].config(0), steps=10_000), torch.device("cpu"))


def peak_mb(store: Path, row: str) -> float:
    """Of a process that takes some steps."""
    asked = [sys.executable, __file__, "--memory", row, "--store", str(store)]
    return float(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        one = learner(given.store, given.memory)
        for step in range(STEPS):
            one.learn(step)
        print(peak_of_this_process())
        return
    with tempfile.TemporaryDirectory() as folder:
        chorus = write_chorus(Path(folder) / "chorus", recordings_per_species=12)
        shutil.rmtree(chorus.labelled / "whistler")  # six classes, as bird_kenya6 has
        store = Path(folder) / "store"
        segment([chorus.labelled], store, unlabelled=[chorus.unlabelled])
        learners = {row: learner(store, row) for row in CELLS}
        times = times_by_turns(learners, given.turns)
        peaks = {row: peak_mb(store, row) for row in CELLS}
    base = times["supervised"]
    rows = {
        row: {
            "parameters": sum(  # those that learn
                each.numel() for each in learners[row].model.parameters() if each.grad is not None
            ),
            "seconds_a_step": round(statistics.median(each), 5),
            "times_supervised": round(
                statistics.median(a / b for a, b in zip(each, base, strict=True)), 2
            ),
            "peak_mb": round(peaks[row]),
            "peak_times_supervised": round(peaks[row] / peaks["supervised"], 2),
        }
        for row, each in times.items()
    }
    result = {"turns": given.turns, "steps_a_turn": STEPS, "rows": rows}
    write_json(RESULTS, {**result, "versions": library_versions()})
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
