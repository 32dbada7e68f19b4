"""What the few-labels recipe costs beside supervised training: seconds a step, and memory.

    python benchmarks/recipe.py [--turns 15]

Whole steps, batches made and learnt, on a synthetic chorus and one thread; the two take turns in
one process, and each has a process of its own for its peak memory. Also batches of the rivals and
what drawing by class and group costs against one shuffle. Writes `benchmarks/results/recipe.json`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from birdinv.audio.store import Store
from birdinv.data.segmenting import segment
from birdinv.data.synthetic import write_chorus
from birdinv.files import write_json
from birdinv.training.config import TrainConfig
from birdinv.training.learner import Learner
from birdinv.training.partition import partition
from birdinv.training.recipes import RECIPES
from birdinv.training.record import library_versions
from birdinv.training.recordings import recordings_task

RESULTS = Path(__file__).parent / "results" / "recipe.json"
STEPS = 20  # of one turn
_SUPERVISED, _FEW = RECIPES["supervised"], RECIPES["few-labels"]
WAYS: dict[str, dict[str, Any]] = {
    "supervised": dict(_SUPERVISED),
    "few-labels": dict(_FEW),
    "supervised, no augmentation, one shuffle": {
        **_SUPERVISED,
        "augment": "none",
        "class_balanced": False,
    },
    "few-labels without reconstruction": {**_FEW, "gamma": 0.0},
    "mean teacher": {**_SUPERVISED, "consistency": "mean-teacher"},
    "FixMatch": {**_SUPERVISED, "consistency": "fixmatch", "augment": "strong"},
    "VAT": {**_SUPERVISED, "consistency": "vat"},
}


def learner(store: Path, way: str) -> Learner:
    """A run about to begin."""
    opened = Store(store)
    config = TrainConfig(**{**WAYS[way], "steps": 10_000})
    task = recordings_task(opened, partition(opened, 3, 0), paced=True)
    return Learner(task, config, torch.device("cpu"))


def times_by_turns(learners: dict[str, Learner], turns: int) -> dict[str, list[float]]:
    """Seconds a step of each, turn by turn."""
    found: dict[str, list[float]] = {way: [] for way in learners}
    for turn in range(turns + 1):
        for way, one in learners.items():
            started = time.perf_counter()
            for step in range(STEPS):
                one.learn(turn * STEPS + step)
            if turn:  # the first one warms up
                found[way].append((time.perf_counter() - started) / STEPS)
    return found


def peak_mb(store: Path, way: str) -> float:
    """Of a process that takes some steps."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory", way, "--store", str(store)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def peak_of_this_process() -> float:
    """In MB; `ru_maxrss` would begin with the peak of the process that started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
        store = Path(folder) / "store"
        segment([chorus.labelled], store, unlabelled=[chorus.unlabelled])
        times = times_by_turns({way: learner(store, way) for way in WAYS}, given.turns)
        peaks = {way: peak_mb(store, way) for way in WAYS}
    base = times["supervised"]
    ways = {
        way: {
            "seconds_a_step": round(statistics.median(each), 5),
            "times_supervised": round(
                statistics.median(a / b for a, b in zip(each, base, strict=True)), 2
            ),
            "peak_mb": round(peaks[way]),
            "peak_times_supervised": round(peaks[way] / peaks["supervised"], 2),
        }
        for way, each in times.items()
    }
    result = {"turns": given.turns, "steps_a_turn": STEPS, "ways": ways}
    write_json(RESULTS, {**result, "versions": library_versions()})
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
