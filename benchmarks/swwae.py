"""What a decoder costs beside inversion and supervised training on birds: seconds a step, memory.

    python benchmarks/swwae.py [--turns 15]

Whole steps of the rows of `birdinv reproduce sw-birds`, batches made and learnt, on a synthetic
chorus and one thread; the rows take turns in one process, and each has a process of its own for its
peak memory. Writes `results/sw-birds-cost.json`, which stands in the table of results.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from steps import STEPS, arguments, costs

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


def main() -> None:
    """Measures and writes."""
    given = arguments(__doc__, learner)
    with tempfile.TemporaryDirectory() as folder:
        chorus = write_chorus(Path(folder) / "chorus", recordings_per_species=12)
        shutil.rmtree(chorus.labelled / "whistler")  # six classes, as bird_kenya6 has
        store = Path(folder) / "store"
        segment([chorus.labelled], store, unlabelled=[chorus.unlabelled])
        learners = {row: learner(store, row) for row in CELLS}
        rows = costs(__file__, store, learners, given.turns)
    for row, one in learners.items():  # the weights that learn
        learning = [each for each in one.model.parameters() if each.grad is not None]
        rows[row]["parameters"] = sum(each.numel() for each in learning)
    result = {"turns": given.turns, "steps_a_turn": STEPS, "rows": rows}
    write_json(RESULTS, {**result, "versions": library_versions()})
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
