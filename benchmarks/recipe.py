"""What the few-labels recipe costs beside supervised training: seconds a step, and memory.

    python benchmarks/recipe.py [--turns 15]

Whole steps, batches made and learnt, on a synthetic chorus and one thread; the two take turns in
one process, and each has a process of its own for its peak memory. Also batches of the rivals and
what drawing by class and group costs against one shuffle. Writes `benchmarks/results/recipe.json`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from steps import STEPS, arguments, costs

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


def main() -> None:
    """Measures and writes."""
    given = arguments(__doc__, learner)
    with tempfile.TemporaryDirectory() as folder:
        chorus = write_chorus(Path(folder) / "chorus", recordings_per_species=12)
        store = Path(folder) / "store"
        segment([chorus.labelled], store, unlabelled=[chorus.unlabelled])
        ways = costs(__file__, store, {way: learner(store, way) for way in WAYS}, given.turns)
    result = {"turns": given.turns, "steps_a_turn": STEPS, "ways": ways}
    write_json(RESULTS, {**result, "versions": library_versions()})
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
