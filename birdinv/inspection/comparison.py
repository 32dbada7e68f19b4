"""Two runs side by side, on the same samples: what did training change inside? (SPL §4, A.5)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from birdinv.audio.store import Store
from birdinv.data.batches import Source
from birdinv.errors import BirdinvError, SettingError
from birdinv.files import read_json, require_new
from birdinv.inspection.findings import bracket_numbers
from birdinv.inspection.inside import LEVELS_DB, STAGES, Inside, look_inside
from birdinv.networks.saved import load_model
from birdinv.threads import cpu_threads
from birdinv.training.partition import read_roles
from birdinv.training.scoring import samples_of_run

EACH_CLASS = 12  # inputs of a class in the matrices of distances


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same samples.

    Attributes:
        split: "valid" or "test".
        samples: how many were looked into.
        silent: how many more were to be, and have nothing in them.
        classes: the K names.
        borders: where in the matrices of distances the next class begins.
    """

    a: Inside
    b: Inside
    split: str
    samples: int
    silent: int
    classes: list[str]
    borders: list[int]

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for `json.dump`."""
        return {
            "split": self.split,
            "samples": self.samples,
            "silent": self.silent,
            "levels_db": list(LEVELS_DB),
            "runs": {
                key: {
                    "name": one.name,
                    "measures": one.measures,
                    "robustness": one.robustness,
                    "active": one.active,
                    "regions": one.regions,
                    "sorting": one.sorting,
                    "lipschitz": bracket_numbers(one.bracket),
                }
                for key, one in (("a", self.a), ("b", self.b))
            },
        }


def compare_runs(
    runs: tuple[Path, Path],
    *,
    split: str = "valid",
    samples: int = 256,
    store: Path | None = None,
    root: Path | None = None,
    output: Path | None = None,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Measures two runs that are judged on the same samples.

    Args:
        runs: the two.
        split: "valid" or "test", of which accuracy and generalisation are those of all samples.
        samples: how many are looked into, evenly spread.
        store, root: where the data lies, if it has moved.
        output: refused before any work where it is taken.
        step: told (steps done, steps in all).

    Raises:
        BirdinvError: no such runs or data, or runs that are judged on different samples.
        SettingError: fewer than two samples.
    """
    if samples < 2:
        raise SettingError(f"--samples is {samples}; give two at least")
    if output is not None:
        require_new(output, "comparison")
    infos = [read_json(run / "run.json", "a run made by `birdinv train`") for run in runs]
    _require_same_samples(runs, infos, split)
    given = Store(store) if store is not None else None
    judged = samples_of_run(runs[0], split, store=given, root=root)
    count = min(samples, len(judged))
    spread = np.arange(count) * len(judged) // count
    which = spread[judged.inputs(spread).flatten(1).any(dim=1).numpy()]
    if len(which) < 2:
        raise BirdinvError(f"of {count} samples of the {split} set all but {len(which)} are silent")
    matrix, borders = _some_of_each_class(judged)
    names = [run.resolve().name for run in runs]
    if names[0] == names[1]:  # seed-0 of two rows
        names = ["/".join(run.resolve().parts[-2:]) for run in runs]
    found = []
    for number, (run, info, name) in enumerate(zip(runs, infos, names, strict=True)):

        def tell(done: int, number: int = number) -> None:
            step(number * STAGES + done, 2 * STAGES)

        with cpu_threads(1):
            learned = samples_of_run(run, "labelled", store=given, root=root)
            found.append(look_inside(run, info, name, (judged, learned), which, matrix, tell))
    classes = load_model(runs[0])[1].classes
    silent = count - len(which)
    return Comparison(found[0], found[1], split, len(which), silent, classes, borders)


_SAME = {"classes": "classes", "store_hash": "stores", "dataset": "data sets"}  # of run.json


def _require_same_samples(runs: tuple[Path, Path], infos: list[dict[str, Any]], split: str) -> None:
    """That both runs are judged on the same; what they have learned from may differ."""
    differ = [what for key, what in _SAME.items() if infos[0].get(key) != infos[1].get(key)]
    if not differ and "store_hash" in infos[0]:
        roles = [read_roles(run)[split] for run in runs]
        differ = [f"{split} sets"] if roles[0] != roles[1] else []
    elif not differ and split == "valid":  # a test set of images is one and the same
        hashes = [info.get("split_hash") for info in infos]
        differ = ["validation sets"] if hashes[0] != hashes[1] else []
    if differ:
        raise BirdinvError(
            f"{runs[0]} and {runs[1]} differ in their {differ[0]}: compare runs that are tested on "
            "the same data"
        )


def _some_of_each_class(samples: Source) -> tuple[np.ndarray, list[int]]:
    """(numbers of samples sorted by class, evenly spread in each; where the next class begins)."""
    labels = np.asarray(samples.labels)
    picked, borders = [], []
    for k in np.unique(labels[labels >= 0]):
        of_class = np.flatnonzero(labels == k)
        count = min(EACH_CLASS, len(of_class))
        picked.append(of_class[np.arange(count) * len(of_class) // count])
        borders.append(sum(len(part) for part in picked))
    return np.concatenate(picked), borders[:-1]
