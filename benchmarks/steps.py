"""What benchmarks of training share: seconds a step by turns, and peak memory of a process."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from birdinv.training.learner import Learner

STEPS = 20  # of one turn


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


def arguments(text: str, learner: Callable[[Path, str], Learner]) -> argparse.Namespace:
    """What a benchmark was asked for; with `--memory` it prints the peak of one way, and ends."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
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
        sys.exit()
    return given


def costs(
    script: str, store: Path, learners: dict[str, Learner], turns: int
) -> dict[str, dict[str, Any]]:
    """Of each way the median step and the peak memory, also against those of `supervised`.

    Args:
        script: the benchmark, which measures memory in a process of its own for each way.
    """
    times = times_by_turns(learners, turns)
    peaks = {way: peak_mb(script, store, way) for way in learners}
    base = times["supervised"]
    return {
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


def peak_mb(script: str, store: Path, way: str) -> float:
    """Of a process that takes some steps."""
    asked = [sys.executable, script, "--memory", way, "--store", str(store)]
    return float(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


def peak_of_this_process() -> float:
    """In MB; `ru_maxrss` would begin with the peak of the process that started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
